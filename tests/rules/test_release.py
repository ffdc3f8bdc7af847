"""The release rule: no cell below k or dominated, and totals exact (CS-4, CT-4)."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.model.profile import DEFAULT_PROFILE, Profile, parse_profile
from aggregator.rules.release import Crowd, fold, histogram, passes, percentile, rounded

PROFILE = parse_profile(DEFAULT_PROFILE)
Users = Mapping[str, Mapping[int, int]]  # location → user → bytes
Levels = Sequence[Callable[[str], str]]
REGIONS = {"nl-ams": "r-benelux", "be-bru": "r-benelux", "us-nyc": "r-us", "us-lax": "r-us"}
FLAT: Levels = (lambda _leaf: "other",)
REGIONAL: Levels = (lambda leaf: REGIONS.get(leaf, leaf), lambda _leaf: "other")
NAMES = [*REGIONS, "r-benelux", "r-us", "de-fra", "fr-par", "jp-tyo", "a"]


def profile(k: int = 10) -> Profile:
    return dataclasses.replace(PROFILE, k=k)


def crowd(users: Users, members: frozenset[str]) -> Crowd:
    """Count distinct users, each with all that they used in any of `members`."""
    total: Counter[int] = Counter()
    for member in members:
        for user, amount in users[member].items():
            total[user] += amount
    largest = [*sorted(total.values(), reverse=True), 0, 0]
    return Crowd(len(total), total.total(), largest[0], largest[1])


def folded(users: Users, levels: Levels = FLAT, k: int = 10) -> Mapping[str, str] | None:
    return fold(list(users), levels, lambda members: crowd(users, members), profile(k))


def even(**sizes: int) -> Users:
    """Return locations with so many users, none of whom is elsewhere, of equal bytes."""
    starts = {name: 1000 * number for number, name in enumerate(sizes)}
    return {
        name.replace("_", "-"): {starts[name] + user: 5 for user in range(size)}
        for name, size in sizes.items()
    }


def cells(folding: Mapping[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for leaf, cell in folding.items():
        found.setdefault(cell, set()).add(leaf)
    return found


fleets = st.dictionaries(
    st.sampled_from(NAMES),
    st.dictionaries(
        st.integers(0, 40), st.sampled_from([0, 1, 1, 5, 5, 7, 300]), min_size=1, max_size=25
    ),
    max_size=len(NAMES),
)
all_levels = st.sampled_from([FLAT, REGIONAL])


@given(fleets, all_levels, st.integers(1, 12))
def test_cs4_every_published_cell_passes_and_nothing_is_lost(
    users: Users, levels: Levels, k: int
) -> None:
    folding = folded(users, levels, k)
    whole = crowd(users, frozenset(users))
    if folding is None:
        assert not passes(whole, profile(k))
        return
    assert folding.keys() == users.keys()
    found = cells(folding)
    crowds = {cell: crowd(users, frozenset(members)) for cell, members in found.items()}
    assert all(passes(each, profile(k)) for each in crowds.values())
    assert sum(each.bytes for each in crowds.values()) == whole.bytes
    for cell, members in found.items():
        others = members - {cell}
        if others and cell != "other":  # a cell holds its own leaf, or its own region
            assert cell in REGIONS.values()
            assert {REGIONS.get(member) for member in others} == {cell}
        if cell == "other":
            assert not members & {"other"}


@given(fleets, all_levels, st.integers(1, 12))
def test_a_day_that_passes_as_a_whole_is_never_withheld(
    users: Users, levels: Levels, k: int
) -> None:
    if passes(crowd(users, frozenset(users)), profile(k)):
        assert folded(users, levels, k) is not None


@given(fleets, all_levels, st.randoms(use_true_random=False))
def test_the_order_of_input_changes_nothing(
    users: Users, levels: Levels, shuffle: random.Random
) -> None:
    leaves = list(users)
    shuffle.shuffle(leaves)
    assert folded({leaf: users[leaf] for leaf in leaves}, levels, 5) == folded(users, levels, 5)


@given(fleets, st.integers(1, 12))
def test_cs4_folding_takes_the_fewest_users_first_and_no_more_than_it_needs(
    users: Users, k: int
) -> None:
    folding = folded(users, FLAT, k)
    order = sorted(users, key=lambda leaf: (len(users[leaf]), leaf))
    failing = [leaf for leaf in order if not passes(crowd(users, frozenset({leaf})), profile(k))]
    taken = set(failing)
    waiting = [leaf for leaf in order if leaf not in taken]
    while taken and waiting and not passes(crowd(users, frozenset(taken)), profile(k)):
        taken.add(waiting.pop(0))
    if folding is not None:
        assert {leaf for leaf, cell in folding.items() if cell == "other"} == taken


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ({}, {}),
        (even(a=10), {"a": "a"}),
        (even(a=9), None),
        (even(a=9, b=10), {"a": "other", "b": "other"}),
        (even(a=4, b=6, c=10), {"a": "other", "b": "other", "c": "c"}),
        (even(a=4, c=30, b=30, d=40), {"a": "other", "b": "other", "c": "c", "d": "d"}),
        (even(a=4, c=30, b=29, d=40), {"a": "other", "b": "other", "c": "c", "d": "d"}),
    ],
)
def test_cs4_folding_by_example(users: Users, expected: object) -> None:
    assert folded(users) == expected


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (even(nl_ams=4, be_bru=6, de_fra=20), ["r-benelux", "r-benelux", "de-fra"]),
        (even(nl_ams=4, be_bru=30, de_fra=20), ["r-benelux", "r-benelux", "de-fra"]),
        (even(nl_ams=4, de_fra=20, fr_par=30), ["other", "other", "fr-par"]),
        (even(nl_ams=4, be_bru=5, de_fra=20), ["other", "other", "other"]),
        (even(nl_ams=4, be_bru=5, de_fra=3), ["other", "other", "other"]),
        (even(nl_ams=20, be_bru=30, de_fra=3), ["other", "be-bru", "other"]),
        # A location that bears its region's name is a part of that region's cell.
        (even(nl_ams=4, r_benelux=30, be_bru=12), ["r-benelux", "r-benelux", "be-bru"]),
        (even(nl_ams=40, r_benelux=4, be_bru=12), ["nl-ams", "r-benelux", "r-benelux"]),
        (even(nl_ams=40, r_benelux=12, be_bru=12), ["nl-ams", "r-benelux", "be-bru"]),
    ],
)
def test_cs4_small_locations_fold_into_their_region_first(
    users: Users, expected: Sequence[str]
) -> None:
    folding = folded(users, REGIONAL)
    assert folding == (dict(zip(users, expected, strict=True)))


def test_an_app_called_other_keeps_its_own_versions_exact() -> None:
    sizes = {("other", "1.0"): 30, ("other", "1.1"): 4, ("ios", "2"): 3, ("tv", "1"): 50}
    levels = (lambda key: (key[0], "other"), lambda _key: ("other", "other"))
    folding = fold(
        list(sizes),
        levels,
        lambda members: Crowd(sum(sizes[member] for member in members)),
        profile(),
    )
    assert folding == {
        ("other", "1.0"): ("other", "other"),
        ("other", "1.1"): ("other", "other"),
        ("ios", "2"): ("other", "other"),
        ("tv", "1"): ("tv", "1"),
    }


@pytest.mark.parametrize(
    ("users", "amount", "largest", "second", "expected"),
    [
        (10, 100, 50, 35, True),
        (9, 100, 50, 35, False),
        (10, 100, 51, 0, False),
        (10, 100, 50, 36, False),
        (10, 1000, 500, 351, False),
        (10, 0, 0, 0, True),
        (10, 2**62, 2**61, 2**60, True),
    ],
)
def test_cs4_k_and_dominance(
    users: int, amount: int, largest: int, second: int, expected: bool
) -> None:
    assert passes(Crowd(users, amount, largest, second), profile()) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, 0), (9, 9), (999, 999), (1000, 1000), (1004, 1000), (1005, 1010), (9994, 9990),
     (9995, 10000), (123456, 123000), (123500, 124000), (10**15 + 1, 10**15), (999_500, 10**6)],
)  # fmt: skip
def test_three_significant_digits(number: int, expected: int) -> None:
    assert rounded(number) == expected


@given(st.integers(0, 2**63))
def test_rounding_keeps_three_digits_and_moves_half_a_unit_at_most(number: int) -> None:
    result = rounded(number)
    assert len(str(result).rstrip("0")) <= 3
    assert abs(result - number) * 2 <= 10 ** max(len(str(number)) - 3, 0)


def test_cs4_a_percentile_needs_k_users_above_it() -> None:
    assert percentile(123456, 10, profile()) == 123000
    assert percentile(123456, 9, profile()) is None


@given(
    st.dictionaries(st.sampled_from([0, 1000, 2000, 5000, 10_000, 20_000]), st.integers(1, 30)),
    st.integers(1, 12),
)
def test_cs4_no_bucket_of_a_histogram_is_below_k(counts: dict[int, int], k: int) -> None:
    buckets = histogram(counts, profile(k))
    if sum(counts.values()) < k:
        assert buckets == []
        return
    edges = [bucket["from_bytes"] for bucket in buckets]
    assert edges == sorted(set(edges))
    assert edges[0] == min(counts)
    assert set(edges) <= counts.keys()
    for bucket, above in zip(buckets, [*edges[1:], 10**9], strict=True):
        mine = sum(n for edge, n in counts.items() if bucket["from_bytes"] <= edge < above)
        assert mine == bucket["users"] >= k


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({0: 10, 1000: 3, 2000: 12}, [(0, 13), (2000, 12)]),
        ({0: 10, 1000: 10, 2000: 9}, [(0, 10), (1000, 19)]),
        ({0: 9, 1000: 10, 2000: 11}, [(0, 19), (2000, 11)]),
        ({0: 3, 1000: 3, 2000: 4}, [(0, 10)]),
        ({5000: 10}, [(5000, 10)]),
    ],
)
def test_a_bucket_below_k_merges_downward(
    counts: dict[int, int], expected: list[tuple[int, int]]
) -> None:
    found = [(bucket["from_bytes"], bucket["users"]) for bucket in histogram(counts, profile())]
    assert found == expected
