"""The portable SQL gives what a naive calculation gives (CS-4)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.rules import rollup
from aggregator.stores.engine import DuckDBEngine

amounts = st.sampled_from(
    [0, 0, 1, 999, 1000, 1000, 1999, 2000, 5 * 10**14, 2**53 - 1]
) | st.integers(0, 10**6)
locations = st.sampled_from(["a-1", "b-1", "c-1", "d-1"])
usage = st.lists(
    st.fixed_dictionaries(
        {
            "location": locations,
            "pseudonym": st.integers(0, 30) | st.just(2**64 - 1),
            "epoch": st.sampled_from([1, 2, 2**64 - 1]),
            "bytes": amounts,
        }
    ),
    max_size=80,
)
USAGE = pa.schema(
    [
        ("location", pa.string()),
        ("pseudonym", pa.uint64()),
        ("epoch", pa.uint64()),
        ("bytes", pa.int64()),
    ]
)
FOLD = {"a-1": "a-1", "b-1": "other", "c-1": "other", "d-1": "d-1"}
unhurried = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def engine() -> Iterator[DuckDBEngine]:
    with DuckDBEngine() as opened:
        yield opened


def cells_of(engine: DuckDBEngine, rows: list[dict[str, Any]]) -> dict[str, Counter[int]]:
    """Load `rows` as the day's; return, calculated by hand, each cell's bytes by user."""
    engine.register("raw", pa.Table.from_pylist(rows, schema=USAGE))
    day = engine.query(rollup.USER_DAY)
    engine.register("user_day", day)
    engine.register("fold", pa.table({"location": list(FOLD), "cell": list(FOLD.values())}))
    engine.register("user_cell", engine.query(rollup.USER_CELL))
    best: dict[tuple[str, int, int], int] = {}
    for row in rows:
        key = (row["location"], row["pseudonym"], row["epoch"])
        best[key] = max(best.get(key, 0), row["bytes"])
    by_location: Counter[tuple[str, int]] = Counter()
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for (location, user, _), number in best.items():
        by_location[location, user] += number
        found[FOLD[location]][user] += number
    told = {(row["location"], row["pseudonym"]): row["user_bytes"] for row in day.to_pylist()}
    assert told == by_location
    return found


def nearest_rank(values: list[int], percent: int) -> int:
    """Return the smallest value that at least `percent` of all values do not exceed."""
    return next(
        value for value in sorted(values)
        if sum(other <= value for other in values) * 100 >= percent * len(values)
    )  # fmt: skip


@given(rows=usage)
@unhurried
def test_cells_are_what_a_naive_calculation_says(
    engine: DuckDBEngine, rows: list[dict[str, Any]]
) -> None:
    by_hand = cells_of(engine, rows)
    expected = []
    for cell, users in sorted(by_hand.items()):
        values = sorted(users.values())
        row: dict[str, Any] = {
            "cell": cell, "users": len(users), "total_bytes": sum(values),
            "largest_bytes": values[-1], "second_bytes": values[-2] if len(values) > 1 else 0,
        }  # fmt: skip
        ranks = {rank: nearest_rank(values, rank) for rank in (50, 90, 99)}
        row |= {f"p{rank}": value for rank, value in ranks.items()}
        row |= {f"above{rank}": sum(v > value for v in values) for rank, value in ranks.items()}
        expected.append(row)
    assert engine.query(rollup.CELLS).to_pylist() == expected
    totals = [{name: row[name] for name in ("cell", "users", "total_bytes")} for row in expected]
    assert engine.query(rollup.TOTALS).to_pylist() == totals


@given(rows=usage)
@unhurried
def test_histograms_count_every_user_once(engine: DuckDBEngine, rows: list[dict[str, Any]]) -> None:
    by_hand = cells_of(engine, rows)
    expected = Counter(
        (cell, max(edge for edge in rollup.EDGES if edge <= value))
        for cell, users in by_hand.items()
        for value in users.values()
    )
    found = [tuple(row.values()) for row in engine.query(rollup.HISTOGRAM).to_pylist()]
    assert found == [(*key, count) for key, count in sorted(expected.items())]


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 11, 99, 100, 101, 200])
def test_quantiles_are_of_nearest_rank(engine: DuckDBEngine, count: int) -> None:
    cells_of(
        engine,
        [
            {"location": "a-1", "pseudonym": n, "epoch": 1, "bytes": n * 10}
            for n in range(1, count + 1)
        ],
    )
    row = engine.query(rollup.CELLS).to_pylist()[0]
    for rank in (50, 90, 99):
        place = -(-count * rank // 100)
        assert row[f"p{rank}"] == place * 10
        assert row[f"above{rank}"] == count - place


def test_edges_are_1_2_5_decimal() -> None:
    assert rollup.EDGES[:5] == (0, 1000, 2000, 5000, 10_000)
    assert list(rollup.EDGES) == sorted(set(rollup.EDGES))
    assert all(str(edge).rstrip("0") in {"", "1", "2", "5"} for edge in rollup.EDGES)


flags = st.lists(
    st.fixed_dictionaries(
        {
            "location": locations,
            "country": st.sampled_from(["DE", "ZZ"]),
            "asn": st.sampled_from([0, 3320, 2**32 - 1]),
            "app": st.sampled_from(["ios", "unknown"]),
            "version": st.sampled_from(["1.0", "unknown"]),
            "epoch": st.sampled_from([1, 2]),
            "users": st.integers(0, 50),
            "attempts": st.integers(0, 50),
            "successes": st.integers(0, 50),
        }
    ),
    max_size=40,
)
NUMBERS = ("users", "attempts", "successes")
LEAF = ("location", "country", "asn", "app", "version")


@given(rows=flags)
@unhurried
def test_flags_sum_epochs_and_their_floor_is_the_largest_epochs_users(
    engine: DuckDBEngine, rows: list[dict[str, Any]]
) -> None:
    types = {"asn": pa.int64(), "epoch": pa.uint64(), **dict.fromkeys(NUMBERS, pa.int64())}
    names = [*LEAF, "epoch", *NUMBERS]
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    engine.register("raw", pa.Table.from_pylist(rows, schema=schema))
    engine.register("flags_day", engine.query(rollup.FLAGS_DAY))
    best: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        held = best.setdefault(tuple(row[name] for name in (*LEAF, "epoch")), [0, 0, 0])
        held[:] = [max(old, row[name]) for old, name in zip(held, NUMBERS, strict=True)]
    leaves: dict[tuple[Any, ...], list[list[int]]] = defaultdict(list)
    for key, numbers in best.items():
        leaves[key[:-1]].append(numbers)
    for columns in (("location", "country"), ("asn",), ("app", "version"), LEAF):
        assert_cells(engine, columns, leaves)


def assert_cells(
    engine: DuckDBEngine, columns: tuple[str, ...], leaves: dict[tuple[Any, ...], list[list[int]]]
) -> None:
    expected: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for key, epochs in leaves.items():
        cell = expected[tuple(key[LEAF.index(name)] for name in columns)]
        sums = [sum(each) for each in zip(*epochs, strict=True)]
        cell[:] = [a + b for a, b in zip(cell, [max(e[0] for e in epochs), *sums], strict=True)]
    found = engine.query(rollup.flag_cells(columns)).to_pylist()
    assert [tuple(row.values()) for row in found] == [(*k, *v) for k, v in sorted(expected.items())]
