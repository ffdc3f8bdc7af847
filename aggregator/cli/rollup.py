"""`aggregator rollup`."""

from __future__ import annotations

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option
from aggregator.errors import IntegrityError, UsageError
from aggregator.model.days import parse_day

_EPILOG = """\b
Examples:
  aggregator rollup
  aggregator rollup --through 2026-10-15
"""


@command("rollup", epilog=_EPILOG)
@click.option("--through", metavar="DAY", help="Close no day after this one.")
@confirm_clock_option
def rollup_command(said: Globals, through: str | None, confirm_clock: bool) -> None:
    """Close every day that is due and write its tables; catches up, changes nothing twice."""
    from aggregator.pipeline.close import close_due_days
    from aggregator.pipeline.drain import drain_inbox

    if through is not None and parse_day(through) is None:
        raise UsageError("--through takes a day such as 2026-10-15")
    with said.write(confirm_clock=confirm_clock) as house:
        # What waits is older than this run, so it belongs to the days before they are closed.
        drain_inbox(house)
        closed = close_due_days(house, through)
    if said.json:
        rows = [{"day": day, "state": "closed"} for day in closed.days]
        rows += [{"day": day, "state": "failed"} for day in closed.failed]
        show.as_json({"rows": rows})
    elif closed.days:
        first, last = closed.days[0], closed.days[-1]
        span = first if first == last else f"{first} to {last}"
        print(f"closed {show.counted(len(closed.days), 'day')}: {span}")
    else:
        show.words(said, "no day is due")
    if closed.failed:
        day, problem = next(iter(closed.failed.items()))
        raise IntegrityError(f"{len(closed.failed)} days could not be closed; {day}: {problem}")
