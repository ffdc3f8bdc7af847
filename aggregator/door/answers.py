"""What the door answers: every code word with its status and its line of words."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aggregator.door.limits import Limits
from aggregator.pipeline.receive import Refusal

SCHEMA_VERSION: Final = 1
_JSON: Final = "application/json"


class Fault(enum.StrEnum):
    """Why a request was not even looked into: all that concerns HTTP and the door itself."""

    NOT_HTTP = "not_http"
    UNKNOWN_VERSION = "unknown_version"
    NOT_FOUND = "not_found"
    WRONG_METHOD = "wrong_method"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    WRONG_TYPE = "wrong_type"
    ENCODED = "encoded"
    TOO_MANY_REQUESTS = "too_many_requests"
    BUSY = "busy"
    NOT_READY = "not_ready"
    UNEXPECTED = "unexpected"


Word = Refusal | Fault


@dataclasses.dataclass(frozen=True, slots=True)
class Wording:
    """The answer for one code word: status, what happened and what to do, seconds to wait."""

    status: int
    message: str
    retry_after: int | None = None


WORDINGS: Final[Mapping[Word, Wording]] = MappingProxyType(
    {
        Refusal.MALFORMED: Wording(400, "this is no batch; are both sides of one version?"),
        Refusal.UNKNOWN_TOKEN: Wording(401, "the token is none of an agent; enrol it again"),
        Refusal.REVOKED: Wording(403, "this agent is revoked; enrol it under another id"),
        Refusal.OTHER_AGENT: Wording(403, "the header names another agent; send it as that one"),
        Refusal.BAD_SIGNATURE: Wording(403, "the signature is not this agent's; enrol it again"),
        Refusal.UNKNOWN_KEY: Wording(
            409, "this key is not announced for that month; fetch /v1/keys again"
        ),
        Refusal.MONTH_OVER: Wording(410, "that month is over; drop its records"),
        Refusal.DISK_LOW: Wording(503, "the disk is nearly full; keep it and try again later", 300),
        Refusal.NOTHING_ANNOUNCED: Wording(503, "no keys are announced yet; try again later", 60),
        Fault.NOT_HTTP: Wording(400, "this is no request of HTTP/1.1; check the client"),
        Fault.UNKNOWN_VERSION: Wording(
            400, "batches of this version are not taken here; keep it, upgrade the older side"
        ),
        Fault.NOT_FOUND: Wording(404, "there is nothing here; see /openapi.json"),
        Fault.WRONG_METHOD: Wording(405, "this method is not taken here; see /openapi.json"),
        Fault.TOO_SLOW: Wording(408, "the body came too slowly; send it again"),
        Fault.TOO_LARGE: Wording(413, "the body is larger than a batch may be; split it"),
        Fault.WRONG_TYPE: Wording(415, "send a batch as application/octet-stream"),
        Fault.ENCODED: Wording(415, "send a batch without any Content-Encoding"),
        Fault.TOO_MANY_REQUESTS: Wording(429, "too many requests of this agent; wait", 10),
        Fault.BUSY: Wording(503, "too much arrives at once; try again", 10),
        Fault.NOT_READY: Wording(503, "the aggregator's own files need its operator", 60),
        Fault.UNEXPECTED: Wording(500, "something unexpected happened; try again later"),
    }
)


def state(word: str, status: int = 200) -> Response:
    """Return the answer that all is well: "ok", "accepted" or "known"."""
    return Response(_dump({"state": word}), status, media_type=_JSON)


def refusal(word: Word) -> Response:
    """Return the answer for a code word, after the body was read."""
    return Response(body_of(word), WORDINGS[word].status, _headers(word), _JSON)


def body_of(word: Word) -> bytes:
    """Return the body of the answer for a code word."""
    return _dump({"error": word.value, "message": WORDINGS[word].message})


def _dump(fields: Mapping[str, object]) -> bytes:
    return json.dumps({"schema_version": SCHEMA_VERSION, **fields}).encode() + b"\n"


def _headers(word: Word) -> dict[str, str]:
    wording = WORDINGS[word]
    seconds = wording.retry_after
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    if wording.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


class EarlyRefusal(Response):
    """The answer before the body was read: it closes the connection, but not at once.

    A client that is still sending would lose the answer to the reset of a closed connection, so
    what it sends is read and thrown away for a short while.
    """

    def __init__(
        self, word: Word, limits: Limits, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with `word`; `headers` go before those of the word."""
        whole = {**_headers(word), **(headers or {}), "Connection": "close"}
        super().__init__(body_of(word), WORDINGS[word].status, whole, _JSON)
        self._limits = limits

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, linger, and end."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = self._limits.linger_bytes
        try:
            async with asyncio.timeout(self._limits.linger_seconds):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body"):
                        break
        except TimeoutError:
            pass  # it had its time
        await send({"type": "http.response.body", "body": b""})
