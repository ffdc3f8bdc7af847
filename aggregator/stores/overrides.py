"""Variables of the environment that override settings: AGGREGATOR_MAIL_HOST is mail.host."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aggregator.model.config_table import (
    BY_SECTION,
    OF_THE_HOME,
    PREFIX,
    SECRETS,
    SETTINGS,
    Mistake,
)
from aggregator.stores import values

_BY_VARIABLE: Final = {setting.variable: setting for setting in SETTINGS}


@dataclasses.dataclass(frozen=True, slots=True)
class Merged:
    """Settings with what the environment says of them, and the variable that each came from.

    `mistakes` are variables that look like a setting and name none.
    """

    data: Mapping[str, Any]
    variables: Mapping[str, str]
    mistakes: tuple[Mistake, ...]


def merge(data: Mapping[str, Any], environment: Mapping[str, str]) -> Merged:
    """Return the settings `data` with those of `environment` in their place.

    One way to give a secret takes the place of every other way to give it.
    """
    merged: dict[str, Any] = {
        name: dict(table) if isinstance(table, dict) else table for name, table in data.items()
    }
    found = {name: one for name, one in _BY_VARIABLE.items() if name in environment}
    for setting in found.values():
        table = merged.setdefault(setting.section, {})
        if isinstance(table, dict):
            for other in _other_ways(setting.path):
                table.pop(other, None)
    for name, setting in found.items():
        table = merged[setting.section]
        if isinstance(table, dict):
            table[setting.name] = values.read(setting, environment[name])
    variables = {setting.path: name for name, setting in found.items()}
    return Merged(merged, variables, tuple(_strange(environment, _named_by(merged))))


def _other_ways(path: str) -> Iterable[str]:
    """Return the names of all settings that give the same secret as the one called `path`."""
    for secret, ways in SECRETS.items():
        if path in {secret + way for way in ways}:
            return [secret.partition(".")[2] + way for way in ways]
    return []


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


def _strange(environment: Mapping[str, str], named: set[str]) -> Iterable[Mistake]:
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in _BY_VARIABLE or variable in named:
            continue
        rest = variable.removeprefix(PREFIX).lower()
        if rest in OF_THE_HOME:
            yield Mistake("", "what a home is cannot be overridden", "unset it", variable)
        section = next((name for name in BY_SECTION if rest.startswith(f"{name}_")), None)
        if section is not None:
            near = difflib.get_close_matches(variable, _BY_VARIABLE, 1)
            remedy = f"did you mean {near[0]}?" if near else "unset it"
            yield Mistake(
                f"{section}.{rest.removeprefix(section + '_')}",
                f"is the variable of no setting of [{section}]",
                remedy,
                variable if variable.isprintable() else PREFIX + "…",
            )
