"""The few questions of `aggregator init --interactive`; nothing is written before the last one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aggregator.errors import ConfigError, UsageError
from aggregator.model.config_table import Given
from aggregator.model.days import instant
from aggregator.model.settings import Security

if TYPE_CHECKING:
    from aggregator.cli.options import Globals

Answer = TypeVar("Answer")

_DEFAULT = "default"
_NONE = "none"
_PASSWORD_FILE = "/etc/aggregator/mail.password"  # noqa: S105 - where it lies, not what it is


def check_terminal() -> None:
    """Raise UsageError if nobody can be asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("--interactive asks at a terminal, and there is none; use --set instead")


def profile() -> str:
    """Ask for the policy profile: a readable file with one, or "default"."""
    return _ask("Policy profile, a file", _DEFAULT, _checked_profile)


def settings(given: Given) -> dict[str, dict[str, Any]]:
    """Ask for the mail server and for the operator; return these settings and those `given`."""
    found = {section: dict(table) for section, table in given.items()}
    mail, watch = found.get("mail", {}), found.get("watch", {})
    _words("\nMail: alerts to you when a job fails, and fair-use notices.")
    host = mail.get("host") or _setting("mail.host", "Mail server", _NONE)
    if host == _NONE:
        _words("No mail is sent then; the settings for it can be added to config.toml later.")
        return found
    mail["host"] = host
    _fill(mail, "security", lambda: _security(host))
    _fill(watch, "alert", lambda: _setting("watch.alert", "Your address, for alerts"))
    first = watch["alert"] if isinstance(watch["alert"], str) else watch["alert"][0]
    _fill(mail, "desk", lambda: _setting("mail.desk", "Who gets fair-use notices", first))
    _fill(mail, "from", lambda: _setting("mail.from", "Sender of the mails", first))
    if "username" not in mail and not any(name.startswith("password_") for name in mail):
        user = _setting("mail.username", "User name at the mail server", _NONE)
        if user != _NONE:
            mail["username"] = user
            asked = "File with its password"
            mail["password_file"] = _setting("mail.password_file", asked, _PASSWORD_FILE)
    return found | {"mail": mail, "watch": watch}


def confirm(said: Globals, home: Path, policy: str, given: Given) -> None:
    """Show what will be written, and how it is said without questions; Abort if it is not wanted.

    Raise UsageError if the settings do not fit together.
    """
    from aggregator.pipeline import new_settings
    from aggregator.stores import config_text

    new_settings.check(given)
    text = config_text.render(given)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    kind = "a rehearsal home" if said.now else "a home"
    _words(f"\nThis makes {kind} in {home}, with the policy profile {policy} and these settings:")
    for line in lines:
        _words(f"  {line}")
    _words(f"\nWithout questions: {shlex.join(_command(said, home, policy, given))}")
    if not click.confirm("Make it?", default=True, err=True):
        _words("Nothing was made.")
        raise click.Abort


def _command(said: Globals, home: Path, policy: str, given: Given) -> list[str]:
    """Return the words of a command that does the same without a question."""
    from aggregator.pipeline import new_settings

    words = ["aggregator", "init", "--home", str(home)]
    if said.now is not None:
        words += ["--now", instant(said.now)]
    if policy != _DEFAULT:
        words += ["--policy", policy]
    for one in new_settings.assignments(given):
        words += ["--set", one]
    return words


def _fill(table: dict[str, Any], name: str, ask: Callable[[], Any]) -> None:
    if name not in table:
        table[name] = ask()


def _security(host: str) -> str:
    """Ask how mail travels; in the clear only to this machine itself."""
    from aggregator.stores.values import is_loopback

    near = is_loopback(host)
    choices = [one.value for one in Security if near or one is not Security.NONE]

    def taken(text: str) -> str:
        if text not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return text

    question = f"How mail travels to it: {', '.join(choices)}"
    return _ask(question, choices[-1] if near else choices[0], taken)


def _setting(path: str, question: str, default: str | None = None) -> Any:
    """Ask for the value of the setting `path`, until one passes; "none" if that is the default."""
    from aggregator.pipeline import new_settings

    def taken(text: str) -> Any:
        return _NONE if text == default == _NONE else new_settings.value(path, text)

    return _ask(question, default, taken)


def _checked_profile(name: str) -> str:
    from aggregator.model.profile import parse_profile
    from aggregator.pipeline import new_settings

    parse_profile(new_settings.profile_text(name))
    return name


def _ask(question: str, default: str | None, take: Callable[[str], Answer]) -> Answer:
    """Ask until an answer passes; what is wrong with one is told without it."""

    def taken(text: str) -> Answer:
        try:
            return take(text.strip())
        except (ValueError, ConfigError) as error:
            raise click.UsageError(str(error)) from None

    answer: Answer = click.prompt(question, default=default, value_proc=taken, err=True)
    return answer


def _words(text: str) -> None:
    print(text, file=sys.stderr)
