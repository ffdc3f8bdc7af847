"""Check the settings of a home, all of them at once: each mistake with its line and its remedy.

It looks at the files that settings name as well. No command with a secret is run, and no value is
repeated.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aggregator import secret as source
from aggregator.errors import ConfigError
from aggregator.model.config_table import (
    FILE,
    SECRETS,
    SETTINGS,
    Kind,
    Mistake,
    Setting,
)
from aggregator.model.settings import Secret
from aggregator.pipeline import check_profile
from aggregator.stores import config, formats, overrides, values
from aggregator.stores.home import Home
from aggregator.stores.toml_lines import line_of

_PLACE: Final = re.compile(r"\(at line ([0-9]+), column [0-9]+\)")
_CLOSE_IT: Final = "run chmod 0600 on it, or 0640 for a group"


class Level(enum.StrEnum):
    """How bad a finding is: a mistake must be mended, a warning is to be thought about."""

    MISTAKE = "mistake"
    WARNING = "warning"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One finding: `where` is a file or a variable, `line` None where there is none to name."""

    level: Level
    where: str
    line: int | None
    setting: str
    what: str
    remedy: str


def check(home: Home, path: Path | None = None) -> list[Found]:
    """Return everything that is wrong with the settings of `home`, or with those in `path`.

    With the home's own, its policy profile is checked as well. OSError if the file cannot be read,
    ConfigError if home.json cannot.
    """
    where = path or home.settings or home.config_path
    found = list(_of_file(home, where))
    if path is None:
        found += _of_profile(home.profile_path)
    return found


def _of_profile(path: Path) -> Iterator[Found]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        what = "the policy profile is missing"
        yield Found(Level.MISTAKE, str(path), None, "", what, "restore it")
        return
    one = check_profile.first_mistake(content)
    if one is not None:
        yield Found(Level.MISTAKE, str(path), one.line, one.setting, one.what, one.remedy)


def _of_file(home: Home, path: Path) -> Iterator[Found]:
    """Yield what is wrong with a settings file, and with what it and the environment name."""
    content = path.read_bytes()
    try:
        text = content.decode()
        data = config.parse(text)
    except (ValueError, RecursionError) as error:
        yield _no_toml(error, content, str(path))
        return
    merged = overrides.merge(data, home.environment)
    told = [(Level.MISTAKE, one) for one in config.mistakes(merged)]
    told += [(Level.MISTAKE, one) for one in _of_format(home, data, path)]
    for level, one in _files(home, merged.data):
        where = merged.variables.get(one.setting, one.where)
        told.append((level, dataclasses.replace(one, where=where)))
    told += [(Level.WARNING, one) for one in (*_inline(data, path), *_half(merged.data))]
    told += [(Level.WARNING, one) for one in merged.warnings]
    placed = [_placed(level, one, text, str(path)) for level, one in told]
    # From the top of the file to its end; then what is in no line of it.
    yield from sorted(placed, key=lambda one: (one.line is None, one.line or 0))


def _placed(level: Level, mistake: Mistake, text: str, name: str) -> Found:
    """Return a mistake with its line, which one in the environment has not."""
    if mistake.where != FILE:
        return Found(level, mistake.where, None, mistake.setting, mistake.what, mistake.remedy)
    line = line_of(text, tuple(mistake.setting.split(".", 1)))
    return Found(level, name, line, mistake.setting, mistake.what, mistake.remedy)


def _no_toml(error: Exception, content: bytes, name: str) -> Found:
    """Return where a file stops being TOML; the words of its reader, which quote no value."""
    if isinstance(error, UnicodeDecodeError):
        line = content.count(b"\n", 0, error.start) + 1
        return Found(Level.MISTAKE, name, line, "", "this is not UTF-8 text", "save it as UTF-8")
    words = " ".join(str(error).split())
    place = _PLACE.search(words)
    line = int(place[1]) if place else content.count(b"\n") + 1
    what = f"this is not TOML: {_PLACE.sub('', words).strip()}"
    return Found(Level.MISTAKE, name, line, "", what, "correct this line, or the one before it")


def _of_format(home: Home, data: Mapping[str, Any], path: Path) -> Iterator[Mistake]:
    """Yield what a settings file says of the home itself, other than the home does."""
    try:
        formats.check_known(data, path)
    except ConfigError:
        what = f"there is no such format in this release, which knows 1 to {formats.FORMAT}"
        yield Mistake("format", what, "take the line out, or upgrade")
        return
    mark = formats.read(home.mark_path)
    if mark is None or path != home.config_path:
        return
    for name, value in (("format", mark.format), ("rehearsal", mark.rehearsal)):
        said = data.get(name, value)
        if type(said) is not type(value) or said != value:
            what = f"{name} is other than in home.json, which counts"
            yield Mistake(name, what, "take the line out")


