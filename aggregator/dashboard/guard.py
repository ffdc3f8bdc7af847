"""What every request must pass before anything looks into it, and what every answer says.

A page elsewhere that a browser has open must not reach the dashboard through it: not by a name that
points here (DNS rebinding), not by a form, not by a frame or an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator.door.limits import Limits, Rates

METHODS: Final = ("GET", "HEAD", "POST")
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer; one that brings a policy of its own for what it needs keeps that one."""

_HTTP_PORT: Final = 80


def hosts(listen: tuple[str, int]) -> frozenset[str]:
    """Return what the Host of a request may be for a dashboard that listens there."""
    host, port = listen
    own = f"[{host}]" if ":" in host else host
    names = {"127.0.0.1", "localhost", "[::1]", own}
    bare = names if port == _HTTP_PORT else set()
    return frozenset({f"{name}:{port}" for name in names} | bare)


class Guarded:
    """An application behind these checks."""

    def __init__(
        self,
        inner: ASGIApp,
        allowed: Iterable[str],
        limits: Limits,
        ticks: Callable[[], float],
    ) -> None:
        """Let through what asks for one of the `allowed` hosts, as often as `limits` says.

        `ticks` are seconds of a clock that only goes on.
        """
        self._inner, self._ticks = inner, ticks
        self._hosts = frozenset(allowed)
        self._rates = Rates(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""

        async def said(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        wait = self._rates.wait("", self._ticks())
        refusal = refused(429, "too many requests", wait) if wait else self._refusal(scope)
        await (refusal or self._inner)(scope, receive, said)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return why a request is not even looked into, None if it is."""
        headers, method = Headers(scope=scope), scope["method"]
        host = [one.lower() for one in headers.getlist("host")]
        if len(host) != 1 or host[0] not in self._hosts:
            return refused(421, "ask for 127.0.0.1, localhost or [::1], with the dashboard's port")
        if method not in METHODS:
            return refused(405, "this method is not taken here")
        if method == "POST" and not _is_of_our_page(headers, host[0]):
            return refused(403, "this form was not sent by a page of the dashboard")
        if method != "POST" and not _is_visit(headers):
            return refused(403, "another site asked for this")
        return None


def refused(status: int, words: str, wait: int = 0) -> Response:
    """Return a refusal of one line, which ends the connection; a body is not waited for."""
    headers = {"Connection": "close"}
    if status == 405:
        headers["Allow"] = ", ".join(METHODS)
    if wait:
        headers["Retry-After"] = str(wait)
    return PlainTextResponse(f"{words}\n", status, headers)


def _is_of_our_page(headers: Headers, host: str) -> bool:
    """Say whether a form is of a page of this origin; who does not say where from is not."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    # Without a referrer a browser names the origin of a form "null", and then says which site.
    named = origin == f"http://{host}" or (origin in (None, "null") and site is not None)
    return named and site in (None, "same-origin")


def _is_visit(headers: Headers) -> bool:
    """Say whether somebody goes to a page or a page of ours needs this, not one of another site."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return True
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (
        "document",
        None,
    )
