"""The release rule: which cells may be published, and what the others fold into (CS-4, CT-4).

A cell passes with at least k users and, where bytes are published, without dominance. A failing
cell folds into its parent, so that totals stay exact; a residual that fails takes in the next
smallest cell until it passes; if nothing is left to take in, nothing is published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from aggregator.model.profile import Profile


class _Named(Protocol):
    """What names a cell: hashable, and in an order that breaks ties."""

    def __hash__(self) -> int: ...

    def __lt__(self, other: Any, /) -> bool: ...


Key = TypeVar("Key", bound=_Named)


@dataclasses.dataclass(frozen=True, slots=True)
class Crowd:
    """What the rule needs to know of a cell: its users and, with bytes, its largest two."""

    users: int
    bytes: int = 0
    largest_bytes: int = 0
    second_bytes: int = 0


def passes(crowd: Crowd, profile: Profile) -> bool:
    """Say whether a cell with this crowd may be published."""
    two_largest = crowd.largest_bytes + crowd.second_bytes
    return (
        crowd.users >= profile.k
        and crowd.largest_bytes * 100 <= crowd.bytes * profile.largest_percent
        and two_largest * 100 <= crowd.bytes * profile.two_largest_percent
    )


def fold(
    leaves: Iterable[Key],
    parents: Sequence[Callable[[Key], Key]],
    measure: Callable[[frozenset[Key]], Crowd],
    profile: Profile,
) -> Mapping[Key, Key] | None:
    """Return each leaf's published cell, or None if the whole must be withheld.

    `parents` are the levels of folding, finest first; the last one has one value for all. A
    level's parent of a leaf is the residual that the leaf may fold into. `measure` gives the
    crowd of a set of leaves: distinct users, so it is more than a sum.
    """
    cells: dict[Key, frozenset[Key]] = {leaf: frozenset((leaf,)) for leaf in leaves}
    crowds = {cell: measure(members) for cell, members in cells.items()}
    for parent in parents:
        groups: dict[Key, list[Key]] = {}
        for cell, members in cells.items():
            groups.setdefault(parent(min(members)), []).append(cell)
        for residual, group in sorted(groups.items(), key=lambda item: item[0]):
            _fold_group(residual, group, cells, crowds, measure, profile)
    if any(not passes(crowd, profile) for crowd in crowds.values()):
        return None
    return {leaf: cell for cell, members in cells.items() for leaf in members}


def _fold_group(
    residual: Key,
    group: Sequence[Key],
    cells: dict[Key, frozenset[Key]],
    crowds: dict[Key, Crowd],
    measure: Callable[[frozenset[Key]], Crowd],
    profile: Profile,
) -> None:
    """Fold the failing cells of one group into `residual`, in place."""
    ordered = sorted(group, key=lambda cell: (crowds[cell].users, cell))
    taken = [cell for cell in ordered if not passes(crowds[cell], profile)]
    if not taken:
        return
    if residual in crowds and residual in group and residual not in taken:
        taken.append(residual)  # a leaf that bears the residual's own name
    chosen = set(taken)
    waiting = iter([cell for cell in ordered if cell not in chosen])
    members = frozenset[Key]().union(*(cells[cell] for cell in taken))
    crowd = measure(members)
    while not passes(crowd, profile) and (cell := next(waiting, None)) is not None:
        taken.append(cell)
        members |= cells[cell]
        crowd = measure(members)
    for cell in taken:
        del cells[cell], crowds[cell]
    cells[residual], crowds[residual] = members, crowd


def rounded(number: int) -> int:
    """Return `number` to three significant digits, halves away from zero."""
    digits = len(str(number))
    if digits <= 3:
        return number
    unit: int = 10 ** (digits - 3)
    return (number + unit // 2) // unit * unit


def percentile(value: int, above: int, profile: Profile) -> int | None:
    """Return a nearest-rank percentile for print, or None if fewer than k users lie above it."""
    return rounded(value) if above >= profile.k else None


def histogram(counts: Mapping[int, int], profile: Profile) -> list[dict[str, int]]:
    """Return a cell's histogram with no bucket below k users.

    `counts` has users by lower edge. A bucket below k merges downward; what is left below k at
    the bottom joins the bucket above it.
    """
    buckets: list[dict[str, int]] = []
    pending = 0
    for edge in sorted(counts, reverse=True):
        pending += counts[edge]
        if pending >= profile.k:
            buckets.append({"from_bytes": edge, "users": pending})
            pending = 0
    if pending and buckets:
        buckets[-1] = {"from_bytes": min(counts), "users": buckets[-1]["users"] + pending}
    return buckets[::-1]
