"""Close days: freeze what was merged, decide which cells may be named, write the tables.

The freeze decides what belongs to the day; from it every table follows, so that a re-run gives
identical bytes. The partition of `closings_daily` is written last: with it the day is CLOSED.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aggregator.errors import IntegrityError
from aggregator.model.tables import OTHER, OTHER_ASN, TABLES
from aggregator.pipeline import raw
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import release, rollup
from aggregator.rules.release import Crowd
from aggregator.stores.engine import DuckDBEngine, Engine
from aggregator.stores.keys import MonthKeys
from aggregator.stores.segments import Segment

_EMPTY_USER_DAY: Final = pa.schema(
    [("location", pa.string()), ("pseudonym", pa.uint64()), ("user_bytes", pa.int64())]
)
_WITHHELD: Final = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Closed:
    """The days that a roll-up closed, and those that it could not, with the reason."""

    days: tuple[str, ...]
    failed: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class FlagTable:
    """How a connection table is folded: its dimensions and its levels of parents."""

    name: str
    dimensions: tuple[str, ...]
    parents: tuple[Callable[[tuple[Any, ...]], tuple[Any, ...]], ...]


FLAG_TABLES: Final = (
    FlagTable(
        "connections_daily",
        ("location", "country"),
        (lambda key: (key[0], OTHER), lambda _key: (OTHER, OTHER)),
    ),
    FlagTable("connections_isp_daily", ("asn",), (lambda _key: (OTHER_ASN,),)),
    FlagTable(
        "apps_daily",
        ("app", "version"),
        (lambda key: (key[0], OTHER), lambda _key: (OTHER, OTHER)),
    ),
)


def due_days(house: Deployment) -> list[str]:
    """Return the days whose grace is over and that are not closed, oldest first."""
    purged = house.receipts.purged_through()
    return [
        day
        for month in house.segments.months()
        if month > purged
        for day in house.segments.days(month)
        if house.calendar.is_closable(dt.date.fromisoformat(day), house.now)
        and not house.tables.has("closings_daily", day)
    ]


def close_due_days(house: Deployment, through: str | None = None) -> Closed:
    """Close every day that is due, in order, up to and with `through`.

    A day whose segments do not open is left as it is and named; the others are closed.
    """
    days = [day for day in due_days(house) if through is None or day <= through]
    closed = close_days(house, days)
    record_closed(house)
    return closed


def close_days(house: Deployment, days: Sequence[str]) -> Closed:
    """Close the named days in order; those whose segments do not open are named."""
    closed, failed = [], {}
    with DuckDBEngine() as engine:
        for number, day in enumerate(days):
            house.progress("closing days", number, len(days))
            try:
                _close_day(house, day, engine)
            except IntegrityError as error:
                failed[day] = str(error)
            else:
                closed.append(day)
    house.progress("closing days", len(days), len(days))
    return Closed(tuple(closed), failed)


def _close_day(house: Deployment, day: str, engine: Engine) -> None:
    """Freeze one day and write all its tables, a partition replaced at a time."""
    keys = house.month_keys(day[:7])
    usage = raw.freeze(house, keys, day, raw.USAGE)
    flags = raw.freeze(house, keys, day, raw.FLAGS)
    closings = []
    if usage is not None:
        closings.append(_close_usage(house, keys, day, usage, engine))
    if flags is not None:
        engine.register("raw", raw.read_bucket(house, keys, [flags]))
        engine.register("flags_day", engine.query(rollup.FLAGS_DAY))
        closings.extend(_close_flags(house, day, table, engine) for table in FLAG_TABLES)
    house.tables.write("closings_daily", day, closings)


def recorded_digests(house: Deployment, month: str) -> Iterator[tuple[str, str, str]]:
    """Yield (day, table, SHA-256) of each partition that the audit log says was closed."""
    for entry in house.audit.entries():
        if entry.kind == "close_day" and entry.detail["day"].startswith(month):
            for table, digest in entry.detail["tables"].items():
                yield entry.detail["day"], table, digest


def record_closed(house: Deployment) -> None:
    """Add the audit entry of every closed day that has none yet, in order."""
    months = set(house.segments.months())
    days = [day for day in house.tables.periods("closings_daily") if day[:7] in months]
    recorded = {day for month in months for day, _, _ in recorded_digests(house, month)}
    for day in days:
        if day not in recorded:
            digests = {
                table: house.tables.digest(table, day)
                for table in TABLES
                if table != "rejections_daily" and house.tables.has(table, day)
            }
            house.record("close_day", {"day": day, "tables": digests})


def _close_usage(
    house: Deployment, keys: MonthKeys, day: str, frozen: Segment, engine: Engine
) -> Mapping[str, Any]:
    folding = fold_usage(house, engine, user_day(house, keys, [frozen], engine))
    house.segments.write(
        keys, day, raw.FOLDS, buckets=[fold_table(folding or {})], count=1, name="all"
    )
    rows = usage_rows(house, engine, folding, {"day": dt.date.fromisoformat(day)})
    house.tables.write("usage_daily", day, rows)
    cells = set((folding or {}).values())
    named = {row["location"] for row in rows if folding and row["location"] in folding}
    return {
        "day": dt.date.fromisoformat(day),
        "table": "usage_daily",
        "cells": len(rows),
        "folded": sum(1 for leaf, cell in (folding or {}).items() if leaf != cell),
        "users": sum(row["users"] for row in rows),
        "named_users": sum(row["users"] for row in rows if row["location"] in named & cells),
        "withheld": folding is None,
    }


def user_day(
    house: Deployment, keys: MonthKeys, segments: Sequence[Segment], engine: Engine
) -> pa.Table:
    """Return (location, pseudonym, user_bytes) of the segments of one day, merged."""
    parts = [_EMPTY_USER_DAY.empty_table()]
    count = raw.parts_for(raw.rows_of(segments))
    for bucket in range(count):
        engine.register("raw", raw.read_bucket(house, keys, segments, bucket, count))
        parts.append(engine.query(rollup.USER_DAY).cast(_EMPTY_USER_DAY))
    return pa.concat_tables(parts)


def fold_table(folding: Mapping[str, str]) -> pa.Table:
    """Return location → cell as the relation `fold` of the roll-up."""
    return pa.table(
        {
            "location": pa.array(list(folding.keys()), pa.string()),
            "cell": pa.array(list(folding.values()), pa.string()),
        }
    )


def fold_usage(house: Deployment, engine: Engine, rows: pa.Table) -> Mapping[str, str] | None:
    """Decide the cell of each location in `rows`, which becomes the engine's `user_day`.

    None: nothing of it may be published.
    """
    engine.register("user_day", rows)
    locations: list[str] = sorted(pc.unique(rows["location"]).to_pylist())
    alone = crowds(engine, {location: location for location in locations})

    @functools.cache
    def users(location: str) -> pa.Table:
        return rows.filter(pc.equal(rows["location"], location))

    regions = house.profile.regions

    def measure(members: frozenset[str]) -> Crowd:
        if len(members) == 1:
            return alone[next(iter(members))]
        return crowd_of([users(location) for location in sorted(members)])

    levels = (lambda location: regions.get(location, location), lambda _location: OTHER)
    return release.fold(locations, levels, measure, house.profile)


def crowd_of(cells: Sequence[pa.Table]) -> Crowd:
    """Return the crowd of several cells together: distinct users, each with all its bytes."""
    rows = pa.concat_tables(cells)
    _, places = np.unique(rows["pseudonym"].to_numpy(), return_inverse=True)
    totals = np.zeros(int(places.max(initial=-1)) + 1, dtype=np.int64)
    np.add.at(totals, places, rows["user_bytes"].to_numpy())
    padded = np.concatenate((np.zeros(2, dtype=np.int64), totals))
    second, largest = np.partition(padded, -2)[-2:].tolist()
    return Crowd(len(totals), int(totals.sum()), largest, second)


def crowds(engine: Engine, folding: Mapping[str, str]) -> dict[str, Crowd]:
    """Return the crowd of every cell that `folding` maps locations to."""
    engine.register("fold", fold_table(folding))
    return {
        row["cell"]: Crowd(
            row["users"], row["total_bytes"], row["largest_bytes"], row["second_bytes"]
        )
        for row in engine.query(rollup.CELLS).to_pylist()
    }


def usage_rows(
    house: Deployment, engine: Engine, folding: Mapping[str, str] | None, period: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of a usage table from the engine's `user_day`, each with `period`."""
    engine.register("fold", fold_table(folding or {}))
    histograms: dict[str, dict[int, int]] = {}
    for row in engine.query(rollup.HISTOGRAM).to_pylist():
        histograms.setdefault(row["cell"], {})[row["edge"]] = row["users"]
    return [
        {
            **period,
            "location": row["cell"],
            "users": row["users"],
            "bytes": row["total_bytes"],
            **{
                f"p{rank}_bytes": release.percentile(
                    row[f"p{rank}"], row[f"above{rank}"], house.profile
                )
                for rank in (50, 90, 99)
            },
            "histogram": release.histogram(histograms[row["cell"]], house.profile),
        }
        for row in engine.query(rollup.CELLS).to_pylist()
    ]


