"""Homes of earlier releases, and what those releases say to their neighbours: tests/data/homes."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "data" / "homes"
RELEASES: Final = ("0.1.0",)


def unpacked(release: str, folder: Path) -> Path:
    """Unpack the home of a release into `folder`, with its modes and times; return its path."""
    with tarfile.open(FOLDER / f"{release}.tar.gz") as tar:
        members = tar.getmembers()
        for member in members:
            path = folder / member.name
            assert path.resolve().is_relative_to(folder.resolve())
            if member.isdir():
                path.mkdir()
                continue
            content = tar.extractfile(member)
            assert content is not None
            path.write_bytes(content.read())
            tar.utime(member, str(path))
        for member in members:
            (folder / member.name).chmod(member.mode)
    return folder / "home"


def said(release: str) -> dict[str, Any]:
    """Return what a release told of its home, and its exchanges with a neighbour."""
    found: dict[str, Any] = json.loads((FOLDER / f"{release}.json").read_text())
    return found


def sealed(release: str) -> bytes:
    """Return the batch that the agent of a release sealed."""
    return base64.b64decode(said(release)["batch"])


def exchanges(release: str) -> dict[str, dict[str, Any]]:
    """Return what the door of a release answered, by what was asked for."""
    return {one["name"]: one for one in said(release)["exchanges"]}
