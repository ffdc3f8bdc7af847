"""A file is there whole and durable, or as it was before."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.stores import atomic

_KILLED = """
import os, signal, sys
from pathlib import Path
from aggregator.stores import atomic
def chunks():
    yield b"new " * 100_000
    os.kill(os.getpid(), signal.SIGKILL)
    yield b"rest"
atomic.write(Path(sys.argv[1]), chunks())
"""


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 kB; skipped where that is not allowed."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_write_makes_folders_and_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    atomic.write(path, b"old and longer")
    atomic.write(path, iter([b"n", b"ew"]))
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["file"]


def test_a_killed_write_leaves_the_old_content_and_sweep_removes_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    atomic.write(path, b"old")
    killed = subprocess.run([sys.executable, "-c", _KILLED, path], check=False)
    assert killed.returncode == -9
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(path.parent)) == ["file", "file.part"]
    assert atomic.sweep(tmp_path) == 1
    assert os.listdir(path.parent) == ["file"]
    assert atomic.sweep(tmp_path) == 0


def test_a_full_disk_leaves_the_old_content_and_nothing_else(full_disk: Path) -> None:
    path = full_disk / "file"
    atomic.write(path, b"old")
    with pytest.raises(OSError, match="No space") as caught:
        atomic.write(path, (bytes(4096) for _ in range(100)))
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert os.listdir(full_disk) == ["file"]


def test_every_write_and_removal_is_synced_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content before name, name before return: else a power cut leaves an empty file."""
    steps: list[str] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def synced(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def named(*names: Path) -> None:
        steps.append("rename")
        replace(*names)

    def gone(name: Path) -> None:
        steps.append("unlink")
        unlink(name)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    monkeypatch.setattr(os, "unlink", gone)
    atomic.write(tmp_path / "new" / "file", b"x")
    assert steps == ["folder", "file", "rename", "folder"]
    steps.clear()
    atomic.remove(tmp_path / "new" / "file")
    atomic.remove(tmp_path / "new" / "file")
    assert steps == ["unlink", "folder", "unlink", "folder"]
