"""`aggregator migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command

if TYPE_CHECKING:
    from aggregator.pipeline.migrate import Plan

_EPILOG = """\b
Examples:
  aggregator migrate --dry-run
  aggregator migrate
  aggregator migrate --back
\b
A home of an older release works without it, purges included. Go back before an
older release is installed again: it refuses a home that is newer than itself.
"""


@command("migrate", epilog=_EPILOG)
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@click.option("--back", is_flag=True, help="To the format of the release before.")
def migrate_command(said: Globals, dry_run: bool, back: bool) -> None:
    """Bring a home of an older release to this one's format, or back.

    Changes small files only; keys, raw counters, inbox and outbox stay as they are. Exit 0 if
    there is nothing to do.
    """
    from aggregator.pipeline import migrate

    home = said.located()
    if dry_run:
        home.load_config()
        plan = migrate.next_plan(home, back=back)
        _tell(said, home.format, plan, done=False)
        return
    with said.write() as house:
        before, last = home.format, None
        while plan := migrate.next_plan(home, back=back):
            if not said.json:
                _table(plan)
            migrate.carry_out(house, plan)
            last = plan
            if back:
                break
        if said.json or last is None:
            _tell(said, before, last, done=True)
        else:
            _notes(said, last)
            show.words(said, f"{home.root} is of format {home.format} now")


def _tell(said: Globals, before: int, plan: Plan | None, *, done: bool) -> None:
    if said.json:
        show.as_json(_fields(before, plan, done=done and plan is not None))
    elif plan is None:
        show.words(said, f"nothing to do: the home is of format {before} already")
    else:
        _table(plan)
        _notes(said, plan)
        show.words(said, "nothing was changed; leave --dry-run out to do it")


def _fields(before: int, plan: Plan | None, *, done: bool) -> dict[str, Any]:
    edits = plan.edits if plan else ()
    return {
        "from": plan.from_format if plan else before,
        "to": plan.to_format if plan else before,
        "migrated": done,
        "notes": list(plan.notes) if plan else [],
        "rows": [
            {"action": edit.action.value, "path": edit.path, "reason": edit.reason}
            for edit in edits
        ],
    }


def _table(plan: Plan) -> None:
    print(f"format {plan.from_format} to {plan.to_format}:")
    rows = [(edit.action.value, edit.path, edit.reason) for edit in plan.edits]
    show.table(("do", "what", "why"), rows)


def _notes(said: Globals, plan: Plan) -> None:
    for note in plan.notes:
        show.words(said, f"note: {note}")
