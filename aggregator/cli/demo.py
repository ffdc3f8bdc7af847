"""`aggregator demo`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command
from aggregator.cli.progress import shown
from aggregator.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from aggregator.demo.story import Story

_EPILOG = """\b
Examples:
  aggregator demo
  aggregator demo --home rehearsal
  aggregator demo --json
"""


@command("demo", epilog=_EPILOG)
@click.option("--keep", is_flag=True, help="Keep the home of the demonstration to look around in.")
def demo_command(said: Globals, keep: bool) -> None:
    """Show the whole way, from daemons' captures through a purge.

    Works in a rehearsal home of its own: in --home, where it stays, or in a temporary folder. It
    tests what it tells; a claim that does not hold ends it with exit code 6.
    """
    from aggregator.demo.story import Story

    if said.now is not None or said.config is not None:
        raise UsageError("the demonstration brings its own clock and settings; leave them out")
    named = _named_home()
    with _folders(named, keep) as (root, delivered):
        story = Story(root, delivered, shown(said))
        if story.weakness:
            show.words(
                said, f"warning: keys here could outlive their destruction: {story.weakness}"
            )
        kept = root if keep or named else None
        if said.json:
            _as_json(story, kept)
        else:
            _as_text(story, kept)
        failed = [check.claim for check in story.checks if not check.holds]
    if failed:
        raise IntegrityError(
            f"{len(failed)} of the demonstration's claims do not hold: {failed[0]}"
        )


def _as_text(story: Story, kept: Path | None) -> None:
    from aggregator.cli.demo_text import Teller

    teller = Teller(story)
    teller.opening()
    teller.daemons(story.read_daemons())
    days = story.run_days()
    teller.days(days)
    teller.reports(days)
    teller.fair_use(story.fair_use())
    teller.before(story.search_before())
    teller.after(story.purge())
    teller.closing(kept)


def _as_json(story: Story, kept: Path | None) -> None:
    daemons, days = story.read_daemons(), story.run_days()
    fair_use = story.fair_use()
    before, after = story.search_before(), story.purge()
    show.as_json(
        {
            "home": None if kept is None else str(kept),
            "daemon_records": len(daemons.records),
            "accepted": days.accepted,
            "rejected": days.reasons.total(),
            "reasons": dict(days.reasons.most_common()),
            "days_closed": len(days.closed),
            "purged": days.purged,
            "named_cells": days.cells,
            "user_days": days.users,
            "named_user_days": days.named_users,
            "fair_use_notices": fair_use.told,
            "found_before": {
                "names_in_deliveries": before.delivered.names,
                "names": before.home.names,
                "pseudonyms": before.home.pseudonyms,
                "keys": before.home.secrets,
            },
            "found_after": {
                "names": after.home.names,
                "pseudonyms": after.home.pseudonyms,
                "keys": after.home.secrets,
                "late_record": dict(after.late_reasons),
            },
            "receipt": after.receipt,
            "checks": [{"claim": one.claim, "holds": one.holds} for one in story.checks],
        }
    )


def _named_home() -> Path | None:
    """Return the --home of the command line; AGGREGATOR_HOME is a deployment, and left alone."""
    context: click.Context | None = click.get_current_context()
    while context is not None:
        home: Path | None = context.params.get("home")
        if home is not None:
            return home
        context = context.parent
    return None


@contextlib.contextmanager
def _folders(named: Path | None, keep: bool) -> Iterator[tuple[Path, Path]]:
    """Give the home's folder and one for deliveries; remove what is not to stay, come what may."""
    with tempfile.TemporaryDirectory(prefix="aggregator-demo-delivered-") as delivered:
        if named is not None:
            yield named, Path(delivered)
            return
        root = Path(tempfile.mkdtemp(prefix="aggregator-demo-"))
        try:
            yield root, Path(delivered)
        finally:
            if not keep:
                shutil.rmtree(root)
