"""Where the ends of OpenVPN sessions arrive: datagrams of `aggregator.agent.openvpn_hook`."""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import json
import os
import re
import select
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Final

from aggregator.agent.openvpn_hook import NAME, NUMBERS
from aggregator.agent.readings import Drop, account_drop, byte_count
from aggregator.errors import ConfigError

_DECIMAL: Final = re.compile(r"[0-9]{1,16}")
_MODE: Final = re.compile(r"0?[0-7]{3}")
_MAX_DATAGRAM: Final = 4096
# While no status can be read the ends of sessions wait; more than these are not kept.
_MAX_WAITING: Final = 100_000


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class End:
    """The end of a session: its name, its start (time_t, as digits) and its final bytes."""

    name: str
    since: str
    bytes: int


def parse_end(datagram: bytes) -> End | Drop:
    """Return the end that `datagram` tells, or why it is dropped."""
    try:
        fields = json.loads(datagram)
    except (ValueError, RecursionError):
        return Drop.BAD_FORMAT
    if not isinstance(fields, dict) or fields.keys() != {NAME, *NUMBERS}:
        return Drop.BAD_FORMAT
    name = fields[NAME]
    numbers = [fields[field] for field in NUMBERS]
    if not isinstance(name, str) or not all(type(number) is int for number in numbers):
        return Drop.BAD_FORMAT
    since, received, sent = map(str, numbers)
    count = byte_count(received, sent)
    if count is None or _DECIMAL.fullmatch(since) is None:
        return Drop.BAD_FORMAT
    return account_drop(name) or End(name, since, count)


class HookSocket:
    """Receives the ends of sessions, all the time: the kernel queues only about ten of them."""

    def __init__(self, path: str, mode: str, group: str) -> None:
        """Bind `path`, for `group` (empty: as it is) with `mode` (octal); ConfigError if not."""
        self._path = Path(path)
        self._socket = _bound(self._path, mode, group)
        self._bound = self._path.stat().st_ino
        self._lock = threading.Lock()
        self._ends: list[End] = []
        self._dropped: Counter[Drop] = Counter()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._receive_all, name="openvpn-hook", daemon=True)
        self._thread.start()

    def take(self) -> tuple[list[End], Counter[Drop]]:
        """Return every end that was sent before this call, and counts of what was unusable."""
        with self._lock:
            self._receive()
            ends, self._ends = self._ends, []
            dropped, self._dropped = self._dropped, Counter()
        return ends, dropped

    def close(self) -> None:
        """Stop receiving and remove the socket; may be called twice."""
        if not self._thread.is_alive():
            return
        self._wake.send(b"x")
        self._thread.join()
        with contextlib.suppress(FileNotFoundError):
            # Another agent may have taken the place meanwhile.
            if self._path.stat().st_ino == self._bound:
                self._path.unlink()
        for each in (self._socket, self._wake, self._woken):
            each.close()

    def _receive_all(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while all(number != self._woken.fileno() for number, _event in poll.poll()):
            with self._lock:
                self._receive()

    def _receive(self) -> None:
        """Receive what is there; under the lock, so that `take` misses none in between."""
        with contextlib.suppress(BlockingIOError):
            while True:
                end = parse_end(self._socket.recv(_MAX_DATAGRAM))
                if isinstance(end, Drop):
                    self._dropped[end] += 1
                elif len(self._ends) < _MAX_WAITING:
                    self._ends.append(end)


def _bound(path: Path, mode: str, group: str) -> socket.socket:
    if not path.is_absolute() or _MODE.fullmatch(mode) is None:
        raise ConfigError('hook_socket must be an absolute path, and hook_mode octal, like "0660"')
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        _clear(path)
        # Closed to all until its group is right.
        before = os.umask(0o777)
        try:
            receiver.bind(str(path))
        finally:
            os.umask(before)
        if group:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(int(mode, 8))
        receiver.setblocking(False)
    except KeyError:
        receiver.close()
        raise ConfigError("hook_group is no group of this machine; correct its name") from None
    except OSError as error:
        receiver.close()
        why = error.strerror or str(error)
        raise ConfigError(f"hook_socket {path} cannot be made: {why}") from None
    except ConfigError:
        receiver.close()
        raise
    return receiver


def _clear(path: Path) -> None:
    """Remove a socket that was left behind; ConfigError if something else is there."""
    if not path.is_socket():
        if os.path.lexists(path):
            raise ConfigError(f"hook_socket {path} is something else; give it a path of its own")
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise ConfigError(f"hook_socket {path} is in use; every source needs one of its own")
