"""Small builders for tests: lines of records, and a rehearsal home worked in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aggregator import app
from aggregator.model.days import parse_instant
from aggregator.pipeline import close, month_end
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.ingest import Ingested, ingest
from aggregator.stores.home import Home

START = "2026-10-01T00:00:00Z"
ALL_IN = "2026-10-31T23:00:00Z"
ALL_CLOSED = "2026-11-02T00:30:00Z"
ALL_PURGED = "2026-11-03T00:30:00Z"
_EPOCH = "9f3c2b7a11d04e55"


def usage(
    day: str = "2026-10-05",
    user: str = "acct-1",
    location: str = "us-nyc",
    epoch: str = _EPOCH,
    bytes: int = 1000,  # noqa: A002 - the record's own name
) -> str:
    """Return one usage counter as an agent writes it."""
    return _line(
        record="usage_counter.1", day=day, user=user, location=location, epoch=epoch, bytes=bytes
    )


def flags(
    day: str = "2026-10-05", location: str = "us-nyc", epoch: str = _EPOCH, **other: Any
) -> str:
    """Return one line of connection flags as an agent writes it."""
    numbers = {"users": 14, "attempts": 31, "successes": 29}
    texts = {"country": "DE", "asn": 3320, "app": "android", "version": "11.4.0"}
    fields = {**texts, **numbers, **other}
    return _line(record="connection_flags.1", day=day, location=location, epoch=epoch, **fields)


def _line(**fields: Any) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def crowd(
    day: str, users: Iterable[int], location: str = "us-nyc", epoch: str = _EPOCH, size: int = 1000
) -> list[str]:
    """Return a counter of about `size` bytes for each account number of `users`."""
    return [usage(day, f"acct-{n}", location, epoch, size + n) for n in users]


def month(seed: int = 1, *, days: Iterable[int] = range(1, 6), users: int = 60) -> list[str]:
    """Return shuffled lines of some October days: three locations, restarts, growing totals."""
    rng = random.Random(seed)
    lines = []
    places = {"us-nyc": "0" * 15 + "1", "de-fra": "0" * 15 + "2", "is-rkv": "0" * 15 + "3"}
    for day in days:
        text = f"2026-10-{day:02d}"
        for user in range(users):
            place = "is-rkv" if user < 4 else rng.choice(["us-nyc", "de-fra"])
            total = rng.randint(1_000, 9_000_000)
            epochs = [places[place]] + ["0" * 14 + "77"] * (rng.random() < 0.2)
            for epoch in epochs:
                lines.append(usage(text, f"acct-{user}", place, epoch, total // 3))
                lines.append(usage(text, f"acct-{user}", place, epoch, total))
        for place, epoch in places.items():
            for country in ("DE", "US"):
                lines.append(flags(text, place, epoch, country=country, users=rng.randint(5, 30)))
    rng.shuffle(lines)
    return lines


@dataclasses.dataclass(frozen=True, slots=True)
class TinyHome:
    """A rehearsal home, worked in this process at instants that the test chooses."""

    root: Path

    @classmethod
    def make(cls, root: Path, now: str = START, profile: str | None = None) -> TinyHome:
        """Make the home in `root`."""
        home = Home(root)
        app.create(home, parse_instant(now), rehearsal=True, accept_weak=False, profile=profile)
        return cls(root)

    @contextlib.contextmanager
    def open(self, now: str, *, confirm: bool = True) -> Iterator[Deployment]:
        """Open the home under its lock; its clock is confirmed unless the test is about that."""
        moment = parse_instant(now)
        wall = dt.datetime.now(dt.UTC)
        with app.open_to_write(Home(self.root), moment, wall, confirm_clock=confirm) as house:
            yield house

    def read(self, now: str) -> Deployment:
        """Open the home for reading."""
        return app.open_to_read(Home(self.root), parse_instant(now), dt.datetime.now(dt.UTC))

    def ingest(self, lines: Iterable[str | bytes], now: str = ALL_IN, parts: int = 1) -> Ingested:
        """Ingest `lines` from so many files."""
        rows = [line.encode() if isinstance(line, str) else line for line in lines]
        folder = self.root.parent / "input"
        folder.mkdir(exist_ok=True)
        files = []
        for part in range(parts):
            files.append(folder / f"{part}.ndjson")
            files[-1].write_bytes(b"".join(row + b"\n" for row in rows[part::parts]))
        return self.ingest_files(files, now)

    def ingest_files(self, files: Iterable[Path], now: str = ALL_IN) -> Ingested:
        """Ingest `files`."""
        with self.open(now) as house:
            return ingest(house, [str(path) for path in files])

    def rollup(self, now: str = ALL_CLOSED, through: str | None = None) -> close.Closed:
        """Close what is due."""
        with self.open(now) as house:
            return close.close_due_days(house, through)

    def purge(
        self, now: str = ALL_PURGED, month: str | None = None, *, confirm: bool = True
    ) -> list[dict[str, Any]]:
        """Purge what is due."""
        with self.open(now, confirm=confirm) as house:
            return month_end.purge(house, month)

    def rows(self, table: str, *periods: str) -> list[dict[str, Any]]:
        """Return the rows of a table, of all periods unless some are named."""
        tables = self.read(ALL_PURGED).tables
        return tables.rows(table, periods or tables.periods(table))

    def usage(self, table: str = "usage_daily") -> dict[tuple[str, str], tuple[int, int]]:
        """Return (users, bytes) by (day or month, location)."""
        return {
            (str(row.get("day", row.get("month"))), row["location"]): (row["users"], row["bytes"])
            for row in self.rows(table)
        }

    def tables(self, *, rejections: bool = False) -> dict[str, bytes]:
        """Return every table file; counts that go by arrival only if asked for."""
        found = self.files("tables")
        return {
            name: data
            for name, data in found.items()
            if name.endswith(".parquet") and (rejections or "rejections" not in name)
        }

    def files(self, under: str = "") -> dict[str, bytes]:
        """Return every file below `under` by its path in the home."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted((self.root / under).rglob("*"))
            if path.is_file()
        }

    def audit(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the details of all entries of a kind, the whole chain verified on the way."""
        entries = self.read(ALL_PURGED).audit.entries()
        return [dict(entry.detail) for entry in entries if kind in (None, entry.kind)]
