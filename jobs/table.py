"""The jobs, so that the schedule can be read aloud.

State lives in the home, not in a scheduler: each job finds out by itself what is due, so a missed
run is caught up by the next one, in order.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

from aggregator.app import Access
from aggregator.errors import AggregatorError, BadInputError, IntegrityError, LockedError
from aggregator.model.days import parse_instant
from aggregator.pipeline import audit, close, doctor, drain, month_end, notices, publish
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.findings import State
from aggregator.pipeline.ingest import Ingested
from aggregator.rules.incidents import PURGE_LATE_AFTER
from jobs import mail

_A_MINUTE: Final = 60.0
_AN_HOUR: Final = 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One job: its name, when it runs (cron, UTC), what it does, what becomes of a missed run.

    `wait_seconds` is how long an unattended run waits for another's lock.
    """

    name: str
    cron: str
    does: str
    missed: str
    run: Callable[[Access], Mapping[str, Any]]
    wait_seconds: float = 0.0


def _ingest(access: Access) -> Mapping[str, Any]:
    with access.write() as house:
        drained = drain.drain_inbox(house)
        published = _publish(house)
    _check_refused(drained)
    return {"published": published, "days": list(drained.days)}


def _daily(access: Access) -> Mapping[str, Any]:
    """Do each part whatever becomes of the others, then tell of the first that failed."""
    problems: list[AggregatorError] = []
    queued = 0
    with access.write() as house:
        drained = drain.drain_inbox(house)
        closed = close.close_due_days(house)
        if closed.failed:
            failed = f"{len(closed.failed)} days could not be closed; see: aggregator doctor"
            problems.append(IntegrityError(failed))
        try:
            queued = notices.queue(house).notices
        except AggregatorError as error:
            problems.append(error)
    mailed: Mapping[str, int] = {}
    try:
        delivered = mail.send(access)
        mailed = delivered.counts()
        mail.check(delivered)
    except LockedError:
        pass  # the run that is sending sends these too
    except AggregatorError as error:
        problems.append(error)
    if problems:
        raise problems[0]
    _check_refused(drained)
    return {"closed": list(closed.days), "notices": queued, "mail": mailed}


def _check_refused(drained: Ingested) -> None:
    if drained.refused:
        refused = sum(drained.refused.values())
        raise BadInputError(f"batches refused and removed: {refused}; see: aggregator audit log")


def _mail(access: Access) -> Mapping[str, Any]:
    delivered = mail.send(access)
    mail.check(delivered)
    return {"mail": delivered.counts()}


def _publish(house: Deployment) -> list[str]:
    """Announce keys where agents need them; last, so that a damaged one stops nothing else."""
    return publish.publish(house) if house.agents.ids() else []


def _month_end(access: Access) -> Mapping[str, Any]:
    with access.write() as house:
        receipts = month_end.purge(house)
    if not all(receipt["verified"] for receipt in receipts):
        raise IntegrityError("purged, but a month's tables did not verify; see its receipt")
    # A purge that is made up for here is late no more by the time that troubles are looked for.
    late = [receipt["month"] for receipt in receipts if _lateness(receipt) > PURGE_LATE_AFTER]
    purged = [receipt["month"] for receipt in receipts]
    return {"purged": purged, "late": late} if late else {"purged": purged}


def _lateness(receipt: Mapping[str, Any]) -> dt.timedelta:
    return parse_instant(receipt["purged_at"]) - parse_instant(receipt["due_at"])


def _checkpoint(access: Access) -> Mapping[str, Any]:
    with access.write() as house:
        return {"noted": int(audit.checkpoint(house).is_new)}


def _doctor(access: Access) -> Mapping[str, Any]:
    findings = doctor.examine(access.home, access.read)
    failed = dict.fromkeys(one.check for one in findings if one.state is State.FAIL)
    if failed:
        raise IntegrityError(f"not sound: {', '.join(failed)}; see: aggregator doctor")
    return {"warnings": sum(one.state is State.WARN for one in findings)}


JOBS: Final = (
    Job(
        "ingest",
        "2-57/5 * * * *",
        "take in the batches that wait in the inbox, announce month keys",
        "the next run takes in everything that waits",
        _ingest,
        wait_seconds=_A_MINUTE,
    ),
    Job(
        "daily",
        "20 0 * * *",
        "take in the inbox, close every day whose grace is over, queue and send fair-use notices",
        "the next run closes every missed day, oldest first, and judges the month as it is then",
        _daily,
        wait_seconds=_AN_HOUR,
    ),
    Job(
        "mail",
        "4-54/10 * * * *",
        "send the notices that wait, and those whose next try is due",
        "the next run sends them; with the end of their month they expire",
        _mail,
    ),
    Job(
        "month-end",
        "40 * * * *",
        "destroy the raw counters of every month that is over",
        "the next run purges; the records were refused from the instant on all the same",
        _month_end,
        wait_seconds=_AN_HOUR / 2,
    ),
    Job(
        "checkpoint",
        "40 3 * * *",
        "note where the audit log ends, so that a cut would show",
        "the next run notes it",
        _checkpoint,
        wait_seconds=_AN_HOUR,
    ),
    Job(
        "doctor",
        "50 4 * * *",
        "check whether the deployment is sound",
        "the next run checks it as it is then",
        _doctor,
    ),
)
