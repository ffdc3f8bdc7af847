"""The rows of a report: chosen, added up, compared with those of before, put in order.

A sum over cells never has distinct users: it is called `user_days`, and percentiles are not in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from aggregator.model.tables import Kind, Table

USER_DAYS: Final = "user_days"
SUCCESS_PERCENT: Final = "success_percent"
CHANGE_PERCENT: Final = "change_percent"
CHANGE_POINTS: Final = "success_change_points"
BEFORE: Final = "_before"
CROWD_FLOOR: Final = 1000
"""From how many users on a crowd is one: "thousands of other clients", the promise CS-4 says."""
_MAIN: Final = (
    "bytes",
    "attempts",
    "notices",
    "records",
    "least_users",
    "forecast_peak_bytes",
    "peak_bytes",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """By which column rows are put in order, and whether the largest comes first."""

    column: str
    descending: bool = False


def main_measure(data: pa.Table) -> str:
    """Return the measure that a report is about."""
    return next(name for name in _MAIN if name in data.column_names)


def summable(table: Table) -> tuple[str, ...]:
    """Return the measures of a table that may be added up."""
    counts = list(table.columns.items())[table.dimensions :]
    return tuple(name for name, kind in counts if kind is Kind.COUNT)


def summed(data: pa.Table, by: tuple[str, ...]) -> pa.Table:
    """Return sums by the dimensions `by` as a report has them: in order, users as user_days."""
    names = [USER_DAYS if name == "users" else name for name in data.column_names]
    return with_success_percent(ordered(data.rename_columns(names), by))


def crowds(data: pa.Table, by: tuple[str, ...]) -> pa.Table:
    """Return the cells of a day by the dimensions `by`, with the mean of their users (CS-4)."""
    mean = pc.divide(data["users"].cast(pa.float64()), data["cells"].cast(pa.float64()))
    position = data.column_names.index("users")
    rounded = pc.round(mean).cast(pa.int64())
    return ordered(data.set_column(position, "mean_users", rounded), by)


def with_success_percent(data: pa.Table) -> pa.Table:
    """Return `data` with the share of attempts that succeeded, in percent to one decimal.

    It is null where there was no attempt; a table without attempts is returned as it is.
    """
    if "attempts" not in data.column_names or SUCCESS_PERCENT in data.column_names:
        return data
    percent = _ratio(data["successes"], data["attempts"])
    return data.append_column(SUCCESS_PERCENT, percent)


def compared(now: pa.Table, before: pa.Table, by: tuple[str, ...]) -> pa.Table:
    """Return sums beside those of before: the main measure, its change, the success in points.

    A group that is in one of the two only has null for the other, and no change.
    """
    main = main_measure(now)
    told = [main, *([SUCCESS_PERCENT] if SUCCESS_PERCENT in now.column_names else [])]
    earlier = before.select([*by, *told]).rename_columns([*by, *(name + BEFORE for name in told)])
    both = now.join(earlier, list(by), join_type="full outer").combine_chunks()
    grown = pc.subtract(both[main], both[main + BEFORE])
    both = both.append_column(CHANGE_PERCENT, _ratio(grown, both[main + BEFORE]))
    if SUCCESS_PERCENT in told:
        points = pc.subtract(both[SUCCESS_PERCENT], both[SUCCESS_PERCENT + BEFORE])
        both = both.append_column(CHANGE_POINTS, pc.round(points, 1))
    return ordered(both, by)


def ordered(data: pa.Table, by: Sequence[str], first: Order | None = None) -> pa.Table:
    """Return the rows in the order of `first`, and where that is the same, of `by`; nulls last."""
    keys = [(name, "ascending") for name in by]
    if first is not None:
        keys = [(first.column, "descending" if first.descending else "ascending"), *keys]
    return data.take(pc.sort_indices(data, keys))


def _ratio(part: pa.ChunkedArray, whole: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return `part` in percent of `whole`, to one decimal, null where that is nothing."""
    # Sums may be beyond 2**53, where a float is no longer exact; a percentage need not be.
    parts, numbers = part.cast(pa.float64(), safe=False), whole.cast(pa.float64(), safe=False)
    some = pc.if_else(pc.greater(numbers, 0), numbers, pa.scalar(None, pa.float64()))
    return pc.round(pc.divide(pc.multiply(parts, 100.0), some), 1)
