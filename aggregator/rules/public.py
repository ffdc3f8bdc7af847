"""The rule of the monthly public release: which locations it names, and what is checked (CT-4).

Only published rows are known here, so users of several rows together are not: of a union its
largest member is what can be shown. A location is named with at least k distinct users of the
month; others fold, fewest users first, until a residual has a member of k users.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from aggregator.model.profile import LEAST_EXPORT_K, Profile
from aggregator.model.tables import OTHER

LARGEST_PERCENT: Final = 50
TWO_LARGEST_PERCENT: Final = 85
ABOVE_PERCENT: Final[Mapping[str, int]] = MappingProxyType(
    {"p50_bytes": 50, "p90_bytes": 10, "p99_bytes": 1}
)
"""How many percent of the users lie above each percentile."""


class Withheld(enum.StrEnum):
    """Why a release has no numbers."""

    NO_USAGE = "no_usage"
    FEW_USERS = "few_users"
    NOT_VERIFIED = "not_verified"


class Kind(enum.StrEnum):
    """What a cell is: a location that is named, or what may not be named, added up."""

    LOCATION = "location"
    REGION = "region"
    OTHER = "other"


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One published row of the month, with the connections of the same name.

    `connected` is the sum of its daily users of connections: no fewer than its distinct ones.
    """

    location: str
    users: int
    bytes: int
    percentiles: Mapping[str, int | None]
    connected: int = 0
    attempts: int = 0
    successes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One row of the release. None is what may not be told of this cell, or is not known."""

    location: str
    kind: Kind
    users: int | None
    bytes: int
    p50_bytes: int | None
    p90_bytes: int | None
    p99_bytes: int | None
    attempts: int | None
    successes: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Release:
    """A release as a whole: its cells, and from which leaves they are made, by their names.

    Only the cells are for the public. `withheld` says why there are none; `connections_withheld`
    that some connections of the month are in no cell that tells them.
    """

    k: int
    cells: tuple[Cell, ...]
    folding: Mapping[str, str]
    leaves: tuple[Leaf, ...]
    regions: frozenset[str]
    withheld: Withheld | None = None
    connections_withheld: bool = False


def is_strict_enough(profile: Profile) -> bool:
    """Say whether tables released under `profile` bound what one or two users have of a cell."""
    return (
        profile.largest_percent <= LARGEST_PERCENT
        and profile.two_largest_percent <= TWO_LARGEST_PERCENT
    )


def leaves_of(
    usage: Iterable[Mapping[str, Any]], connections: Iterable[Mapping[str, Any]]
) -> tuple[Leaf, ...]:
    """Return the rows of usage_monthly, each with its connections of the month, in order.

    `connections` has sums of users, attempts and successes by location; a location that is in
    no row of `usage` has its connections in `other`.
    """
    rows = {row["location"]: row for row in usage}
    sums: dict[str, list[int]] = {}
    for row in connections:
        name = row["location"] if row["location"] in rows else OTHER
        total = sums.setdefault(name, [0, 0, 0])
        for place, measure in enumerate(("users", "attempts", "successes")):
            total[place] += row[measure]
    return tuple(
        Leaf(
            name,
            rows[name]["users"] if name in rows else 0,
            rows[name]["bytes"] if name in rows else 0,
            {one: rows[name][one] if name in rows else None for one in ABOVE_PERCENT},
            *sums.get(name, (0, 0, 0)),
        )
        for name in sorted(rows.keys() | sums.keys())
    )


def release(leaves: Sequence[Leaf], regions: Mapping[str, str], k: int) -> Release:
    """Return the release of a month's `leaves`, or one that is withheld because none may be."""
    if k < LEAST_EXPORT_K:
        raise ValueError("k of a public release")
    regional = frozenset(regions.values())
    known = tuple(sorted(leaves, key=lambda leaf: leaf.location))
    used = tuple(leaf for leaf in known if leaf.users)
    if not used:
        return Release(k, (), {}, known, regional, Withheld.NO_USAGE)
    folding = _fold(used, regions, k)
    if folding is None:
        return Release(k, (), {}, known, regional, Withheld.FEW_USERS)
    cells = _cells(used, folding, regional, k)
    told = sum(cell.attempts or 0 for cell in cells)
    partly = told != sum(leaf.attempts for leaf in known)
    return Release(k, cells, folding, used, regional, None, partly)


