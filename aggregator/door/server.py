"""The door's server: sockets, TLS, signals, and a bounded number of connections."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import ipaddress
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn

from aggregator.door.application import Door
from aggregator.door.journal import Journal
from aggregator.door.limits import Limits
from aggregator.door.protocol import DoorProtocol
from aggregator.errors import AggregatorError, ConfigError
from aggregator.stores.config import DoorConfig

_HEAD_BYTES: Final = 16 << 10
# Two records of TLS.
_TLS_BUFFER_BYTES: Final = 32 << 10
# For the other side to confirm the end; all was sent before, so little is lost without.
_TLS_END_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 1.0
# For what is not a connection: files, the event loop, libraries.
_SPARE_FILES: Final = 256

Sockets = list[socket.socket] | None

MakeContext = Callable[[], ssl.SSLContext | None]
"""Makes the TLS context from the files as they are now; None to speak plain HTTP."""


class DoorServer(uvicorn.Server):
    """Serves one door until a signal ends it, or `should_exit` is set."""

    def __init__(
        self,
        door: Door,
        listener: socket.socket,
        make_context: MakeContext,
        limits: Limits,
        journal: Journal,
    ) -> None:
        """Serve `door` on a bound socket."""
        config = uvicorn.Config(
            door.application(),
            loop="asyncio",
            http=DoorProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_graceful_shutdown=limits.shutdown_seconds,
        )
        super().__init__(config)
        config.load()
        self.servers = []
        self.port: int = listener.getsockname()[1]
        self._door = door
        self._listener = listener
        self._make_context = make_context
        self._context = make_context()
        self._limits = limits
        self._journal = journal
        self._room = asyncio.Semaphore(limits.connections)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        door.connections = lambda: len(self.server_state.connections)

    def reload(self) -> None:
        """Take the certificates anew for new connections; keep the old ones if they fail."""
        try:
            self._context = self._make_context()
        except AggregatorError as error:
            self._journal.alarm(f"the certificates stay as they were: {error}")
        else:
            self._journal.tell("certificates reloaded")

    async def startup(self, sockets: Sockets = None) -> None:  # noqa: ARG002 - named so by uvicorn
        """Begin to accept connections."""
        # Whatever it is, it is held for every connection; unpatched it is 256 KiB.
        asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._journal.on_loop_exception)
        self._listener.setblocking(False)
        self._listener.listen(self._limits.backlog)
        self._accepting = loop.create_task(self._accept())
        self.started = True
        kind = "HTTP, for a proxy on this machine" if self._context is None else "HTTPS"
        self._journal.tell(f"the door is open on port {self.port}: {kind}")

    async def shutdown(self, sockets: Sockets = None) -> None:  # noqa: ARG002 - named so by uvicorn
        """Stop accepting, answer what was begun, and close."""
        for task in (self._accepting, *self._handshakes):
            if task is not None:
                task.cancel()
        self._listener.close()
        await super().shutdown()
        self._journal.tell("the door is closed")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGTERM and SIGINT, reload on SIGHUP."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        # Asked a second time, it waits for nobody any more.
        self.force_exit = self.should_exit
        self.should_exit = True

    async def _accept(self) -> None:
        """Accept connections while there is room for them."""
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                connection, _peer = await loop.sock_accept(self._listener)
            except OSError as error:
                self._room.release()
                self._journal.alarm(f"connections cannot be accepted: {error.strerror}")
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            task = loop.create_task(self._welcome(connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _welcome(self, connection: socket.socket) -> None:
        """Do the TLS handshake; the protocol goes on from there."""
        release = _once(self._room.release)
        context = self._context
        seconds = None if context is None else self._limits.handshake_seconds
        end_seconds = None if context is None else _TLS_END_SECONDS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: DoorProtocol(
                    self.config, self.server_state, self._limits, self._door.metrics, release
                ),
                connection,
                ssl=context,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=end_seconds,
            )
        except OSError:  # also a time-out, and all that TLS has to say
            self._door.metrics.dropped["handshake"] += 1
            release()
        except BaseException:
            release()
            raise


def listen(config: DoorConfig, *, plain: bool) -> socket.socket:
    """Return a socket bound as the settings say; `plain` ones on the loopback only.

    An address without a host ("[::]") takes IPv4 as well. ConfigError says why it cannot be.
    """
    host = config.host
    if plain and not _is_loopback(host):
        raise ConfigError(
            "plain HTTP is for a proxy on this machine: set listen in [door] of config.toml to"
            " a loopback address"
        )
    try:
        found = socket.getaddrinfo(
            host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        dual = family == socket.AF_INET6 and address[0] == "::"
        listener = socket.create_server(address[:2], family=family, dualstack_ipv6=dual)
        # Connections inherit it; else an answer waits 40 ms for the client to confirm its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"the door cannot listen as [door] in config.toml says: {reason}"
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def more_files(limits: Limits) -> int:
    """Raise the limit of open files as far as allowed; return how many connections that gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _SPARE_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(limits.connections, soft - _SPARE_FILES))


def _once(call: Callable[[], None]) -> Callable[[], None]:
    calls = [call]

    def first() -> None:
        if calls:
            calls.pop()()

    return first
