"""Ingest: read the files that the operator names, and take in their records."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from aggregator.errors import BadInputError
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.intake import Intake
from aggregator.stores import source


@dataclasses.dataclass(frozen=True, slots=True)
class Ingested:
    """What a run came to: how many records were rejected for which reason, most first.

    `unreadable` has one line for every file that was not read whole. Of batches, `refused` says
    why some were removed, `waiting` why others stay in the inbox.
    """

    files: int
    accepted: int
    reasons: Mapping[str, int]
    days: tuple[str, ...]
    unreadable: tuple[str, ...] = ()
    batches: int = 0
    refused: Mapping[str, int] = dataclasses.field(default_factory=dict)
    waiting: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """How many records were rejected."""
        return sum(self.reasons.values())


def ingest(
    house: Deployment, names: Sequence[str], progress: Callable[[int], None] | None = None
) -> Ingested:
    """Take in the files called `names` ("-": standard input); the good records of bad files too.

    `progress` is told the bytes read. IntegrityError if a month's keys are gone while its
    segments are not.
    """
    intake = Intake(house)
    unreadable = []
    for name in names:
        try:
            for chunk in source.chunks(name, progress):
                intake.take(chunk)
        except BadInputError as error:
            unreadable.append(str(error))
    intake.seal()
    intake.count_rejections()
    outcome = Ingested(
        files=len(names),
        accepted=intake.accepted,
        reasons=by_reason(intake),
        days=tuple(sorted(intake.days)),
        unreadable=tuple(unreadable),
    )
    record(house, outcome)
    return outcome


def by_reason(intake: Intake) -> dict[str, int]:
    """Return how many records were rejected for which reason, most first."""
    reasons: Counter[str] = Counter()
    for (_build, rejection), count in intake.rejections.items():
        reasons[rejection.reason.value] += count
    return dict(reasons.most_common())


def record(house: Deployment, outcome: Ingested) -> None:
    """Add the audit entry of a run."""
    detail = {
        "files": outcome.files,
        "accepted": outcome.accepted,
        "rejected": outcome.rejected,
        "reasons": outcome.reasons,
        "unreadable": len(outcome.unreadable),
    }
    batches = {"batches": outcome.batches, "refused": outcome.refused}
    house.record("ingest", {**detail, **batches} if outcome.batches or outcome.refused else detail)
