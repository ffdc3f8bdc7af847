"""The settings in force, each with where it comes from; what may hold a secret is not told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aggregator.model.config_table import BY_SECTION, SECTIONS, Setting
from aggregator.model.settings import Security
from aggregator.stores import config, overrides
from aggregator.stores.home import Home
from aggregator.stores.settings import PORTS
from aggregator.stores.toml_lines import line_of

# A home without them sends no mail and asks nobody: then they have no settings in force.
_ONLY_IF_SET: Final = ("mail", "directory")


@dataclasses.dataclass(frozen=True, slots=True)
class InForce:
    """One setting: its value, None where `hidden`; from the environment, the file or neither."""

    setting: Setting
    value: Any
    hidden: bool
    variable: str | None
    line: int | None

    @property
    def source(self) -> str:
        """Where the value is from: environment, file or default."""
        if self.variable is not None:
            return "environment"
        return "default" if self.line is None else "file"


def in_force(home: Home) -> list[InForce]:
    """Return the settings in force, in the table's order; ConfigError if nothing can be in force.

    A section with a mistake is left out: `Config.problems` says what is wrong with it.
    """
    home.load_config()
    path = home.settings or home.config_path
    text = path.read_text("utf-8")
    merged = overrides.merge(config.parse(text), home.environment)
    wrong = {mistake.section for mistake in config.mistakes(merged)}
    found: list[InForce] = []
    for section in SECTIONS:
        table = merged.data.get(section.name)
        if section.name not in wrong and (table is not None or section.name not in _ONLY_IF_SET):
            found += _of_section(section.name, table or {}, merged.variables, text)
    return found


def _of_section(
    section: str, table: Mapping[str, Any], variables: Mapping[str, str], text: str
) -> Iterator[InForce]:
    for setting in BY_SECTION[section].values():
        is_set = setting.name in table
        value = table[setting.name] if is_set else _default(setting, table)
        if value is None:
            continue
        variable = variables.get(setting.path)
        from_file = is_set and variable is None
        line = line_of(text, (section, setting.name)) if from_file else None
        hidden = setting.may_hold_secret
        yield InForce(setting, None if hidden else value, hidden, variable, line)


def _default(setting: Setting, table: Mapping[str, Any]) -> Any:
    if setting.path == "mail.port":
        return PORTS[Security(table.get("security", Security.STARTTLS))]
    return setting.default
