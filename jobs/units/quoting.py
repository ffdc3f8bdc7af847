"""How a word is written for systemd (systemd.syntax(7), systemd.service(5)) and for cron."""

from __future__ import annotations

import re
import shlex
from typing import Final

from aggregator.errors import UsageError

# Control characters of ASCII and of Latin-1, and what of a file's name is no UTF-8.
_UNSPEAKABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\"'\\\\]")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:,=+~%@-]+")
# What systemd takes as a user or a group, strict.
_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}", re.IGNORECASE)


def check_path(path: str, what: str) -> None:
    """Raise UsageError if the absolute `path` cannot stand in a unit or a crontab."""
    if not path.startswith("/") or path == "/":
        raise UsageError(f"{what} needs an absolute path, and not / itself")
    if _UNSPEAKABLE.search(path) or path != path.strip():
        problem = "has a quote, a backslash, a line's end or the like, which no unit can name"
        raise UsageError(f"{what} {problem}; choose another path")


def check_name(name: str, what: str) -> None:
    """Raise UsageError if `name` cannot be a user's or a group's."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{what} is a name of letters, digits, _ and -, such as aggregator")


def setting_word(text: str) -> str:
    """Return `text` as one word of a unit's setting: no specifier, spaces kept."""
    escaped = text.replace("%", "%%")
    return escaped if _PLAIN.fullmatch(escaped) else f'"{escaped}"'


def exec_word(text: str) -> str:
    """Return `text` as one word of ExecStart=, where `$` would begin a variable."""
    return setting_word(text.replace("$", "$$"))


def cron_word(text: str) -> str:
    """Return `text` as one word of a crontab's command: for the shell, and `%` is no line's end."""
    return shlex.quote(text).replace("%", "\\%")
