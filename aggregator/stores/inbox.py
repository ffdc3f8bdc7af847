"""The inbox: sealed batches that were not yet taken in, from the door or dropped as files.

A batch is a file `*.batch`, in any folder below. The door names it by the content that its header
names, so that a replay finds itself. Who drops files moves them into place whole, as rsync does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from aggregator.errors import BadInputError
from aggregator.stores import atomic
from aggregator.wire import batch
from aggregator.wire.batch import Header

SUFFIX: Final = ".batch"


class Inbox:
    """The batches that wait in a home's inbox."""

    def __init__(self, folder: Path) -> None:
        """Look after the batches in `folder`."""
        self.folder = folder

    def add(self, name: str, content: bytes) -> bool:
        """Keep a batch durably under `name`; return whether it was not there already."""
        path = self.folder / f"{name}{SUFFIX}"
        if path.exists():
            return False
        atomic.write(path, content)
        return True

    def paths(self) -> list[Path]:
        """Return every batch that waits, by name: which came first does not matter."""
        return sorted(path for path in self.folder.rglob("*" + SUFFIX) if _is_file(path))

    def read(self, path: Path) -> bytes:
        """Return a batch, of a file that is too large for one only so much as shows it."""
        with path.open("rb") as file:
            return file.read(batch.MAX_BATCH_BYTES + 1)

    def headers(self) -> Iterator[tuple[Header, Path]]:
        """Yield the header and the path of each batch that waits.

        Not of files that have none or cannot be read: they must not stop whoever looks for others.
        """
        for path in self.paths():
            try:
                with path.open("rb") as file:
                    yield batch.read_header(file.read(batch.MAX_HEADER_BYTES)), path
            except (BadInputError, OSError):
                continue

    def others(self) -> int:
        """Return how many files lie in the inbox that are no batches, nor on their way.

        What is hidden, or in a hidden folder, is the door's own or of whoever drops files.
        """
        endings = (SUFFIX, atomic.TEMPORARY_SUFFIX)
        return sum(
            not path.name.endswith(endings) and not self._is_hidden(path) and _is_file(path)
            for path in self.folder.rglob("*")
        )

    def _is_hidden(self, path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(self.folder).parts)

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove batches, durably."""
        folders = set()
        for path in paths:
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in sorted(folders):
            if folder.is_dir():
                atomic.sync_folder(folder)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # below a folder that may not be entered
        return False
