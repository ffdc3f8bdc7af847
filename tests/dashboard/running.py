"""A dashboard that runs in this process, what its pages are in tests, and a browser of sorts."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from closed import NOW

from aggregator.dashboard.application import SECONDS_A_TRY
from aggregator.dashboard.rendered import MakePages, PageLike
from aggregator.dashboard.serve import DashboardServer, prepared
from aggregator.door.journal import Journal
from aggregator.model.days import parse_instant
from aggregator.pipeline.deployment import Deployment
from aggregator.rules.periods import Span
from aggregator.stores.home import Home

PASSWORD: Final = "correct horse & ä+battery%20"
PATIENCE: Final = 45.0
"""Seconds after which a test gives up; nothing waits so long when all is well."""


@dataclasses.dataclass(frozen=True, slots=True)
class StandIn:
    """A page in place of one of the site's."""

    path: str
    content: bytes


def stand_in(house: Deployment, span: Span | None) -> Iterator[PageLike]:
    """Make a site of three files: the days of a table, a link, a style sheet."""
    days = " ".join(house.tables.periods("usage_daily"))
    users = sum(row["users"] for row in house.tables.rows("usage_daily", days.split()))
    about = "all" if span is None else f"{span.first}..{span.last}"
    for name in ("index", "locations"):
        text = (
            '<!doctype html><html lang="en"><head><title>t</title></head><body class="x"><main>'
            f"{name}|{days}|{users}|{about}|k={house.profile.k}"
            '<a href="locations.html">l</a></main></body></html>'
        )
        yield StandIn(f"{name}.html", text.encode())
    yield StandIn("assets/site.css", b"body{}")


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One answer: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def cookie(self) -> str:
        """What a browser would send back."""
        return self.headers["set-cookie"].partition(";")[0]


@dataclasses.dataclass(slots=True)
class Running:
    """A dashboard that runs, and all that a test may turn at it."""

    root: Path
    server: DashboardServer
    said: list[str]
    shown: list[tuple[str, str]]
    rendered: list[Span | None]
    passed: list[float]

    @property
    def host(self) -> str:
        """What a browser says as its Host."""
        return f"127.0.0.1:{self.server.port}"

    def wait(self, seconds: float) -> None:
        """Let time pass for the dashboard."""
        self.passed[0] += seconds

    def ask(
        self,
        method: str,
        path: str,
        body: str | bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        cookie: str | None = None,
    ) -> Answer:
        """Ask over a connection of its own; a header that is None is left out."""
        wanted = {"Host": self.host, "Cookie": cookie, **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in wanted.items():
                if value is not None:
                    connection.putheader(name, value)
            content = body.encode() if isinstance(body, str) else body
            if content is not None:
                connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            found = connection.getresponse()
            fields = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, fields, found.read())

    def post(
        self,
        path: str,
        fields: Mapping[str, str] | None = None,
        cookie: str | None = None,
        **more: str | None,
    ) -> Answer:
        """Send a form as a browser does; further headers by name, _ for a hyphen."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": "null",
            "Sec-Fetch-Site": "same-origin",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return self.ask("POST", path, urlencode(fields or {}), headers, cookie)

    def log_in(self, key: str = PASSWORD) -> str:
        """Log in, not too soon after another try; return the cookie."""
        self.wait(SECONDS_A_TRY)
        answer = self.post("/login", {"key": key})
        assert (answer.status, answer.headers["location"]) == (303, "/")
        return answer.cookie


def settings(root: Path, more: str = "") -> None:
    """Append the settings of a dashboard that listens on any port."""
    with (root / "config.toml").open("a") as file:
        file.write(f'\n[dashboard]\nlisten = "127.0.0.1:0"\n{more}\n')


def with_password(root: Path) -> None:
    """Append settings with the password."""
    path = root.parent / "dashboard.password"
    path.write_text(PASSWORD)
    settings(root, f'password_file = "{path}"')


@contextlib.contextmanager
def opened(root: Path, make_pages: MakePages = stand_in) -> Iterator[Running]:
    """Run a dashboard of the home at `root` in a thread of this process."""
    said: list[str] = []
    shown: list[tuple[str, str]] = []
    rendered: list[Span | None] = []
    passed = [1000.0]

    def noted(house: Deployment, span: Span | None) -> Iterator[PageLike]:
        rendered.append(span)
        yield from make_pages(house, span)

    with prepared(
        Home(root),
        parse_instant(NOW),
        lambda: dt.datetime.now(dt.UTC),
        lambda: passed[0],
        Journal(say=said.append),
        lambda url, code: shown.append((url, code)),
        noted,
    ) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_until(lambda: server.started and bool(said))
            yield Running(root, server, said, shown, rendered, passed)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)
