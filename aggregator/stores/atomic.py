"""The one crash-safe write: a file is there whole and durable, or it is as it was before."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

TEMPORARY_SUFFIX: Final = ".part"


def write(
    path: Path, chunks: bytes | Iterable[bytes], mode: int = 0o600, *, exactly: bool = False
) -> None:
    """Replace `path` by `chunks`: written beside it, synced, renamed, the folder synced.

    Its mode is what the umask leaves of `mode`, or `exactly` that.

    Its folder is made if missing. A process killed on the way leaves only a file that ends in
    `.part`, which `sweep` removes under the home's lock.
    """
    make_folder(path.parent)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if exactly:
                os.fchmod(descriptor, mode)
            for chunk in (chunks,) if isinstance(chunks, bytes) else chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`: a nearly full disk takes only a part at a time."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def make_folder(path: Path) -> None:
    """Make `path` and its missing parents, each durable in its own parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove the file `path`, durably; it may be gone already."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames and removals in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, *, below: bool = True) -> int:
    """Remove what killed writes left in `folder`, and `below` it; return how many files."""
    pattern = "*" + TEMPORARY_SUFFIX
    found = folder.rglob(pattern) if below else folder.glob(pattern)
    leftovers = [path for path in found if path.is_file()]
    for path in leftovers:
        remove(path)
    return len(leftovers)
