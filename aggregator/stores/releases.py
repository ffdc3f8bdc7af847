"""Folders of files that appear whole: written beside their place, made durable, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from aggregator.stores import atomic

Files = Mapping[str, bytes]


def is_there(target: Path) -> bool:
    """Say whether anything is at `target`, a link that leads nowhere too."""
    return os.path.lexists(target)


def is_same(target: Path, files: Files) -> bool:
    """Say whether `target` is a folder of exactly these `files`."""
    if not target.is_dir():
        return False
    if {path.name for path in target.iterdir()} != set(files):
        return False
    return all(
        (target / name).is_file() and (target / name).read_bytes() == content
        for name, content in files.items()
    )


def stage(target: Path, files: Files) -> Path:
    """Write `files` durably into a hidden folder beside `target`; return it.

    The parents of `target` are made as the umask has them. What a killed run left of such a folder
    is removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}{atomic.TEMPORARY_SUFFIX}")
    discard(staged)
    staged.mkdir()
    for name, content in files.items():
        atomic.write(staged / name, content, mode=0o644)
    return staged


def place(staged: Path, target: Path) -> None:
    """Give a staged folder its name, durably; there must be nothing of that name."""
    os.rename(staged, target)
    atomic.sync_folder(target.parent)


def discard(staged: Path) -> None:
    """Remove a staged folder; it may be gone already."""
    if is_there(staged):
        shutil.rmtree(staged)
