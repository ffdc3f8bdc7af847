"""The jobs, so that the schedule can be read aloud.

State lives in the home, not in a scheduler: each job finds out by itself what is due, so a missed
run is caught up by the next one, in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from aggregator.errors import BadInputError, IntegrityError
from aggregator.pipeline import close, drain, month_end, publish
from aggregator.pipeline.deployment import Deployment


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One job: its name, when it runs (cron, UTC), what it does, what becomes of a missed run."""

    name: str
    cron: str
    does: str
    missed: str
    run: Callable[[Deployment], Mapping[str, Any]]


def _ingest(house: Deployment) -> Mapping[str, Any]:
    drained = drain.drain_inbox(house)
    published = _publish(house)
    if drained.refused:
        refused = sum(drained.refused.values())
        raise BadInputError(f"batches refused and removed: {refused}; see: aggregator audit log")
    return {"published": published, "days": list(drained.days)}


def _daily(house: Deployment) -> Mapping[str, Any]:
    drain.drain_inbox(house)
    closed = close.close_due_days(house)
    if closed.failed:
        raise IntegrityError(
            f"{len(closed.failed)} days could not be closed; see: aggregator doctor"
        )
    return {"closed": list(closed.days)}


def _publish(house: Deployment) -> list[str]:
    """Announce keys where agents need them; last, so that a damaged one stops nothing else."""
    return publish.publish(house) if house.agents.ids() else []


def _month_end(house: Deployment) -> Mapping[str, Any]:
    receipts = month_end.purge(house)
    if not all(receipt["verified"] for receipt in receipts):
        raise IntegrityError("purged, but a month's tables did not verify; see its receipt")
    return {"purged": [receipt["month"] for receipt in receipts]}


JOBS: Final = (
    Job(
        "ingest",
        "*/5 * * * *",
        "take in the batches that wait in the inbox, announce month keys",
        "the next run takes in everything that waits",
        _ingest,
    ),
    Job(
        "daily",
        "20 0 * * *",
        "take in the inbox, close every day whose grace is over",
        "the next run closes every missed day, oldest first",
        _daily,
    ),
    Job(
        "month-end",
        "40 * * * *",
        "destroy the raw counters of every month that is over",
        "the next run purges; the records were refused from the instant on all the same",
        _month_end,
    ),
)
