"""The door's routes: what of a request is HTTP ends here, `pipeline.receive` decides the rest."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator.door import answers
from aggregator.door.answers import EarlyRefusal, Fault, Word
from aggregator.door.journal import Journal
from aggregator.door.limits import Budget, Limits, Rates
from aggregator.door.metrics import CONTENT_TYPE, Gauges, Metrics
from aggregator.errors import AggregatorError, BadInputError
from aggregator.pipeline.receive import Receiver, Refusal
from aggregator.stores import schemas
from aggregator.stores.agents import Agent
from aggregator.wire.batch import MAX_BATCH_BYTES, read_header

_Result = TypeVar("_Result")

OCTETS: Final = "application/octet-stream"
CONNECTION: Final = "connection"
"""Under this name the state of a request has the `Connection` that it came over."""

_THREADS: Final = 8
_OTHER: Final = "other"
# Whoever forwards requests says so; then the peer is not who asks.
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
_TEXTS: Final = {404: Fault.NOT_FOUND, 405: Fault.WRONG_METHOD}
_DESCRIPTION: Final = "door.openapi.json"


class Connection:
    """What the door remembers of one connection: whether an agent showed itself on it."""

    __slots__ = ("is_agents",)

    def __init__(self) -> None:
        """Begin as anybody's."""
        self.is_agents = False


