"""The text of a new config.toml: every common setting, those without a value commented out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Final

from aggregator.model.config_table import BY_SECTION, SECTIONS, Setting
from aggregator.stores.values import shown

_TOP: Final = """\
# Settings of this deployment; what is kept, and for how long, is in policy/profile.toml.
# A path is absolute, or begins in this folder. A variable of the environment overrides a setting:
# AGGREGATOR_MAIL_HOST is host in [mail]. A secret comes by a file, or by another of these endings:
# password_file, password_env, password_credential (systemd's), password_command.
# After a change: aggregator config check
# An editor with taplo (Even Better TOML) completes and checks this file by its schema: write that
# with: aggregator config schema > /etc/aggregator/config.schema.json
# and put this line above all else: #:schema /etc/aggregator/config.schema.json
"""
_WIDTH: Final = 100
_NOTE_AT: Final = 44


def render(given: Mapping[str, Mapping[str, Any]]) -> str:
    """Return config.toml with the settings `given`, and all others as comments.

    A setting that must be there and is not given has its example.
    """
    parts = [_TOP]
    for section in SECTIONS:
        values = dict(given.get(section.name, {}))
        if not section.apart:
            settings = BY_SECTION[section.name].values()
            values = {one.name: one.example for one in settings if one.needed} | values
        about = textwrap.fill(section.about, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        header = f"[{section.name}]" if values else f"# [{section.name}]"
        parts.append("\n".join([about, header, *_lines(section.name, values)]) + "\n")
    return "\n".join(parts)


def _lines(section: str, values: Mapping[str, Any]) -> list[str]:
    settings = BY_SECTION[section].values()
    return [
        _line(one, values.get(one.name))
        for one in settings
        if one.name in values or (one.common and not (values and _is_other_way(one, values)))
    ]


def _is_other_way(setting: Setting, values: Mapping[str, Any]) -> bool:
    """Say whether `setting` is a file with a secret that `values` give in another way."""
    stem = setting.name.removesuffix("_file")
    return stem != setting.name and any(
        name in (stem, f"{stem}_env", f"{stem}_credential", f"{stem}_command") for name in values
    )


def _line(setting: Setting, value: Any) -> str:
    line = f"{setting.name} = {shown(setting.example if value is None else value)}"
    line = line if value is not None else f"# {line}"
    return f"{line:<{_NOTE_AT}}  # {setting.about}"
