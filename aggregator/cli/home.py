"""`aggregator init`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aggregator.cli import interview, show
from aggregator.cli.options import Globals, command, wall_clock
from aggregator.errors import UsageError

if TYPE_CHECKING:
    from aggregator.model.config_table import Given
    from aggregator.stores.home import Home

_EPILOG = """\b
Examples:
  aggregator init --home /srv/usage --interactive
  aggregator init --home /srv/usage --policy strict.toml
  aggregator init --home /srv/usage --set mail.host=mail.example.net \\
    --set mail.from=usage@example.net --set mail.desk=support@example.net
  aggregator init --home /srv/usage --exists-ok --json
  aggregator init --home rehearsal --now 2026-10-01T00:00:00Z
\b
--set takes numbers, true, false and lists as TOML has them, texts without quote marks.
A config.toml that is in the folder already is checked and kept.
"""


@command("init", epilog=_EPILOG)
@click.option("--policy", metavar="PROFILE", help="A policy profile, as a TOML file.")
@click.option(
    "--set",
    "assignments",
    metavar="SECTION.NAME=VALUE",
    multiple=True,
    help="A setting for config.toml; may be said again for others.",
)
@click.option(
    "--accept-weak-destruction",
    is_flag=True,
    help="Take a file system on which destroyed keys may survive.",
)
@click.option(
    "--exists-ok", is_flag=True, help="Exit 0 where a home is, change nothing, say what differs."
)
@click.option("--interactive", is_flag=True, help="Ask a few questions first, at a terminal.")
def init_command(
    said: Globals,
    policy: str | None,
    assignments: tuple[str, ...],
    accept_weak_destruction: bool,
    exists_ok: bool,
    interactive: bool,
) -> None:
    """Make a home: configuration, policy profile, folders.

    With --now it is a rehearsal home, whose clock is what --now says.
    """
    from aggregator.pipeline import new_settings

    home = said.located()
    given = _with_flag(new_settings.read(assignments), accept_weak=accept_weak_destruction)
    if interactive:
        interview.check_terminal()
    if exists_ok and home.is_made:
        _keep(said, home, given, policy)
        return
    if interactive:
        home.check_can_be_made()
        policy = policy or interview.profile()
        given = interview.settings(given)
        interview.confirm(said, home.root, policy, given)
    new_settings.check(given)
    _make(said, home, given, policy)


def _with_flag(given: dict[str, dict[str, Any]], *, accept_weak: bool) -> Given:
    """Return the settings with what --accept-weak-destruction says."""
    if not accept_weak:
        return given
    keys = given.setdefault("keys", {})
    if keys.get("accept_weak_destruction") is False:
        raise UsageError("--accept-weak-destruction and --set contradict each other; leave one")
    keys["accept_weak_destruction"] = True
    return given


def _make(said: Globals, home: Home, given: Given, policy: str | None) -> None:
    from aggregator import app
    from aggregator.pipeline import new_settings

    warning = app.create(
        home,
        said.now or wall_clock(),
        rehearsal=said.now is not None,
        accept_weak=bool(given.get("keys", {}).get("accept_weak_destruction")),
        profile=None if policy is None else new_settings.profile_text(policy),
        given=given,
    )
    if warning:
        show.words(said, f"warning: keys here could outlive their destruction: {warning}")
    if said.json:
        _as_json(said, home, made=True, differs=[])
    else:
        show.words(said, f"made {_kind(said)} in {home.root}; its policy is policy/profile.toml")


def _keep(said: Globals, home: Home, given: Given, policy: str | None) -> None:
    """Say that a home is there, and what of it is other than what was asked for."""
    from aggregator.pipeline import new_settings

    profile = None if policy is None else new_settings.profile_text(policy)
    rehearsal = said.now is not None
    differs = new_settings.differences(home, given, profile, rehearsal=rehearsal)
    if said.json:
        _as_json(said, home, made=False, differs=differs)
        return
    show.words(said, f"there is {_kind(said)} already in {home.root}; nothing was changed")
    for name in differs:
        show.words(said, f"warning: {name} is other than asked for, and was kept")


def _as_json(said: Globals, home: Home, *, made: bool, differs: list[str]) -> None:
    rehearsal = said.now is not None
    fields = {"home": str(home.root), "rehearsal": rehearsal, "made": made, "differs": differs}
    show.as_json(fields)


def _kind(said: Globals) -> str:
    return "a rehearsal home" if said.now else "a home"
