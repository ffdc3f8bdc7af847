"""Send the notices that wait, and record what became of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aggregator.app import Access
from aggregator.errors import DeliveryError, LockedError
from aggregator.pipeline import deliver, notices
from aggregator.pipeline.deliver import Delivered


def send(access: Access, *, by_hand: bool = False) -> Mapping[str, int]:
    """Send every message that is due; return how many were sent, withheld, and so on.

    A run `by_hand` tries again at once what waits for a later try, and says so where another run
    is sending; a job leaves it to that run. DeliveryError if something could not be delivered now.
    """
    try:
        with access.send() as house:
            delivered = deliver.deliver(house, impatient=by_hand, pause=time.sleep)
    except LockedError:
        if by_hand:
            raise
        return {}
    _record(access, delivered)
    if delivered.problems:
        raise DeliveryError(_sentence(delivered))
    return delivered.counts()


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
    return f"mail was not delivered ({why}): {told}; what is deferred is tried again"
