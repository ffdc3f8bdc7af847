"""SoftEther's JSON-RPC API over HTTPS, with the certificate that its operator pinned.

Its certificate is self-signed as a rule, so it is compared, not verified; a server on this host may
be asked without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import http.client
import ipaddress
import json
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aggregator.errors import BadInputError, ConfigError

_MAX_ANSWER_BYTES: Final = 64 * 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Api:
    """One virtual hub of one server; ConfigError if it cannot be asked safely as it is named."""

    url: str
    hub: str
    password_file: str
    certificate_file: str
    hub_login: bool
    timeout_seconds: int

    def __post_init__(self) -> None:
        """Check the names, and that no password goes to a host that cannot be recognised."""
        if not self.hub or not _is_line(self.hub):
            raise ConfigError("hub must be the name of a virtual hub, in printable ASCII")
        host, _port, _path = self._place()
        if not self.certificate_file and not _is_loopback(host):
            raise ConfigError(
                "url names another host than this one; name its certificate in "
                "certificate_file, or ask 127.0.0.1"
            )

    def answer(self, method: str) -> str:
        """Return what the server answers to one call.

        BadInputError, without anything of the answer, if there is none or it is no success.
        """
        host, port, _path = self._place()
        connection = http.client.HTTPSConnection(
            host, port, timeout=self.timeout_seconds, context=_unverified()
        )
        try:
            with contextlib.closing(connection):
                status, body = self._asked(connection, method)
        except TimeoutError:
            limit = self.timeout_seconds
            raise BadInputError(f"the server did not answer within {limit} seconds") from None
        except ssl.SSLError:
            raise BadInputError("the server does not speak TLS as it should; check url") from None
        except http.client.HTTPException:
            raise BadInputError("the server hung up, or gave no answer in HTTP") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise BadInputError(f"the server cannot be reached: {reason}") from None
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise BadInputError("the server refuses the password; check hub, password_file and url")
        if status != HTTPStatus.OK:
            raise BadInputError(f"the server answered with HTTP status {status}; check url")
        if len(body) > _MAX_ANSWER_BYTES:
            raise BadInputError("the answer of the server is too large")
        return body.decode("utf-8", errors="surrogateescape")

    def _asked(self, connection: http.client.HTTPSConnection, method: str) -> tuple[int, bytes]:
        call = {"jsonrpc": "2.0", "id": "1", "method": method, "params": {"HubName_str": self.hub}}
        headers = self._headers()
        connection.connect()
        # Before anything secret is sent.
        self._check_certificate(connection.sock)
        connection.request("POST", self._place()[2], json.dumps(call).encode(), headers)
        with connection.getresponse() as response:
            return response.status, response.read(_MAX_ANSWER_BYTES + 1)

    def _check_certificate(self, tls: ssl.SSLSocket) -> None:
        """Raise BadInputError unless the certificate is the pinned one."""
        if not self.certificate_file:
            return
        try:
            pinned = ssl.PEM_cert_to_DER_cert(_content(self.certificate_file).strip())
        except ValueError:
            raise BadInputError("certificate_file holds no certificate in PEM") from None
        if not hmac.compare_digest(tls.getpeercert(binary_form=True) or b"", pinned):
            raise BadInputError(
                "the server shows another certificate than the pinned one; if it was changed on "
                "purpose, renew certificate_file"
            )

    def _headers(self) -> dict[str, str]:
        password = _content(self.password_file).rstrip("\r\n")
        if not password or not _is_line(password):
            raise BadInputError("password_file must hold one line of printable ASCII")
        headers = {"Content-Type": "application/json", "X-VPNADMIN-PASSWORD": password}
        if self.hub_login:
            # An empty name of a hub makes the server hang up (measured).
            headers["X-VPNADMIN-HUBNAME"] = self.hub
        return headers

    def _place(self) -> tuple[str, int | None, str]:
        """Return host, port and path."""
        try:
            url = urlsplit(self.url)
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if host is None or url.scheme != "https" or url.username is not None:
            raise ConfigError("url must be like https://127.0.0.1:5555/api/")
        return host, port, url.path or "/api/"


def _is_line(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _content(path: str) -> str:
    """Return the text of a file that the settings name; what is no ASCII becomes U+FFFD."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInputError(f"a file that the settings name cannot be read: {reason}") from None
