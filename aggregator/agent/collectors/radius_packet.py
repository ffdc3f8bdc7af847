"""RADIUS packets (RFC 2866): read, checked against the secret, answered. Bytes in, bytes out."""

from __future__ import annotations

import enum
import hashlib
import hmac
import ipaddress
from typing import Final, NamedTuple

from aggregator.agent.collectors.radius_records import ATTRIBUTES, Kind, Said

_ACCOUNTING_REQUEST: Final = 4
_ACCOUNTING_RESPONSE: Final = 5
_PROXY_STATE: Final = 33
_MESSAGE_AUTHENTICATOR: Final = 80
_HEADER_BYTES: Final = 20
_LOOKED_AT: Final = {attribute.number: attribute for attribute in ATTRIBUTES}
_WIDTH: Final = {Kind.INTEGER: 4, Kind.IPV4: 4, Kind.IPV6: 16}
_ZEROS: Final = bytes(16)
MAX_PACKET_BYTES: Final = 4096


class Refusal(enum.StrEnum):
    """Why a packet was not answered; the count is all that is kept of it."""

    UNKNOWN_SENDER = "unknown_sender"
    MALFORMED = "malformed"
    NOT_ACCOUNTING = "not_accounting"
    BAD_AUTHENTICATOR = "bad_authenticator"
    NOT_SENT = "not_sent"


class Request(NamedTuple):
    """A packet that is well formed, its attributes in their order."""

    packet: bytes
    attributes: tuple[tuple[int, bytes], ...]

    def __repr__(self) -> str:
        return "Request()"


def read_request(packet: bytes) -> Request | Refusal:
    """Return an Accounting-Request without what follows it, or why it is refused."""
    length = int.from_bytes(packet[2:4])
    if not _HEADER_BYTES <= length <= min(len(packet), MAX_PACKET_BYTES):
        return Refusal.MALFORMED
    if packet[0] != _ACCOUNTING_REQUEST:
        return Refusal.NOT_ACCOUNTING
    attributes = []
    at = _HEADER_BYTES
    while at < length:
        size = packet[at + 1] if at + 1 < length else 0
        if size < 2 or at + size > length:
            return Refusal.MALFORMED
        attributes.append((packet[at], packet[at + 2 : at + size]))
        at += size
    return Request(packet[:length], tuple(attributes))


def read_said(request: Request) -> Said | None:
    """Return what a request says, None if an attribute that is needed cannot be read."""
    said = Said()
    for number, value in request.attributes:
        attribute = _LOOKED_AT.get(number)
        if attribute is None:
            continue
        if len(value) != _WIDTH.get(attribute.kind, len(value)):
            return None
        if attribute.kind is Kind.INTEGER:
            taken = said.number(attribute.name, int.from_bytes(value))
        elif attribute.kind is Kind.TEXT:
            taken = said.text(attribute.name, value.decode("utf-8", "surrogateescape"))
        else:
            taken = said.text(attribute.name, str(ipaddress.ip_address(value)))
        if not taken:
            return None
    return said


def _md5(content: bytes = b"") -> hashlib._Hash:
    # RFC 2866 knows nothing else; that it is weak is one more reason for a network of one's own.
    return hashlib.md5(content, usedforsecurity=False)


def authentic(packet: bytes, secret: bytes) -> Request | Refusal:
    """Return the Accounting-Request in `packet` if it was made with `secret`, else why not."""
    request = read_request(packet)
    if isinstance(request, Refusal) or _is_authentic(request, secret):
        return request
    return Refusal.BAD_AUTHENTICATOR


def _is_authentic(request: Request, secret: bytes) -> bool:
    """Say whether both authenticators of the request were made with `secret`."""
    packet = request.packet
    unsigned = packet[:4] + _ZEROS + packet[_HEADER_BYTES:]
    if not hmac.compare_digest(_md5(unsigned + secret).digest(), packet[4:_HEADER_BYTES]):
        return False
    signatures = [value for number, value in request.attributes if number == _MESSAGE_AUTHENTICATOR]
    if not signatures:
        return True
    if len(signatures) > 1 or len(signatures[0]) != len(_ZEROS):
        return False
    # RFC 2869 and 5176: made while both fields were zero.
    head = unsigned[:_HEADER_BYTES]
    blank = b"".join(
        bytes([number, len(value) + 2]) + (_ZEROS if number == _MESSAGE_AUTHENTICATOR else value)
        for number, value in request.attributes
    )
    made = hmac.new(secret, head + blank, _md5).digest()
    return hmac.compare_digest(made, signatures[0])


def response(request: Request, secret: bytes) -> bytes:
    """Return the Accounting-Response; a proxy finds its Proxy-State in it again (RFC 2866)."""
    states = b"".join(
        bytes([number, len(value) + 2]) + value
        for number, value in request.attributes
        if number == _PROXY_STATE
    )
    length = _HEADER_BYTES + len(states)
    head = bytes([_ACCOUNTING_RESPONSE, request.packet[1]]) + length.to_bytes(2)
    made = _md5(head + request.packet[4:_HEADER_BYTES] + states + secret)
    return head + made.digest() + states
