"""Secrets are destroyed where they lie, and weak file systems are named (CL-2, CV-5)."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.stores import atomic, custody
from aggregator.stores.custody import file_system
from aggregator.stores.keys import KeyStore

_TABLE = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
30 21 0:25 / /srv rw - btrfs /dev/vdb rw,space_cache=v2
31 30 254:2 / /srv/journalled rw,noatime - ext4 /dev/vdc rw,data=journal
32 30 0:40 / /srv/net rw - nfs4 server:/x rw,vers=4.2
33 21 0:41 / /var/lib/docker/merged rw - overlay overlay rw,lowerdir=/a
34 21 254:3 / /srv/my\040keys\011here rw - ext4 /dev/vdd rw
35 21 0:42 / /mnt/fuse rw - fuse.sshfs host: rw
36 21 254:4 / /twice rw - ext4 /dev/vde rw
37 36 0:43 / /twice rw - zfs pool/x rw
38 21 0:44 / /run rw,nosuid - tmpfs  rw,size=10k
39 21 0:45 / /odd rw - futurefs dev rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "weak"),
    [
        ("/home/x", "ext4", False),
        ("/srv", "btrfs", True),
        ("/srvice", "ext4", False),
        ("/srv/journalled/deep/er", "ext4", True),
        ("/srv/net/keys", "nfs4", True),
        ("/var/lib/docker/merged/keys", "overlay", True),
        ("/srv/my keys\there/x", "ext4", False),
        ("/mnt/fuse/x", "fuse.sshfs", True),
        ("/twice/x", "zfs", True),
        ("/run/x", "tmpfs", False),
        ("/odd/x", "futurefs", True),
    ],
)
def test_the_file_system_of_a_path_and_whether_it_overwrites(
    path: str, kind: str, weak: bool
) -> None:
    found = file_system(Path(path), _TABLE.strip())
    assert found.kind == kind
    assert (found.weakness is not None) == weak


def test_an_unknown_file_system_is_weak() -> None:
    """A check that cannot decide fails closed."""
    assert file_system(Path("/x"), "").weakness is not None


def test_this_machine_has_a_mount_table(tmp_path: Path) -> None:
    assert file_system(tmp_path).kind != "unknown"


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    custody.weakness(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_block_is_never_written_over_another(tmp_path: Path) -> None:
    custody.store(tmp_path / "x.key", bytes(4096))
    with pytest.raises(FileExistsError):
        custody.store(tmp_path / "x.key", bytes(4096))


def test_what_a_killed_write_left_is_destroyed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "x.new"
    left.write_bytes(secrets.token_bytes(4096))
    with left.open("rb", buffering=0) as held:
        custody.store(tmp_path / "x.key", b"k" * 4096)
        assert held.read() == bytes(4096)
    assert os.listdir(tmp_path) == ["x.key"]


def test_destruction_overwrites_the_same_block_before_the_name_goes(tmp_path: Path) -> None:
    """CV-5: a hard link and an open descriptor both read zeros afterwards."""
    path, link = tmp_path / "x.key", tmp_path / "link"
    secret = secrets.token_bytes(custody.BLOCK_BYTES)
    custody.store(path, secret)
    os.link(path, link)
    inode = link.stat().st_ino
    with path.open("rb", buffering=0) as held:
        assert held.read(32) == secret[:32]
        custody.destroy(path)
        held.seek(0)
        assert held.read() == bytes(custody.BLOCK_BYTES)
    assert not path.exists()
    assert (link.stat().st_ino, link.read_bytes()) == (inode, bytes(custody.BLOCK_BYTES))
    custody.destroy(path)  # gone already


def test_each_overwriting_is_synced_before_the_file_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CV-5: overwritten in the page cache only, a freed block keeps its key."""
    path = tmp_path / "x.key"
    custody.store(path, bytes(custody.BLOCK_BYTES))
    steps = []
    for name in ("pwrite", "fsync", "unlink"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *words, real=real, name=name: (steps.append(name), real(*words))[1]
        )
    custody.destroy(path)
    assert steps == ["pwrite", "fsync", "pwrite", "fsync", "unlink", "fsync"]


@contextlib.contextmanager
def _ext4(folder: Path) -> Iterator[tuple[Path, Path]]:
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(24 << 20)
    if os.geteuid() != 0 or not shutil.which("losetup") or not shutil.which("mkfs.ext4"):
        pytest.skip("a loop-mounted ext4 needs root, losetup and mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, mount], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("loop devices cannot be mounted here")
    try:
        yield image, mount
    finally:
        subprocess.run(["umount", mount], check=False)


def test_no_key_byte_is_left_in_an_ext4_image(tmp_path: Path) -> None:
    """CL-2, CV-5: fifty key sets, the image searched; unlinking alone would leave them all."""
    months = [f"{year}-{month:02d}" for year in range(2020, 2025) for month in range(1, 11)]
    with _ext4(tmp_path) as (image, mount):
        assert custody.weakness(mount) is None
        destroyed, unlinked = KeyStore(mount / "a"), KeyStore(mount / "b")
        mine = [destroyed.create(month) for month in months]
        control = [unlinked.create(month) for month in months[:10]]
        os.sync()
        before = image.read_bytes()
        assert all(keys.segment in before and keys.pseudonym in before for keys in mine)
        for month in months:
            assert destroyed.destroy(month) == 1
        for month in months[:10]:
            atomic.remove(unlinked.path(month))
        assert destroyed.months() == unlinked.months() == []
    after = image.read_bytes()
    secret = [part for keys in mine for part in (keys.segment, keys.pseudonym, keys.batch)]
    assert sum(part[:16] in after or part[16:] in after for part in secret) == 0
    assert sum(keys.segment in after for keys in control) == 10
