"""Close days: freeze what was merged, decide which cells may be named, write the tables.

The freeze decides what belongs to the day; from it every table follows, so that a re-run gives
identical bytes. The partition of `closings_daily` is written last: with it the day is CLOSED.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final

from aggregator.errors import IntegrityError
from aggregator.model.tables import OTHER, OTHER_ASN, TABLES
from aggregator.pipeline import cells, raw
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.dictionary import keep_dictionary
from aggregator.rules import release, rollup
from aggregator.rules.release import Crowd
from aggregator.stores.engine import DuckDBEngine, Engine
from aggregator.stores.gathered import keep_months
from aggregator.stores.keys import MonthKeys
from aggregator.stores.segments import Segment


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
    keep_dictionary(house)
    kept = house.tables.periods("closings_daily")
    if kept:
        keep_months(house.tables, kept[-1][:7])
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


def recorded_digests(house: Deployment, month: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (day, table, SHA-256) of each partition that the audit log says was closed."""
    for entry in house.audit.entries():
        if entry.kind == "close_day" and entry.detail["day"].startswith(month):
            for table, digest in entry.detail["tables"].items():
                yield entry.detail["day"], table, digest


def record_closed(house: Deployment) -> None:
    """Add the audit entry of every closed day that has none yet, in order."""
    months = set(house.segments.months())
    days = [day for day in house.tables.periods("closings_daily") if day[:7] in months]
    recorded = {day for day, _, _ in recorded_digests(house)} if days else set()
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
    published = cells.publish(house, engine, cells.user_day(house, keys, [frozen], engine))
    folding = published.folding or {}
    house.segments.write(
        keys, day, raw.FOLDS, buckets=[cells.fold_table(folding)], count=1, name="all"
    )
    date = dt.date.fromisoformat(day)
    house.tables.write("usage_daily", day, [{"day": date, **row} for row in published.rows])
    return {
        "day": date,
        "table": "usage_daily",
        "cells": len(published.rows),
        "folded": sum(1 for location, cell in folding.items() if location != cell),
        "users": sum(row["users"] for row in published.rows),
        "named_users": sum(row["users"] for row in published.rows if row["location"] in folding),
        "withheld": published.folding is None,
    }


def _close_flags(
    house: Deployment, day: str, table: FlagTable, engine: Engine
) -> Mapping[str, Any]:
    found = list(_flag_cells(engine, table.dimensions))
    floors = {key: row["cell_floor"] for key, row in found}

    def measure(members: frozenset[tuple[Any, ...]]) -> Crowd:
        return Crowd(sum(floors[member] for member in members))

    folding = release.fold(floors, table.parents, measure, house.profile)
    date = dt.date.fromisoformat(day)
    sums: dict[Hashable, dict[str, Any]] = {}
    for key, row in found if folding is not None else ():
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