def withhold(leaves: Sequence[Leaf], regions: Mapping[str, str], k: int, why: Withheld) -> Release:
    """Return a release without numbers."""
    return Release(k, (), {}, tuple(leaves), frozenset(regions.values()), why)


def passes(members: Sequence[Leaf], k: int) -> bool:
    """Say whether the union of `members` can be shown to have k users: its largest member has."""
    return max(leaf.users for leaf in members) >= k


def tells_connections(members: Sequence[Leaf], k: int) -> bool:
    """Say whether k users can be shown behind the connections of `members`.

    Only a location by its name is the same place in both tables: `other` of connections holds the
    rare countries of locations that usage names. So one member must be such a location, with k
    users of traffic, and no fewer than k of connections in all days together.
    """
    return any(
        leaf.users >= k and leaf.connected >= k and leaf.location != OTHER for leaf in members
    )


def _fold(leaves: Sequence[Leaf], regions: Mapping[str, str], k: int) -> dict[str, str] | None:
    """Return each leaf's cell, or None if what is left over cannot pass."""
    cells: dict[str, tuple[Leaf, ...]] = {leaf.location: (leaf,) for leaf in leaves}
    parents: tuple[Callable[[str], str], ...] = (
        lambda name: regions.get(name, name),
        lambda _name: OTHER,
    )
    for parent in parents:
        groups: dict[str, list[str]] = {}
        for name in sorted(cells):
            groups.setdefault(parent(name), []).append(name)
        for residual, names in groups.items():
            _fold_group(residual, names, cells, k)
    if not all(passes(members, k) for members in cells.values()):
        return None
    return {leaf.location: cell for cell, members in cells.items() for leaf in members}


def _fold_group(
    residual: str, names: Sequence[str], cells: dict[str, tuple[Leaf, ...]], k: int
) -> None:
    """Fold the cells of a group that fail into `residual`, in place.

    A leaf that fails alone fails as a residual too, so a residual never has one member only.
    """
    ordered = sorted(names, key=lambda name: (max(leaf.users for leaf in cells[name]), name))
    taken = [name for name in ordered if not passes(cells[name], k)]
    if not taken:
        return
    if residual in names and residual not in taken:
        taken.append(residual)  # the tables have folded into it already
    waiting = [name for name in ordered if name not in taken]
    members = [leaf for name in taken for leaf in cells[name]]
    while waiting and not passes(members, k):
        taken.append(waiting.pop(0))
        members.extend(cells[taken[-1]])
    for name in taken:
        del cells[name]
    cells[residual] = tuple(members)


def _cells(
    leaves: Sequence[Leaf], folding: Mapping[str, str], regions: frozenset[str], k: int
) -> tuple[Cell, ...]:
    members: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        members.setdefault(folding[leaf.location], []).append(leaf)
    return tuple(_cell(name, members[name], regions, k) for name in sorted(members))


def _cell(name: str, members: Sequence[Leaf], regions: frozenset[str], k: int) -> Cell:
    kind = _kind(name, regions)
    users, percentiles = None, dict[str, int | None].fromkeys(ABOVE_PERCENT)
    if kind is Kind.LOCATION:
        (leaf,) = members
        users = leaf.users
        percentiles = {
            one: value if has_users_above(one, users, k) else None
            for one, value in leaf.percentiles.items()
        }
    told = tells_connections(members, k)
    return Cell(
        location=name,
        kind=kind,
        users=users,
        bytes=sum(leaf.bytes for leaf in members),
        **percentiles,
        attempts=sum(leaf.attempts for leaf in members) if told else None,
        successes=sum(leaf.successes for leaf in members) if told else None,
    )


