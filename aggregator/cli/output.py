"""Where a result goes: standard output, or a file that is whole or as it was."""

from __future__ import annotations

import sys
from pathlib import Path

from aggregator.errors import UsageError


def put(data: bytes, out: str | None) -> None:
    """Write `data` to standard output or to the file `out`, which is whole or as it was."""
    from aggregator.stores import atomic

    if out in (None, "-"):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(str(out)).resolve()
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a pipe is written to, not replaced
        elif not path.parent.is_dir():
            raise UsageError("--out names a file in a folder that is not there; make it first")
        else:
            atomic.write(path, data, mode=0o666)  # what the umask leaves of it
    except OSError as error:
        raise UsageError(f"--out cannot be written: {error.strerror}") from None
