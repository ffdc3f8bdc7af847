"""The batch envelope: a clear header, the agent's signature, and a body sealed to the month's key.

A batch is one line of JSON (the header, at most 1 KiB, ended by LF), the 64 bytes of an Ed25519
signature over everything else, and the sealed body. The body is sealed with HPKE (RFC 9180, base
mode, X25519, HKDF-SHA256, AES-256-GCM) to the public half of one month's key pair, the header line
being its `info`; so neither can be exchanged without the other. Inside is a salt of 16 bytes and
gzip-compressed NDJSON. The header's `content` is SHA-256 over salt and records: it names the batch
without telling what is in it, since nobody can guess the salt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
import zlib
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from aggregator import __version__
from aggregator.errors import BadInputError, IntegrityError
from aggregator.model.days import is_month

VERSION: Final = 1
"""The version that agents of this release send."""
VERSIONS: Final = (VERSION,)
"""Those that this release takes: the one before the current as well, once there are two."""
MAX_BATCH_BYTES: Final = 4 << 20
"""The largest batch that a door takes; an agent splits what is larger."""
MAX_RECORD_BYTES: Final = 32 << 20
"""The most that a batch may unpack to."""
MAX_RECORDS: Final = 200_000
"""The most lines that a batch may hold, ten times what an agent puts into one."""

AGENT_ID: Final = re.compile(r"[a-z][a-z0-9-]{1,62}")
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")
_CONTENT: Final = re.compile(r"[0-9a-f]{64}")
_FIELDS: Final = ("v", "build", "month", "key", "agent", "content")
# At most three numbers, so that no address can be spelled.
_BUILD: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,2}")
_MAX_VERSION: Final = 9999
MAX_HEADER_BYTES: Final = 1024
_SIGNATURE_BYTES: Final = 64
_SALT_BYTES: Final = 16
_CONTEXT: Final = b"usage-aggregator batch 1\n"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class UnknownVersionError(BadInputError):
    """A batch of a version that this release does not know: it is kept, for one that does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What is told in the clear: for which month, to which key, by which agent, and which batch.

    `build` is the version of the agent's software, `content` names the batch. Of a batch whose
    `version` is not among `VERSIONS` the month alone is known; the other texts are empty.
    """

    build: str
    month: str
    key_id: str
    agent: str
    content: str
    version: int = VERSION

    @property
    def is_known(self) -> bool:
        """Whether this release knows the batch's version."""
        return self.version in VERSIONS


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """A batch as it travels; nothing of it was verified but the shape of its header."""

    header: Header
    _line: bytes
    _signature: bytes
    _body: bytes

    def is_signed_by(self, public_key: bytes) -> bool:
        """Say whether the holder of the Ed25519 key pair of `public_key` signed this batch."""
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key)
            key.verify(self._signature, _CONTEXT + self._line + self._body)
        except InvalidSignature:
            return False
        return True

    def open(self, private_key: bytes) -> bytes:
        """Return the records, NDJSON, with the month's private X25519 key.

        IntegrityError if the seal or the content hash is wrong; BadInputError if what is inside
        is no gzip, or unpacks to more than `MAX_RECORD_BYTES` or `MAX_RECORDS` lines.
        """
        key = X25519PrivateKey.from_private_bytes(private_key)
        try:
            plain = _SUITE.decrypt(self._body, key, info=self._line)
        except (InvalidTag, ValueError):
            raise IntegrityError("the seal of a batch does not open") from None
        salt, packed = plain[:_SALT_BYTES], plain[_SALT_BYTES:]
        records = _unpacked(packed)
        if _content(salt, records) != self.header.content:
            raise IntegrityError("a batch does not hold what its header names")
        if records.count(b"\n") > MAX_RECORDS:
            raise BadInputError("holds more records than a batch may")
        return records


