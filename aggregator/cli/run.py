"""`aggregator run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option, log_option
from aggregator.errors import LockedError, UsageError, explain

_EPILOG = """\b
Jobs:
  ingest      take in the batches that agents left in the inbox, announce month keys
  daily       the same, close every day whose grace is over, queue and send fair-use notices
  mail        send the fair-use notices that wait
  month-end   destroy the raw counters of every month that is over
  checkpoint  note where the audit log ends
  doctor      check whether the deployment is sound
\b
Examples:
  aggregator --home /srv/usage run daily
  aggregator --home /srv/usage run month-end --confirm-clock
  aggregator -q --home /srv/usage run daily --wait --log json
Who runs them: `aggregator schedule`, or what `aggregator install-units` writes.
"""


@command("run", epilog=_EPILOG)
@click.argument("job")
@confirm_clock_option
@click.option(
    "--wait",
    is_flag=True,
    help="While another run has the lock, wait: up to an hour, as the job may; else it is refused.",
)
@log_option
def run_command(said: Globals, job: str, confirm_clock: bool, wait: bool, log: str | None) -> None:
    """Run one job once, for cron and systemd; a missed run is caught up by the next."""
    from jobs import runner
    from jobs.log import Form, Log
    from jobs.table import JOBS

    found = next((one for one in JOBS if one.name == job), None)
    if found is None:
        raise UsageError(f"the jobs are: {', '.join(one.name for one in JOBS)}")
    form = Form(log or "words")
    access = said.access(confirm_clock=confirm_clock)
    try:
        result = runner.run(found, access, Log(form, quiet=said.quiet), wait=wait)
    except Exception as error:
        # Cron would mail that another run works, which is no failure.
        is_no_failure = isinstance(error, LockedError) and wait and said.quiet
        if form is Form.WORDS and not is_no_failure:
            raise
        raise click.exceptions.Exit(explain(error)[1]) from None  # the log has told it
    if said.json:
        show.as_json({"job": found.name, **result})
    elif form is Form.WORDS:
        for what, done in result.items():
            show.words(said, f"{what}: {_words(done) or 'nothing was due'}")


def _words(done: int | Sequence[str] | Mapping[str, int]) -> str:
    if isinstance(done, int):
        return f"{done:,}" if done else ""
    if isinstance(done, Mapping):
        return ", ".join(f"{count:,} {what}" for what, count in done.items() if count)
    return ", ".join(done)
