"""One SMTP connection whose every wait ends, and what to tell where it does not come about.

Nothing of a reply is kept but its code.
"""

from __future__ import annotations

import base64
import ipaddress
import math
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from aggregator.errors import DeliveryError
from aggregator.model.notices import Deferral
from aggregator.model.settings import MailSettings

# No server has so much to say in one reply.
_REPLY_BYTES: Final = 1 << 16
_BLOCK_BYTES: Final = 1 << 16
_LOGIN_NEEDED: Final = (530, 538)

# OpenSSL's numbers for what is wrong with a certificate.
_CERTIFICATES: Final[Mapping[int, str]] = MappingProxyType(
    {
        9: "has a certificate that is not yet valid; check this machine's clock",
        10: "has a certificate that has expired; renew it there",
        18: "has a self-signed certificate; name it, or its CA, as mail.ca_file",
        19: "has a certificate of an unknown CA; name the CA as mail.ca_file",
        20: "has a certificate of an unknown CA; name the CA as mail.ca_file",
        21: "has a certificate of an unknown CA; name the CA as mail.ca_file",
        62: "has a certificate for another host; correct mail.host or the certificate",
        64: "has a certificate for another address; correct mail.host or the certificate",
    }
)


class ServerError(DeliveryError):
    """No mail can be handed to the server now, whomever it is for; `reason` says why."""

    def __init__(self, words: str, reason: Deferral) -> None:
        super().__init__(f"the mail server {words}")
        self.reason = reason


class SlowError(Exception):
    """Time is up. No OSError, since smtplib takes each of those for the end of the connection."""


_FAILURES: Final[tuple[tuple[type[Exception], Deferral, str], ...]] = (
    (
        SlowError,
        Deferral.SLOW,
        "did not answer in time; do mail.port and mail.security belong together?",
    ),
    (
        ssl.SSLError,
        Deferral.TLS,
        "and this machine agree on no TLS; check mail.port, mail.security",
    ),
    (
        smtplib.SMTPNotSupportedError,
        Deferral.TLS,
        'offers no STARTTLS; nothing was sent to it, see mail.security = "tls"',
    ),
    (smtplib.SMTPConnectError, Deferral.UNREACHABLE, "turns this machine away for now"),
    (smtplib.SMTPHeloError, Deferral.UNREACHABLE, "turns this machine away for now"),
    (smtplib.SMTPResponseException, Deferral.TLS, "offers STARTTLS and then refuses it"),
    (smtplib.SMTPServerDisconnected, Deferral.UNREACHABLE, "broke the connection off"),
    (smtplib.SMTPException, Deferral.UNREACHABLE, "does not speak SMTP; check mail.port"),
    (
        socket.gaierror,
        Deferral.UNREACHABLE,
        "is not found by its name; check mail.host and the name server",
    ),
    (UnicodeError, Deferral.UNREACHABLE, "is not found by its name; check mail.host"),
    (ConnectionRefusedError, Deferral.UNREACHABLE, "refuses connections; is it running?"),
    (ConnectionError, Deferral.UNREACHABLE, "broke the connection off"),
    (TimeoutError, Deferral.UNREACHABLE, "does not answer; check mail.host and the network"),
    (OSError, Deferral.UNREACHABLE, "cannot be reached; check mail.host and the network"),
)


