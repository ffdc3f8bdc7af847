"""The truth itself against cases small enough to be worked out by hand; no package involved."""

from __future__ import annotations

import gzip
import json
import random

import pyarrow as pa
import pytest

from .flags import Flags, Outcome, check_one_level, check_two_levels, merge_flags
from .months import Shape, make_month
from .truth import (
    Reading,
    histogram,
    merge,
    passes,
    percentile,
    release,
    release_month,
    three_digits,
    usage_daily,
)
from .variants import VARIANTS, WRITERS, Variant, record_of, records_of, write


def crowd(prefix: str, count: int, size: int = 100) -> dict[str, int]:
    """Return a cell of `count` users with `size` bytes each."""
    return {f"{prefix}{index}": size for index in range(count)}


def test_merge_takes_the_maximum_and_then_adds_epochs() -> None:
    """CS-2: a replayed, lower or repeated total changes nothing; a restart adds."""
    readings = [
        Reading("2026-10-05", "a", "us-nyc", "1", 5),
        Reading("2026-10-05", "a", "us-nyc", "1", 9),
        Reading("2026-10-05", "a", "us-nyc", "1", 7),
        Reading("2026-10-05", "a", "us-nyc", "2", 4),
        Reading("2026-10-05", "a", "de-fra", "1", 1),
        Reading("2026-10-06", "a", "us-nyc", "1", 2),
    ]
    assert merge(readings) == {
        "2026-10-05": {"us-nyc": {"a": 13}, "de-fra": {"a": 1}},
        "2026-10-06": {"us-nyc": {"a": 2}},
    }
    assert merge(readings[::-1] + readings) == merge(readings)


@pytest.mark.parametrize(
    ("cell", "good"),
    [
        (crowd("u", 10), True),
        (crowd("u", 9), False),
        ({**crowd("u", 9, 100), "big": 900}, True),  # exactly 50 %
        ({**crowd("u", 9, 100), "big": 901}, False),
        ({**crowd("u", 15, 10), "x": 425, "y": 425}, True),  # exactly 85 % in two
        ({**crowd("u", 15, 10), "x": 426, "y": 425}, False),
        (crowd("u", 10, 0), True),
    ],
)
def test_release_rule(cell: dict[str, int], good: bool) -> None:
    """CS-4: k users, one at most half, two at most 85 %; both limits belong to the good side."""
    assert passes(cell) is good


def test_failing_cells_fold_and_their_users_are_counted_once() -> None:
    """CS-4: `other` holds distinct users."""
    cells = {"a-1": crowd("u", 6), "b-1": crowd("v", 20), "c-1": crowd("u", 5) | crowd("w", 4)}
    done = release(cells)
    assert set(done.named) == {"b-1"}
    assert done.cells()["other"] == {**crowd("u", 5, 200), "u5": 100, **crowd("w", 4)}


def test_a_failing_residual_takes_in_the_smallest_named_cell() -> None:
    """CS-4: by users, ties by name, one at a time."""
    cells = {
        "small": crowd("s", 3),
        "z-1": crowd("z", 10),
        "b-1": crowd("b", 10),
        "big": crowd("g", 50),
    }
    done = release(cells)
    assert set(done.named) == {"z-1", "big"}
    assert len(done.residual) == 13


def test_the_same_users_in_every_folded_cell_do_not_make_a_crowd() -> None:
    """CS-4: three cells of the same five users are five users."""
    cells = {name: crowd("u", 5) for name in ("a-1", "b-1", "c-1")}
    assert release(cells).withheld
    assert release({**cells, "d-1": crowd("w", 12)}).named == {}
    assert len(release({**cells, "d-1": crowd("w", 12)}).residual) == 17


def test_a_day_that_cannot_pass_is_withheld_whole() -> None:
    """CS-4: one user's bytes weigh more than all others."""
    done = release({"a-1": crowd("a", 30, 1), "b-1": {"whale": 10**6}})
    assert done.withheld
    assert done.cells() == {}


def test_a_month_keeps_what_a_day_folded_in_other() -> None:
    """CS-4: month minus days uncovers no folded cell."""
    first = release({"a-1": crowd("a", 20), "b-1": crowd("b", 20), "c-1": crowd("c", 12)})
    second = release({"a-1": crowd("a", 20), "b-1": crowd("b", 3), "c-1": crowd("c", 12)})
    month = release_month({"2026-10-01": first, "2026-10-02": second})
    assert set(second.named) == {"a-1"}
    assert month.named == {
        "a-1": crowd("a", 20, 200),
        "b-1": crowd("b", 20),
        "c-1": crowd("c", 12),
    }
    assert month.residual == {**crowd("b", 3), **crowd("c", 12)}


