"""The dashboard's routes: logging in and out, and the pages for whoever is logged in."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from aggregator.dashboard import spans, words
from aggregator.dashboard.guard import Guarded, refused
from aggregator.dashboard.rendered import Rendered, StoppedError
from aggregator.dashboard.sessions import MOST_KEY, Key, Sessions
from aggregator.door.journal import Journal
from aggregator.door.limits import Limits, Rates
from aggregator.errors import AggregatorError, explain

Ticks = Callable[[], float]
"""Seconds of a clock that only goes on, also while the machine sleeps."""

TRIES: Final = 5
SECONDS_A_TRY: Final = 2.0
_FORM: Final = "application/x-www-form-urlencoded"
# A character is three bytes of three letters each, and more are rare.
_MOST_FORM_BYTES: Final = 10 * MOST_KEY
_HTML: Final = "text/html; charset=utf-8"
_CSS: Final = "text/css; charset=utf-8"
_TYPES: Final[Mapping[str, str]] = {
    ".html": _HTML,
    ".css": _CSS,
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_OTHER_TYPE: Final = "application/octet-stream"
_OF_PAGES: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Dashboard:
    """One dashboard: the sessions in it, and the pages that it shows."""

    def __init__(self, rendered: Rendered, key: Key, ticks: Ticks, journal: Journal) -> None:
        """Show `rendered` to whoever has the `key`."""
        self._rendered, self._key, self._ticks, self._journal = rendered, key, ticks, journal
        self._sessions = Sessions()
        self._tries = Rates(Limits(burst=TRIES, requests_a_second=1 / SECONDS_A_TRY))
        # One, so that one rendering at a time is made.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dashboard")
        self._cookie = "aggregator_dashboard"

    def application(self, hosts: frozenset[str], port: int, limits: Limits) -> ASGIApp:
        """Return the routes behind their checks; `hosts` are what it may be asked for."""
        # Cookies know no ports: another dashboard of this machine has one of its own.
        self._cookie = f"aggregator_dashboard_{port}"
        inner = Starlette(
            routes=[
                Route("/login", self.show_login, methods=["GET"]),
                Route("/login", self.log_in, methods=["POST"]),
                Route("/logout", self.log_out, methods=["POST"]),
                Route("/dashboard.css", self.show_style, methods=["GET"]),
                Route("/{path:path}", self.show, methods=["GET"]),
            ],
            exception_handlers={404: _no_path, 405: _wrong_method, Exception: _unexpected},
        )
        inner.router.redirect_slashes = False
        return Guarded(inner, hosts, limits, self._ticks)

    def stop(self) -> None:
        """Let what is being rendered end soon."""
        self._rendered.stop()

    def close(self) -> None:
        """Wait until nothing is rendered any more."""
        self.stop()
        self._thread.shutdown(cancel_futures=True)

    async def show_style(self, _request: Request) -> Response:
        """Answer with the style of the login page; nothing of the home is in it."""
        return Response(words.style(), media_type=_CSS)

    async def show_login(self, request: Request) -> Response:
        """Ask for the key, unless somebody has shown it."""
        return _to("/") if self._is_in(request) else self._login(200)

    async def log_in(self, request: Request) -> Response:
        """Begin a session for whoever sends the key."""
        given = await _field(request, "key")
        if isinstance(given, Response):
            return given
        wait = self._tries.wait("", self._ticks())
        if wait:
            # Not looked at, right or wrong: else it could be guessed at any speed.
            problem = f"Too many tries. Wait {wait} s, then try again."
            return self._login(429, problem, headers={"Retry-After": str(wait)})
        if not self._key.opens(given):
            self._journal.alarm("somebody tried to log in to the dashboard, and could not")
            what = "code" if self._key.is_code else "password"
            return self._login(403, f"This {what} is wrong.", is_wrong=True)
        self._sessions.end(request.cookies.get(self._cookie))
        answer = _to("/")
        answer.set_cookie(
            self._cookie,
            self._sessions.begin(self._ticks()),
            path="/",
            httponly=True,
            samesite="strict",
        )
        self._journal.tell("somebody logged in to the dashboard")
        return answer

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        self._sessions.end(request.cookies.get(self._cookie))
        answer = _to("/login")
        answer.delete_cookie(self._cookie, path="/", httponly=True, samesite="strict")
        return answer

    async def show(self, request: Request) -> Response:
        """Answer with a page; to whoever is not logged in, there or not, with the way to log in."""
        if not self._is_in(request):
            return _to("/login")
        try:
            return await self._page(request)
        except StoppedError:
            return _message(503, "The dashboard ends", "It was told to end; start it again.")
        except Exception as error:  # noqa: BLE001 - told to the journal and on the page
            if isinstance(error, AggregatorError | OSError):
                self._journal.alarm(f"the dashboard shows no page: {explain(error)[0]}")
            else:
                self._journal.unexpected(error)
            return _message(503, "The pages cannot be shown", explain(error)[0])

    async def _page(self, request: Request) -> Response:
        span, path = spans.split(request.scope["path"])
        # What the home is now is asked for every time, also for what is in no page.
        loop = asyncio.get_running_loop()
        today, pages = await loop.run_in_executor(self._thread, self._rendered.pages, span)
        name = path.removeprefix("/") or "index.html"
        content = pages.get(name)
        if content is None and span is not None and name.endswith(".html"):
            # In days of which none is closed there are fewer pages.
            return _to(f"{spans.prefix(span)}/" if name != "index.html" else "/")
        if content is None:
            return _message(404, "There is no such page", "The overview leads to those there are.")
        # The path is known from here on, so that none leads elsewhere.
        chosen = _chosen(request, path, today)
        if chosen is not None:
            return chosen
        kind = _TYPES.get(PurePosixPath(name).suffix, _OTHER_TYPE)
        if kind != _HTML:
            return _typed(content, kind)
        first, last = (span.first.isoformat(), span.last.isoformat()) if span else ("", "")
        shown = words.with_bar(content, today.isoformat(), first, last)
        return _typed(shown, _HTML, {"Content-Security-Policy": _OF_PAGES})

    def _is_in(self, request: Request) -> bool:
        return self._sessions.goes_on(request.cookies.get(self._cookie), self._ticks())

    def _login(
        self,
        status: int,
        problem: str = "",
        *,
        is_wrong: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        page = words.login(is_code=self._key.is_code, problem=problem, is_wrong=is_wrong)
        return _typed(page, _HTML, headers, status)


def _chosen(request: Request, path: str, today: dt.date) -> Response | None:
    """Return the way to the days that ?from= and ?to= name, None where they name none."""
    query = request.query_params
    given = [query.getlist(name) for name in ("from", "to")]
    if not any(given):
        return None
    first, last = (several[0].strip() if several else "" for several in given)
    span = spans.asked(first, last, today) if first else None
    if any(len(several) > 1 for several in given) or (span is None and (first or last)):
        return _message(
            400,
            "These are no days",
            "from and to take a day such as 2026-10-05, a month such as 2026-10, or a name such as"
            " last-week; to needs from, and comes after it.",
        )
    return _to(spans.prefix(span) + quote(path))


async def _field(request: Request, name: str) -> str | Response:
    """Return one field of a small form, or why there is none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return refused(415, "send a form")
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > _MOST_FORM_BYTES:
                return refused(413, "this is larger than a form of the dashboard")
    except ClientDisconnect:
        return refused(400, "the form ended early")
    try:
        fields = parse_qs(body.decode("ascii"), errors="strict", max_num_fields=8)
    except ValueError:
        return refused(400, "this is no form of the dashboard")
    return fields.get(name, [""])[0]


def _to(path: str) -> Response:
    return RedirectResponse(path, 303)


def _typed(
    content: bytes, kind: str, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    return Response(content, status, {**(headers or {}), "Content-Type": kind})


def _message(status: int, title: str, line: str) -> Response:
    return _typed(words.message(title, line), _HTML, status=status)


async def _no_path(_request: Request, _error: Exception) -> Response:
    # All paths are known; this is no path, but the whole address as proxies are asked.
    return refused(404, "ask for a path, not for a whole address")


async def _wrong_method(_request: Request, _error: Exception) -> Response:
    return refused(405, "this method is not taken here")


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # Starlette raises it again, so that the journal tells its place.
    return refused(500, "something unexpected happened; the dashboard's log tells where")
