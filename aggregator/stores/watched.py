"""A file or folder that is looked at often and changes seldom: loaded only when it changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")
_Signature = tuple[int, ...]


class Watched(Generic[Value]):
    """What `load` made of the file or folder at `path`, as it is now.

    Files are replaced whole, so a change shows in inode, size or times; a folder's times change
    when something is added, renamed or removed in it. May be asked from several threads.
    """

    def __init__(self, path: Path, load: Callable[[], Value]) -> None:
        """Watch `path`; nothing is loaded before the first `get`."""
        self._path = path
        self._load = load
        self._kept: tuple[_Signature, Value] | None = None

    def get(self) -> Value:
        """Return the value, loaded again if `path` changed; what `load` raises is not kept."""
        # Taken before loading: a change meanwhile shows as another signature the next time.
        signature = _signature(self._path)
        kept = self._kept
        if kept is None or kept[0] != signature:
            kept = self._kept = (signature, self._load())
        return kept[1]


def _signature(path: Path) -> _Signature:
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
