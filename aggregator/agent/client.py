"""The door, seen from the agent: two requests over HTTPS, and one outcome for each.

Nothing of an answer is told but its status; nothing of a request is told at all. The token goes
nowhere but to the configured URL: redirects are answers like any other, proxies are not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import aggregator
from aggregator.agent.config import DoorSettings
from aggregator.agent.settings import file_signature
from aggregator.errors import ConfigError

_MAX_ANSWER_BYTES: Final = 1 << 20
_GONE: Final = (
    BrokenPipeError,
    ConnectionResetError,
    http.client.RemoteDisconnected,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


class Outcome(enum.StrEnum):
    """What a request came to, as far as the agent acts on it."""

    DONE = "done"
    MONTH_OVER = "month_over"
    KEY_UNKNOWN = "key_unknown"
    TOO_LARGE = "too_large"
    BUSY = "busy"
    UNAUTHORISED = "unauthorised"
    FORBIDDEN = "forbidden"
    MALFORMED = "malformed"
    NO_ANSWER = "no_answer"


_OUTCOMES: Final[Mapping[int, tuple[Outcome, str]]] = MappingProxyType(
    {
        400: (Outcome.MALFORMED, "takes the batch for malformed; are both of one version?"),
        401: (Outcome.UNAUTHORISED, "does not know the token; enrol the agent again"),
        403: (Outcome.FORBIDDEN, "refuses this agent or its signature; was it revoked?"),
        409: (Outcome.KEY_UNKNOWN, "has not published the key of that month"),
        410: (Outcome.MONTH_OVER, "says that the month is over"),
        413: (Outcome.TOO_LARGE, "takes the batch for too large"),
        415: (Outcome.MALFORMED, "does not take this type of content; are both of one version?"),
        429: (Outcome.BUSY, "asks for fewer requests"),
        503: (Outcome.BUSY, "is overloaded, or has nothing to announce yet"),
    }
)
# OpenSSL's numbers for what is wrong with a certificate.
_CERTIFICATES: Final[Mapping[int, str]] = MappingProxyType(
    {
        9: "has a certificate that is not yet valid; check this machine's clock",
        10: "has a certificate that has expired; renew it at the door",
        18: "has a self-signed certificate; name it, or its CA, as ca_file",
        19: "has a certificate of an unknown CA; name the CA as ca_file",
        20: "has a certificate of an unknown CA; name the CA as ca_file",
        21: "has a certificate of an unknown CA; name the CA as ca_file",
        62: "has a certificate for another host; correct the door's URL or its certificate",
        64: "has a certificate for another address; correct the door's URL or its certificate",
    }
)
# The one code word in the body of a refusal that says more than its status does.
_UNKNOWN_VERSION: Final = "unknown_version"
_OTHER_VERSION: Final = "does not take batches of this agent's version; upgrade the older of both"
_BROKEN_OFF: Final = "broke the connection off"
_FAILURES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (socket.gaierror, "is not found by its name; check the URL and the name server"),
    (ConnectionRefusedError, "refuses connections; is it running?"),
    (TimeoutError, "gave no answer in time"),
    (ssl.SSLEOFError, _BROKEN_OFF),
    (ssl.SSLZeroReturnError, _BROKEN_OFF),
    (http.client.IncompleteRead, _BROKEN_OFF),
    (ConnectionError, _BROKEN_OFF),
    (http.client.HTTPException, "does not answer in HTTP; correct the port, or the scheme"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An outcome, what the door asks to wait in seconds, what it sent, and one line of words."""

    outcome: Outcome
    words: str
    retry_after: float | None = None
    body: bytes = dataclasses.field(default=b"", repr=False)


