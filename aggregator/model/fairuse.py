"""Fair use: the rules of a profile, and what one user exceeds (promises CS-9, CT-5, CT-6).

A rule is a row of the policy profile. An excess is the arithmetic of one rule about one user of one
month: everything that a sentence about it needs, and no account.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Any, Final

from aggregator.errors import ConfigError


class RuleKind(enum.StrEnum):
    """What a rule compares; its threshold counts others, bytes, times the median, or percent."""

    OUTWEIGHS_MEAN = "outweighs_mean"
    OUTWEIGHS_LIGHTEST = "outweighs_lightest"
    MONTH_BYTES = "month_bytes"
    DAY_BYTES = "day_bytes"
    TIMES_MEDIAN = "times_median"
    LOCATION_SHARE = "location_share"

    @property
    def compares(self) -> bool:
        """Whether its arithmetic tells something of other users."""
        return self not in (RuleKind.MONTH_BYTES, RuleKind.DAY_BYTES)


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One row: a user who exceeds `warn_percent` of `threshold` is told of, once for each step.

    With `plans` it is about accounts on one of these plans only, as the operator's directory
    names them.
    """

    name: str
    kind: RuleKind
    threshold: int
    warn_percent: tuple[int, ...] = (100,)
    plans: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Excess:
    """What one user exceeds: `percent` is the highest step of `rule` that was passed.

    `bytes` is what the rule judges: the month's so far or, where `day` is told, that day's, and
    where `location` is told, that location's. `users` counts all users of the month, this one too;
    `others_bytes` is what the others moved together. `outweighs_mean` and `times_median` are None
    where the number that they divide by is 0. Never printed as it is: it names a pseudonym.
    """

    rule: str
    kind: RuleKind
    threshold: int
    percent: int
    plans: tuple[str, ...]
    month: str
    through: str
    pseudonym: int
    bytes: int
    month_bytes: int
    projected_bytes: int
    users: int
    others_bytes: int
    median_bytes: int
    outweighs_mean: float | None
    outweighs_lightest: int
    times_median: float | None
    day: str | None = None
    location: str | None = None
    location_bytes: int | None = None
    location_users: int | None = None

    def fields(self) -> dict[str, Any]:
        """Return it as JSON fields."""
        return dataclasses.asdict(self) | {"kind": self.kind.value, "plans": list(self.plans)}


def excess_from(fields: Mapping[str, Any]) -> Excess:
    """Return the excess that `fields()` gave; KeyError, TypeError or ValueError if it is none."""
    values = dict(fields)
    values["kind"] = RuleKind(values["kind"])
    values["plans"] = tuple(values["plans"])
    return Excess(**values)


_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LITERAL: Final = RuleKind.OUTWEIGHS_MEAN
_SETTINGS: Final = frozenset({"name", "kind", "threshold", "warn_percent", "plans"})
_MOST_PLANS: Final = 100
# The least and the most that a threshold may be.
_THRESHOLDS: Final[Mapping[RuleKind, tuple[int, int]]] = {
    RuleKind.OUTWEIGHS_MEAN: (1, 10**9),
    RuleKind.OUTWEIGHS_LIGHTEST: (1, 10**9),
    RuleKind.MONTH_BYTES: (1, 10**18),
    RuleKind.DAY_BYTES: (1, 10**18),
    RuleKind.TIMES_MEDIAN: (2, 10**9),
    RuleKind.LOCATION_SHARE: (1, 99),
}


def rules_from(section: Any) -> tuple[Rule, ...]:
    """Return the rules of a profile's [fair_use], the literal one first.

    ConfigError names a row that is wrong. `outweighs_mean = N` is the short form of the literal
    rule of CS-9.
    """
    if not isinstance(section, Mapping):
        raise ConfigError("the policy profile's fair_use is no table")
    unknown = sorted(section.keys() - {"outweighs_mean", "rules"})
    if unknown:
        raise ConfigError(
            f"the policy profile has an unknown setting: {f'fair_use.{unknown[0]}'!a}"
        )
    rows = section.get("rules", [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError("the policy profile's fair_use.rules are no rows [[fair_use.rules]]")
    rules = []
    if "outweighs_mean" in section:
        threshold = _threshold(_LITERAL, section["outweighs_mean"], "fair_use.outweighs_mean")
        rules.append(Rule(_LITERAL.value, _LITERAL, threshold))
    rules += [_rule(row, f"fair_use.rules, row {number}") for number, row in enumerate(rows, 1)]
    names = [rule.name for rule in rules]
    if len(set(names)) != len(names):
        raise ConfigError("the policy profile's fair_use.rules have a name twice")
    return tuple(rules)


def _rule(row: Mapping[str, Any], where: str) -> Rule:
    unknown = sorted(row.keys() - _SETTINGS)
    if unknown:
        raise ConfigError(f"the policy profile has an unknown setting: {unknown[0]!a} in {where}")
    name, kind = row.get("name"), row.get("kind")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(f"the policy profile's {where} needs a name such as fifty-terabytes")
    if not isinstance(kind, str) or kind not in set(RuleKind):
        kinds = ", ".join(RuleKind)
        raise ConfigError(f"the policy profile's {where} needs a kind: {kinds}")
    known = RuleKind(kind)
    return Rule(
        name=name,
        kind=known,
        threshold=_threshold(known, row.get("threshold"), f"{where}: threshold"),
        warn_percent=_steps(row.get("warn_percent", [100]), where),
        plans=_plans(row.get("plans", []), where),
    )


def _threshold(kind: RuleKind, value: Any, where: str) -> int:
    least, most = _THRESHOLDS[kind]
    if not _is_integer(value, least, most):
        raise ConfigError(f"the policy profile's {where} must be an integer {least} to {most}")
    return int(value)


def _steps(value: Any, where: str) -> tuple[int, ...]:
    good = isinstance(value, list) and value and all(_is_integer(one, 1, 100) for one in value)
    if not good or sorted(set(value)) != value:
        raise ConfigError(
            f"the policy profile's {where}: warn_percent must be integers 1 to 100, ascending"
        )
    return tuple(value)


def _plans(value: Any, where: str) -> tuple[str, ...]:
    good = isinstance(value, list) and len(value) <= _MOST_PLANS
    if not good or not all(isinstance(one, str) and one and one.isprintable() for one in value):
        raise ConfigError(f"the policy profile's {where}: plans must be a list of names")
    return tuple(value)


def _is_integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
