"""Settings that a command line or a person gives a new home: read, checked, and compared.

They are checked by the same table as a settings file, before anything is written. No error
repeats a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from aggregator.errors import ConfigError, RefusedError, UsageError
from aggregator.model.config_table import SETTINGS, Given, find
from aggregator.model.profile import DEFAULT_PROFILE, parse_profile
from aggregator.stores import config, config_text, settings, values
from aggregator.stores.home import Home, differing

_SHOWN: Final = 40


def read(assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the settings that texts such as "mail.port=587" give; UsageError says what is wrong.

    They are checked one by one; `check` does so for the whole.
    """
    found: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError("--set takes section.name=value, such as mail.port=587")
        try:
            given = value(path.strip(), text)
        except ValueError as error:
            raise UsageError(f"--set: {error}") from None
        section, _, name = path.strip().partition(".")
        if name in found.setdefault(section, {}):
            raise UsageError(f"--set: {section}.{name} is given twice")
        found[section][name] = given
    return found


def value(path: str, text: str) -> Any:
    """Return the value that `text` gives the setting called `path`; ValueError says what is wrong.

    A number, true or false and a list are written as in TOML, a text without quote marks.
    """
    setting = find(path)
    if setting is None:
        near = difflib.get_close_matches(path, [one.path for one in SETTINGS], 1)
        remedy = f"did you mean {near[0]}?" if near else "see: aggregator config schema"
        raise ValueError(f"unknown setting: {path[:_SHOWN]!a}; {remedy}")
    found = values.read(setting, text)
    what = values.fault(setting, found)
    if what is not None:
        raise ValueError(f"{path} {what}; such as {values.as_text(setting.example)}")
    return found


def check(given: Given) -> None:
    """Raise UsageError if a new home cannot have the settings `given`, all of them together."""
    data = config.parse(config_text.render(given))
    for mistake in settings.mistakes(data):
        raise UsageError(f"--set: {mistake.what}; {mistake.remedy}")


def profile_text(name: str) -> str:
    """Return the text of the profile in the file `name`, "default" for the one that comes along.

    ConfigError if it cannot be read.
    """
    if name == "default":
        return DEFAULT_PROFILE
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"cannot read the policy profile {name}") from None


def assignments(given: Given) -> list[str]:
    """Return the texts of which `read` makes the settings `given`."""
    return [
        f"{section}.{name}={values.as_text(one)}"
        for section, table in given.items()
        for name, one in table.items()
    ]


def differences(home: Home, given: Given, profile: str | None, *, rehearsal: bool) -> list[str]:
    """Return what a home has otherwise: settings `given`, by name, and "policy" for its profile.

    The environment is left aside. RefusedError if it is a rehearsal and a live home is meant, or
    the other way round; ConfigError if the home cannot be read.
    """
    if home.mark().rehearsal != rehearsal:
        kind, when = ("live", "without") if rehearsal else ("rehearsal", "with")
        raise RefusedError(f"the home in {home.root} is a {kind} home, as is made {when} --now")
    found = differing(home.own_settings(), given)
    if profile is not None and home.load_profile().digest != parse_profile(profile).digest:
        found.append("policy")
    return found