class DoorClient:
    """Talks to one door, over one connection that is kept while the door keeps it."""

    def __init__(self, url: str, token: str, settings: DoorSettings) -> None:
        """Talk to the door at `url`, a scheme, a host and perhaps a port; connect when needed."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._token = token
        self._settings = settings
        self._connection: http.client.HTTPConnection | None = None
        self._signature: tuple[object, ...] = ()
        self._seconds: float = settings.timeout_seconds

    def keys(self) -> Answer:
        """Return the announcement of keys as the body of the answer."""
        return self._ask("GET", "/v1/keys", None, 200)

    def send(self, batch: bytes) -> Answer:
        """Hand over one sealed batch; DONE only if the door says that it is kept."""
        return self._ask("POST", "/v1/batches", batch, 202)

    def hurry(self, seconds: float) -> None:
        """Give every request from now on at most so long, since the agent is about to end."""
        self._seconds = min(self._seconds, seconds)

    def close(self) -> None:
        """Let go of the connection; the next request makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: bytes | None, good: int) -> Answer:
        try:
            reused = self._connected()
            try:
                return self._exchange(method, path, body, good)
            except _GONE:
                self.close()
                if not reused:
                    raise
            # The door had closed the kept connection; both requests may be repeated.
            self._connected()
            return self._exchange(method, path, body, good)
        except (OSError, http.client.HTTPException, ConfigError) as error:
            self.close()
            return Answer(Outcome.NO_ANSWER, self._words(error))
        except BaseException:
            # A connection that was interrupted in the middle of a request is of no more use.
            self.close()
            raise

    def _connected(self) -> bool:
        """Make sure of a connection; return whether there was one already."""
        signature = tuple(map(file_signature, self._files()))
        if self._connection is not None and signature == self._signature:
            if self._connection.sock is not None:
                self._connection.sock.settimeout(self._seconds)
            return True
        self.close()
        self._signature = signature
        timeout = self._seconds
        if self._secure:
            context = self._context()
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return False

    def _exchange(self, method: str, path: str, body: bytes | None, good: int) -> Answer:
        connection = self._connection
        assert connection is not None
        headers = {
            "Authorization": f"Bearer {self._token}",
            "User-Agent": f"aggregator-agent/{aggregator.__version__}",
        }
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        if connection.sock is None:
            connection.connect()
        with _deadline(connection, self._seconds):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read(_MAX_ANSWER_BYTES + 1)
            if response.length and len(content) <= _MAX_ANSWER_BYTES:
                # A read of so many bytes at most does not tell by itself that some are missing.
                raise http.client.IncompleteRead(b"")
        if response.will_close or len(content) > _MAX_ANSWER_BYTES:
            self.close()
        if len(content) > _MAX_ANSWER_BYTES:
            return Answer(Outcome.NO_ANSWER, f"{self._name} answers with more than 1 MiB")
        if response.status == good:
            return Answer(Outcome.DONE, f"{self._name} took it", body=content)
        outcome, words = _OUTCOMES.get(
            response.status,
            (Outcome.NO_ANSWER, f"answers with status {response.status}; is it the door?"),
        )
        if outcome is Outcome.MALFORMED and _code_word(content) == _UNKNOWN_VERSION:
            words = _OTHER_VERSION
        retry_after = _seconds(response.headers.get("Retry-After"))
        return Answer(outcome, f"{self._name} {words}", retry_after)

    @property
    def _name(self) -> str:
        return f"the door {self._host}:{self._port}"

    def _files(self) -> Iterator[Path]:
        settings = self._settings
        for path in (settings.ca_file, settings.client_certificate, settings.client_key):
            if path is not None:
                yield path

    def _context(self) -> ssl.SSLContext:
        """Return what verifies the door, and shows our certificate if there is one."""
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if settings.client_certificate is not None:
                # A key with a passphrase must fail and not ask for it on a terminal.
                context.load_cert_chain(
                    settings.client_certificate, settings.client_key, password=lambda: ""
                )
        except (OSError, ValueError) as error:
            raise ConfigError(
                "ca_file, client_certificate or client_key cannot be used: "
                f"{_reason(error)}; they must be PEM, belong together, and have no passphrase"
            ) from None
        return context

    def _words(self, error: Exception) -> str:
        if isinstance(error, ConfigError):
            return str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            fallback = f"has a certificate that is not trusted (code {error.verify_code})"
            return f"{self._name} {_CERTIFICATES.get(error.verify_code, fallback)}"
        for kind, words in _FAILURES:
            if isinstance(error, kind):
                return f"{self._name} {words}"
        if isinstance(error, ssl.SSLError) and "CERTIFICATE_REQUIRED" in _reason(error):
            return f"{self._name} asks for a certificate; set client_certificate"
        if isinstance(error, ssl.SSLError):
            return f"{self._name} and this agent agree on no TLS: {_reason(error)}"
        return f"{self._name} cannot be reached: {_reason(error)}"


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """Raise TimeoutError when all of a request takes longer: a time-out is for one wait only.

    The socket is shut below TLS, so that nothing is ever sent past the encryption.
    """
    sock: socket.socket = connection.sock
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if late.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


def _code_word(body: bytes) -> object:
    """Return the code word of a refusal, None if there is none; whatever else is in it is not read.

    It is compared and never told.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields.get("error") if isinstance(fields, dict) else None


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header; a date, or anything else, is none."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(retry_after[:9])


def _reason(error: Exception) -> str:
    """Return the library's code word or text for an error; neither holds what was exchanged."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS failed"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
