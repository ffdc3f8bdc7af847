"""The pages of the site as they were last rendered, and rendered again when the home changed."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from aggregator.pipeline.deployment import Deployment
from aggregator.rules.periods import Span
from aggregator.stores.home import Home

KEPT: Final = 4
"""For so many choices of days pages are kept: a year of them is under 2 MB."""

_TRIES: Final = 3
_FILES: Final = ("config.toml", "home.json")
# Of these, what the months of the next purges are told by.
_MONTHS: Final = ("raw", "keys")
_FOLDERS: Final = ("policy", "tables")
_RECEIPTS: Final = "receipt-*.json"

Pages = Mapping[str, bytes]
"""Every file of the site by its path."""

Stamp = frozenset[tuple[str, int, int, int]]


class PageLike(Protocol):
    """One file of the site; its path is relative, such as "assets/site.css"."""

    @property
    def path(self) -> str:
        """Where it lies in the site."""

    @property
    def content(self) -> bytes:
        """The whole file."""


MakePages = Callable[[Deployment, Span | None], Iterable[PageLike]]
"""Renders the site of an opened home, of all days or of some."""


class StoppedError(Exception):
    """The dashboard ends, so nothing is rendered any more."""


class Rendered:
    """The pages of one home. Its calls are made one at a time, in a thread that may take long."""

    def __init__(
        self, home: Home, open_home: Callable[[], Deployment], make_pages: MakePages
    ) -> None:
        """Render `home`, which `open_home` opens, whenever it changed."""
        self._home, self._open, self._make = home, open_home, make_pages
        self._kept: dict[Span | None, tuple[object, Pages]] = {}
        self._stopped = threading.Event()

    def pages(self, span: Span | None) -> tuple[dt.date, Pages]:
        """Return the day of the home's clock, and every page by its path, as the home is now.

        Raises what opening and rendering raise, and keeps nothing then; StoppedError after `stop`.
        """
        for left in reversed(range(_TRIES)):
            # Before anything is read, so that what changes meanwhile is another stamp.
            stamp = stamp_of(self._home)
            house = self._open()
            today = house.now.date()
            kept = self._kept.pop(span, None)
            is_new = kept is None or kept[0] != (stamp, today)
            found = self._render(house, span) if kept is None or is_new else kept[1]
            self._keep(span, ((stamp, today), found))
            # A run may have written one table meanwhile, and not yet another.
            if not is_new or not left or stamp_of(self._home) == stamp:
                break
        return today, found

    def stop(self) -> None:
        """Let a rendering end soon; may be called from another thread."""
        self._stopped.set()

    def _keep(self, span: Span | None, found: tuple[object, Pages]) -> None:
        self._kept[span] = found
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def _render(self, house: Deployment, span: Span | None) -> Pages:
        found = {}
        for page in self._make(house, span):
            if self._stopped.is_set():
                raise StoppedError
            found[page.path] = page.content
        return found


def stamp_of(home: Home) -> Stamp:
    """Return what is another whenever something that pages show was changed in the home.

    Files are replaced whole, so that a change shows in a file's inode, size or time.
    """
    paths = [home.root / name for name in (*_FILES, *_MONTHS)]
    paths += home.folder("audit").glob(_RECEIPTS)
    paths += [home.settings] if home.settings else []
    found = {_signature(str(path)) for path in paths}
    for name in _FOLDERS:
        found.update(_below(str(home.folder(name))))
    return frozenset(found)


def _below(folder: str) -> Iterator[tuple[str, int, int, int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)
                else:
                    yield _signature(entry.path)
    except FileNotFoundError:  # removed meanwhile
        return


def _signature(path: str) -> tuple[str, int, int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return path, 0, 0, 0
    return path, found.st_ino, found.st_size, found.st_mtime_ns