def _files(home: Home, data: Mapping[str, Any]) -> Iterator[tuple[Level, Mistake]]:
    """Yield what is wrong with the files, folders, variables and commands that settings name."""
    for setting in SETTINGS:
        table = data.get(setting.section)
        value = table.get(setting.name) if isinstance(table, dict) else None
        if value is not None and values.fault(setting, value) is None:
            secret = _secret(setting, value, home.root)
            if secret is not None:
                yield from _of_secret(home, setting, secret)
            elif setting.kind is Kind.PATH:
                yield from _of_path(setting, home.root / value)
            elif setting.kind is Kind.WORDS:
                yield from _of_command(home, setting, value[0])


def _secret(setting: Setting, value: Any, root: Path) -> Secret | None:
    """Return the secret that `setting` names, None if it names none."""
    stems = {secret + way: way for secret, ways in SECRETS.items() for way in ways if way}
    way = stems.get(setting.path)
    if way == "_file":
        return Secret(file=str(root / value))
    if way == "_env":
        return Secret(variable=value)
    if way == "_credential":
        return Secret(credential=value)
    return Secret(command=tuple(value)) if way == "_command" else None


def _of_secret(home: Home, setting: Setting, secret: Secret) -> Iterator[tuple[Level, Mistake]]:
    path = setting.path
    if secret.command:
        yield from _of_command(home, setting, secret.command[0])
        return
    try:
        text = source.read(secret, home.environment)
    except source.SecretError as error:
        level, remedy = _SECRET_FAULTS.get(error.fault, (Level.MISTAKE, "correct it"))
        yield level, Mistake(path, f"{path} {error.fault}", remedy)
        return
    if path.startswith("watch.ping_url") and (fault := values.ping_url_fault(text)):
        yield Level.MISTAKE, Mistake(path, f"what {path} gives {fault}", "correct what it names")
    if secret.file is not None and _is_open_to_others(Path(secret.file)):
        what = f"{path} names a file that others may read"
        yield Level.MISTAKE, Mistake(path, what, _CLOSE_IT)


def _of_command(home: Home, setting: Setting, word: str) -> Iterator[tuple[Level, Mistake]]:
    if shutil.which(word, path=home.environment.get("PATH")) is None:
        what = f"{setting.path} names a command that is not there"
        yield Level.MISTAKE, Mistake(setting.path, what, "give its full path, and see its mode")


_SECRET_FAULTS: Final = {
    source.Fault.MISSING: (Level.MISTAKE, "make it, with mode 0600, or correct the path"),
    source.Fault.UNREADABLE: (Level.WARNING, "let the user who runs the jobs read it; are you?"),
    source.Fault.EMPTY: (Level.MISTAKE, "put the secret there"),
    # Here is not where the jobs run.
    source.Fault.UNSET: (Level.WARNING, "see that the jobs have it, though it is not set here"),
    source.Fault.NO_CREDENTIALS: (Level.WARNING, "see that the units have LoadCredential for it"),
    source.Fault.NOT_HANDED_OVER: (Level.MISTAKE, "add LoadCredential for it to the unit"),
}


def _is_open_to_others(path: Path) -> bool:
    """Say whether others than the owner and its group may read or write a file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & (stat.S_IROTH | stat.S_IWOTH))


def _of_path(setting: Setting, path: Path) -> Iterator[tuple[Level, Mistake]]:
    """Yield what is wrong with a path; what is not there yet is a warning only."""
    name = setting.path
    if name == "watch.metrics_file":
        if not os.access(path.parent, os.W_OK):
            what = f"{name} is in a folder that is not there or cannot be written to"
            yield Level.WARNING, Mistake(name, what, "make it, owned by who runs the jobs")
    elif name == "mail.templates":
        if not os.path.isdir(path):
            what = f"{name} names a folder that is not there"
            yield Level.MISTAKE, Mistake(name, what, "make it, or take the setting out")
    elif not os.path.isfile(path):  # a Path raises where it may not look
        what = f"{name} names a file that is not there"
        yield Level.WARNING, Mistake(name, what, "put it there before it is needed")
    elif name in _NOT_FOR_OTHERS and _is_open_to_others(path):
        what = f"{name} names a file that others may read"
        yield _NOT_FOR_OTHERS[name], Mistake(name, what, _CLOSE_IT)


# The one is a key, the other holds every account and its address.
_NOT_FOR_OTHERS: Final = {
    "door.private_key": Level.MISTAKE,
    "directory.path": Level.WARNING,
}


def _inline(data: Mapping[str, Any], path: Path) -> Iterator[Mistake]:
    """Yield secrets that stand in a settings file itself, if others may read it."""
    for secret in SECRETS:
        section, _, name = secret.partition(".")
        table = data.get(section)
        if isinstance(table, dict) and name in table and _is_open_to_others(path):
            what = f"{secret} may hold a secret, and others may read this file"
            yield Mistake(secret, what, f"run chmod 0600 on it, or use {name}_file")


def _half(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield that one half of the door's TLS is missing; without both it serves with --plain."""
    door, halves = data.get("door"), ("certificate", "private_key")
    given = [name for name in halves if isinstance(door, dict) and name in door]
    if len(given) == 1:
        what = "door.certificate and door.private_key belong together"
        yield Mistake(f"door.{given[0]}", what, "set both, or neither")
