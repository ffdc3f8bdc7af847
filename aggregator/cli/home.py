"""`aggregator init`."""

from __future__ import annotations

from pathlib import Path

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, wall_clock
from aggregator.errors import ConfigError

_EPILOG = """\b
Examples:
  aggregator init --home /srv/usage
  aggregator init --home /srv/usage --policy strict.toml
  aggregator init --home rehearsal --now 2026-10-01T00:00:00Z
"""


@command("init", epilog=_EPILOG)
@click.option("--policy", metavar="PROFILE", help="A policy profile, as a TOML file.")
@click.option(
    "--accept-weak-destruction",
    is_flag=True,
    help="Take a file system on which destroyed keys may survive.",
)
def init_command(said: Globals, policy: str | None, accept_weak_destruction: bool) -> None:
    """Make a home: configuration, policy profile, folders.

    With --now it is a rehearsal home, whose clock is what --now says.
    """
    from aggregator import app

    home = said.located()
    warning = app.create(
        home,
        said.now or wall_clock(),
        rehearsal=said.now is not None,
        accept_weak=accept_weak_destruction,
        profile=None if policy is None else _profile_text(policy),
    )
    if warning:
        show.words(said, f"warning: keys here could outlive their destruction: {warning}")
    if said.json:
        show.as_json({"home": str(home.root), "rehearsal": said.now is not None})
    else:
        kind = "a rehearsal home" if said.now else "a home"
        show.words(said, f"made {kind} in {home.root}; its policy is policy/profile.toml")


def _profile_text(name: str) -> str:
    if name == "default":
        from aggregator.model.profile import DEFAULT_PROFILE

        return DEFAULT_PROFILE
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"cannot read the policy profile {name}") from None
