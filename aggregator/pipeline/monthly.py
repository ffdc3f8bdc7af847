"""The monthly table: built from the published day rows, and checked against them.

A location has the bytes of its own named days; what was folded on any day stays folded, and the
rule is applied again, so that month minus days uncovers no folded cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from aggregator.errors import IntegrityError
from aggregator.model.tables import OTHER
from aggregator.pipeline import cells, raw
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import release, rollup
from aggregator.rules.release import Crowd
from aggregator.stores.engine import DuckDBEngine, Engine
from aggregator.stores.keys import MonthKeys
from aggregator.stores.segments import Segment

# A month's user totals by published cell, from many days' rows of one user bucket.
_USER_MONTH: Final = """
SELECT cell AS location, member AS pseudonym, CAST(SUM(cell_bytes) AS BIGINT) AS user_bytes
FROM user_cell_days
GROUP BY cell, member
"""

_LATE: Final = """
SELECT merged.location AS location, merged.pseudonym AS pseudonym,
       CAST(merged.user_bytes - COALESCE(closed.user_bytes, 0) AS BIGINT) AS user_bytes
FROM merged LEFT JOIN closed
     ON merged.location = closed.location AND merged.pseudonym = closed.pseudonym
WHERE merged.user_bytes > COALESCE(closed.user_bytes, 0)
"""


def closed_days(house: Deployment, month: str) -> list[str]:
    """Return the closed days of `month` that have usage, oldest first."""
    return [
        day
        for day in house.segments.days(month)
        if house.tables.has("closings_daily", day)
        and house.segments.list(day, raw.USAGE + raw.FROZEN)
    ]


def write_monthly(house: Deployment, month: str) -> list[str]:
    """Write the monthly table of `month`; return what does not agree with the daily tables."""
    days = closed_days(house, month)
    told = house.tables.periods("usage_daily", month)
    lost = [f"the closed counters of {day} are missing" for day in told if day not in days]
    if not days:
        return lost
    keys = house.month_keys(month)
    with DuckDBEngine() as engine:
        problems = lost + [
            problem
            for number, day in enumerate(days)
            for problem in _check_day(house, keys, day, engine, number, len(days))
        ]
        published = cells.publish(house, engine, _user_month(house, keys, days, engine))
    named = {row["location"] for row in published.rows}
    late = _late_bytes(house, keys, month, published.folding or {}, named)
    rows = [{"month": month, **row, "late_bytes": late[row["location"]]} for row in published.rows]
    for row in rows:
        del row["histogram"]
    problems += _check_month(house, days, published.folding, rows)
    house.tables.write("usage_monthly", month, rows)
    return problems


def _folding(house: Deployment, keys: MonthKeys, day: str) -> pa.Table:
    sealed = house.segments.list(day, raw.FOLDS)
    if not sealed:
        raise IntegrityError(f"the sealed cells of {day} are missing")
    return house.segments.read(keys, sealed[0])


def _check_day(
    house: Deployment, keys: MonthKeys, day: str, engine: Engine, number: int, total: int
) -> list[str]:
    """Recompute a closed day from its frozen segment; return how its table differs."""
    house.progress("verifying days", number, total)
    frozen = house.segments.list(day, raw.USAGE + raw.FROZEN)
    engine.register("user_day", cells.user_day(house, keys, frozen, engine))
    counted = cells.totals(engine, _folding(house, keys, day))
    published = {
        row["location"]: (row["users"], row["bytes"])
        for row in house.tables.rows("usage_daily", [day])
    }
    return [] if counted == published else [f"usage_daily of {day} differs from its counters"]


def _user_month(
    house: Deployment, keys: MonthKeys, days: Sequence[str], engine: Engine
) -> pa.Table:
    """Return (location, pseudonym, user_bytes) of the month, by published cell."""
    frozen = {day: house.segments.list(day, raw.USAGE + raw.FROZEN) for day in days}
    folds = {day: _folding(house, keys, day) for day in days}
    every = [segment for segments in frozen.values() for segment in segments]
    count = raw.parts_for(raw.rows_of(every))
    parts = []
    for bucket in range(count):
        house.progress("adding up the month", bucket, count)
        parts_of_days = []
        for day in days:
            rows = raw.read_bucket(house, keys, frozen[day], bucket, count)
            engine.register("raw", rows)
            engine.register("user_day", engine.query(rollup.USER_DAY))
            engine.register("fold", folds[day])
            parts_of_days.append(engine.query(rollup.USER_CELL))
        engine.register("user_cell_days", pa.concat_tables(parts_of_days))
        part = engine.query(_USER_MONTH)
        # A month's users are held at once: names as dictionary codes, not again and again.
        parts.append(part.set_column(0, "location", part["location"].dictionary_encode()))
    return pa.concat_tables(parts).unify_dictionaries()


def _late_bytes(
    house: Deployment,
    keys: MonthKeys,
    month: str,
    folding: Mapping[str, str],
    published: set[str],
) -> dict[str, int | None]:
    """Return merged minus closed bytes by published cell, under the release rule.

    0 where nothing came late, None where what came late may not be told of this cell alone.
    """
    late: dict[str, int | None] = dict.fromkeys(published, 0)
    with DuckDBEngine() as engine:
        parts = [
            _late_of_day(house, keys, day, open_segments, engine)
            for day in house.segments.days(month)
            if house.tables.has("closings_daily", day)
            and (open_segments := house.segments.list(day, raw.USAGE))
        ]
        if not any(part.num_rows for part in parts):
            return late
        engine.register("user_day", pa.concat_tables(parts))
        names = engine.query("SELECT DISTINCT location FROM user_day ORDER BY location")
        cell_of = {name: folding.get(name, OTHER) for name in names["location"].to_pylist()}
        alone = cells.crowds(engine, cell_of)

        def measure(members: frozenset[str]) -> Crowd:
            chosen = {name: OTHER for name, cell in cell_of.items() if cell in members}
            return cells.crowds(engine, chosen)[OTHER]

        told = release.fold(alone, (lambda _cell: OTHER,), measure, house.profile) or {}
        sums: dict[str, int] = {}
        for cell, target in told.items():
            sums[target] = sums.get(target, 0) + alone[cell].bytes
    for cell in alone:
        if cell in late:
            late[cell] = sums.get(cell) if told.get(cell) == cell else None
    if OTHER in sums and OTHER in late:
        late[OTHER] = sums[OTHER]
    return late


def _late_of_day(
    house: Deployment, keys: MonthKeys, day: str, late: list[Segment], engine: Engine
) -> pa.Table:
    frozen = house.segments.list(day, raw.USAGE + raw.FROZEN)
    engine.register("closed", cells.user_day(house, keys, frozen, engine))
    engine.register("merged", cells.user_day(house, keys, [*frozen, *late], engine))
    return engine.query(_LATE)


def _check_month(
    house: Deployment,
    days: Sequence[str],
    folding: Mapping[str, str] | None,
    rows: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Compare the monthly rows with the sums of the daily ones."""
    if folding is None:
        return []
    expected: dict[str, int] = {}
    for row in house.tables.rows("usage_daily", days):
        cell = folding.get(row["location"], row["location"])
        expected[cell] = expected.get(cell, 0) + row["bytes"]
    found = {row["location"]: row["bytes"] for row in rows}
    return [] if found == expected else ["usage_monthly differs from the sums of usage_daily"]
