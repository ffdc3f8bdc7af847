"""`aggregator keys`."""

from __future__ import annotations

from typing import Any

import click

from aggregator.cli import show
from aggregator.cli.options import (
    Globals,
    command,
    confirm_clock_option,
    global_options,
    take_globals,
)
from aggregator.model.days import instant

_EPILOG = """\b
Examples:
  aggregator keys publish
  aggregator keys publish --json
"""


@click.group("keys", epilog=_EPILOG)
@global_options
@click.pass_context
def keys_command(context: click.Context, /, **values: Any) -> None:
    """Month keys: announce those that agents seal their batches to."""
    context.obj = take_globals(context, values)


@command("publish", epilog=_EPILOG)
@confirm_clock_option
def publish_command(said: Globals, confirm_clock: bool) -> None:
    """Make the month keys that are needed, and announce them; changes nothing when run again.

    The jobs ingest and daily do the same.
    """
    from aggregator.pipeline import publish

    with said.write(confirm_clock=confirm_clock) as house:
        new = publish.publish(house)
        announced = publish.announced(house)
    if said.json:
        rows = [
            {"month": key.month, "key_id": key.key_id, "purge_at": instant(key.purge_at)}
            for key in announced
        ]
        show.as_json({"rows": rows})
    else:
        for key in announced:
            news = ", new" if key.month in new else ""
            print(f"{key.month}  key {key.key_id}, until {instant(key.purge_at)}{news}")


keys_command.add_command(publish_command)
