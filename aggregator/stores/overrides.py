"""Variables of the environment that override settings: AGGREGATOR_MAIL_HOST is mail.host."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aggregator.model.config_table import (
    BY_SECTION,
    OF_THE_HOME,
    PREFIX,
    SECRETS,
    SETTINGS,
    Mistake,
    ways,
)
from aggregator.stores import values

_BY_VARIABLE: Final = {setting.variable: setting for setting in SETTINGS}
_RESTS: Final = {name.removeprefix(PREFIX).lower(): name for name in _BY_VARIABLE}
# Variables with our beginning that are read elsewhere: --home and --log.
_OF_OPTIONS: Final = frozenset({f"{PREFIX}HOME", f"{PREFIX}LOG"})


@dataclasses.dataclass(frozen=True, slots=True)
class Merged:
    """Settings with what the environment says of them, and the variable that each came from.

    `mistakes` are variables that are like those of a section's settings and are of none.
    `warnings` are all others that begin like ours and that nothing reads.
    """

    data: Mapping[str, Any]
    variables: Mapping[str, str]
    mistakes: tuple[Mistake, ...]
    warnings: tuple[Mistake, ...]


def merge(data: Mapping[str, Any], environment: Mapping[str, str]) -> Merged:
    """Return the settings `data` with those of `environment` in their place.

    One way to give a secret takes the place of every other way to give it.
    """
    merged: dict[str, Any] = {
        name: dict(table) if isinstance(table, dict) else table for name, table in data.items()
    }
    found = {name: one for name, one in _BY_VARIABLE.items() if name in environment}
    tables = {name: merged.setdefault(one.section, {}) for name, one in found.items()}
    # A section that is no table stays as it is, so that it is told as a mistake.
    found = {name: one for name, one in found.items() if isinstance(tables[name], dict)}
    for name, setting in found.items():
        for other in _other_ways(setting.path):
            tables[name].pop(other, None)
    for name, setting in found.items():
        tables[name][setting.name] = values.read(setting, environment[name])
    strange = list(_strange(environment, _named_by(merged)))
    return Merged(
        merged,
        {setting.path: name for name, setting in found.items()},
        tuple(one for one in strange if one.setting),
        tuple(one for one in strange if not one.setting),
    )


def _other_ways(path: str) -> tuple[str, ...]:
    """Return the names of all settings that give the same secret as the one called `path`."""
    section, _, name = path.partition(".")
    for secret in SECRETS:
        if secret.startswith(f"{section}.") and name in ways(secret):
            return ways(secret)
    return ()


def _named_by(data: Mapping[str, Any]) -> set[str]:
    """Return the variables that hold secrets: settings name them, so any name may be one."""
    found = set()
    for secret in SECRETS:
        section, _, name = secret.partition(".")
        table = data.get(section)
        value = table.get(f"{name}_env") if isinstance(table, dict) else None
        if isinstance(value, str):
            found.add(value)
    return found


def _strange(environment: Mapping[str, str], named: set[str]) -> Iterator[Mistake]:
    """Yield what begins like a variable of ours and is none; its `setting` is "" for a warning."""
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and not (
            variable in _BY_VARIABLE or variable in named or variable in _OF_OPTIONS
        ):
            rest = variable.removeprefix(PREFIX).lower()
            where = variable if variable.isprintable() else f"{PREFIX}…"
            yield dataclasses.replace(_unread(rest), where=where)


def _unread(rest: str) -> Mistake:
    """Return what is wrong with a variable by what it has after our beginning."""
    if rest in OF_THE_HOME:
        return Mistake(rest, "what a home is cannot be overridden", "unset it")
    near = difflib.get_close_matches(rest, _RESTS, 1)
    meant = f"did you mean {_RESTS[near[0]]}?" if near else "unset it"
    section = next((name for name in BY_SECTION if rest.startswith(f"{name}_")), None)
    if section is None:
        return Mistake("", "nothing reads this variable", meant)
    path = f"{section}.{rest.removeprefix(f'{section}_')}"
    return Mistake(path, f"is the variable of no setting of [{section}]", meant)
