"""The rule of the public release: no row of fewer than 50 users, and nothing is lost (CT-4)."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.errors import ConfigError
from aggregator.model.profile import DEFAULT_PROFILE, LEAST_EXPORT_K, parse_profile
from aggregator.rules import public
from aggregator.rules.public import Cell, Kind, Release, Withheld
from aggregator.rules.release import Crowd, passes

PROFILE = parse_profile(DEFAULT_PROFILE)
REGIONS = {"nl-ams": "r-benelux", "be-bru": "r-benelux", "us-nyc": "r-us", "us-lax": "r-us"}
NAMES = [*REGIONS, "r-benelux", "r-us", "de-fra", "fr-par", "jp-tyo", "other"]
Rows = Sequence[Mapping[str, Any]]


def usage(location: str, users: int, size: int = 1000, **percentiles: int) -> dict[str, Any]:
    told = {name: percentiles.get(name) for name in public.ABOVE_PERCENT}
    return {"location": location, "users": users, "bytes": size, **told}


def flags(location: str, users: int, attempts: int = 9, successes: int = 8) -> dict[str, Any]:
    return {"location": location, "users": users, "attempts": attempts, "successes": successes}


def made(rows: Rows, connections: Rows = (), k: int = 50, *, regional: bool = False) -> Release:
    return public.release(
        public.leaves_of(rows, connections), REGIONS if regional else {}, k
    )  # fmt: skip


def told(release: Release, measure: str = "users") -> dict[str, Any]:
    return {cell.location: getattr(cell, measure) for cell in release.cells}


names = st.sampled_from(NAMES)
sizes = st.integers(0, 10**6)
months = st.lists(
    st.builds(usage, names, st.integers(1, 130), sizes, p50_bytes=sizes, p90_bytes=sizes),
    max_size=len(NAMES),
    unique_by=lambda row: str(row["location"]),
)
connections = st.lists(
    st.builds(
        lambda name, users, attempts, failed: flags(
            name, users, attempts, max(0, attempts - failed)
        ),
        st.sampled_from([*NAMES, "se-sto"]),
        st.integers(1, 130),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    max_size=len(NAMES),
    unique_by=lambda row: str(row["location"]),
)
floors = st.integers(50, 100)


@given(months, connections, floors, st.booleans())
def test_ct4_every_row_has_k_users_and_totals_are_exact(
    rows: Rows, flagged: Rows, k: int, regional: bool
) -> None:
    release = made(rows, flagged, k, regional=regional)
    assert public.check(release) == []
    if release.withheld is not None:
        assert all(row["users"] < k for row in rows)
        assert not release.cells
        return
    users = {row["location"]: row["users"] for row in rows}
    assert sum(cell.bytes for cell in release.cells) == sum(row["bytes"] for row in rows)
    found = {row["location"]: row for row in flagged if row["location"] in users}
    outside = [row for row in flagged if row["location"] not in users]
    if outside:
        name = "other"
        parts = [*([found["other"]] if "other" in found else []), *outside]
        if "other" in users:
            found[name] = {one: sum(row[one] for row in parts)
                           for one in ("users", "attempts", "successes")}  # fmt: skip
    for cell in release.cells:
        members = [name for name, target in release.folding.items() if target == cell.location]
        assert max(users.get(name, 0) for name in members) >= k
        assert len(members) > 1 or members == [cell.location]
        witnesses = [
            name for name in members
            if name != "other" and users[name] >= k and found.get(name, {}).get("users", 0) >= k
        ]  # fmt: skip
        for measure in ("attempts", "successes"):
            expected = sum(found[name][measure] for name in members if name in found)
            assert getattr(cell, measure) == (expected if witnesses else None)
        if cell.kind is Kind.LOCATION:
            assert members == [cell.location]
            assert cell.users == users[cell.location] >= k
        else:
            assert cell.users is cell.p50_bytes is cell.p90_bytes is cell.p99_bytes is None


@given(months, connections, floors)
def test_what_is_withheld_is_said(rows: Rows, flagged: Rows, k: int) -> None:
    release = made(rows, flagged, k)
    if release.withheld is None:
        attempts = sum(value or 0 for value in told(release, "attempts").values())
        assert release.connections_withheld == (attempts < sum(row["attempts"] for row in flagged))


@given(months, connections, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(
    rows: Rows, flagged: Rows, regional: bool, shuffle: random.Random
) -> None:
    mixed, mixed_flags = list(rows), list(flagged)
    shuffle.shuffle(mixed)
    shuffle.shuffle(mixed_flags)
    assert made(mixed, mixed_flags, regional=regional) == made(rows, flagged, regional=regional)


@given(months, floors)
def test_folding_takes_the_fewest_users_first_and_no_more_than_it_needs(rows: Rows, k: int) -> None:
    release = made([row for row in rows if row["location"] != "other"], k=k)
    order = sorted((leaf.users, leaf.location) for leaf in release.leaves)
    folded = [name for users, name in order if users < k]
    larger = [name for users, name in order if users >= k]
    if folded and larger:
        folded.append(larger[0])
    if release.withheld is None:
        assert {n for n, cell in release.folding.items() if cell == "other"} == set(folded)


cells_of_users = st.lists(
    st.dictionaries(st.integers(0, 12), st.integers(0, 1000), min_size=1, max_size=8),
    min_size=1,
    max_size=5,
)


def crowd(users: Mapping[int, int]) -> Crowd:
    first, second = [*sorted(users.values(), reverse=True), 0, 0][:2]
    return Crowd(len(users), sum(users.values()), first, second)


@given(cells_of_users, st.integers(1, 100), st.integers(1, 100))
def test_ct4_a_union_of_cells_without_dominance_has_none(
    cells: list[dict[int, int]], largest: int, two_largest: int
) -> None:
    """Users may be in several cells; whatever the two percentages are."""
    profile = dataclasses.replace(
        PROFILE, k=1, largest_percent=largest, two_largest_percent=two_largest
    )
    union: Counter[int] = Counter()
    for cell in cells:
        if passes(crowd(cell), profile):
            union.update(cell)
    assert not union or passes(crowd(union), profile)


@pytest.mark.parametrize(
    ("rows", "flagged", "expected"),
    [
        ([usage("a", 50)], [], {"a": 50}),
        ([usage("a", 49), usage("b", 50)], [], {"other": None}),
        ([usage("a", 49), usage("b", 60), usage("c", 50)], [], {"other": None, "b": 60}),
        ([usage("b", 50), usage("a", 50), usage("c", 9)], [], {"other": None, "b": 50}),
        ([usage("other", 50), usage("a", 9), usage("b", 99)], [], {"other": None, "b": 99}),
        ([usage("other", 20), usage("a", 70)], [], {"other": None}),
        # Usage alone decides which rows there are.
        ([usage("a", 70), usage("b", 60)], [flags("c", 99)], {"a": 70, "b": 60}),
        ([usage("a", 70), usage("b", 60)], [flags("a", 49)], {"a": 70, "b": 60}),
    ],
)
def test_ct4_folding_by_example(rows: Rows, flagged: Rows, expected: object) -> None:
    assert told(made(rows, flagged)) == expected


def test_a_location_folds_into_its_region_before_other() -> None:
    rows = [usage("nl-ams", 30, 5), usage("be-bru", 60, 7), usage("de-fra", 80), usage("us-nyc", 9)]
    release = made([*rows, usage("fr-par", 55)], regional=True)
    assert told(release) == {"de-fra": 80, "other": None, "r-benelux": None}
    assert told(release, "bytes")["r-benelux"] == 12
    kinds = {cell.location: cell.kind for cell in release.cells}
    assert kinds["r-benelux"] is Kind.REGION


@pytest.mark.parametrize(
    ("rows", "flagged", "expected"),
    [
        # Fewer than k users of connections for certain.
        ([usage("a", 70), usage("b", 60)], [flags("a", 49), flags("b", 99)], {"a": None, "b": 9}),
        # What only connections name is nowhere: nobody with traffic is known to be behind it.
        ([usage("a", 70), usage("other", 60)], [flags("a", 99), flags("c", 99)],
         {"a": 9, "other": None}),
        # One member's crowd does not vouch for the connections of another.
        ([usage("a", 20), usage("b", 60), usage("c", 70)], [flags("a", 200)],
         {"c": None, "other": None}),
        # Both are of one location, so the fold tells what its members have.
        ([usage("a", 20), usage("b", 60), usage("c", 70)], [flags("a", 9), flags("b", 99)],
         {"c": None, "other": 18}),
        # other of connections holds rare countries of named locations: its crowd is not known.
        ([usage("a", 70), usage("other", 900)], [flags("other", 900)], {"a": None, "other": None}),
    ],
)  # fmt: skip
def test_ct4_connections_have_a_crowd_of_their_own(
    rows: Rows, flagged: Rows, expected: object
) -> None:
    assert told(made(rows, flagged), "attempts") == expected


def test_what_the_tables_folded_into_a_region_is_not_a_location() -> None:
    release = made([usage("r-us", 90, p50_bytes=3), usage("de-fra", 80)], regional=True)
    assert told(release) == {"de-fra": 80, "r-us": None}
    assert told(release, "p50_bytes")["r-us"] is None


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (99, (None, None, None)),
        (100, (1, None, None)),
        (499, (1, None, None)),
        (500, (1, 2, None)),
        (4999, (1, 2, None)),
        (5000, (1, 2, 3)),
    ],
)
def test_a_percentile_has_k_users_above_it(users: int, expected: object) -> None:
    (cell,) = made([usage("a", users, p50_bytes=1, p90_bytes=2, p99_bytes=3)]).cells
    assert (cell.p50_bytes, cell.p90_bytes, cell.p99_bytes) == expected


def test_a_percentile_that_the_tables_do_not_tell_is_not_told() -> None:
    (cell,) = made([usage("a", 900, p90_bytes=2)]).cells
    assert (cell.p50_bytes, cell.p90_bytes) == (None, 2)


def test_why_a_month_is_withheld() -> None:
    assert made([]).withheld is Withheld.NO_USAGE
    assert made([], [flags("a", 900)]).withheld is Withheld.NO_USAGE
    assert made([usage("a", 49), usage("b", 49)]).withheld is Withheld.FEW_USERS
    leaves = public.leaves_of([usage("a", 900)], [])
    release = public.withhold(leaves, {}, 50, Withheld.NOT_VERIFIED)
    assert release.cells == ()
    assert public.check(release) == []


def test_ct4_no_profile_gets_below_fifty() -> None:
    with pytest.raises(ValueError, match="k of a public release"):
        made([usage("a", 900)], k=LEAST_EXPORT_K - 1)


@pytest.mark.parametrize(("lines", "k"), [("", 50), ("[export]\n", 50), ("[export]\nk = 80\n", 80)])
def test_a_profile_may_ask_for_more_users_but_need_not(lines: str, k: int) -> None:
    assert parse_profile(DEFAULT_PROFILE + lines).export_k == k


@pytest.mark.parametrize("line", ["k = 49", "k = 50.0", "k = true", "k = 1_000_001", "kk = 50"])
def test_ct4_a_profile_below_fifty_is_refused_in_one_line(line: str) -> None:
    with pytest.raises(ConfigError, match=r"export\.k") as told_of:
        parse_profile(f"{DEFAULT_PROFILE}[export]\n{line}\n")
    assert "\n" not in str(told_of.value)


def test_a_profile_must_bound_what_one_user_has_of_a_cell() -> None:
    assert public.is_strict_enough(PROFILE)
    assert not public.is_strict_enough(dataclasses.replace(PROFILE, largest_percent=51))
    assert not public.is_strict_enough(dataclasses.replace(PROFILE, two_largest_percent=86))


BASE = made(
    [
        usage("a", 9), usage("b", 60), usage("c", 700, 5000, p50_bytes=7, p90_bytes=8, p99_bytes=9),
        usage("nl-ams", 20), usage("be-bru", 80), usage("r-us", 75),
    ],
    [flags("b", 99), flags("c", 99), flags("se-sto", 7)],
    regional=True,
)  # fmt: skip


def with_cell(release: Release, location: str, **changes: Any) -> Release:
    cells = tuple(
        dataclasses.replace(cell, **changes) if cell.location == location else cell
        for cell in release.cells
    )
    return dataclasses.replace(release, cells=cells)


def named_alone(release: Release) -> Release:
    """Name a location of nine users, as if it passed."""
    cell = Cell("a", Kind.LOCATION, 9, 1000, None, None, None, None, None)
    other = next(cell for cell in release.cells if cell.location == "other")
    rest = with_cell(release, "other", bytes=other.bytes - 1000).cells
    folding = {**release.folding, "a": "a"}
    return dataclasses.replace(release, cells=(cell, *rest), folding=folding)


def single_residual(release: Release) -> Release:
    """Let `other` be one location of enough users: its name is not told, but anybody finds it."""
    return dataclasses.replace(
        made([usage("b", 60), usage("c", 700)]),
        folding={"b": "other", "c": "c"},
        cells=(
            Cell("c", Kind.LOCATION, 700, 1000, None, None, None, None, None),
            Cell("other", Kind.OTHER, None, 1000, None, None, None, None, None),
        ),
    )


def with_leaf(release: Release, location: str, **changes: Any) -> Release:
    leaves = tuple(
        dataclasses.replace(leaf, **changes) if leaf.location == location else leaf
        for leaf in release.leaves
    )
    return dataclasses.replace(release, leaves=leaves)


MUTATIONS: dict[str, Callable[[Release], Release]] = {
    "k below 50": lambda one: dataclasses.replace(one, k=49),
    "a small location named": named_alone,
    "a fold of one": single_residual,
    "a cell dropped": lambda one: dataclasses.replace(one, cells=one.cells[1:]),
    "a cell twice": lambda one: dataclasses.replace(one, cells=(*one.cells, one.cells[-1])),
    "out of order": lambda one: dataclasses.replace(one, cells=one.cells[::-1]),
    "no cell at all": lambda one: dataclasses.replace(one, cells=(), folding={}, leaves=()),
    "withheld with rows": lambda one: dataclasses.replace(one, withheld=Withheld.FEW_USERS),
    "a row of the month left out": lambda one: dataclasses.replace(one, leaves=one.leaves[1:]),
    "bytes lost": lambda one: with_cell(one, "c", bytes=4999),
    "bytes moved": lambda one: with_cell(with_cell(one, "c", bytes=5001), "r-us", bytes=999),
    "users of a fold": lambda one: with_cell(one, "other", users=60),
    "users of a region": lambda one: with_cell(one, "r-us", users=75),
    "users changed": lambda one: with_cell(one, "c", users=701),
    "users not told": lambda one: with_cell(one, "c", users=None),
    "too few users": lambda one: with_cell(with_leaf(one, "c", users=49), "c", users=49),
    "p99 of few": lambda one: with_cell(one, "c", p99_bytes=9),
    "p50 of a fold": lambda one: with_cell(one, "other", p50_bytes=7),
    "p50 changed": lambda one: with_cell(one, "c", p50_bytes=6),
    "another kind": lambda one: with_cell(one, "r-us", kind=Kind.LOCATION, users=75),
    "a location as a fold": lambda one: with_cell(one, "c", kind=Kind.REGION, users=None),
    "attempts lost": lambda one: with_cell(one, "c", attempts=8),
    "attempts moved": lambda one: with_cell(
        with_cell(one, "c", attempts=10), "other", attempts=8
    ),
    "connections not told": lambda one: with_cell(one, "c", attempts=None, successes=None),
    "connections of few": lambda one: with_leaf(one, "c", connected=49),
    "more successes than attempts": lambda one: with_cell(
        with_leaf(one, "c", attempts=8, successes=9), "c", attempts=8, successes=9
    ),
}  # fmt: skip


def test_the_release_that_is_changed_below_is_right_as_it_is() -> None:
    assert public.check(BASE) == []
    assert told(BASE) == {"c": 700, "other": None, "r-benelux": None, "r-us": None}
    assert BASE.folding["a"] == BASE.folding["b"] == "other"
    assert told(BASE, "attempts") == {"c": 9, "other": 9, "r-benelux": None, "r-us": None}


@pytest.mark.parametrize("name", MUTATIONS)
def test_ct4_a_release_that_breaks_a_rule_is_found(name: str) -> None:
    changed = MUTATIONS[name](BASE)
    assert changed != BASE
    assert public.check(changed) != []
