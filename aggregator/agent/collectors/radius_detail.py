"""FreeRADIUS: the `detail` files that it writes for accounting, as text and followed live.

Best with `suppress` in the module's configuration, so that addresses and times never reach the
disk: `NAS-Port`, `Framed-IP-Address`, `Framed-IPv6-Prefix`, `Delegated-IPv6-Prefix`,
`Calling-Station-Id`, `Called-Station-Id` and `Tunnel-Client-Endpoint` are not needed here (without
`Calling-Station-Id` the origin is unknown). Without `Acct-Session-Time` nothing tells when a
session began whose Start was not heard: it counts from its first number on.

Without NAS-Identifier and the addresses of the NAS a file stands for one NAS only where `path`
tells its folder by a wildcard; elsewhere a restart of the NAS is passed over, since it would end
sessions of others. `radius` says what the number means.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import glob
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from aggregator.agent.collectors.radius import Sessions
from aggregator.agent.collectors.radius_records import (
    ATTRIBUTES,
    OTHER_STATUSES,
    STATUS,
    Kind,
    Meaning,
    Said,
    Status,
    sealed,
)
from aggregator.agent.readings import Capture, Drop, Locate, SilentSourceError, nowhere
from aggregator.errors import BadInputError

_TIMESTAMP: Final = "Timestamp"
_KINDS: Final = {attribute.name: attribute.kind for attribute in ATTRIBUTES} | {
    _TIMESTAMP: Kind.INTEGER
}
_LINE: Final = re.compile(rb"\t([^\s=]+) [:+]?= (.*)")
_LOOKED_AT: Final = frozenset(name.encode() for name in _KINDS)
_ESCAPE: Final = re.compile(rb'\\(?:([0-3][0-7]{2})|([nrt"\\\'])|)')
_ESCAPED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_HEX: Final = re.compile(rb"0x((?:[0-9A-Fa-f]{2})*)")
_DECIMAL: Final = re.compile(rb"[0-9]{1,10}")
_STATUSES: Final = {
    **{status.name.title().replace("_", "-"): int(status) for status in Status},
    **OTHER_STATUSES,
    "Alive": int(Status.INTERIM_UPDATE),
}

_CHUNK_BYTES: Final = 1 << 20
# A stanza has some kilobytes; what is longer is none.
_MAX_STANZA_BYTES: Final = 1 << 20
_LONG_HEADER_BYTES: Final = 4096
_MARK_BYTES: Final = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """One file, or with wildcards several: usual is a folder for every NAS.

    A pattern should fit only the files that are being written, not those put aside. NASes that send
    no Gigawords are named in `wraps_at_32_bits`, by NAS-Identifier or address; `*` means all. After
    `silent_after_seconds` without a word while sessions are open the source is silent; 0 is never.
    """

    path: str
    wraps_at_32_bits: tuple[str, ...] = ()
    silent_after_seconds: int = 3600


def parse(text: str, locate: Locate = nowhere, /) -> Capture:
    """Return all sessions of a detail file, each with the largest numbers it ever had.

    A last stanza that is cut off is counted as unfinished. BadInputError for empty text and for
    text without a single stanza that can be read.
    """
    try:
        content = text.encode("utf-8", "surrogateescape").replace(b"\r\n", b"\n")
    except UnicodeEncodeError:
        raise BadInputError("is not the content of a file") from None
    if not content.strip():
        raise BadInputError("is empty: nothing was written")
    whole, cut = _whole(content)
    intake = _Intake(Meaning(locate), Sessions(limit=None))
    intake.take(whole, 0.0)
    if cut.strip():
        intake.sessions.drop(Drop.UNFINISHED)
    if not intake.readable:
        raise BadInputError("holds no stanza of a detail file that can be read")
    return intake.sessions.capture()


def _whole(content: bytes) -> tuple[bytes, bytes]:
    """Return the stanzas that have their end, and the rest."""
    end = content.rfind(b"\n\n") + 2
    return (content[:end], content[end:]) if end > 1 else (b"", content)


class _Intake:
    """Takes stanzas in the order in which they were written.

    Their Timestamp is when FreeRADIUS wrote them; where it is missing, the instant of reading, or
    in a file that is only a text, the Timestamp before it.
    """

    def __init__(self, meaning: Meaning, sessions: Sessions) -> None:
        self.sessions = sessions
        self.readable = False
        self._meaning = meaning
        self._written = 0.0

    def take(
        self, content: bytes, now: float, latest: float | None = None, place: str = ""
    ) -> None:
        """Take whole stanzas, read at the instant `now`; none was written after `latest`."""
        for stanza in _stanzas(content):
            said = _said(stanza)
            if said is None:
                self.sessions.drop(Drop.UNREADABLE)
                continue
            self._written = self._instant(said, latest)
            found = self._meaning.event(said, self._written, place)
            self.readable = self.readable or found is not Drop.UNREADABLE
            self.sessions.take(found, now)

    def _instant(self, said: Said, latest: float | None) -> float:
        written = said.numbers.get(_TIMESTAMP)
        if latest is None:
            return self._written if written is None else float(written)
        return latest if written is None else min(float(written), latest)


def _stanzas(content: bytes) -> Iterator[list[bytes]]:
    """Yield the attribute lines of every stanza; its header may be anything, or missing.

    A header after attributes begins a new one: the writer of the first was interrupted, and what it
    left is yielded as no lines, since it cannot be read.
    """
    for block in content.split(b"\n\n"):
        lines: list[bytes] = []
        for line in block.strip(b"\n").split(b"\n"):
            if line.startswith(b"\t"):
                lines.append(line)
            elif lines:
                yield []
                lines = []
        if lines or block.strip(b"\n"):
            yield lines


def _said(stanza: list[bytes]) -> Said | None:
    """Return what a stanza says, None if it cannot be read.

    One that says two things is two that ran into each other, and would charge one user with the
    bytes of another.
    """
    said = Said()
    for line in stanza:
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        if found[1] in _LOOKED_AT and not _take(said, found[1].decode(), found[2]):
            return None
    return said if stanza else None


def _take(said: Said, name: str, value: bytes) -> bool:
    kind = _KINDS[name]
    if kind is Kind.INTEGER:
        number = _STATUSES.get(value.decode("ascii", "replace")) if name == STATUS else None
        if number is None and _DECIMAL.fullmatch(value):
            number = int(value)
        return number is not None and said.number(name, number)
    text = value if kind in {Kind.IPV4, Kind.IPV6} else _unescaped(value)
    return text is not None and said.text(name, text.decode("utf-8", "surrogateescape"))


def _unescaped(value: bytes) -> bytes | None:
    """Return the bytes of a quoted string or of octets in hexadecimal, None if it is neither."""
    octets = _HEX.fullmatch(value)
    if octets is not None:
        return bytes.fromhex(octets[1].decode())
    quoted = _QUOTED.fullmatch(value)
    if quoted is None or any(not found[0][1:] for found in _ESCAPE.finditer(quoted[1])):
        return None
    return _ESCAPE.sub(_character, quoted[1])


def _character(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return bytes([int(found[1], 8)])
    return _ESCAPED.get(found[2], found[2])


class _Tail:
    """One file that is followed by its descriptor, so that a rename does not lose its end."""

    def __init__(self, descriptor: int, place: str) -> None:
        self.place = place
        self.missing = 0
        self._descriptor = descriptor
        self._offset = 0
        self._rest = b""
        self._mark = b""

    @property
    def status(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def pieces(self) -> Iterator[tuple[bytes, bool]]:
        """Yield what was written since, in whole stanzas, and whether the rest looks like one."""
        if self._was_replaced():
            self._offset, self._rest, self._mark = 0, b"", b""
        while content := os.pread(self._descriptor, _CHUNK_BYTES, self._offset):
            self._offset += len(content)
            whole, self._rest = _whole(self._rest + content)
            plausible = len(self._rest) < _LONG_HEADER_BYTES or b"\n\t" in self._rest
            if len(self._rest) > _MAX_STANZA_BYTES:
                # Its end is the next blank line, and until there nothing can be read.
                self._rest = b"\t"
                plausible = False
            yield whole, plausible
        self._mark = self._mark or self._begins()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _was_replaced(self) -> bool:
        """Say whether the file was cut, or begun anew under the same descriptor."""
        return self.status.st_size < self._offset or self._mark not in {b"", self._begins()}

    def _begins(self) -> bytes:
        """Return what the file's beginning is known by, empty while it is short."""
        content = os.pread(self._descriptor, _MARK_BYTES, 0)
        return hashlib.sha256(content).digest() if len(content) == _MARK_BYTES else b""


