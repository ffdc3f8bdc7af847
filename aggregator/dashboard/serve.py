"""Run the dashboard of one home until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import h11
import uvicorn
from uvicorn.config import Config
from uvicorn.server import ServerState

from aggregator import app
from aggregator.dashboard.application import Dashboard, Ticks
from aggregator.dashboard.guard import HEADERS, hosts
from aggregator.dashboard.rendered import MakePages, PageLike, Rendered
from aggregator.dashboard.sessions import Key, new_code
from aggregator.door.journal import Journal
from aggregator.door.limits import Limits
from aggregator.door.metrics import Metrics
from aggregator.door.protocol import DoorProtocol
from aggregator.errors import ConfigError
from aggregator.model.settings import DashboardSettings
from aggregator.pipeline.deployment import Deployment
from aggregator.rules.periods import Span
from aggregator.stores import secret
from aggregator.stores.home import Home

LIMITS: Final = Limits(
    connections=64,
    backlog=64,
    body_seconds=10.0,
    request_seconds=60.0,
    idle_seconds=30.0,
    shutdown_seconds=2,
    burst=300,
    requests_a_second=50.0,
)
"""For a few browsers on this machine."""

# In what uvicorn lets all connections of a server share.
_ENDING: Final = "ending"
_HEAD_BYTES: Final = 16 << 10
_ENDS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

ShowCode = Callable[[str], None]
"""Shows where the dashboard is and the code that opens it to whoever started it."""


class DashboardProtocol(DoorProtocol):
    """One connection, with the door's deadlines at every step."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: object = None,
    ) -> None:
        """Speak HTTP, as uvicorn makes a protocol."""
        # Nobody asks for these figures: what was cut off is no trouble of the operator's.
        super().__init__(config, server_state, LIMITS, Metrics(), lambda: None)
        self._shared = app_state

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Begin to wait for a request, unless there are too many connections, or all ends."""
        super().connection_made(transport)
        # One that came as the server ended would keep it waiting: nobody else lets it go.
        if len(self.connections) > LIMITS.connections or _ENDING in self._shared:
            transport.abort()

    def send_400_response(self, _msg: str) -> None:
        """Answer what is no HTTP, where an answer is still possible, and end the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = b"this is no request of HTTP/1.1\n"
        headers = {
            **HEADERS,
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        events = (
            h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        if self.cycle is not None:  # its answer would be a second one
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class DashboardServer(uvicorn.Server):
    """Serves one dashboard until a signal ends it, or `should_exit` is set."""

    def __init__(
        self, dashboard: Dashboard, listener: socket.socket, journal: Journal, show: ShowCode | None
    ) -> None:
        """Serve `dashboard` on a bound socket; once it is open `show` is told its address."""
        host, self.port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"
        config = Config(
            dashboard.application(hosts((host, self.port)), self.port, LIMITS),
            loop="asyncio",
            http=DashboardProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=LIMITS.backlog,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_graceful_shutdown=LIMITS.shutdown_seconds,
        )
        super().__init__(config)
        self._dashboard, self._listener = dashboard, listener
        self._journal, self._show = journal, show

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - named so by uvicorn
        """Begin to accept connections."""
        asyncio.get_running_loop().set_exception_handler(self._journal.on_loop_exception)
        await super().startup([self._listener])
        self._journal.tell(f"the dashboard is open: {self.url}")
        if self._show is not None:
            self._show(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - named so by uvicorn
        """Stop accepting, answer what was begun, and close."""
        self.lifespan.state[_ENDING] = True
        await super().shutdown([self._listener])
        self._journal.tell("the dashboard is closed")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGTERM, on SIGINT, and when the terminal is closed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in _ENDS:
            loop.add_signal_handler(number, self.end)
        try:
            yield
        finally:
            for number in _ENDS:
                loop.remove_signal_handler(number)

    def end(self) -> None:
        """Answer what was begun, render no more, and end."""
        # Asked a second time, it waits for nobody any more.
        self.force_exit = self.should_exit
        self.should_exit = True
        self._dashboard.stop()


def serve(
    home: Home,
    now: dt.datetime | None,
    clock: Callable[[], dt.datetime],
    ticks: Ticks,
    journal: Journal,
    show_code: Callable[[str, str], None] | None,
) -> None:
    """Show `home` until SIGTERM; `now` is a clock that stands still, for rehearsals.

    Without a password in the settings, `show_code` is called with the address and a code that is
    good until the end; ConfigError if there is nobody to show it to (None).
    """
    with prepared(home, now, clock, ticks, journal, show_code, _site) as server:
        server.run()


@contextlib.contextmanager
def prepared(
    home: Home,
    now: dt.datetime | None,
    clock: Callable[[], dt.datetime],
    ticks: Ticks,
    journal: Journal,
    show_code: Callable[[str, str], None] | None,
    make_pages: MakePages,
) -> Iterator[DashboardServer]:
    """Give the server of `home`, bound and not yet running; close everything afterwards."""
    app.Access(home, now, clock()).check()
    settings = home.load_config().dashboard
    key, show = _key(settings, show_code)

    def open_home() -> Deployment:
        return app.open_to_read(home, now, clock())

    with contextlib.ExitStack() as stack:
        stack.enter_context(journal.in_charge())
        listener = stack.enter_context(contextlib.closing(listen(settings.listen)))
        dashboard = Dashboard(Rendered(home, open_home, make_pages), key, ticks, journal)
        stack.callback(dashboard.close)
        yield DashboardServer(dashboard, listener, journal, show)


def listen(address: tuple[str, int]) -> socket.socket:
    """Return a socket bound to an address of this machine; ConfigError says why it cannot be."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        listener = socket.create_server(address, family=family)
    except OSError as error:
        raise ConfigError(
            f"the dashboard cannot listen as [dashboard] in config.toml says: {error.strerror}"
        ) from None
    # Connections inherit it; else an answer waits 40 ms for the client to confirm its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _site(house: Deployment, span: Span | None) -> Iterable[PageLike]:
    # Loaded when the first page is asked for.
    from aggregator.site.build import pages  # noqa: PLC0415

    return pages(house, span)


def _key(
    settings: DashboardSettings, show_code: Callable[[str, str], None] | None
) -> tuple[Key, ShowCode | None]:
    """Return what opens the dashboard, and what shows it where it was made just now."""
    password = secret.read(settings.password, "dashboard.password")
    if password is not None:
        return Key(password, is_code=False), None
    if show_code is None:
        raise ConfigError(
            "the dashboard needs a password here, as there is no terminal to show a code on: set"
            " password_file in [dashboard] of config.toml"
        )
    code, show = new_code(), show_code
    return Key(code, is_code=True), lambda url: show(url, code)
