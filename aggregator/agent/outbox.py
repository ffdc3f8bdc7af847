"""What waits to be acknowledged: records that grew since, sealed day by day.

Totals are cumulative, so a batch that was never acknowledged is replaced by a newer one of the same
day that says all that it said. Batches never mix days: a day that is over is sealed once, however
long the door is away.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final

from aggregator.agent.outgoing import Key, Numbers, fault, identity, line
from aggregator.agent.spool import Spool
from aggregator.errors import BadInputError
from aggregator.model.reasons import Reason
from aggregator.model.records import Record
from aggregator.wire.batch import read_header
from aggregator.wire.keys import PublishedKey

MAX_RECORDS: Final = 20_000

Seal = Callable[[bytes, PublishedKey], bytes]
FindKey = Callable[[str], PublishedKey | None]


@dataclasses.dataclass(slots=True, eq=False)
class Sealed:
    """A sealed batch that waits; `said` are the totals in it, None for an earlier process's.

    `month` is what its header says, None if that cannot be read. One that was refused is not tried
    before `not_before`, monotonic seconds.
    """

    month: str | None
    day: str | None
    key_id: str | None
    name: str | None
    content: bytes | None = dataclasses.field(repr=False)
    said: Mapping[Key, Numbers] | None = dataclasses.field(repr=False)
    not_before: float = 0.0


class Outbox:
    """Records that wait, and the sealed batches made of them."""

    def __init__(self, spool: Spool, locations: frozenset[str], seal: Seal) -> None:
        """Keep sealed batches in `spool`; take records of `locations` only."""
        self.rejected: Counter[Reason] = Counter()
        self.spool_trouble: str | None = None
        self._spool = spool
        self._locations = locations
        self._seal = seal
        self._max_records = MAX_RECORDS
        self._waiting: defaultdict[str, dict[Key, tuple[Numbers, Record]]] = defaultdict(dict)
        self._acknowledged: defaultdict[str, dict[Key, Numbers]] = defaultdict(dict)
        self._changed: set[str] = set()
        self._sealed: list[Sealed] = [
            Sealed(_month_of(spool.read(name)), None, None, name, None, None)
            for name in spool.leftovers()
        ]

    @property
    def pending_records(self) -> int:
        """The records that grew since they were last acknowledged."""
        return sum(map(len, self._waiting.values()))

    @property
    def pending_batches(self) -> int:
        """The sealed batches that wait."""
        return len(self._sealed)

    def months(self) -> set[str]:
        """Return the months of the records that wait."""
        return {day[:7] for day in self._waiting}

    def kept_months(self) -> set[str]:
        """Return the months of all that is kept, what an earlier process left among it."""
        left = {sealed.month for sealed in self._sealed if sealed.month is not None}
        return left | self.months()

    def put(self, records: Iterable[Record]) -> None:
        """Take totals so far; those that were acknowledged, or wait as they are, change nothing."""
        for record in records:
            key, numbers = identity(record)
            day = record.day
            known = self._acknowledged[day].get(key)
            waits = self._waiting[day].get(key) if day in self._waiting else None
            if numbers == known or (waits is not None and waits[0] == numbers):
                continue
            reason = fault(record, self._locations)
            if reason is not None:
                self.rejected[reason] += 1
                # Counted once for these totals, not at every reading.
                self._acknowledged[day][key] = numbers
                continue
            self._waiting[day][key] = numbers, record
            self._changed.add(day)

    def seal(self, find_key: FindKey) -> set[str]:
        """Seal anew what changed, into the spool if there is one; return months without a key.

        A spool that is full leaves the batches in memory; `spool_trouble` is why, until it takes
        one again.
        """
        missing = set()
        for day in sorted(self._waiting):
            key = find_key(day[:7])
            if key is None:
                missing.add(day[:7])
                continue
            old = [sealed for sealed in self._sealed if sealed.day == day]
            if day in self._changed or not old or any(one.key_id != key.key_id for one in old):
                self._replace(day, key, old)
        return missing

    def reseal(self) -> None:
        """Seal everything anew the next time: the agent's own key has changed."""
        self._changed |= set(self._waiting)

    def next(self, monotonic: float, tried: Set[Sealed]) -> Sealed | None:
        """Return a batch to send that is none of `tried`: an earlier process's first, then by day.

        One that was refused waits its time, and stops none of the others.
        """
        ready = [
            sealed
            for sealed in self._sealed
            if sealed.not_before <= monotonic and sealed not in tried
        ]
        return min(ready, key=lambda sealed: sealed.day or "", default=None)

    def content(self, sealed: Sealed) -> bytes | None:
        """Return a batch, None if its file is gone; then it waits no longer."""
        if sealed.content is not None:
            return sealed.content
        content = None if sealed.name is None else self._spool.read(sealed.name)
        if content is None:
            self.drop(sealed)
        return content

    def acknowledge(self, sealed: Sealed) -> None:
        """Note that the door keeps this batch: what grew since goes on waiting."""
        if sealed.day is not None and sealed.said is not None:
            waiting = self._waiting[sealed.day]
            self._acknowledged[sealed.day].update(sealed.said)
            for key, numbers in sealed.said.items():
                if key in waiting and waiting[key][0] == numbers:
                    del waiting[key]
            if not waiting:
                del self._waiting[sealed.day]
        self.drop(sealed)

    def split(self, sealed: Sealed) -> bool:
        """Make batches half as large; return False if that cannot help with this one."""
        if sealed.said is None or sealed.day is None or len(sealed.said) < 2:
            return False
        self._max_records = max(1, min(self._max_records, len(sealed.said)) // 2)
        self._changed.add(sealed.day)
        return True

    def drop_month(self, month: str) -> int:
        """Forget everything of `month`, which is over; return how many records waited."""
        lost = 0
        for day in [day for day in self._waiting if day.startswith(month)]:
            lost += len(self._waiting.pop(day))
        for day in [day for day in self._acknowledged if day.startswith(month)]:
            del self._acknowledged[day]
        self._changed = {day for day in self._changed if not day.startswith(month)}
        for sealed in list(self._sealed):
            if sealed.month == month:
                self.drop(sealed)
        return lost

    def forget(self, before: str) -> None:
        """Forget what was acknowledged of the days before `before`."""
        for day in [day for day in self._acknowledged if day < before]:
            del self._acknowledged[day]

    def _replace(self, day: str, key: PublishedKey, old: Sequence[Sealed]) -> None:
        """Seal all that waits of a day, and only then let go of its older batches."""
        waiting = sorted(self._waiting[day].items(), key=_by_key)
        at = 0
        while at < len(waiting):
            part = waiting[at : at + self._max_records]
            text = "".join(f"{line(record)}\n" for _key, (_numbers, record) in part)
            try:
                content = self._seal(text.encode("ascii"), key)
            except BadInputError:
                # Too large for any door, by its bytes; one record alone never is.
                self._max_records = max(1, len(part) // 2)
                continue
            at += len(part)
            said = {each: numbers for each, (numbers, _record) in part}
            name = self._kept(content)
            held = content if name is None else None
            self._sealed.append(Sealed(day[:7], day, key.key_id, name, held, said))
        for sealed in old:
            self.drop(sealed)
        self._changed.discard(day)

    def _kept(self, content: bytes) -> str | None:
        try:
            name = self._spool.add(content)
        except BadInputError as error:
            self.spool_trouble = str(error)
            return None
        self.spool_trouble = None
        return name

    def drop(self, sealed: Sealed) -> None:
        """Let go of a batch; its records go on waiting, if they are this process's."""
        self._sealed = [other for other in self._sealed if other is not sealed]
        try:
            self._spool.remove(sealed.name)
        except BadInputError as error:
            self.spool_trouble = str(error)


def _month_of(content: bytes | None) -> str | None:
    try:
        return None if content is None else read_header(content).month
    except BadInputError:
        return None


def _by_key(item: tuple[Key, tuple[Numbers, Record]]) -> str:
    # Optional fields make keys of mixed types; their text orders them as well.
    return repr(item[0])