def test_percentiles() -> None:
    """CS-4: nearest rank, three digits, only with k users strictly above."""
    assert percentile(range(1, 101), 50) == 50
    assert percentile(range(1, 101), 90) == 90
    assert percentile(range(1, 101), 99) is None
    assert percentile(range(1, 21), 50) == 10
    assert percentile(range(1, 20), 50) is None
    assert percentile([5] * 100, 50) is None
    assert [three_digits(n) for n in (0, 999, 1004, 1005, 99_960, 123_456_789)] == [
        0,
        999,
        1000,
        1010,
        100_000,
        123_000_000,
    ]


def test_histogram() -> None:
    """CS-4: 1-2-5 edges; a bucket below k merges downward."""
    values = [*[15_000] * 12, *[25_000] * 10, *[60_000] * 3, 700_000]
    assert histogram(values) == {10_000: 12, 20_000: 14}
    assert histogram([3, *[15_000] * 12]) == {0: 13}


def test_flags_crowd_is_the_largest_epoch() -> None:
    """CS-1: k on the largest epoch, the published users are the sum over epochs."""
    flag = Flags("2026-10-05", "us-nyc", "1", "DE", 0, None, None, 6, 9, 8)
    merged = merge_flags([flag, flag._replace(users=4), flag._replace(epoch="2", users=5)])
    assert [*merged.values()] == [Outcome(6, 11, 18, 16)]


def test_one_level_check_finds_what_is_wrong() -> None:
    """CS-4: the checker accepts the right rows and no others."""
    cells = {1: Outcome(50, 50, 60, 55), 2: Outcome(12, 12, 14, 13), 3: Outcome(4, 4, 5, 4)}
    right = [{"asn": 1, **cells[1].row()}, {"asn": -1, **(cells[2] + cells[3]).row()}]
    assert check_one_level(right, cells) == []
    assert check_one_level(right[:1], cells)
    assert check_one_level([{"asn": n, **cell.row()} for n, cell in cells.items()], cells)


def test_two_level_check_finds_what_is_wrong() -> None:
    """CS-4: the checker accepts the right rows and no others."""
    cells = {
        ("a", "DE"): Outcome(50, 50, 60, 55),
        ("a", "FR"): Outcome(6, 6, 7, 6),
        ("a", "NL"): Outcome(5, 5, 5, 5),
        ("b", "DE"): Outcome(10, 10, 10, 10),
    }
    names = ("p", "c")

    def row(parent: str, child: str, outcome: Outcome) -> dict[str, object]:
        return {"p": parent, "c": child, **outcome.row()}

    rest = cells["a", "FR"] + cells["a", "NL"]
    good = [row("a", "DE", cells["a", "DE"]), row("b", "DE", cells["b", "DE"])]
    assert check_two_levels([*good, row("a", "other", rest)], names, cells) == []
    assert check_two_levels(good, names, cells)
    assert check_two_levels([*good, row("a", "other", rest)] * 2, names, cells)
    named = [row(*pair, outcome) for pair, outcome in cells.items()]
    assert check_two_levels(named, names, cells)
    whole = sum(cells.values(), Outcome())
    assert check_two_levels([row("other", "other", whole)], names, cells)


@pytest.mark.parametrize("seed", range(5))
def test_the_generator_meant_what_the_merge_finds(seed: int) -> None:
    """CS-2: two independent ways to the same users and bytes."""
    month = make_month(seed)
    assert merge(month.readings) == month.meant
    assert make_month(seed).readings == month.readings


def test_months_exercise_the_release_rule() -> None:
    """CS-4: among a few months there are named, small and dominated cells, and folded ones."""
    seen = set()
    for seed in range(5):
        for cells in make_month(seed).meant.values():
            done = release(cells)
            seen |= {"named"} if done.named else set()
            seen |= {"folded"} if done.residual else set()
            seen |= {
                "small" if len(cell) < 10 else "dominated"
                for cell in cells.values()
                if not passes(cell)
            }
    assert seen >= {"named", "folded", "small", "dominated"}
    assert any(value["p50_bytes"] for value in usage_daily(make_month(0).readings).values())


def test_writers_change_the_spelling_and_nothing_else() -> None:
    """CS-2: every spelling of a record reads back as the record."""
    rng = random.Random(3)
    for reading in make_month(1, Shape(users=30, days=1)).readings:
        record = record_of(reading)
        for writer in WRITERS:
            line = writer(record, rng)
            assert json.loads(line) == record
            assert b"\n" not in line


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_variants_hold_the_whole_month(
    variant: Variant, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """CS-2: files, packing and order lose no record."""
    records = records_of(make_month(2, Shape(users=40, days=2)))
    read: list[str] = []
    paths = write(records, variant, tmp_path_factory.mktemp("variant"))
    for path in paths:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        elif path.suffix == ".zst":
            data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
        read += [json.dumps(json.loads(line), sort_keys=True) for line in data.splitlines()]
    wanted = {json.dumps(record, sort_keys=True) for record in records}
    assert set(read) == wanted
    assert len(read) >= len(records)
    assert len(paths) == variant.files
