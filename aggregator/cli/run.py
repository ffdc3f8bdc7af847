"""`aggregator run`."""

from __future__ import annotations

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option
from aggregator.errors import UsageError

_EPILOG = """\b
Jobs:
  ingest     take in the batches that agents left in the inbox
  daily      the same, then close every day whose grace is over
  month-end  destroy the raw counters of every month that is over
\b
Examples (crontab, UTC):
  */5 * * * *  aggregator -q --home /srv/usage run ingest
  20 0 * * *  aggregator -q --home /srv/usage run daily
  40 * * * *  aggregator -q --home /srv/usage run month-end
"""


@command("run", epilog=_EPILOG)
@click.argument("job")
@confirm_clock_option
def run_command(said: Globals, job: str, confirm_clock: bool) -> None:
    """Run one job once, for cron and systemd; a missed run is caught up by the next."""
    from jobs.table import JOBS

    found = next((one for one in JOBS if one.name == job), None)
    if found is None:
        raise UsageError(f"the jobs are: {', '.join(one.name for one in JOBS)}")
    with said.write(confirm_clock=confirm_clock) as house:
        result = found.run(house)
    if said.json:
        show.as_json({"job": found.name, **result})
    else:
        for what, which in result.items():
            show.words(said, f"{what}: {', '.join(which) or 'nothing was due'}")
