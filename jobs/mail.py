"""Send the notices that wait, and record what became of them."""

from __future__ import annotations

import time

from aggregator.app import Access
from aggregator.errors import DeliveryError, LockedError
from aggregator.pipeline import deliver, notices
from aggregator.pipeline.deliver import Delivered


def send(access: Access, *, by_hand: bool = False, again: bool = False) -> Delivered:
    """Send every message that is due; return what became of them.

    A run `by_hand` tries again at once what waits for a later try. With `again` it also sends what
    was refused for good. Whoever calls looks at `problems`, or uses `check`. LockedError if
    another run is sending.
    """
    began = time.monotonic()
    with access.send() as house:
        delivered = deliver.deliver(
            house,
            pause=time.sleep,
            elapsed=lambda: time.monotonic() - began,
            impatient=by_hand,
            again=again,
        )
    _record(access, delivered)
    return delivered


def check(delivered: Delivered) -> None:
    """Raise DeliveryError if something could not be delivered now."""
    if delivered.problems:
        raise DeliveryError(_sentence(delivered))


def _record(access: Access, delivered: Delivered) -> None:
    """Add what was done to the counts that stay; the outbox itself has it already.

    A run that holds the home's lock leaves this to the next one that sends or queues.
    """
    if not delivered.months:
        return
    try:
        with access.write() as house:
            for month in delivered.months:
                notices.write_figures(house, month)
            house.record("mail", delivered.counts())
    except LockedError:
        return


def _sentence(delivered: Delivered) -> str:
    told = ", ".join(f"{count:,} {what}" for what, count in delivered.counts().items() if count)
    why = ", ".join(sorted(delivered.problems))
    then = "what is deferred is tried again" if delivered.deferred else ""
    if delivered.failed:
        then = "; ".join(filter(None, (then, "what failed: aggregator fairuse send --again")))
    return f"mail was not delivered ({why}): {told}" + (f"; {then}" if then else "")
