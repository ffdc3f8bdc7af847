"""Where a month's secrets lie, and how they are destroyed (promises CL-2, CV-5).

A secret fills a block of its own. On a file system that writes in place, overwriting that block
and syncing it leaves nothing; where a write goes elsewhere (copy on write, journalled data,
network), it does not, and such file systems are named here. What software cannot see (wear
levelling of SSDs, snapshots of virtual machines, thin volumes) is said in every receipt.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import secrets
import struct
from pathlib import Path
from typing import Final

from aggregator.stores import atomic

BLOCK_BYTES: Final = 4096

CAVEATS: Final = (
    "Software cannot see copies made below it: SSD wear levelling, snapshots of virtual"
    " machines or volumes, thin provisioning. Keep the keys folder out of backups and snapshots.",
)

_WEAK_FILE_SYSTEMS: Final = frozenset(
    {
        "9p", "bcachefs", "btrfs", "ceph", "cifs", "f2fs", "nfs", "nfs4", "nilfs2", "overlay",
        "smb3", "virtiofs", "zfs",
    }
)  # fmt: skip
_FS_IOC_GETFLAGS: Final = 0x80086601
_INLINE_DATA_FLAG: Final = 0x10000000


@dataclasses.dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system below a path: its type, and its mount and superblock options."""

    kind: str
    options: frozenset[str]

    @property
    def weakness(self) -> str | None:
        """Why overwriting in place may destroy nothing here, or None if it does."""
        if self.kind in _WEAK_FILE_SYSTEMS or self.kind.startswith("fuse"):
            return f"{self.kind} does not overwrite in place"
        if "data=journal" in self.options:
            return f"{self.kind} with data=journal keeps copies in its journal"
        return None


def file_system(path: Path, mount_table: str | None = None) -> FileSystem:
    """Return the file system that holds `path`, from the kernel's mount table."""
    if mount_table is None:
        mount_table = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    resolved = path.resolve()
    best, found = -1, FileSystem("unknown", frozenset())
    for line in mount_table.splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        mount = Path(fields[4].replace("\\040", " "))
        # A later line of the same mount point lies on top of the earlier one.
        if resolved.is_relative_to(mount) and len(mount.parts) >= best:
            best = len(mount.parts)
            options = frozenset((*fields[5].split(","), *tail[2].split(",")))
            found = FileSystem(tail[0], options)
    return found


def weakness(folder: Path) -> str | None:
    """Say why a secret in `folder` may survive its destruction, or None if it cannot.

    Tried on a block of random bytes that is made and removed: some ext4 keep small files inside
    the inode, which is journalled.
    """
    known = file_system(folder).weakness
    if known is not None:
        return known
    probe = folder / f".probe-{secrets.token_hex(8)}.part"
    try:
        store(probe, secrets.token_bytes(BLOCK_BYTES))
        return "the file system keeps file data inside the inode" if _is_inline(probe) else None
    finally:
        atomic.remove(probe)


def _is_inline(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            raw = fcntl.ioctl(file.fileno(), _FS_IOC_GETFLAGS, bytes(8))
        except OSError:  # file systems without flags do not have inline data either
            return False
    flags: int = struct.unpack("=q", raw)[0]
    return bool(flags & _INLINE_DATA_FLAG)


def store(path: Path, block: bytes) -> None:
    """Write a block once, in a file of its own that is never rewritten until it is destroyed.

    Not by `atomic.write`: a renamed temporary file is the same block, but a killed one would be
    a copy; here a killed write leaves a short file, which holds no whole secret and no data.
    """
    atomic.make_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, len(block))
        os.pwrite(descriptor, block, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    atomic.sync_folder(path.parent)


def destroy(path: Path) -> None:
    """Overwrite the file `path` in place, sync it, remove it; it may be gone already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        length = max(os.fstat(descriptor).st_size, BLOCK_BYTES)
        for filling in (secrets.token_bytes(length), bytes(length)):
            os.pwrite(descriptor, filling, 0)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    atomic.remove(path)
