"""How the groups of a report went in its time: a few numbers each, to be drawn small."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from aggregator.pipeline.report_rows import SUCCESS_PERCENT, main_measure
from aggregator.stores.scan import Steps

_MOST: Final = 24
"""Into how many steps a time is divided at the most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trend:
    """The `measure` of each group (its dimensions' values) in steps of so many `days`.

    A number is the mean of a day, or a percentage; None where there was nothing.
    """

    measure: str
    days: int
    values: Mapping[tuple[Any, ...], Sequence[float | None]]

    @property
    def is_percent(self) -> bool:
        """Whether the numbers are percentages, of which zero is not the beginning."""
        return self.measure == SUCCESS_PERCENT


def steps(periods: Sequence[str]) -> Steps | None:
    """Return the steps that the days `periods` are divided into; None for a day or none."""
    if len(periods) < 2:
        return None
    first, last = dt.date.fromisoformat(periods[0]), dt.date.fromisoformat(periods[-1])
    return Steps(first, math.ceil(((last - first).days + 1) / _MOST))


def total(found: pa.Table, by: Sequence[str], measures: Sequence[str]) -> pa.Table:
    """Return the sums of each group over all its steps; OverflowError beyond 64 bits."""
    wide = found.select([*by, *measures])
    for name in measures:  # a sum of 64 bits would go round in silence
        position = wide.column_names.index(name)
        wide = wide.set_column(position, name, wide[name].cast(pa.decimal128(19)))
    sums = wide.group_by(list(by)).aggregate([(name, "sum") for name in measures])
    columns = {name: sums[name] for name in by}
    try:
        columns |= {name: sums[f"{name}_sum"].cast(pa.int64()) for name in measures}
    except pa.ArrowInvalid:
        raise OverflowError(found.column_names) from None
    return pa.table(columns)


def trend(found: pa.Table, by: Sequence[str], steps: Steps, periods: Sequence[str]) -> Trend:
    """Return how each group went, of sums by group and step."""
    days = _days(steps, periods)
    measure = main_measure(found)
    is_percent = measure == "attempts"
    columns = [*by, "step", measure, "successes" if is_percent else measure]
    values: dict[tuple[Any, ...], list[float | None]] = {}
    for *key, step, number, part in zip(*(found[one].to_pylist() for one in columns), strict=True):
        row = values.setdefault(tuple(key), [None] * len(days))
        if not is_percent:
            row[step] = number / days[step]
        elif number:
            row[step] = 100 * part / number
    return Trend(SUCCESS_PERCENT if is_percent else measure, steps.days, values)


def _days(steps: Steps, periods: Sequence[str]) -> list[int]:
    """Return how many days there are in each step, at least one."""
    numbers = [(dt.date.fromisoformat(day) - steps.first).days // steps.days for day in periods]
    counts = [0] * (max(numbers) + 1)
    for number in numbers:
        counts[number] += 1
    return [max(1, count) for count in counts]
