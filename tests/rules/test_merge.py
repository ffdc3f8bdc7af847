"""The merge is one of a grow-only counter: duplicates, order and replays change nothing (CL-2)."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.rules.merge import (
    FLAGS_KEYS,
    FLAGS_NUMBERS,
    USAGE_KEYS,
    USAGE_NUMBERS,
    merge_flags,
    merge_usage,
)

TEXTS = {"location", "country", "app", "version"}
TYPES = {"pseudonym": pa.uint64(), "epoch": pa.uint64()}
Row = dict[str, object]
Merge = Callable[[pa.Table], pa.Table]


def rows(keys: list[str], numbers: list[str]) -> st.SearchStrategy[list[Row]]:
    few = {name: st.sampled_from(["a", "b-1"] if name in TEXTS else [0, 2**31]) for name in keys}
    many = {name: st.integers(0, 2**53 - 1) | st.integers(0, 3) for name in numbers}
    return st.lists(st.fixed_dictionaries({**few, **many}), max_size=20)


def table(found: list[Row], columns: list[str]) -> pa.Table:
    fields = [
        (name, pa.string() if name in TEXTS else TYPES.get(name, pa.int64())) for name in columns
    ]
    return pa.Table.from_pylist(found, schema=pa.schema(fields))


CASES = [
    pytest.param(merge_usage, USAGE_KEYS, USAGE_NUMBERS, id="usage"),
    pytest.param(merge_flags, FLAGS_KEYS, FLAGS_NUMBERS, id="flags"),
]


@pytest.mark.parametrize(("merge", "keys", "numbers"), CASES)
@given(data=st.data())
@settings(max_examples=40)
def test_merging_is_a_maximum_a_key_in_any_order_and_any_number_of_times(
    merge: Merge, keys: list[str], numbers: list[str], data: st.DataObject
) -> None:
    one, two, three = (data.draw(rows(keys, numbers)) for _ in range(3))

    def of(found: list[Row]) -> pa.Table:
        return table(found, [*keys, *numbers])

    def union(*tables: pa.Table) -> pa.Table:
        return merge(pa.concat_tables(tables))

    whole = merge(of([*one, *two, *three]))
    expected: dict[tuple[object, ...], list[int]] = {}
    for row in [*one, *two, *three]:
        best = expected.setdefault(tuple(row[key] for key in keys), [0] * len(numbers))
        for place, name in enumerate(numbers):
            best[place] = max(best[place], row[name])  # type: ignore[call-overload]
    assert [tuple(row.values()) for row in whole.to_pylist()] == [
        (*key, *best)
        for key, best in sorted(expected.items())  # type: ignore[type-var]
    ]
    say = pa.Table.to_pylist
    assert say(union(whole, whole)) == say(whole)
    assert say(union(of(two), of(one))) == say(union(of(one), of(two)))
    assert say(union(union(of(one), of(two)), of(three))) == say(whole)
    assert say(union(of(one), union(of(two), of(three)))) == say(whole)
    assert whole.schema.names == [*keys, *numbers]
