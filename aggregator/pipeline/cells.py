"""The cells of a usage table: users counted per location, folded by the release rule.

The engine runs the roll-up's own text; which cells may bear their name is the rule's decision.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aggregator.model.profile import Profile
from aggregator.model.tables import OTHER
from aggregator.pipeline import raw
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import release, rollup
from aggregator.rules.release import Crowd
from aggregator.stores.engine import Engine
from aggregator.stores.keys import MonthKeys
from aggregator.stores.segments import Segment

_EMPTY_USER_DAY: Final = pa.schema(
    [("location", pa.string()), ("pseudonym", pa.uint64()), ("user_bytes", pa.int64())]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """What may be published: each location's cell, None if nothing may, and a row a cell."""

    folding: Mapping[str, str] | None
    rows: Sequence[dict[str, Any]]


def user_day(
    house: Deployment, keys: MonthKeys, segments: Sequence[Segment], engine: Engine
) -> pa.Table:
    """Return (location, pseudonym, user_bytes) of the segments of one day, merged."""
    parts = [_EMPTY_USER_DAY.empty_table()]
    count = raw.parts_for(raw.rows_of(segments))
    for bucket in range(count if segments else 0):
        engine.register("raw", raw.read_bucket(house, keys, segments, bucket, count))
        parts.append(engine.query(rollup.USER_DAY).cast(_EMPTY_USER_DAY))
    return pa.concat_tables(parts)


def publish(house: Deployment, engine: Engine, rows: pa.Table) -> Published:
    """Decide the cells of `rows`, (location, pseudonym, user_bytes), and return their numbers."""
    engine.register("user_day", rows)
    locations: list[str] = sorted(pc.unique(rows["location"]).to_pylist())
    alone = dict(_numbers(engine, {location: location for location in locations}))

    @functools.cache
    def users(location: str) -> pa.Table:
        return rows.filter(pc.equal(rows["location"], location))

    def measure(members: frozenset[str]) -> Crowd:
        if len(members) == 1:
            return _crowd(alone[next(iter(members))])
        return crowd_of([users(location) for location in sorted(members)])

    regions = house.profile.regions
    levels = (lambda location: regions.get(location, location), lambda _location: OTHER)
    folding = release.fold(locations, levels, measure, house.profile)
    if folding is None:
        return Published(None, [])
    # A cell of one location is what it was alone; only folded ones have to be counted again.
    folded = {cell for location, cell in folding.items() if location != cell}
    again = {location: cell for location, cell in folding.items() if cell in folded}
    named = {cell: alone[cell] for cell in folding.values() if cell not in folded}
    numbers = {**named, **dict(_numbers(engine, again))}
    return Published(folding, [_row(numbers[cell], house.profile) for cell in sorted(numbers)])


def totals(engine: Engine, folding: pa.Table) -> dict[str, tuple[int, int]]:
    """Return (users, bytes) of every cell of the engine's `user_day` under `folding`."""
    engine.register("fold", folding)
    engine.register("user_cell", engine.query(rollup.USER_CELL))
    return {
        row["cell"]: (row["users"], row["total_bytes"])
        for row in engine.query(rollup.TOTALS).to_pylist()
    }


def fold_table(folding: Mapping[str, str]) -> pa.Table:
    """Return location → cell as the relation `fold` of the roll-up."""
    return pa.table(
        {
            "location": pa.array(list(folding.keys()), pa.string()),
            "cell": pa.array(list(folding.values()), pa.string()),
        }
    )


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
    """Return the crowd of every cell that `folding` maps the engine's `user_day` to."""
    return {cell: _crowd(numbers) for cell, numbers in _numbers(engine, folding)}


def _crowd(numbers: Mapping[str, Any]) -> Crowd:
    return Crowd(
        numbers["users"],
        numbers["total_bytes"],
        numbers["largest_bytes"],
        numbers["second_bytes"],
    )


def _numbers(engine: Engine, folding: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every cell and its numbers, so many cells at a time as fit in memory."""
    for batch in _batches(engine, folding):
        engine.register("fold", fold_table(batch))
        engine.register("user_cell", engine.query(rollup.USER_CELL))
        histograms: dict[str, dict[int, int]] = {}
        for row in engine.query(rollup.HISTOGRAM).to_pylist():
            histograms.setdefault(row["cell"], {})[row["edge"]] = row["users"]
        for row in engine.query(rollup.CELLS).to_pylist():
            yield row["cell"], {**row, "histogram": histograms[row["cell"]]}


def _batches(engine: Engine, folding: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Cut `folding` into parts of whole cells, each of so many rows as fit in memory."""
    if not folding:
        return
    counts = engine.query("SELECT location, COUNT(*) AS counted FROM user_day GROUP BY location")
    rows = dict(zip(*counts.to_pydict().values(), strict=True))
    cells: dict[str, list[str]] = {}
    for location, cell in sorted(folding.items(), key=lambda item: item[::-1]):
        cells.setdefault(cell, []).append(location)
    batch: dict[str, str] = {}
    held = 0
    for cell, locations in cells.items():
        more = sum(rows.get(location, 0) for location in locations)
        if batch and held + more > raw.ROWS_IN_MEMORY:
            yield batch
            batch, held = {}, 0
        batch |= dict.fromkeys(locations, cell)
        held += more
    yield batch


def _row(numbers: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
    return {
        "location": numbers["cell"],
        "users": numbers["users"],
        "bytes": numbers["total_bytes"],
        **{
            f"p{rank}_bytes": release.percentile(
                numbers[f"p{rank}"], numbers[f"above{rank}"], profile
            )
            for rank in (50, 90, 99)
        },
        "histogram": release.histogram(numbers["histogram"], profile),
    }
