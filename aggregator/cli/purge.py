"""`aggregator purge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option
from aggregator.errors import IntegrityError, UsageError
from aggregator.model.days import instant, is_month

if TYPE_CHECKING:
    from aggregator.pipeline.deployment import Deployment
    from aggregator.pipeline.month_end import Plan

_EPILOG = """\b
Examples:
  aggregator purge --dry-run
  aggregator purge --json
  aggregator purge --month 2026-10
"""


@command("purge", epilog=_EPILOG)
@click.option("--month", metavar="YYYY-MM", help="Purge through this month only.")
@click.option("--dry-run", is_flag=True, help="Show the plan and its reasons; change nothing.")
@confirm_clock_option
def purge_command(said: Globals, month: str | None, dry_run: bool, confirm_clock: bool) -> None:
    """Destroy the raw counters of every month that is over, with a receipt.

    Closes the month's last days, writes and verifies its monthly table, destroys its keys,
    removes its counters. A month that does not verify is destroyed all the same (exit 6).
    """
    from aggregator.pipeline import month_end

    if month is not None and not is_month(month):
        raise UsageError("--month takes a month such as 2026-10")
    if dry_run:
        _dry_run(said, month)
        return
    with said.write(confirm_clock=confirm_clock) as house:
        receipts = month_end.purge(house, month)
    if said.json:
        show.as_json({"rows": receipts})
    elif not receipts:
        show.words(said, "no month is due")
    for receipt in () if said.json else receipts:
        _print_receipt(receipt)
    failed = [receipt["month"] for receipt in receipts if not receipt["verified"]]
    if failed:
        raise IntegrityError(f"purged, but the tables of {', '.join(failed)} did not verify")


def _dry_run(said: Globals, month: str | None) -> None:
    from aggregator.pipeline import month_end

    house = said.read()
    due = month_end.due_months(house)
    if month:  # what the purge would take with it, and then this month, due or not
        months = sorted({*(one for one in due if one <= month), month})
    else:
        months = due or month_end.kept_months(house)[:1]
    plans = [month_end.plan_purge(house, one) for one in months]
    if said.json:
        show.as_json({"rows": [_plan_fields(house, plan) for plan in plans]})
        return
    if not plans:
        show.words(said, "no month is kept; nothing to purge")
    for plan in plans:
        when = "due since" if plan.due_at <= house.now else "not due before"
        print(f"{plan.month}: {when} {instant(plan.due_at)}; {len(plan.steps)} files")
        print("  close the month's last days, write and verify its monthly table, then")
        rows = [(step.action, step.item.path, step.reason) for step in plan.steps]
        show.table(("action", "file", "why"), rows)


def _plan_fields(house: Deployment, plan: Plan) -> dict[str, Any]:
    return {
        "month": plan.month,
        "due_at": instant(plan.due_at),
        "due": plan.due_at <= house.now,
        "steps": [
            {"action": step.action, "path": step.item.path, "reason": step.reason}
            for step in plan.steps
        ],
    }


def _print_receipt(receipt: dict[str, Any]) -> None:
    destroyed = receipt["destroyed"]
    verified = "verified" if receipt["verified"] else "NOT VERIFIED"
    late = ", LATE" if receipt["late"] else ""
    print(f"{receipt['month']}: purged at {receipt['purged_at']}{late}, tables {verified}")
    print(
        f"  {show.counted(destroyed['key_sets'], 'key set')} destroyed,"
        f" {show.counted(destroyed['segments'], 'sealed segment')} removed"
        f" ({show.size(destroyed['bytes'])})"
    )
    for problem in receipt["problems"]:
        print(f"  problem: {problem}")
    print(f"  receipt: audit/receipt-purge-{receipt['month']}.json")
