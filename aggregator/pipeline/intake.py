"""Intake: check lines, take the accounts out of them, and seal what is accepted into its day.

Accounts leave in `_usage_rows`, right after the check and before anything is written. A killed run
is simply run again: rows merge by maximum, and rejections are counted when rows were sealed.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from aggregator.model.records import Rejection
from aggregator.model.tables import UNKNOWN
from aggregator.pipeline import raw
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.pseudonyms import pseudonyms
from aggregator.rules.shapes import Checked, Shape, check_chunk
from aggregator.rules.validate import Gate
from aggregator.stores.keys import MonthKeys
from aggregator.stores.segments import RAW_FLAGS, RAW_USAGE

# Rows held in memory before they are sealed: about 30 bytes each.
BUFFERED_ROWS: Final = 2_000_000
# Kinds of rejection that are told apart before those of unknown locations are put together.
MANY_REJECTIONS: Final = 100_000
FILE: Final = "file"
"""The build that is noted for records from a file which the operator named."""

Rejections = Counter[tuple[str, Rejection]]
"""How often which build's records were rejected, and why."""


class Intake:
    """What one run takes in: what is held until it is sealed, and what is counted."""

    def __init__(self, house: Deployment) -> None:
        self.house = house
        self.gate = Gate(house.gate, house.config.max_bytes)
        self.shapes: list[Shape] = []
        self.keys: dict[str, MonthKeys] = {}
        self.held: dict[str, list[pa.Table]] = {raw.USAGE: [], raw.FLAGS: []}
        self.rows = 0
        self.accepted = 0
        self.rejections: Rejections = Counter()
        self.uncounted: Rejections = Counter()
        self.locations: set[str] = set()
        self.days: set[str] = set()

    def take(self, chunk: bytes, build: str = FILE, gate: Gate | None = None) -> bool:
        """Check one chunk of lines and hold its rows, without accounts; seal when they are many.

        `gate` is the sender's own, if it may not send everything that this run takes. Returns
        whether everything taken so far was sealed.
        """
        checked = check_chunk(chunk, gate or self.gate, self.shapes)
        for table in checked.usage:
            for part in self._by_month(table):
                self.held[raw.USAGE].append(self._usage_rows(part))
        for table in checked.flags:
            for part in self._by_month(table):
                self.held[raw.FLAGS].append(_flags_rows(part))
        self._count(checked, build)
        if self.rows < BUFFERED_ROWS:
            return False
        self.seal()
        return True

    def _by_month(self, table: pa.Table) -> list[pa.Table]:
        """Make the keys of every month in `table`; return its rows month by month."""
        days = raw.days_of(table)
        months = sorted({day[:7] for day in days})
        for month in months:
            if month not in self.keys:
                self.keys[month] = self.house.month_keys_for_writing(month)
        if len(months) == 1:
            return [table]
        parts = []
        for month in months:
            mine = pa.array([day for day in days if day[:7] == month])
            parts.append(table.filter(pc.is_in(table["day"].cast(pa.string()), mine)))
        return parts

    def _usage_rows(self, table: pa.Table) -> pa.Table:
        month = table["day"][0].as_py()[:7]
        rows = table.drop_columns(["user"])
        rows = rows.append_column("pseudonym", pseudonyms(table["user"], self.keys[month]))
        return rows.set_column(rows.column_names.index("epoch"), "epoch", _epochs(table["epoch"]))

    def _count(self, checked: Checked, build: str) -> None:
        self.accepted += checked.accepted
        self.rows += checked.accepted
        for rejection, count in checked.rejections.items():
            self.uncounted[build, rejection] += count
        for table in (*checked.usage, *checked.flags):
            self.locations.update(pc.unique(table["location"]).to_pylist())
        if len(self.uncounted) > MANY_REJECTIONS:
            self.uncounted = self._known(self.uncounted)

    def seal(self) -> None:
        """Seal what is held, day by day, and let go of it."""
        for kind, schema in ((raw.USAGE, RAW_USAGE), (raw.FLAGS, RAW_FLAGS)):
            if not self.held[kind]:
                continue
            table = pa.concat_tables(self.held[kind]).unify_dictionaries()
            self.held[kind] = []
            days = raw.days_of(table)
            for number, day in enumerate(days):
                self.house.progress("sealing days", number, len(days))
                rows = table.filter(pc.equal(table["day"], day)).select(schema.names).cast(schema)
                raw.add(self.house, self.keys[day[:7]], day, kind, rows)
            self.days.update(days)
        self.rows = 0

    def count_rejections(self) -> None:
        """Add what was rejected to the arrival day's table; nothing of a value is among it."""
        known = self._known(self.uncounted)
        self.uncounted = Counter()
        self.rejections.update(known)
        _publish(self.house, known)

    def _known(self, rejections: Rejections) -> Rejections:
        """Return the rejections with only such locations as an accepted record named too."""
        known: Rejections = Counter()
        for (build, rejection), count in rejections.items():
            location = rejection.location if rejection.location in self.locations else UNKNOWN
            known[build, dataclasses.replace(rejection, location=location)] += count
        return known


def _flags_rows(table: pa.Table) -> pa.Table:
    rows = table.set_column(table.column_names.index("epoch"), "epoch", _epochs(table["epoch"]))
    for name in ("app", "version"):
        filled = rows[name].cast(pa.string()).fill_null(UNKNOWN)
        rows = rows.set_column(rows.column_names.index(name), name, filled)
    return rows


def _epochs(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a dictionary column of 16 hex digits as uint64."""
    chunks = []
    for chunk in column.chunks:
        values = [int(value, 16) if value else 0 for value in chunk.dictionary.to_pylist()]
        chunks.append(pa.array(values, pa.uint64()).take(chunk.indices))
    return pa.chunked_array(chunks, pa.uint64())


def _publish(house: Deployment, rejections: Rejections) -> None:
    if not rejections:
        return
    day = house.now.date()
    total: Counter[tuple[str, ...]] = Counter()
    names = ("location", "agent_build", "schema", "reason", "field", "json_type")
    for row in house.tables.rows("rejections_daily", [day.isoformat()]):
        total[tuple(row[name] for name in names)] += row["records"]
    for (build, found), count in rejections.items():
        key = (found.location, build, found.schema, found.reason, found.field, found.json_type)
        total[tuple(str(part) for part in key)] += count
    house.tables.write(
        "rejections_daily",
        day.isoformat(),
        [
            {"day": day, **dict(zip(names, key, strict=True)), "records": count}
            for key, count in total.items()
        ],
    )
