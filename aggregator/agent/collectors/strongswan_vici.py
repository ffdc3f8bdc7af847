"""vici, strongSwan's control socket: the list of SAs, and the events that tell how they ended.

The package `vici` is loaded only here, and only when a socket is opened.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from aggregator.agent.collectors.strongswan_text import Sa, sa_of
from aggregator.errors import BadInputError

_CHILD_ENDED: Final = "child-updown"
_CHILD_REKEYED: Final = "child-rekey"
_IKE_REKEYED: Final = "ike-rekey"
_EVENTS: Final = (_CHILD_ENDED, _CHILD_REKEYED, _IKE_REKEYED)

_RETRY_SECONDS: Final = 1.0
_JOIN_SECONDS: Final = 5.0

Hear = Callable[[str, Mapping[str, Any] | None], None]
"""Takes an event's name and content, None for one that could not be read."""


class _PatientSocket(socket.socket):
    """A socket that keeps its time limit: `vici` lifts it within a message."""

    limit: float

    def settimeout(self, _value: float | None) -> None:
        super().settimeout(self.limit)


@contextlib.contextmanager
def opened(path: str, timeout_seconds: float) -> Iterator[socket.socket]:
    """Yield a connected socket on which nothing waits longer than the time limit.

    BadInputError if it cannot be opened, or if anything that is said on it fails.
    """
    try:
        with _PatientSocket(socket.AF_UNIX) as opened_socket:
            opened_socket.limit = timeout_seconds
            opened_socket.settimeout(timeout_seconds)
            opened_socket.connect(path.removeprefix("unix://"))
            yield opened_socket
    except TimeoutError:
        raise BadInputError(f"vici did not answer within {timeout_seconds:g} seconds") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInputError(
            f"vici cannot be reached: {reason}; is charon running, and may the agent open it?"
        ) from None
    except _failures() as error:
        raise BadInputError(f"vici gave no valid answer: {type(error).__name__}") from None


def listed(vici_socket: socket.socket) -> list[Sa]:
    """Return the IKE SAs that charon lists now."""
    import vici  # type: ignore[import-untyped]  # noqa: PLC0415 - not annotated; loaded late

    answers = vici.Session(vici_socket).list_sas()
    return [sa_of(tree) for answer in answers for tree in _sections(_as_text(answer))]


def ended(event: str, content: Mapping[str, Any]) -> list[Sa]:
    """Return the SAs of an event, with those children that it says have ended."""
    if event == _CHILD_ENDED and "up" not in content:
        return [sa_of(tree) for tree in _sections(content)]
    if event == _CHILD_REKEYED:
        return [sa_of({**tree, "child-sas": _replaced(tree)}) for tree in _sections(content)]
    return []


def rekeyed(event: str, content: Mapping[str, Any]) -> list[tuple[Sa, Sa]]:
    """Return the IKE SAs that an event says were replaced, each before the one that follows it."""
    if event != _IKE_REKEYED:
        return []
    return [
        (sa_of(tree["old"]), sa_of(tree["new"]))
        for tree in _sections(content)
        if isinstance(tree.get("old"), dict) and isinstance(tree.get("new"), dict)
    ]


def _sections(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sections of a message; they have the names of connections."""
    return [value for value in message.values() if isinstance(value, dict)]


def _replaced(tree: Mapping[str, Any]) -> list[Any]:
    children = tree.get("child-sas")
    return [child.get("old") for child in _sections(children if isinstance(children, dict) else {})]


def _failures() -> tuple[type[Exception], ...]:
    import vici.exception  # type: ignore[import-untyped]  # noqa: PLC0415 - not annotated; loaded late

    return (
        OSError,
        ValueError,
        struct.error,
        vici.exception.CommandException,
        vici.exception.DeserializationException,
        vici.exception.EventUnknownException,
        vici.exception.SessionException,
    )


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return value.decode("utf-8", errors="surrogateescape") if isinstance(value, bytes) else value


class Listener:
    """Hears events in a thread of its own, and connects anew whenever charon went away."""

    def __init__(self, path: str, timeout_seconds: float, hear: Hear) -> None:
        """Pass events to `hear`, from the thread; `start` begins."""
        self._path = path
        self._timeout = timeout_seconds
        self._hear = hear
        self._stopped = threading.Event()
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen, if it is not done yet."""
        if self._stopped.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        self._ready.clear()
        self._thread = threading.Thread(target=self._run, name="vici-events", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return once charon has confirmed that it sends events; BadInputError if it does not."""
        if not self._ready.wait(self._timeout):
            raise BadInputError("vici confirmed no events; what ends between two reads is unknown")

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._stopped.set()
        with self._lock:
            if self._socket is not None:
                # Wakes the thread that waits on it.
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            # That charon is away is told by whoever reads.
            with contextlib.suppress(*_failures()), socket.socket(socket.AF_UNIX) as own:
                with self._lock:
                    self._socket = own
                try:
                    self._listen(own)
                finally:
                    self._ready.clear()
                    with self._lock:
                        self._socket = None
            self._stopped.wait(_RETRY_SECONDS)

    def _listen(self, own: socket.socket) -> None:
        """Hear events until the connection ends, which is always an error."""
        from vici.protocol import Packet, Transport  # type: ignore[import-untyped]  # noqa: PLC0415 - not annotated; loaded late

        own.settimeout(self._timeout)
        own.connect(self._path.removeprefix("unix://"))
        transport = Transport(own)
        for event in _EVENTS:
            transport.send(Packet.register_event(event))
            while (packet := Packet.parse(transport.receive())).response_type == Packet.EVENT:
                self._heard(packet)
            if packet.response_type != Packet.EVENT_CONFIRM:
                raise OSError
        own.settimeout(None)
        self._ready.set()
        while not self._stopped.is_set():
            packet = Packet.parse(transport.receive())
            if packet.response_type == Packet.EVENT:
                self._heard(packet)

    def _heard(self, packet: Any) -> None:
        from vici.protocol import Message  # noqa: PLC0415 - loaded late

        try:
            content = _as_text(Message.deserialize(packet.payload))
        except _failures():
            content = None
        self._hear(_as_text(packet.event_type), content)
