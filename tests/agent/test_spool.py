"""The spool: on tmpfs or nowhere, for one user only, and nothing in it can be read (CL-4)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.agent.spool import Spool, check_folder, file_system
from aggregator.errors import BadInputError, ConfigError
from aggregator.wire.batch import MAX_BATCH_BYTES

MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid shared:1 - proc proc rw
24 22 0:22 / /run rw,nosuid,nodev shared:2 master:1 - tmpfs tmpfs rw,size=2468468k,mode=755
25 24 0:23 / /run/lock rw - ext4 /dev/vdb rw
26 22 0:24 / /with\040space rw - ramfs ramfs rw
27 22 0:25 / /hidden rw - tmpfs tmpfs rw
28 27 0:26 / /hidden rw - btrfs /dev/vdc rw
29 22 0:27 / /running rw - overlay overlay rw
broken line
30 22 0:28
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made) / "agent" / "spool"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "ext4"),
        ("/etc/agent", "ext4"),
        ("/run", "tmpfs"),
        ("/run/aggregator-agent/spool", "tmpfs"),
        ("/run/lock/spool", "ext4"),
        ("/running/spool", "overlay"),
        ("/runs", "ext4"),
        ("/with space/spool", "ramfs"),
        ("/hidden/spool", "btrfs"),
    ],
)
def test_the_longest_and_last_mount_counts(path: str, found: str) -> None:
    assert file_system(Path(path), MOUNTS) == found


def test_without_mounts_nothing_is_known() -> None:
    assert file_system(Path("/run"), "") is None


def test_this_machines_shared_memory_will_do(folder: Path) -> None:
    check_folder(folder)


def test_a_disk_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS, encoding="ascii")
    check_folder(Path("/run/spool"), mounts)
    with pytest.raises(ConfigError, match=r"spool /var/x: lies on ext4, which is persistent"):
        check_folder(Path("/var/x"), mounts)
    with pytest.raises(ConfigError, match="unknown file system"):
        check_folder(Path("/run/spool"), tmp_path / "missing")


def test_a_link_to_a_disk_is_refused(tmp_path: Path, folder: Path) -> None:
    """The folder behind the link is what counts."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"1 0 1:1 / / rw - ext4 /dev/vda rw\n2 1 1:2 / {folder.parent.parent} rw - tmpfs t rw\n",
        encoding="ascii",
    )
    folder.parent.mkdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="ext4"):
        check_folder(folder, mounts)
    check_folder(folder.parent, mounts)


def test_what_is_added_can_be_read_by_the_next_process_until_it_is_removed(folder: Path) -> None:
    first = Spool(folder)
    name = first.add(b"one")
    assert name is not None
    assert first.leftovers() == []
    second = Spool(folder)
    assert second.leftovers() == [name]
    assert second.read(name) == b"one"
    second.remove(name)
    second.remove(name)
    assert second.read(name) is None
    assert Spool(folder).leftovers() == []


def test_only_the_owner_may_look(folder: Path) -> None:
    folder.mkdir(mode=0o755, parents=True)
    spool = Spool(folder)
    name = spool.add(b"one")
    spool.keep_announcement(b"keys")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert name is not None
    assert spool.announcement() == b"keys"


def test_a_half_written_file_is_swept_and_never_sent(folder: Path) -> None:
    Spool(folder)
    (folder / "0123.batch.part").write_bytes(b"half")
    (folder / "empty.batch").touch()
    (folder / "huge.batch").write_bytes(bytes(MAX_BATCH_BYTES + 1))
    spool = Spool(folder)
    assert not (folder / "0123.batch.part").exists()
    assert [spool.read(name) for name in spool.leftovers()] == [None, None]


def test_leftovers_go_by_age(folder: Path) -> None:
    spool = Spool(folder)
    names = [spool.add(b"x") for _ in range(5)]
    for age, name in enumerate(names):
        os.utime(folder / str(name), (1000 - age, 1000 - age))
    assert Spool(folder).leftovers() == names[::-1]


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        Spool(tmp_path / "file" / "spool")


def test_a_folder_of_somebody_else_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(ConfigError, match="belongs to another user"):
        Spool(folder)


def test_a_folder_that_vanished_is_told_and_nothing_breaks(folder: Path) -> None:
    spool = Spool(folder)
    folder.rmdir()
    with pytest.raises(BadInputError, match="cannot keep a batch"):
        spool.add(b"one")
    assert spool.leftovers() == []


def test_without_a_folder_there_is_only_memory() -> None:
    spool = Spool(None)
    assert spool.add(b"one") is None
    assert spool.leftovers() == []
    assert spool.read("x") is None
    assert spool.announcement() is None
    spool.keep_announcement(b"keys")
    spool.remove(None)