class RadiusDetailReader:
    """Follows detail files, from their beginning on; remembers in memory only (CL-4).

    A file that was renamed is read to its end, and longer while nothing takes its place. A file
    that was cut (copytruncate) loses what was written between the last reading and the cut.
    """

    def __init__(self, settings: Settings, locate: Locate) -> None:
        """Follow the files that `settings` names."""
        self._settings = settings
        self._tails: dict[tuple[int, int], _Tail] = {}
        self._first = True
        meaning = Meaning(locate, frozenset(settings.wraps_at_32_bits))
        self._intake = _Intake(meaning, Sessions())
        self._folder_is_nas = glob.has_magic(os.path.dirname(settings.path))

    def read(self, now: dt.datetime) -> Capture:
        """Return all sessions so far.

        BadInputError if there is no file, or never was a stanza in it; SilentSourceError if nothing
        was written for long while sessions are open.
        """
        seconds = now.timestamp()
        sessions = self._intake.sessions
        self._find()
        broken = False
        newest = max(tail.status.st_mtime for tail in self._tails.values())
        # In the order in which they were found: what was put aside comes before what replaced it.
        for identity, tail in list(self._tails.items()):
            broken = self._follow(identity, tail, seconds) or broken
        if broken and not self._intake.readable:
            raise BadInputError("is no detail file: no stanza in it can be read")
        sessions.forget(seconds)
        if self._first:
            # Timestamps are whole seconds.
            sessions.since = max(sessions.since or 0, seconds // 1)
            self._first = False
        limit = self._settings.silent_after_seconds
        if limit and seconds - newest > limit and sessions.any_open():
            raise SilentSourceError(
                f"nothing was written for {limit} seconds while sessions are open; "
                "check FreeRADIUS and the path"
            )
        return sessions.capture()

    def close(self) -> None:
        """Let go of the files."""
        for tail in self._tails.values():
            tail.close()
        self._tails = {}

    def _follow(self, identity: tuple[int, int], tail: _Tail, now: float) -> bool:
        """Read on in one file; say whether something in it should have been a stanza."""
        grew = broken = False
        try:
            for whole, plausible in tail.pieces():
                grew = True
                broken = broken or bool(whole) or not plausible
                self._intake.take(whole, now, now, tail.place)
        except OSError as error:
            raise BadInputError(f"cannot be read: {error.strerror}") from None
        if tail.missing > 1 and not grew:
            tail.close()
            del self._tails[identity]
        return broken

    def _find(self) -> None:
        """Open the files that are new, and mark those that are no longer where they were."""
        path = self._settings.path
        paths = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
        here: set[tuple[int, int]] = set()
        failure = "no such file"
        for found in paths:
            try:
                here.add(self._open(found))
            except OSError as error:
                failure = error.strerror or type(error).__name__
                if not isinstance(error, FileNotFoundError):
                    self._intake.sessions.drop(Drop.UNREADABLE)
        for identity, tail in self._tails.items():
            replaced = bool(here) or not tail.status.st_nlink
            tail.missing = 0 if identity in here else tail.missing + replaced
        if not self._tails:
            raise BadInputError(f"cannot be read: {failure}; check the path and its owner")

    def _open(self, path: str) -> tuple[int, int]:
        """Return the identity of the file at `path`, and follow it if it is new."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(descriptor)
        identity = status.st_dev, status.st_ino
        if identity in self._tails or not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            if identity not in self._tails:
                raise OSError(0, "is no regular file")
            return identity
        place = sealed(os.path.dirname(path)).hex() if self._folder_is_nas else ""
        self._tails[identity] = _Tail(descriptor, place)
        return identity


def connect(settings: Settings, locate: Locate) -> RadiusDetailReader:
    """Return a reader that follows the detail files of `settings`."""
    return RadiusDetailReader(settings, locate)