def _close_flags(
    house: Deployment, day: str, table: FlagTable, engine: Engine
) -> Mapping[str, Any]:
    cells = list(_flag_cells(engine, table.dimensions))
    floors = {key: row["cell_floor"] for key, row in cells}

    def measure(members: frozenset[tuple[Any, ...]]) -> Crowd:
        return Crowd(sum(floors[member] for member in members))

    folding = release.fold(floors, table.parents, measure, house.profile)
    date = dt.date.fromisoformat(day)
    sums: dict[Hashable, dict[str, Any]] = {}
    for key, row in cells if folding is not None else ():
        cell: tuple[Any, ...] = (folding or {})[key]
        total = sums.setdefault(
            cell,
            {
                "day": date,
                **dict(zip(table.dimensions, cell, strict=True)),
                **dict.fromkeys(("users", "attempts", "successes"), 0),
            },
        )
        for name in ("users", "attempts", "successes"):
            total[name] += row[f"cell_{name}"]
    house.tables.write(table.name, day, sums.values())
    return {
        "day": date,
        "table": table.name,
        "cells": len(sums),
        "folded": sum(1 for leaf, cell in (folding or {}).items() if leaf != cell),
        "users": sum(row["users"] for row in sums.values()),
        "named_users": sum(row["users"] for cell, row in sums.items() if cell in floors),
        "withheld": folding is None,
    }


def _flag_cells(
    engine: Engine, dimensions: tuple[str, ...]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    for row in engine.query(rollup.flag_cells(dimensions)).to_pylist():
        yield tuple(row[name] for name in dimensions), row