class _RefusedError(Exception):
    """A request is refused before its body was read."""

    def __init__(self, word: Word, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(word.value)
        self.word = word
        self.headers = headers


class Door:
    """The requests of one door."""

    def __init__(
        self,
        receiver: Receiver,
        clock: Callable[[], dt.datetime],
        limits: Limits,
        journal: Journal,
    ) -> None:
        """Give what comes to `receiver`, with the time that `clock` says."""
        self.metrics = Metrics()
        self.connections: Callable[[], int] = lambda: 0
        self._receiver = receiver
        self._clock = clock
        self._limits = limits
        self._journal = journal
        self._rates = Rates(limits)
        self._budget = Budget(limits.body_bytes_at_once)
        self._bodies: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(_THREADS, "door")
        self._is_low = False
        self._description = schemas.path(_DESCRIPTION).read_bytes()

    @functools.cached_property
    def routes(self) -> tuple[Route, ...]:
        """Every path with its method."""
        return (
            Route("/v1/keys", self.keys, methods=["GET"]),
            Route("/v1/batches", self.batches, methods=["POST"]),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/metrics", self.show_metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
        )

    def application(self) -> ASGIApp:
        """Return the door as an ASGI application."""
        handlers = {
            HTTPException: self._on_http_exception,
            _RefusedError: self._on_refused,
            AggregatorError: self._on_trouble,
            Exception: self._on_unexpected,
        }
        inner = Starlette(routes=self.routes, exception_handlers=handlers)
        inner.router.redirect_slashes = False
        return _Counted(inner, frozenset(route.path for route in self.routes), self.metrics)

    def close(self) -> None:
        """Wait until what is being kept is kept."""
        self._threads.shutdown()

    async def keys(self, request: Request) -> Response:
        """Answer with the announcement of keys."""
        self._sender(request)
        content = self._receiver.announcement()
        if isinstance(content, Refusal):
            return self._refusal(content)
        return Response(content, media_type="application/json")

    async def batches(self, request: Request) -> Response:
        """Take one batch."""
        length = _length(request)
        if length is not None and length > MAX_BATCH_BYTES:
            raise _RefusedError(Fault.TOO_LARGE)
        agent = self._sender(request)
        if "content-encoding" in request.headers:
            raise _RefusedError(Fault.ENCODED)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != OCTETS:
            raise _RefusedError(Fault.WRONG_TYPE)
        reserved = MAX_BATCH_BYTES if length is None else length
        if self._bodies[agent.id] >= self._limits.bodies_of_an_agent:
            # One agent alone must not take the room of all.
            raise _RefusedError(Fault.TOO_MANY_REQUESTS, {"Retry-After": "1"})
        if not self._budget.take(reserved):
            raise _RefusedError(Fault.BUSY)
        self._bodies[agent.id] += 1
        try:
            content = await self._body(request)
            if _is_of_unknown_version(content):
                return self._refusal(Fault.UNKNOWN_VERSION)
            taken = await self._in_thread(
                lambda: self._receiver.take(agent, content, self._clock())
            )
        except ClientDisconnect:
            self.metrics.dropped["disconnected"] += 1
            return answers.refusal(Refusal.MALFORMED)  # nobody is there to read it
        except AggregatorError as error:
            self._tell_trouble(error)
            return answers.refusal(Fault.NOT_READY)
        finally:
            self._budget.give_back(reserved)
            self._bodies[agent.id] -= 1
        if isinstance(taken, Refusal):
            return self._refusal(taken)
        self._tell_disk(is_low=False)
        self.metrics.took(agent.id, taken.value, len(content), time.monotonic())
        return answers.state(taken.value, 202)

    async def healthz(self, _request: Request) -> Response:
        """Say whether batches can be taken."""
        trouble = self._receiver.trouble()
        self._tell_disk(is_low=trouble is Refusal.DISK_LOW)
        return answers.state("ok") if trouble is None else answers.refusal(trouble)

    async def show_metrics(self, request: Request) -> Response:
        """Answer with the metrics, to this machine only."""
        if not _is_from_here(request):
            return self._refusal(Fault.NOT_FOUND)
        files, size = await self._in_thread(lambda: _waiting(self._receiver.inbox.paths()))
        gauges = Gauges(files, size, self._receiver.free_bytes(), self.connections())
        return Response(self.metrics.text(gauges, time.monotonic()), media_type=CONTENT_TYPE)

    async def openapi(self, _request: Request) -> Response:
        """Answer with the description of this interface."""
        return Response(self._description, media_type="application/json")

    def _sender(self, request: Request) -> Agent:
        """Return the agent whose token the request shows."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _RefusedError(Refusal.UNKNOWN_TOKEN)
        agent = self._receiver.sender(token.strip(), self._clock())
        if isinstance(agent, Refusal):
            raise _RefusedError(agent)
        wait = self._rates.wait(agent.id, time.monotonic())
        if wait:
            raise _RefusedError(Fault.TOO_MANY_REQUESTS, {"Retry-After": str(wait)})
        request.scope["state"][CONNECTION].is_agents = True
        return agent

    async def _body(self, request: Request) -> bytes:
        """Return the whole body, never holding more of it than a batch may have."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > MAX_BATCH_BYTES:
                        raise _RefusedError(Fault.TOO_LARGE)
                    parts.append(part)
        except TimeoutError:
            raise _RefusedError(Fault.TOO_SLOW) from None
        return b"".join(parts)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _refusal(self, word: Word) -> Response:
        self._count(word)
        return answers.refusal(word)

    def _count(self, word: Word) -> None:
        self.metrics.refused[word.value] += 1
        if word is Refusal.DISK_LOW:
            self._tell_disk(is_low=True)

    def _tell_disk(self, *, is_low: bool) -> None:
        if is_low and not self._is_low:
            self._journal.alarm("the disk is nearly full: no batch is taken until there is room")
        elif self._is_low and not is_low:
            self._journal.tell("there is room on the disk again: batches are taken")
        self._is_low = is_low

    async def _on_refused(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, _RefusedError)
        self._count(error.word)
        return EarlyRefusal(error.word, self._limits, error.headers)

    async def _on_http_exception(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        word = _TEXTS.get(error.status_code, Fault.UNEXPECTED)
        self._count(word)
        return EarlyRefusal(word, self._limits, error.headers)

    async def _on_trouble(self, _request: Request, error: Exception) -> Response:
        self._tell_trouble(error)
        return EarlyRefusal(Fault.NOT_READY, self._limits)

    def _tell_trouble(self, error: Exception) -> None:
        # One line that the operator may read: it names a file of ours, and no value.
        self._journal.alarm(str(error))
        self._count(Fault.NOT_READY)

    async def _on_unexpected(self, _request: Request, _error: Exception) -> Response:
        # Starlette raises it again, so that the journal tells its place.
        self._count(Fault.UNEXPECTED)
        return answers.refusal(Fault.UNEXPECTED)


class _Counted:
    """Counts every answer of an application, by route and status."""

    def __init__(self, inner: ASGIApp, paths: frozenset[str], metrics: Metrics) -> None:
        self._inner = inner
        self._paths = paths
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        path = scope["path"]
        route = path if path in self._paths else _OTHER

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(route, message["status"], time.monotonic() - started)
            await send(message)

        await self._inner(scope, receive, counted)


def _length(request: Request) -> int | None:
    """Return how long the body says it is, None if it comes in chunks."""
    if "transfer-encoding" in request.headers:
        return None
    # The server below has refused a length that is no number.
    return int(request.headers.get("content-length", "0"))


def _is_of_unknown_version(content: bytes) -> bool:
    """Say whether this is a batch of a version that a neighbouring release may know."""
    try:
        return not read_header(content).is_known
    except BadInputError:
        return False


def _is_from_here(request: Request) -> bool:
    """Say whether the peer is this machine, and does not ask for somebody else."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    address = ipaddress.ip_address(request.client.host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _waiting(paths: Iterable[Path]) -> tuple[int, int]:
    """Return how many files there are and their bytes; one that is gone meanwhile is not there."""
    sizes = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)
