"""A CSV file on this machine; best replaced by renaming a whole new one over it."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator

from aggregator.directory import rows
from aggregator.directory.entries import Batch
from aggregator.directory.errors import BrokenError, Trouble
from aggregator.directory.secrets import needed
from aggregator.directory.watch import Watch
from aggregator.model.settings import DirectorySettings


def batches(settings: DirectorySettings, _watch: Watch, size: int) -> Generator[Batch]:
    """Yield the rows of the file at `path`."""
    yield from rows.batches(_reads(needed(settings.path, "path")), size, json_too=False)


def _reads(path: str) -> Iterator[bytes]:
    try:
        # Opening a pipe or a device may hang, or do something.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BrokenError(Trouble.NO_FILE)
        with open(path, "rb", buffering=0) as file:
            while read := file.read(rows.READ_BYTES):
                yield read
    except (FileNotFoundError, NotADirectoryError):
        raise BrokenError(Trouble.NOT_FOUND) from None
    except (OSError, ValueError):
        raise BrokenError(Trouble.NOT_READABLE) from None
