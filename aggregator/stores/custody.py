"""Where a month's secrets lie, and how they are destroyed (promises CL-2, CV-5).

A secret fills a block of its own. On a file system that writes in place, overwriting that block
and syncing it leaves nothing; where a write goes elsewhere (copy on write, journalled data,
network), it does not, and such file systems are named here. What software cannot see (wear
levelling of SSDs, snapshots of virtual machines, thin volumes) is said in every receipt.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import re
import secrets
import struct
from pathlib import Path
from typing import Final

from aggregator.stores import atomic

BLOCK_BYTES: Final = 4096
UNFINISHED_SUFFIX: Final = ".new"
PROBE_PREFIX: Final = ".probe-"

CAVEATS: Final = (
    "Software cannot see copies made below it: SSD wear levelling, snapshots of virtual"
    " machines or volumes, thin provisioning. Keep the keys folder out of backups and snapshots.",
)

# A closed list: a file system that is not on it (copy on write, log-structured, network, layered,
# or simply unknown) may keep what is overwritten.
_IN_PLACE: Final = frozenset(
    {"exfat", "ext2", "ext3", "ext4", "jfs", "ramfs", "tmpfs", "vfat", "xfs"}
)
_FS_IOC_GETFLAGS: Final = 0x80086601
_FLAGS: Final = (
    (0x10000000, "the file system keeps file data inside the inode"),
    (0x00004000, "the folder's files are written through the journal"),
    (0x00000004, "the folder's files are compressed"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system below a path: its type, and its mount and superblock options."""

    kind: str
    options: frozenset[str]

    @property
    def weakness(self) -> str | None:
        """Why overwriting in place may destroy nothing here, or None if it does."""
        if self.kind not in _IN_PLACE:
            return f"{self.kind} is not known to overwrite in place"
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
        mount = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))
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
    probe = folder / f"{PROBE_PREFIX}{secrets.token_hex(8)}{atomic.TEMPORARY_SUFFIX}"
    try:
        atomic.write(probe, secrets.token_bytes(BLOCK_BYTES))
        flags = _flags(probe)
    finally:
        atomic.remove(probe)
    return next((why for flag, why in _FLAGS if flags & flag), None)


def _flags(path: Path) -> int:
    with path.open("rb") as file:
        try:
            raw = fcntl.ioctl(file.fileno(), _FS_IOC_GETFLAGS, bytes(8))
        except OSError:  # a file system without flags has none of what they tell
            return 0
    flags: int = struct.unpack("=q", raw)[0]
    return flags & 0xFFFFFFFF


def store(path: Path, block: bytes) -> None:
    """Write a block once, in a file of its own that is never rewritten until it is destroyed.

    Not by `atomic.write`, whose leftovers are swept, not destroyed: what a killed write leaves
    is `path` with the suffix `.new`. Nothing was sealed with it, and the next write destroys it.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path.name)
    atomic.make_folder(path.parent)
    unfinished = path.with_suffix(UNFINISHED_SUFFIX)
    destroy(unfinished)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, len(block))
        atomic.write_at(descriptor, block, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(unfinished, path)  # the same block under its own name: no copy
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
            atomic.write_at(descriptor, filling, 0)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    atomic.remove(path)
