"""The lock of a home: one writing run at a time; the kernel frees it when a run is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from aggregator.errors import LockedError


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the exclusive lock on `path`, or raise LockedError at once if another run does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError("another run holds this home's lock; try again when it is done") from None
    else:
        yield
    finally:
        os.close(descriptor)
