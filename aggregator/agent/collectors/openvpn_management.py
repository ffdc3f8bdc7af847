"""The management interface of an OpenVPN server: one short conversation a reading.

It serves one client at a time, and a second one is kept waiting without a word. So the connection
is closed at once after the status, and nothing is held open between two readings.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import time
from pathlib import Path
from typing import Final

from aggregator.errors import BadInputError, ConfigError

_PROMPT: Final = b"ENTER PASSWORD:"
_GREETING: Final = re.compile(rb"(?m)^(>.*\n|ENTER PASSWORD:)")
# A wrong password is answered by the prompt alone (2.6.14).
_VERDICT: Final = re.compile(rb"(?m)^(SUCCESS:|ERROR:|ENTER PASSWORD:)")
_ANSWER: Final = re.compile(rb"(?m)^(END|ERROR:.*?)\r?\n")
_MAX_BYTES: Final = 1 << 26

Address = str | tuple[str, int]
"""A Unix socket's path, or host and port."""


def parse_address(text: str) -> Address:
    """Return the address that a setting names; ConfigError if it is none of this machine itself.

    Who reaches a management interface controls the server, so it must not be on a network.
    """
    if text.startswith("/"):
        return text
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not _is_loopback(host) or re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 0xFFFF:
        raise ConfigError(
            "management must be the path of a Unix socket, or a port of this machine itself, "
            "such as 127.0.0.1:7505"
        )
    return host, int(port)


def fetch_status(address: Address, password_file: str, timeout_seconds: int) -> str:
    """Return the live status, version 3; BadInputError if it does not come in time."""
    talk = _Conversation(time.monotonic() + timeout_seconds)
    try:
        with talk.connected(address):
            if talk.read(_GREETING)[0] == _PROMPT:
                talk.say(_password(password_file))
                if talk.read(_VERDICT)[0] != b"SUCCESS:":
                    raise BadInputError("the management interface refuses the password")
            talk.say(b"status 3")
            word, answer = talk.read(_ANSWER)
            if word != b"END":
                raise BadInputError("the management interface refuses to tell the status")
            with contextlib.suppress(OSError):
                talk.say(b"quit")
    except TimeoutError:
        raise BadInputError(
            "the management interface does not answer: is another client connected to it?"
        ) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise BadInputError(f"the management interface cannot be used: {why}") from None
    return answer.decode("utf-8", errors="surrogateescape")


class _Conversation:
    """Lines to and fro until a deadline, by the monotonic clock."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._socket: socket.socket | None = None
        self._heard = bytearray()

    def connected(self, address: Address) -> socket.socket:
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(self._left())
            try:
                self._socket.connect(address)
            except OSError:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection(address, timeout=self._left())
        return self._socket

    def say(self, words: bytes) -> None:
        assert self._socket is not None
        self._socket.settimeout(self._left())
        self._socket.sendall(words + b"\n")

    def read(self, until: re.Pattern[bytes]) -> tuple[bytes, bytes]:
        """Return the first group of `until`, and everything up to its first match."""
        assert self._socket is not None
        line = 0
        while (found := until.search(self._heard, line)) is None:
            # Only the last line can still become a match.
            line = self._heard.rfind(b"\n") + 1
            self._socket.settimeout(self._left())
            more = self._socket.recv(1 << 16)
            if not more or len(self._heard) > _MAX_BYTES:
                raise BadInputError("the management interface ends before its answer does")
            self._heard += more
        word, text = bytes(found[1]), bytes(self._heard[: found.end()])
        del self._heard[: found.end()]
        return word, text

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _password(file: str) -> bytes:
    if not file:
        raise BadInputError("the management interface asks for a password: set its file")
    try:
        lines = Path(file).read_bytes().splitlines()
    except OSError as error:
        raise BadInputError(f"the password file cannot be read: {error.strerror}") from None
    return lines[0] if lines else b""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
