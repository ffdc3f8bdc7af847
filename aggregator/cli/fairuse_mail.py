"""`aggregator fairuse send|list|acknowledge|snooze`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option
from aggregator.errors import UsageError
from aggregator.model.days import is_month, parse_day

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SEND_EPILOG: Final = """\b
Examples:
  aggregator fairuse send
  aggregator fairuse send --test support@example.net
  aggregator fairuse send --again
"""
_LIST_EPILOG: Final = """\b
States: queued, deferred (tried again later), sent, failed (refused for good),
withheld (exempt, objects, restricted, another plan, no address, acknowledged,
superseded by a higher step, snoozed).
\b
Examples:
  aggregator fairuse list
  aggregator fairuse list --state deferred
  aggregator fairuse list --month 2026-10 --json
"""


@command("send", epilog=_SEND_EPILOG)
@click.option("--test", "address", metavar="ADDRESS", help="Send a made-up notice there, at once.")
@click.option("--again", is_flag=True, help="Also what a server has refused for good.")
@confirm_clock_option
def send_command(said: Globals, address: str | None, again: bool, confirm_clock: bool) -> None:
    """Judge the month, queue new notices, and send all that wait.

    Messages whose next try is later are tried at once. What could not be delivered stays queued
    and ends the command with exit code 7. Without mail settings notices wait, and that is fine.
    """
    if address is not None:
        _send_test(said, address)
        return
    from aggregator.errors import AggregatorError
    from aggregator.pipeline import notices
    from jobs import mail

    access = said.access(confirm_clock=confirm_clock)
    problem: AggregatorError | None = None
    queued = 0
    with access.write() as house:
        configured = house.config.mail is not None
        try:
            queued = notices.queue(house).notices
        except AggregatorError as error:
            problem = error  # what was queued before is sent all the same
    delivered = mail.send(access, by_hand=True, again=again)
    if said.json:
        show.as_json({"queued": queued, **delivered.counts()})
    else:
        _tell_sent(said, queued, delivered.counts(), configured=configured)
    if problem is not None:
        raise problem
    mail.check(delivered)


def _tell_sent(said: Globals, queued: int, counts: Mapping[str, int], *, configured: bool) -> None:
    if queued:
        show.words(said, f"queued: {show.counted(queued, 'notice')}")
    told = [f"{count:,} {what}" for what, count in counts.items() if count]
    if not configured and counts.get("waiting"):
        show.words(said, "config.toml has no [mail]: notices wait, and expire with their month")
    print(f"messages: {', '.join(told) or 'none to send'}")


def _send_test(said: Globals, address: str) -> None:
    """Send a mail with made-up figures, to see whether and how it arrives."""
    from aggregator.pipeline import trial

    house = said.read()
    trial.send_trial(house, address)
    if said.json:
        show.as_json({"sent": 1})
    else:
        print("the test notice was accepted by the mail server")


@command("list", epilog=_LIST_EPILOG)
@click.option("--month", metavar="YYYY-MM", help="Notices of this month only.")
@click.option(
    "--state",
    type=click.Choice(("queued", "deferred", "sent", "failed", "withheld")),
    help="Messages in this state only.",
)
def list_command(said: Globals, month: str | None, state: str | None) -> None:
    """Show the notices of the months that are kept, and what became of each."""
    from aggregator.pipeline import notices

    if month is not None and not is_month(month):
        raise UsageError("--month takes a month such as 2026-10")
    rows = [
        row
        for row in notices.listed(said.read())
        if month in (None, row["month"]) and state in (None, row["state"])
    ]
    if said.json:
        show.as_json({"rows": rows})
    elif rows:
        _table(rows)
    else:
        show.words(said, "no notice; the counts of past months: aggregator report fair-use")


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    columns = ("reference", "day", "rule", "step", "for", "state", "tries", "next try", "why")
    shown = [
        (
            row["reference"],
            row["day"],
            row["rule"],
            f"{row['percent']} %",
            row["audience"],
            row["state"],
            row["attempts"],
            row["next_at"] or "-",
            _why(row),
        )
        for row in rows
    ]
    show.table(columns, shown, numbers=("step", "tries"))


def _why(row: Mapping[str, Any]) -> str:
    told = [str(row["reason"])] if row["reason"] else []
    if row["acknowledged"] and "acknowledged" not in told:
        told.append("acknowledged")
    if row["snoozed_until"]:
        told.append(f"snoozed until {row['snoozed_until']}")
    return ", ".join(told) or "-"


@command("acknowledge", epilog="\b\nExamples:\n  aggregator fairuse acknowledge n-3f9a0c12bd\n")
@click.argument("reference")
@confirm_clock_option
def acknowledge_command(said: Globals, reference: str, confirm_clock: bool) -> None:
    """Say that the desk looks after a notice: no more mail about it this month."""
    from aggregator.pipeline import notices

    with said.write(confirm_clock=confirm_clock) as house:
        notices.acknowledge(house, reference)
    _done(said, "acknowledged: no more mail about this user and rule until the month ends")


@command(
    "snooze",
    epilog="\b\nExamples:\n  aggregator fairuse snooze n-3f9a0c12bd --until 2026-10-20\n",
)
@click.argument("reference")
@click.option("--until", required=True, metavar="DAY", help="No mail before this UTC day.")
@confirm_clock_option
def snooze_command(said: Globals, reference: str, until: str, confirm_clock: bool) -> None:
    """Let a notice rest until a day: no mail about this user and rule before it."""
    from aggregator.pipeline import notices

    day = parse_day(until)
    if day is None:
        raise UsageError("--until takes a day such as 2026-10-20")
    with said.write(confirm_clock=confirm_clock) as house:
        notices.snooze(house, reference, day.isoformat())
    _done(said, f"snoozed until {day.isoformat()}")


def _done(said: Globals, what: str) -> None:
    if said.json:
        show.as_json({"done": what.partition(":")[0]})
    else:
        show.words(said, what)


COMMANDS: Final = (send_command, list_command, acknowledge_command, snooze_command)
