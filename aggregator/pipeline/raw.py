"""Raw months: add rows to a day, compact its segments, freeze it when it is closed.

Adding is idempotent, since the merge is: a segment that another one has taken up changes nothing
while both are there, so no list of valid segments has to be kept, and a killed run leaves nothing
to repair.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from aggregator.errors import IntegrityError
from aggregator.pipeline.deployment import Deployment
from aggregator.rules.merge import merge_flags, merge_usage
from aggregator.stores.keys import MonthKeys
from aggregator.stores.segments import MAX_BUCKETS, Segment, split

USAGE: Final = "usage"
FLAGS: Final = "flags"
FOLDS: Final = "folds"
FROZEN: Final = "-closed"

_MERGE: Final[dict[str, Callable[[pa.Table], pa.Table]]] = {USAGE: merge_usage, FLAGS: merge_flags}

# Rows of a day from which its segments are written in user buckets.
BUCKETED_ROWS: Final = 500_000
# Rows that are read and merged at a time: about 30 bytes each, some copies of them.
ROWS_IN_MEMORY: Final = 1_000_000
# About what a sealed row takes; only memory hangs on it.
_BYTES_A_ROW: Final = 13
# A day is compacted when it has so many segments of about the same size.
_MANY: Final = 8
_ALIKE: Final = 4


def add(house: Deployment, keys: MonthKeys, day: str, kind: str, table: pa.Table) -> None:
    """Merge `table` and seal it as one more segment of `day`, then compact if there are many."""
    merged = _MERGE[kind](table)
    buckets = _bucket_count(kind, merged.num_rows)
    house.segments.write(keys, day, kind, buckets=split(merged, buckets), count=buckets)
    # What came in is sealed. If an older segment does not open, the roll-up names its day.
    with contextlib.suppress(IntegrityError):
        compact(house, keys, day, kind)


def compact(house: Deployment, keys: MonthKeys, day: str, kind: str) -> None:
    """Merge the smaller segments of `day` into one while there are many of about one size.

    Sizes grow by a factor, so that a row is rewritten a logarithmic number of times and a day
    keeps a logarithmic number of segments.
    """
    segments = house.segments.list(day, kind)
    while len(segments) >= _MANY and segments[_MANY - 1].size <= _ALIKE * segments[0].size + 65536:
        _replace(house, keys, day, kind, segments[:_MANY], None)
        segments = house.segments.list(day, kind)
    if len(segments) >= 2 * _MANY:
        _replace(house, keys, day, kind, segments, None)


def freeze(house: Deployment, keys: MonthKeys, day: str, kind: str) -> Segment | None:
    """Merge all segments of `day` into its closed one, once; return it, None if there are none.

    From then on the closed segment is what the day's tables say; what is added later is late.
    """
    closed = house.segments.list(day, kind + FROZEN)
    if closed:
        return closed[0]
    segments = house.segments.list(day, kind)
    if not segments:
        return None
    _replace(house, keys, day, kind, segments, "all")
    return house.segments.list(day, kind + FROZEN)[0]


def rows_of(segments: Iterable[Segment]) -> int:
    """Return about how many rows `segments` have; only memory hangs on it."""
    return sum(segment.size for segment in segments) // _BYTES_A_ROW


def parts_for(rows: int) -> int:
    """Return in how many buckets so many rows are read, so that each fits in memory."""
    parts = 1
    while parts < MAX_BUCKETS and rows > parts * ROWS_IN_MEMORY:
        parts *= 2
    return parts


def read_bucket(
    house: Deployment, keys: MonthKeys, segments: Iterable[Segment], bucket: int = 0, of: int = 1
) -> pa.Table:
    """Return the rows of `segments` that lie in one user bucket `of` so many, not yet merged."""
    return pa.concat_tables(
        [house.segments.read(keys, segment, bucket, of) for segment in segments]
    )


def _replace(
    house: Deployment, keys: MonthKeys, day: str, kind: str, segments: Sequence[Segment],
    frozen_name: str | None,
) -> None:  # fmt: skip
    """Seal the merge of `segments` as one, then remove them."""
    count = _bucket_count(kind, rows_of(segments))
    count = max(count, *(segment.buckets for segment in segments))
    parts = min(parts_for(rows_of(segments)), count)
    share = count // parts

    def buckets() -> Iterator[pa.Table]:
        for part in range(parts):
            merged = _MERGE[kind](read_bucket(house, keys, segments, part, parts))
            yield from split(merged, count, range(part * share, (part + 1) * share))

    written = kind if frozen_name is None else kind + FROZEN
    house.segments.write(keys, day, written, buckets=buckets(), count=count, name=frozen_name)
    house.segments.remove(segments)


def _bucket_count(kind: str, rows: int) -> int:
    return MAX_BUCKETS if kind == USAGE and rows >= BUCKETED_ROWS else 1


def days_of(table: pa.Table) -> list[str]:
    """Return the distinct days of a table with a dictionary column `day`."""
    days: list[str] = pc.unique(table["day"]).to_pylist()
    return sorted(days)
