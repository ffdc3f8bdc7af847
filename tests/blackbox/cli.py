"""Run the command line as a person or cron does, and read what it leaves in a home."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

ROOT: Final = Path(__file__).resolve().parents[2]
START: Final = "2026-10-01T00:00:00Z"
TIMEOUT: Final = 600
# What may differ between two homes that saw the same records: a replay counts again in it.
_BY_ARRIVAL: Final = "rejections_daily"

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a finished command said."""

    code: int
    out: bytes
    err: bytes

    @property
    def json(self) -> Any:
        """Its standard output as one JSON text."""
        return json.loads(self.out)

    def expect(self, *codes: int) -> Result:
        """Return itself, or fail with its own words if it ended with none of `codes`."""
        said = (self.err or self.out)[-2000:].decode(errors="replace")
        assert self.code in codes, f"exit {self.code}, expected {codes}: {said}"
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """One deployment under test."""

    path: Path

    def command(self, *words: str | Path, now: str | None = None) -> list[str]:
        """Return the words of a call; `--now` goes where the command left it room: last."""
        clock = [] if now is None else ["--now", now]
        return [
            sys.executable,
            "-m",
            "aggregator",
            "--home",
            str(self.path),
            *(str(word) for word in words),
            *clock,
        ]

    def start(
        self, *words: str | Path, now: str | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, so that all of it can be killed."""
        return subprocess.Popen(
            self.command(*words, now=now),
            cwd=ROOT,
            env=environment(),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *words: str | Path, now: str | None = None) -> Result:
        """Run a command to its end."""
        with self.start(*words, now=now) as process:
            out, err = process.communicate(timeout=TIMEOUT)
        return Result(process.returncode, out, err)

    def init(self, now: str = START) -> Home:
        """Make it a rehearsal home."""
        self.run("init", now=now).expect(0)
        return self

    def ingest(self, files: Iterable[Path], now: str) -> Result:
        """Ingest `files` with a confirmed clock and a JSON result."""
        return self.run("ingest", "--json", "--confirm-clock", *files, now=now).expect(0)

    def rollup(self, now: str) -> Result:
        """Close every day that is due, with a confirmed clock."""
        return self.run("rollup", "--confirm-clock", now=now).expect(0)

    def purge(self, now: str, *words: str) -> Result:
        """Purge what is due, with a confirmed clock and a JSON result."""
        return self.run("purge", "--json", "--confirm-clock", *words, now=now)

    def files(self) -> dict[str, bytes]:
        """Return every file of the home by its relative path."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }

    def digests(self, under: str = "") -> dict[str, str]:
        """Return the SHA-256 of every file below `under`."""
        return {
            name: hashlib.sha256(data).hexdigest()
            for name, data in self.files().items()
            if name.startswith(under)
        }

    def table_digests(self) -> dict[str, str]:
        """Return the SHA-256 of every table file but the counts that go by arrival."""
        return {
            name: digest
            for name, digest in self.digests("tables/").items()
            if not name.startswith(f"tables/{_BY_ARRIVAL}/")
        }

    def table(self, name: str) -> list[Row]:
        """Return all rows of a table, days as text, without columns guessed from folders."""
        rows: list[Row] = []
        for path in sorted((self.path / "tables" / name).rglob("*.parquet")):
            rows += pq.ParquetFile(path).read().to_pylist()
        return [{**row, "day": str(row["day"])} if "day" in row else row for row in rows]

    def receipts(self) -> list[Path]:
        """Return every purge receipt."""
        return sorted((self.path / "audit").glob("receipt-purge-*.json"))


def environment() -> dict[str, str]:
    """Return this process's environment without what would choose another home."""
    kept = {key: value for key, value in os.environ.items() if key != "AGGREGATOR_HOME"}
    return {**kept, "NO_COLOR": "1"}


def number(name: str, default: int) -> int:
    """Return the whole number in environment variable `name`: how big a run is asked for."""
    return int(os.environ.get(name, default))


def only(rows: Sequence[Row], **wanted: object) -> Row:
    """Return the one row whose columns are as `wanted`."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, f"{len(found)} rows have {wanted}"
    return found[0]
