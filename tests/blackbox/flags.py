"""What the connection tables must hold, as properties: DESIGN leaves the folding path some room.

A table's rows are held against the truth of the finest cells: named rows equal it, residual rows
hold exactly what is not named, nothing is lost, and no row has a crowd below k.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .truth import OTHER, K


class Flags(NamedTuple):
    """One connection_flags record: totals so far at a location, without a user."""

    day: str
    location: str
    epoch: str
    country: str
    asn: int
    app: str | None
    version: str | None
    users: int
    attempts: int
    successes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """A cell of flags; `crowd` is what k is tested on, `users` the published upper bound."""

    crowd: int = 0
    users: int = 0
    attempts: int = 0
    successes: int = 0

    def __add__(self, more: Outcome) -> Outcome:
        """Return both cells as one."""
        return Outcome(
            self.crowd + more.crowd,
            self.users + more.users,
            self.attempts + more.attempts,
            self.successes + more.successes,
        )

    def row(self) -> dict[str, int]:
        """Return the published columns."""
        return {"users": self.users, "attempts": self.attempts, "successes": self.successes}


Pair = tuple[Any, Any]


def merge_flags(flags: Iterable[Flags]) -> dict[Flags, Outcome]:
    """Return the merge by finest cell: each number's max per epoch, then the sum over epochs."""
    epochs: dict[Flags, dict[str, tuple[int, int, int]]] = defaultdict(dict)
    for flag in flags:
        key = flag._replace(epoch="", users=0, attempts=0, successes=0)
        old = epochs[key].get(flag.epoch, (0, 0, 0))
        epochs[key][flag.epoch] = (
            max(old[0], flag.users),
            max(old[1], flag.attempts),
            max(old[2], flag.successes),
        )
    return {
        key: Outcome(
            max(users for users, _, _ in numbers.values()),
            sum(users for users, _, _ in numbers.values()),
            sum(attempts for _, attempts, _ in numbers.values()),
            sum(successes for _, _, successes in numbers.values()),
        )
        for key, numbers in epochs.items()
    }


def by_pair(finest: Mapping[Flags, Outcome], first: str, second: str) -> dict[str, dict[Pair, Any]]:
    """Return day → (first, second) → outcome; an absent app or version is `unknown`."""
    days: dict[str, dict[Pair, Outcome]] = defaultdict(lambda: defaultdict(Outcome))
    for key, outcome in finest.items():
        names = tuple(
            "unknown" if getattr(key, name) is None else getattr(key, name)
            for name in (first, second)
        )
        days[key.day][names[0], names[1]] += outcome
    return {day: dict(cells) for day, cells in days.items()}


def by_asn(finest: Mapping[Flags, Outcome]) -> dict[str, dict[int, Outcome]]:
    """Return day → asn → outcome."""
    days: dict[str, dict[int, Outcome]] = defaultdict(lambda: defaultdict(Outcome))
    for key, outcome in finest.items():
        days[key.day][key.asn] += outcome
    return {day: dict(cells) for day, cells in days.items()}