def seal(
    records: bytes, month: str, agent: str, key_id: str, public_key: bytes, signing_key: bytes
) -> bytes:
    """Return a batch of `records` (NDJSON of one month), sealed and signed.

    `public_key` is the month's X25519 key, `signing_key` the agent's private Ed25519 key, both
    raw. BadInputError if the batch would be larger than a door takes.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    values = (VERSION, _own_build(), month, key_id, agent, _content(salt, records))
    line = json.dumps(dict(zip(_FIELDS, values, strict=True)), separators=(",", ":")).encode()
    line += b"\n"
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)
    plain = salt + packer.compress(records) + packer.flush()
    body = _SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(public_key), info=line)
    key = Ed25519PrivateKey.from_private_bytes(signing_key)
    batch = line + key.sign(_CONTEXT + line + body) + body
    if len(batch) > MAX_BATCH_BYTES or len(records) > MAX_RECORD_BYTES:
        raise BadInputError("the batch is too large for a door; split it")
    return batch


def parse(content: bytes) -> Batch:
    """Return the batch that `content` is; BadInputError if it has not the shape of one.

    UnknownVersionError, which is one, if it says that it is of a version not known here.
    """
    if len(content) > MAX_BATCH_BYTES:
        raise BadInputError("is larger than a batch may be")
    line = _header_line(content)
    header = _header(line)
    if not header.is_known:
        raise UnknownVersionError("is a batch of another version")
    signature = content[len(line) : len(line) + _SIGNATURE_BYTES]
    body = content[len(line) + _SIGNATURE_BYTES :]
    if len(signature) < _SIGNATURE_BYTES or not body:
        raise BadInputError("is cut off: its signature or its body is missing")
    return Batch(header, line, signature, body)


def read_header(start: bytes) -> Header:
    """Return the header of the batch that begins with `start`, of `MAX_HEADER_BYTES` or more.

    It may be of a version that this release does not know. BadInputError if it is none.
    """
    return _header(_header_line(start))


def _header_line(content: bytes) -> bytes:
    line, newline, _ = content[:MAX_HEADER_BYTES].partition(b"\n")
    if not newline:
        raise BadInputError("is no batch: it has no header line")
    return line + newline


def _header(line: bytes) -> Header:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInputError("is no batch: its header is not JSON") from None
    unknown = _unknown(fields) if isinstance(fields, dict) else None
    if unknown is not None:
        return unknown
    if not isinstance(fields, dict) or tuple(fields) != _FIELDS:
        raise BadInputError("is no batch: its header has other fields")
    version, *texts = fields.values()
    if type(version) is not int or version not in VERSIONS:
        raise BadInputError("is no batch: its version is none")
    build, month, key_id, agent, content = (text if isinstance(text, str) else "" for text in texts)
    patterns = ((_BUILD, build), (_KEY_ID, key_id), (AGENT_ID, agent), (_CONTENT, content))
    if not is_month(month) or not all(pattern.fullmatch(text) for pattern, text in patterns):
        raise BadInputError("is no batch: a field of its header has another shape")
    return Header(build, month, key_id, agent, content, version)


def _unknown(fields: Mapping[str, Any]) -> Header | None:
    """Return the header of a batch of an unknown version: `v` and `month` are in every one."""
    version, month = fields.get("v"), fields.get("month")
    if type(version) is not int or not 1 <= version <= _MAX_VERSION or version in VERSIONS:
        return None
    if not isinstance(month, str) or not is_month(month):
        return None
    return Header("", month, "", "", "", version)


def _own_build() -> str:
    found = _BUILD.match(__version__)
    return found.group() if found else "0"


def _content(salt: bytes, records: bytes) -> str:
    return hashlib.sha256(salt + records).hexdigest()


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        records = unpacker.decompress(packed, MAX_RECORD_BYTES + 1)
    except zlib.error:
        raise BadInputError("holds no gzip") from None
    if len(records) > MAX_RECORD_BYTES:
        raise BadInputError("unpacks to more than a batch may hold")
    if not unpacker.eof or unpacker.unused_data:
        raise BadInputError("holds a gzip that is cut off or has something after it")
    return records
