"""`aggregator run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option
from aggregator.errors import UsageError

_EPILOG = """\b
Jobs:
  ingest     take in the batches that agents left in the inbox
  daily      the same, close every day whose grace is over, queue and send fair-use notices
  mail       send the fair-use notices that wait
  month-end  destroy the raw counters of every month that is over
\b
Examples (crontab, UTC):
  2-57/5 * * * *  aggregator -q --home /srv/usage run ingest
  20 0 * * *  aggregator -q --home /srv/usage run daily
  4-54/10 * * * *  aggregator -q --home /srv/usage run mail
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
    result = found.run(said.access(confirm_clock=confirm_clock))
    if said.json:
        show.as_json({"job": found.name, **result})
    else:
        for what, done in result.items():
            show.words(said, f"{what}: {_words(done) or 'nothing was due'}")


def _words(done: int | Sequence[str] | Mapping[str, int]) -> str:
    if isinstance(done, int):
        return f"{done:,}" if done else ""
    if isinstance(done, Mapping):
        return ", ".join(f"{count:,} {what}" for what, count in done.items() if count)
    return ", ".join(done)
