"""config.toml: the settings of a deployment, read and checked.

What is wrong in a section that not every command needs is kept as that section's problem: a
mistake in [door] or [mail] must not stop a roll-up or a purge.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aggregator.errors import ConfigError
from aggregator.model.config_table import SECTIONS, Mistake
from aggregator.model.settings import (
    DashboardSettings,
    DirectorySettings,
    MailSettings,
    WatchSettings,
)
from aggregator.stores import overrides, settings
from aggregator.stores.settings import DoorConfig

__all__ = ["Config", "DoorConfig", "check", "mistakes", "parse", "read"]

_SECONDS_A_DAY: Final = 86_400
_APART: Final = frozenset(section.name for section in SECTIONS if section.apart)


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """The settings in config.toml.

    `mail_problem` says what is wrong with [mail] or [directory], which then are None: only what
    sends notices stops for it, by `check_mail`. `door_problem` is that of [door], which stops the
    door and the enrolment of agents; `dashboard_problem` that of [dashboard], which stops the
    dashboard. `schedule_problem` and `watch_problem` say the same of these two; one that is wrong
    is as if it were not there, and nothing stops for it.
    """

    rehearsal: bool
    link_rate_gbits: int
    accept_weak_destruction: bool
    door_settings: DoorConfig | None = None
    mail: MailSettings | None = None
    directory: DirectorySettings | None = None
    mail_problem: str | None = None
    schedule: Mapping[str, str] = dataclasses.field(default_factory=dict)
    watch: WatchSettings = dataclasses.field(default_factory=WatchSettings)
    schedule_problem: str | None = None
    watch_problem: str | None = None
    door_problem: str | None = None
    dashboard_settings: DashboardSettings | None = None
    dashboard_problem: str | None = None

    def check_mail(self) -> None:
        """Raise ConfigError if [mail] or [directory] cannot be used."""
        if self.mail_problem is not None:
            raise ConfigError(self.mail_problem)

    def check_door(self) -> None:
        """Raise ConfigError if [door] cannot be used."""
        if self.door_problem is not None:
            raise ConfigError(self.door_problem)

    @property
    def door(self) -> DoorConfig:
        """The settings in [door]; ConfigError if they cannot be used."""
        self.check_door()
        assert self.door_settings is not None
        return self.door_settings

    @property
    def dashboard(self) -> DashboardSettings:
        """The settings in [dashboard]; ConfigError if they cannot be used."""
        if self.dashboard_problem is not None:
            raise ConfigError(self.dashboard_problem)
        assert self.dashboard_settings is not None
        return self.dashboard_settings

    @property
    def problems(self) -> Mapping[str, str]:
        """What is wrong with sections that do not stop everything: section, one line."""
        several = {
            "dashboard": self.dashboard_problem,
            "door": self.door_problem,
            "mail": self.mail_problem,
            "schedule": self.schedule_problem,
            "watch": self.watch_problem,
        }
        return {name: problem for name, problem in several.items() if problem is not None}

    @property
    def max_bytes(self) -> int:
        """The most bytes that a link can carry in a day, both directions added."""
        return self.link_rate_gbits * 10**9 // 8 * _SECONDS_A_DAY


@dataclasses.dataclass(frozen=True, slots=True)
class Contact:
    """What it takes to tell the operator: each section by itself, as if it were missing if wrong.

    So a mistake elsewhere, which may stop everything, does not go untold.
    """

    mail: MailSettings | None
    watch: WatchSettings
    schedule: Mapping[str, str]


def read(path: Path) -> dict[str, Any]:
    """Return what the settings file says; ConfigError if it is no TOML.

    FileNotFoundError or NotADirectoryError if there is none.
    """
    try:
        return parse(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # also numbers and depths beyond all measure
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not TOML: {reason}") from None


def parse(text: str) -> dict[str, Any]:
    """Return what a settings file says; ValueError or RecursionError if it is no TOML."""
    return tomllib.loads(text)


def check(
    data: Mapping[str, Any],
    root: Path,
    *,
    rehearsal: bool,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Return the settings in `data` for the home `root`; ConfigError says what is wrong.

    Relative paths begin in `root`. `rehearsal` is the home's own word on what it is. Variables of
    `environment` override settings.
    """
    merged = overrides.merge(data, environment or {})
    found = mistakes(merged)
    settings.raise_first(one for one in found if one.section not in _APART)
    problems = {
        name: settings.first_of(one for one in found if one.section == name) for name in _APART
    }
    good = {name: merged.data.get(name) for name in _APART if problems[name] is None}
    mailing = {"mail", "directory"} <= good.keys()
    return Config(
        rehearsal=rehearsal,
        link_rate_gbits=merged.data["limits"]["link_rate_gbits"],
        accept_weak_destruction=merged.data["keys"]["accept_weak_destruction"],
        door_settings=settings.door(good["door"], root) if "door" in good else None,
        mail=settings.mail(good["mail"], root) if mailing else None,
        directory=settings.directory(good["directory"], root) if mailing else None,
        mail_problem=_joined(problems, "mail", "directory"),
        schedule=settings.schedule(good.get("schedule")),
        watch=settings.watch(good.get("watch"), root),
        schedule_problem=problems["schedule"],
        watch_problem=problems["watch"],
        door_problem=problems["door"],
        dashboard_settings=settings.dashboard(good["dashboard"], root)
        if "dashboard" in good
        else None,
        dashboard_problem=problems["dashboard"],
    )


def contact(
    data: Mapping[str, Any], root: Path, environment: Mapping[str, str] | None = None
) -> Contact:
    """Return how the operator is told, whatever else is wrong in `data`."""
    merged = overrides.merge(data, environment or {})
    wrong = {one.section for one in mistakes(merged)}
    good = {name: table for name, table in merged.data.items() if name not in wrong}
    return Contact(
        settings.mail(good.get("mail"), root),
        settings.watch(good.get("watch"), root),
        settings.schedule(good.get("schedule")),
    )


def mistakes(merged: overrides.Merged) -> list[Mistake]:
    """Return everything that is wrong with settings and with the variables that override them."""
    return [
        *merged.mistakes,
        *(
            dataclasses.replace(one, where=merged.variables.get(one.setting, one.where))
            for one in settings.mistakes(merged.data)
        ),
    ]


def _joined(problems: Mapping[str, str | None], *sections: str) -> str | None:
    told = [problem for name in sections if (problem := problems[name]) is not None]
    return "; and ".join(told) if told else None
