"""An address that answers with the accounts over HTTPS, as CSV or JSON objects.

No proxy of the environment is used: what is asked and told is between the two.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
from collections.abc import Generator, Iterator
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from aggregator.directory import rows
from aggregator.directory.entries import Batch
from aggregator.directory.errors import BrokenError, Trouble
from aggregator.directory.secrets import read
from aggregator.directory.watch import Watch
from aggregator.model.settings import DirectorySettings

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
_VISIBLE: Final = re.compile(r"[!-~]+")
_PATH: Final = "/%:@!$&'()*+,;=~-._?"


class _Place(NamedTuple):
    """Where to ask: whom, over what, and for what."""

    scheme: str
    host: str
    port: int
    target: str


def batches(settings: DirectorySettings, watch: Watch, size: int) -> Generator[Batch]:
    """Yield the rows that `url` answers with; the token is sent nowhere else."""
    place = _place(read(settings.url, "url"))
    headers = {
        "Accept": "text/csv, application/x-ndjson",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": "usage-aggregator",
    }
    if settings.token is not None:
        headers["Authorization"] = f"Bearer {_token(settings)}"
    context = _context(settings.ca_file) if place.scheme == "https" else None
    for _ in range(_MOST_REDIRECTS + 1):
        with contextlib.closing(_connection(place, context)) as line, _Wire(watch) as wire:
            with _troubles(watch):
                line.sock = wire.connect(place, context)
                line.request("GET", place.target, headers=headers)
                answer = wire.enter_context(contextlib.closing(line.getresponse()))
            if answer.status not in _REDIRECTS:
                yield from rows.batches(_reads(answer, watch), size, json_too=True)
                return
            place = _redirected(place, answer.getheader("Location", ""))
    raise BrokenError(Trouble.REDIRECTED)


def _place(url: str) -> _Place:
    """Return where `url` leads; BrokenError where what is told there could be overheard."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        # A domain of another script has its ASCII form; what has none is no host.
        host = host if ":" in host else host.encode("idna").decode()
    except ValueError:
        raise BrokenError(Trouble.NO_URL) from None
    if parts.scheme not in ("http", "https") or _VISIBLE.fullmatch(host) is None:
        raise BrokenError(Trouble.NO_URL)
    if parts.username is not None or parts.password is not None:
        raise BrokenError(Trouble.PASSWORD_IN_URL)
    if parts.scheme == "http" and not _is_loopback(host):
        raise BrokenError(Trouble.PLAIN_HTTP)
    target = quote(parts.path or "/", safe=_PATH)
    if parts.query:
        target += "?" + quote(parts.query, safe=_PATH)
    return _Place(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), target)


def _redirected(place: _Place, location: str) -> _Place:
    """Return where a redirect leads; BrokenError if that is another host, port or scheme."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    try:
        other = _place(urljoin(f"{place.scheme}://{host}:{place.port}{place.target}", location))
    except (BrokenError, ValueError):
        raise BrokenError(Trouble.REDIRECTED) from None
    if other[:3] != place[:3]:
        raise BrokenError(Trouble.REDIRECTED)
    return other


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(settings: DirectorySettings) -> str:
    token = read(settings.token, "token")
    if _VISIBLE.fullmatch(token) is None:
        raise BrokenError(Trouble.BAD_TOKEN)
    return token


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError):
        raise BrokenError(Trouble.BAD_CA_FILE) from None


def _connection(place: _Place, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """Return what speaks HTTP; its socket is made by `_Wire`, which can end it."""
    if context is None:
        return http.client.HTTPConnection(place.host, place.port)
    return http.client.HTTPSConnection(place.host, place.port, context=context)


class _Wire(contextlib.ExitStack):
    """The sockets of one request: each can be ended from outside, and is closed at the end."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def connect(self, place: _Place, context: ssl.SSLContext | None) -> socket.socket:
        """Return a socket to the first address of the host that answers, under TLS with `context`.

        OSError of the last one that does not.
        """
        failed: OSError = OSError()
        for family, kind, protocol, _name, address in socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM
        ):
            if self._watch.over:
                break
            plain = self._kept(socket.socket(family, kind, protocol))
            try:
                plain.connect(address)
            except OSError as error:
                failed = error
                continue
            return plain if context is None else self._encrypted(plain, place.host, context)
        raise failed

    def _encrypted(self, plain: socket.socket, host: str, context: ssl.SSLContext) -> socket.socket:
        wrapped = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        self._kept(wrapped)
        wrapped.do_handshake()
        return wrapped

    def _kept(self, one: socket.socket) -> socket.socket:
        """Let `one` wait no longer than the deadline, and be ended before that if need be."""
        one.settimeout(max(self._watch.left(), 0.001))
        self.enter_context(contextlib.closing(one))
        self.enter_context(self._watch.ending(lambda: _shut(one)))
        return one


def _shut(one: socket.socket) -> None:
    """Make every read of `one` return; closing it is left to the thread that reads it."""
    with contextlib.suppress(OSError):
        # Not the method of an encrypted one: that is not made for two threads.
        socket.socket.shutdown(one, socket.SHUT_RDWR)


def _reads(answer: http.client.HTTPResponse, watch: Watch) -> Iterator[bytes]:
    """Yield the body; BrokenError if the answer is none, or ends before its end."""
    if answer.status != http.client.OK:
        raise BrokenError(Trouble.STATUS, answer.status)
    if answer.getheader("Content-Encoding", "identity").lower() != "identity":
        raise BrokenError(Trouble.ENCODED)
    left = answer.length
    if left is None and answer.getheader("Transfer-Encoding", "").lower() != "chunked":
        # Then the end of the connection would be the end of the rows, whoever ended it.
        raise BrokenError(Trouble.NO_LENGTH)
    with _troubles(watch, Trouble.CUT):
        while body := answer.read1(rows.READ_BYTES):
            left = None if left is None else left - len(body)
            yield body
    # The library takes an early end for the end where it knows the length.
    if left:
        raise BrokenError(Trouble.CUT)


@contextlib.contextmanager
def _troubles(watch: Watch, broken: Trouble = Trouble.UNREACHABLE) -> Iterator[None]:
    """Turn the errors of a connection into ours, which hold no word of theirs."""
    try:
        yield
    except TimeoutError:
        # The system gives up by itself too.
        timed_out = not watch.left()
        raise BrokenError(
            Trouble.TIMED_OUT if timed_out else broken, watch.seconds if timed_out else ""
        ) from None
    except ssl.SSLError:
        raise BrokenError(Trouble.TLS) from None
    except (http.client.IncompleteRead, http.client.RemoteDisconnected):
        raise BrokenError(Trouble.CUT) from None
    except http.client.HTTPException:
        raise BrokenError(Trouble.NOT_HTTP) from None
    except (OSError, ValueError):
        raise BrokenError(broken) from None