class Connection(smtplib.SMTP):
    """smtplib with a clock: all of its waiting ends, a reply that comes byte by byte as well.

    Raises SlowError when time is up, OSError (as smtplib's errors are) when the connection broke.
    """

    def __init__(
        self, settings: MailSettings, context: ssl.SSLContext | None, until: float
    ) -> None:
        """Connect, with TLS from the start if there is a `context`; `until` is a monotonic time."""
        self.until = until
        self._seconds: float = settings.timeout_seconds
        self._implicit = context
        host = settings.host.strip("[]")
        name = _greeting_name(settings.sender)
        super().__init__(host, settings.port, local_hostname=name, timeout=self._seconds)

    def connect(
        self, host: str = "localhost", port: int = 0, source_address: Any = None
    ) -> tuple[int, bytes]:
        """Connect, and return the greeting."""
        sock = socket.create_connection((host, port), self._left(self._seconds), source_address)
        # The end of a mail is not to wait until its beginning is acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._implicit is not None:
                sock = self._implicit.wrap_socket(sock, server_hostname=host)
            self.sock = sock
            self.file = None
            return self.getreply()
        except TimeoutError:
            sock.close()
            raise SlowError from None
        except BaseException:
            sock.close()
            raise

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Demand STARTTLS; what the server said before is forgotten."""
        try:
            self.starttls(context=context)
        except TimeoutError:
            raise SlowError from None

    def send(self, s: Any) -> None:
        """Send a text or bytes, in blocks: for each there is a time-out, for all the deadline."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected
        # UTF-8 for what is ASCII unless the server offers SMTPUTF8.
        data = memoryview(s.encode() if isinstance(s, str) else s)
        try:
            while data:
                self.sock.settimeout(self._left(self._seconds))
                data = data[self.sock.send(data[:_BLOCK_BYTES]) :]
        except TimeoutError:
            raise SlowError from None

    def getreply(self) -> tuple[int, bytes]:
        """Return the code and the words of a reply, all of which comes within one time-out."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected
        if self.file is None:
            self.file = _Replies(self.sock)
        self.file.expect(time.monotonic() + self._left(self._seconds))
        reply = super().getreply()
        # For a TLS handshake, which would else have what this reply has left.
        self.sock.settimeout(self.timeout)
        return reply

    def ask(self, command: str, argument: str = "") -> int:
        """Return the code of the reply to a command: 2xx, 4xx or 5xx."""
        return _sound(self.docmd(command, argument)[0])

    def hand_over(self, content: bytes) -> int:
        """Send the content of a mail whose recipients are named; return the code of the reply.

        For the last reply there is all of the time that is left: a server that looks through mails
        is slow here, and to give up means that it will get the mail twice.
        """
        code, _ = self.docmd("DATA")
        if code != 354:
            # Nothing was sent that could be accepted.
            return _sound(code if code // 100 != 2 else -1)
        # A line that begins with a dot gets another one, which the server takes away.
        lines = (b"\n" + content).replace(b"\n.", b"\n..")[1:]
        self.send(lines + b".\r\n")
        seconds, self._seconds = self._seconds, math.inf
        try:
            return _sound(self.getreply()[0])
        finally:
            self._seconds = seconds

    def log_in(self, way: str, name: str, password: str) -> int:
        """Log in by PLAIN or LOGIN; return the code of the last reply.

        Unlike smtplib's own: in UTF-8, whatever words the server asks with, and never by CRAM-MD5,
        which the encryption makes needless.
        """
        if way == "PLAIN":
            return self.docmd("AUTH", "PLAIN " + _base64(f"\0{name}\0{password}"))[0]
        code, _ = self.docmd("AUTH", "LOGIN")
        for word in (name, password):
            if code == 334:
                code, _ = self.docmd(_base64(word))
        return code

    def is_local(self) -> bool:
        """Say whether the other end is this machine."""
        assert self.sock is not None
        return ipaddress.ip_address(self.sock.getpeername()[0]).is_loopback

    def _left(self, most: float) -> float:
        """Return the seconds to wait for the next thing, at most `most`."""
        left = min(most, self.until - time.monotonic())
        if left <= 0:
            raise SlowError
        return left


class _Replies:
    """What smtplib reads lines from; raises SlowError when the time set by `expect` has come."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._until = 0.0
        self._room = 0

    def expect(self, until: float) -> None:
        """Wait for the next reply, with all its lines, until then."""
        self._until = until
        self._room = _REPLY_BYTES

    def readline(self, limit: int) -> bytes:
        """Return a line, or its first `limit` bytes; nothing at the end, also of half a line."""
        while not (end := self._buffer.find(b"\n", 0, limit) + 1) and len(self._buffer) < limit:
            left = self._until - time.monotonic()
            if left <= 0:
                raise SlowError
            self._sock.settimeout(left)
            try:
                chunk = self._sock.recv(4096)
            except TimeoutError:
                raise SlowError from None
            if not chunk:
                return b""
            self._buffer += chunk
        line = bytes(self._buffer[: end or limit])
        del self._buffer[: len(line)]
        self._room -= len(line)
        return line if self._room >= 0 else b""

    def close(self) -> None:
        """Be closed by smtplib; the socket is closed by itself."""


def _sound(code: int) -> int:
    """Return a final code; any other means that the replies are not to these commands."""
    if code in _LOGIN_NEEDED:
        words = f"asks for a login or for encryption (code {code}); see mail.username"
        raise ServerError(words, Deferral.LOGIN)
    if code // 100 not in (2, 4, 5):
        raise smtplib.SMTPServerDisconnected
    return code


def failure(error: Exception) -> ServerError:
    """Return what to tell of a connection that did not come about: never the error's own words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        number = error.verify_code
        words = _CERTIFICATES.get(number, f"has a certificate that is not trusted (code {number})")
        return ServerError(words, Deferral.TLS)
    reason, words = next((why, words) for kind, why, words in _FAILURES if isinstance(error, kind))
    if isinstance(error, smtplib.SMTPResponseException):
        words = f"{words} (code {error.smtp_code})"
    return ServerError(words, reason)


def _base64(text: str) -> str:
    # A variable of the environment may hold bytes that are no UTF-8: they are sent as they are.
    return base64.b64encode(text.encode(errors="surrogateescape")).decode()


def _greeting_name(sender: str) -> str:
    """Return the name to greet with: the sender's domain, as this machine's own may be private."""
    domain = sender.rpartition("@")[2].strip(" >")
    try:
        name = domain.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    return name if re.fullmatch(r"[A-Za-z0-9.-]+", name) else "localhost"