def numbers_of(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the columns of a row that are compared."""
    return {name: row[name] for name in ("users", "attempts", "successes")}


def check_one_level(
    rows: Sequence[Mapping[str, Any]], cells: Mapping[int, Outcome], k: int = K
) -> list[str]:
    """Return what is wrong with one day of connections_isp_daily."""
    released = _fold_one_level(cells, k)
    found = {row["asn"]: numbers_of(row) for row in rows}
    if len(found) != len(rows):
        return ["an asn is there twice"]
    wanted = {asn: outcome.row() for asn, outcome in released.items()}
    keys = found.keys() | wanted.keys()
    return [
        f"asn {asn}: {found.get(asn)} instead of {wanted.get(asn)}"
        for asn in sorted(keys)
        if found.get(asn) != wanted.get(asn)
    ]


def _fold_one_level(cells: Mapping[int, Outcome], k: int) -> dict[int, Outcome]:
    named = {asn: outcome for asn, outcome in cells.items() if outcome.crowd >= k}
    folded = [outcome for asn, outcome in cells.items() if asn not in named]
    residual = sum(folded, Outcome())
    while folded and residual.crowd < k:
        if not named:
            return {}
        residual += named.pop(min(named, key=lambda asn: (named[asn].crowd, asn)))
    return {**named, -1: residual} if folded else named


def check_two_levels(
    rows: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    cells: Mapping[Pair, Outcome],
    k: int = K,
) -> list[str]:
    """Return what is wrong with one day of connections_daily or apps_daily."""
    found = {(row[names[0]], row[names[1]]): numbers_of(row) for row in rows}
    if len(found) != len(rows):
        return ["a cell is there twice"]
    if not rows:
        whole = sum(cells.values(), Outcome())
        return [f"withheld with a crowd of {whole.crowd}"] if whole.crowd >= k else []
    wrong, rest = [], Outcome()
    crowds: dict[Any, int] = defaultdict(int)
    for pair, outcome in cells.items():
        crowds[pair[0]] += outcome.crowd
    needed = min(crowds.values()) < k  # a whole parent that fails, and may take in any cell
    for parent in sorted({pair[0] for pair in cells} | {pair[0] for pair in found} - {OTHER}):
        own = {pair: outcome for pair, outcome in cells.items() if pair[0] == parent}
        wrong += _check_named(parent, found, own, k, needed=needed)
        left = _left_to_other(parent, found, own, k)
        if left is None:
            wrong.append(f"{parent}/other: {found[parent, OTHER]} is no sum of folded cells")
        else:
            rest += left
    return wrong + _check_rest(found, rest, k)


def _check_named(
    parent: str, found: Mapping[Pair, Any], own: Mapping[Pair, Outcome], k: int, *, needed: bool
) -> list[str]:
    """Named cells equal the truth, and without need nothing is folded that could be named."""
    wrong = []
    for pair, row in found.items():
        if pair[0] != parent or pair[1] == OTHER:
            continue
        if pair not in own or own[pair].crowd < k:
            wrong.append(f"{pair} may not be named")
        elif own[pair].row() != row:
            wrong.append(f"{pair}: {row} instead of {own[pair].row()}")
    failing = {pair for pair in own if own[pair].crowd < k}
    enough = not failing or sum((own[pair] for pair in failing), Outcome()).crowd >= k
    if enough and not needed:
        folded = {pair for pair in own if pair not in found}
        wrong += [f"{pair} is folded without need" for pair in sorted(folded - failing)]
    return wrong


def _left_to_other(
    parent: str, found: Mapping[Pair, Any], own: Mapping[Pair, Outcome], k: int
) -> Outcome | None:
    """Return what `parent` shows neither by name nor in its own residual; None if that is wrong.

    A residual holds all failing cells of its parent and those that it took in. The residual of
    all parents takes in whole cells too, which are then not in their parent's residual.
    """
    unnamed = [pair for pair in own if pair not in found or pair[1] == OTHER]
    if (parent, OTHER) not in found:
        return sum((own[pair] for pair in unnamed), Outcome())
    failing = sum((own[pair] for pair in unnamed if own[pair].crowd < k), Outcome())
    passing = [own[pair] for pair in unnamed if own[pair].crowd >= k]
    for count in range(len(passing) + 1):
        for away in itertools.combinations(passing, count):
            left = sum(away, Outcome())
            kept = failing + sum((cell for cell in passing if cell not in away), Outcome())
            if kept.row() == found[parent, OTHER] and kept.crowd >= k:
                return left
    return None


def _check_rest(found: Mapping[Pair, Any], rest: Outcome, k: int) -> list[str]:
    """Whatever no parent shows is under the parent `other`, and that passes too."""
    shown = [row for pair, row in found.items() if pair[0] == OTHER]
    total = {name: sum(row[name] for row in shown) for name in rest.row()}
    wrong = [] if total == rest.row() else [f"other: {total} instead of {rest.row()}"]
    return [*wrong, f"other has a crowd of {rest.crowd}"] if 0 < rest.crowd < k else wrong
