"""Bring a home of an older release to this one's format, or back: a plan, then small-file edits.

Keys, raw counters, inbox and outbox are never touched or copied. Every state on the way is one that
opens, so a purge never waits for a migration, and a killed one is simply run again.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import shutil
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aggregator
from aggregator.pipeline import audit
from aggregator.pipeline.deployment import Deployment
from aggregator.stores import atomic, formats, gathered
from aggregator.stores.formats import Mark
from aggregator.stores.home import Home

_KIND: Final = "migrate"
_RELEASE_OF_1: Final = "0.1.0"
_SECTIONS_OF_1: Final = frozenset(
    {"format", "rehearsal", "limits", "keys", "door", "mail", "directory"}
)


class Action(enum.StrEnum):
    """What is done to a file or folder."""

    MAKE = "make"
    WRITE = "write"
    REMOVE = "remove"


@dataclasses.dataclass(frozen=True, slots=True)
class Edit:
    """One step: what is done to which path of the home, and why; `content` is what is written."""

    action: Action
    path: str
    reason: str
    content: bytes | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """The edits that bring a home from one format to a neighbouring one, in order."""

    from_format: int
    to_format: int
    does: str
    edits: tuple[Edit, ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Migration:
    """One row of the table: two neighbouring formats, and the edits either way.

    `forward` and `back` look at the home as it is, so that they go on from wherever a killed run
    stopped; `back` has none where the home is of the older format already.
    """

    older: int
    newer: int
    does: str
    forward: Callable[[Home], list[Edit]]
    back: Callable[[Home], list[Edit]]
    notes: Callable[[Home], tuple[str, ...]]


def next_plan(home: Home, *, back: bool = False) -> Plan | None:
    """Return the next step of `home` towards this release's format, or one back; None if none is.

    ConfigError if it is no home, or one of a newer release.
    """
    now = home.format
    if back:
        for row in reversed(MIGRATIONS):
            edits = row.back(home)
            if edits:
                return Plan(row.newer, row.older, row.does, tuple(edits), row.notes(home))
        return None
    for row in MIGRATIONS:
        if row.newer > now:
            return Plan(row.older, row.newer, row.does, tuple(row.forward(home)))
    return None


def carry_out(house: Deployment, plan: Plan) -> None:
    """Do what `plan` says, each edit durably before the next; record it before the last.

    RefusedError if the files would come to belong to another user.
    """
    house.home.check_user()
    for number, edit in enumerate(plan.edits, 1):
        if number == len(plan.edits):
            _record(house, plan)
        _do(house.home, edit)


def _do(home: Home, edit: Edit) -> None:
    path = home.root / edit.path
    if edit.action is Action.MAKE:
        atomic.make_folder(path)
    elif edit.action is Action.REMOVE and path.is_dir():
        shutil.rmtree(path)
        atomic.sync_folder(path.parent)
    elif edit.action is Action.REMOVE:
        atomic.remove(path)
    else:
        # What a link points to is written, not the link; modes stay.
        real = Path(os.path.realpath(path))
        mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else 0o644
        atomic.write(real, edit.content or b"", mode)


def _record(house: Deployment, plan: Plan) -> None:
    """Add the audit entry, unless a run that was killed right after it has done so."""
    detail = {"from": plan.from_format, "to": plan.to_format}
    entries, _broken = audit.read(house)
    last = next((one.detail for one in reversed(entries) if one.kind == _KIND), None)
    if last != detail:
        house.record(_KIND, detail)


def _to_2(home: Home) -> list[Edit]:
    """Return the edits from format 1 to 2, or those that a killed run left to do.

    home.json first says of format 1 what config.toml says; then the lines can go; last comes 2.
    """
    before = formats.read(home.mark_path)
    content = home.config_path.read_bytes()
    rest, taken = formats.take_out(content)
    kept = taken or (before.taken if before else ())
    staged = Mark(1, home.mark().rehearsal, aggregator.__version__, kept)
    edits = []
    if not home.folder("runs").is_dir():
        edits.append(Edit(Action.MAKE, "runs", "how each job went is noted there"))
    if before != staged:
        why = "says what the two lines of config.toml say, and keeps them for the way back"
        edits.append(_mark(home, staged, why))
    if rest != content:
        why = "without the lines of format and rehearsal it is settings only; all else stays"
        edits.append(Edit(Action.WRITE, home.config_path.name, why, rest))
    done = dataclasses.replace(staged, format=2)
    return [*edits, _mark(home, done, "from here on the home is of format 2")]


def _from_2(home: Home) -> list[Edit]:
    """Return the edits from format 2 back to 1, or those that a killed run left to do."""
    before = formats.read(home.mark_path)
    if before is None:
        return []
    edits = []
    if (home.root / gathered.FOLDER).exists():
        why = "copies of tables: an older release would not remove them in time"
        edits.append(Edit(Action.REMOVE, gathered.FOLDER, why))
    if before.format != 1:
        staged = dataclasses.replace(before, format=1)
        edits.append(_mark(home, staged, "from here on the home is of format 1"))
    content = home.config_path.read_bytes() if home.config_path.exists() else b""
    with_lines = formats.put_back(content, before)
    if content != with_lines:
        why = "an older release reads format and rehearsal there; all else stays"
        edits.append(Edit(Action.WRITE, home.config_path.name, why, with_lines))
    why = "a home of format 1 has none"
    return [*edits, Edit(Action.REMOVE, home.mark_path.name, why)]


def _notes_of_1(home: Home) -> tuple[str, ...]:
    """Return what an operator must do by hand before the release of format 1 works here."""
    content = home.config_path.read_text("utf-8") if home.config_path.exists() else ""
    unknown = sorted(set(tomllib.loads(content)) - _SECTIONS_OF_1)
    if not unknown:
        return ()
    names = ", ".join(f"[{name}]" for name in unknown)
    return (f"release {_RELEASE_OF_1} refuses {names} in config.toml: take that out for it",)


def _mark(home: Home, mark: Mark, why: str) -> Edit:
    return Edit(Action.WRITE, home.mark_path.name, why, mark.to_json())


MIGRATIONS: Final = (
    Migration(
        older=1,
        newer=2,
        does="home.json says what the home is, config.toml has nothing but settings",
        forward=_to_2,
        back=_from_2,
        notes=_notes_of_1,
    ),
)
