"""One connection of the door: HTTP/1.1 as uvicorn speaks it, with a deadline at every step.

uvicorn waits without end for the head of a request, for its body, and for whoever does not read
its answer. Here each of these has its time, after which the connection is cut off.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from aggregator.door import answers
from aggregator.door.answers import Fault
from aggregator.door.application import CONNECTION, Connection
from aggregator.door.limits import Limits
from aggregator.door.metrics import Metrics

_MAY_ANSWER: Final = (h11.IDLE, h11.SEND_RESPONSE)


class _Wait(enum.StrEnum):
    """What a connection is waited for, and so why it was cut off."""

    HEAD = "slow_head"
    REQUEST = "slow_request"


class DoorProtocol(H11Protocol):
    """One connection, from the end of its TLS handshake on."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        limits: Limits,
        metrics: Metrics,
        on_lost: Callable[[], None],
    ) -> None:
        """Speak HTTP within `limits`; call `on_lost` when the connection is gone."""
        self._connection = Connection()
        super().__init__(config, server_state, {CONNECTION: self._connection})
        self._limits = limits
        self._metrics = metrics
        self._on_lost = on_lost
        self._wait: _Wait | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Begin to wait for a first request."""
        super().connection_made(transport)
        self._wait_for(_Wait.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._wait_for(None)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        """Take what came, and see what is waited for now."""
        super().data_received(data)
        self._settle()

    def on_response_complete(self) -> None:
        """Keep an agent's connection longer than anybody's, unless many are open."""
        few = len(self.connections) <= self._limits.connections // 2
        kept = self._connection.is_agents and few
        self.timeout_keep_alive = self._limits.kept_seconds if kept else self._limits.idle_seconds  # type: ignore[assignment] # seconds need not be whole
        before = self.cycle
        super().on_response_complete()
        if self.cycle is not before:  # a request that had come before the answer was out
            self._wait = None
        self._settle()

    def send_400_response(self, _msg: str) -> None:
        """Answer what is no HTTP, where an answer is still possible."""
        self._metrics.refused[Fault.NOT_HTTP.value] += 1
        if self.conn.our_state not in _MAY_ANSWER:
            self.transport.abort()
            return
        body = answers.body_of(Fault.NOT_HTTP)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        status = answers.WORDINGS[Fault.NOT_HTTP].status
        events: tuple[Any, ...] = (
            h11.Response(status_code=status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        if self.cycle is not None:  # its answer would be a second one
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _settle(self) -> None:
        """Set the deadline that the connection's state asks for; one that runs goes on."""
        if self.transport.is_closing():
            return
        if self.conn.their_state is not h11.IDLE:
            self._wait_for(_Wait.REQUEST)
        elif self.timeout_keep_alive_task is None:
            self._wait_for(_Wait.HEAD)
        else:
            self._wait_for(None)

    def _wait_for(self, wait: _Wait | None) -> None:
        if wait is self._wait and wait is not None:
            return
        self._wait = wait
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait is not None:
            limits = self._limits
            seconds = limits.head_seconds if wait is _Wait.HEAD else limits.request_seconds
            self._timer = self.loop.call_later(seconds, self._cut_off, wait)

    def _cut_off(self, wait: _Wait) -> None:
        self._metrics.dropped[wait.value] += 1
        self.transport.abort()