def has_users_above(percentile: str, users: int, k: int) -> bool:
    """Say whether k of so many users lie above a nearest-rank percentile, by their rank."""
    return users * ABOVE_PERCENT[percentile] // 100 >= k


def _kind(name: str, regions: frozenset[str]) -> Kind:
    if name == OTHER:
        return Kind.OTHER
    return Kind.REGION if name in regions else Kind.LOCATION


def check(release: Release) -> list[str]:
    """Return what is wrong with a release as a whole; nothing may be written if anything is.

    It does not ask how the release was made, only what may be in one.
    """
    problems = []
    if release.k < LEAST_EXPORT_K:
        problems.append(f"k is below {LEAST_EXPORT_K}")
    if release.withheld is not None:
        return problems + (["a withheld release has cells"] if release.cells else [])
    names = [cell.location for cell in release.cells]
    if names != sorted(set(names)) or not names:
        problems.append("the cells are none, not in order, or there twice")
    if {leaf.location for leaf in release.leaves} != release.folding.keys():
        problems.append("the cells do not hold every row of the month once")
    if set(release.folding.values()) != set(names):
        problems.append("the cells are not those that the rows are folded into")
    return (
        problems
        + list(_wrong_totals(release))
        + [
            f"{cell.location}: {what}"
            for cell in release.cells
            for what in _wrong_cell(cell, release)
        ]
    )


def _wrong_totals(release: Release) -> Iterator[str]:
    """Yield which totals are not exact: what is folded is neither lost nor counted twice."""
    if sum(cell.bytes for cell in release.cells) != sum(leaf.bytes for leaf in release.leaves):
        yield "the bytes of all cells are not those of the month"


def _wrong_cell(cell: Cell, release: Release) -> Iterator[str]:
    members = [
        leaf for leaf in release.leaves if release.folding.get(leaf.location) == cell.location
    ]
    if not members:
        yield "no row of the month is in it"
        return
    if max(leaf.users for leaf in members) < release.k:
        yield f"{release.k} users cannot be shown"
    if cell.kind is not _kind(cell.location, release.regions):
        yield "it is not of its kind"
    if cell.bytes != sum(leaf.bytes for leaf in members):
        yield "its bytes are not those of its members"
    alone = [leaf.location for leaf in members] == [cell.location]
    if cell.kind is Kind.LOCATION and not alone:
        yield "a name stands for more or other rows than its own"
    if cell.kind is not Kind.LOCATION and len(members) == 1 and not alone:
        yield "it hides a single location"
    if cell.kind is Kind.LOCATION and cell.users != members[0].users:
        yield "its users are not those of the month"
    if cell.kind is not Kind.LOCATION and cell.users is not None:
        yield "the users of a union are not known"
    yield from _wrong_percentiles(cell, members[0], release.k)
    yield from _wrong_connections(cell, members, release.k)


def _wrong_percentiles(cell: Cell, leaf: Leaf, k: int) -> Iterator[str]:
    for name in ABOVE_PERCENT:
        told: int | None = getattr(cell, name)
        if told is None:
            continue
        if cell.kind is not Kind.LOCATION or not has_users_above(name, leaf.users, k):
            yield f"{name} has fewer than {k} users above it"
        elif told != leaf.percentiles[name]:
            yield f"{name} is not that of the month"


def _wrong_connections(cell: Cell, members: Sequence[Leaf], k: int) -> Iterator[str]:
    attempts = sum(leaf.attempts for leaf in members)
    successes = sum(leaf.successes for leaf in members)
    shown = tells_connections(members, k)
    expected = (attempts, successes) if shown else (None, None)
    if (cell.attempts, cell.successes) != expected:
        yield "its connections are not those of its members"
    if cell.attempts is not None and not shown:
        yield f"{k} users cannot be shown behind its connections"
    if successes > attempts:
        yield "more connections succeeded than were attempted"
