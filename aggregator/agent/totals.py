"""Running totals: successive captures of one source become bytes per UTC day and account.

A running total is what an agent sends, as `usage_counter.1` (promise CS-2). Nothing here is
stored: state lives in memory and begins anew, with a new epoch, at every agent start (CL-4).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Hashable, Mapping

from aggregator.agent.collectors import Source
from aggregator.agent.readings import Capture, Drop
from aggregator.errors import BadInputError
from aggregator.model.records import UsageCounter

_Counters = Mapping[Hashable, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class RunningTotals:
    """The state between two captures of one source; `after` returns the next one.

    Two sources of one agent need two epochs: the aggregator takes the largest total of an epoch,
    and adds up epochs.
    """

    source: Source
    _counters: _Counters | None = dataclasses.field(default=None, repr=False)
    _totals: Mapping[tuple[dt.date, str], int] = dataclasses.field(default_factory=dict, repr=False)
    _keyed_by: str | None = None

    def after(self, capture: Capture, day: dt.date) -> RunningTotals:
        """Return the totals after `capture`, taken on the UTC day `day`.

        The first capture is the baseline and counts nothing: what its counters hold may have been
        charged before the agent started. A counter that appears later is new traffic as a whole.
        BadInputError if counters have other keys than before.

        What was counted between two captures is charged to the day of the later one. When in
        between it flowed is not known, to guess would need times, and the earlier day's total may
        have been sent for the last time; the shift is at most one interval of reading.
        """
        if self._keyed_by not in (None, capture.keyed_by):
            raise BadInputError("was captured in another form than the ones before it")
        now = _grouped(capture)
        totals = dict(self._totals)
        if self._counters is not None:
            accounts = {reading.counter: reading.account for reading in capture.readings}
            for counter, values in now.items():
                grown = self.source.reset(self._counters.get(counter, ()), values)
                account = accounts[counter]
                if account is not None and grown:
                    totals[day, account] = totals.get((day, account), 0) + grown
        return RunningTotals(self.source, self._remembered(capture, now), totals, capture.keyed_by)

    def records(self, location: str, epoch: str) -> list[UsageCounter]:
        """Return the records to send, by day and account; `epoch` is 16 lower-case hex digits.

        An account that moved nothing has no record: a peer that is only configured is no user of
        the day, and must not swell the crowd that others hide in (promise CS-4).
        """
        return [
            UsageCounter(day.isoformat(), account, location, epoch, total)
            for (day, account), total in sorted(self._totals.items())
        ]

    def without_days_before(self, day: dt.date) -> RunningTotals:
        """Return the same totals without the days before `day`, which are over and were sent."""
        totals = {key: total for key, total in self._totals.items() if key[0] >= day}
        return dataclasses.replace(self, _totals=totals)

    def _remembered(self, capture: Capture, now: _Counters) -> _Counters:
        """Return the counters to compare the next capture with.

        A counter that vanished is remembered only if it may return: a peer that was missing once
        must not be charged its history (a peer added anew starts below, and counts from 0). An
        ended session never returns, so its start is forgotten at once, unless an unreadable row of
        this capture may be the session.
        """
        if self._counters is None:
            return now
        if self.source.counters_return or capture.dropped.get(Drop.UNREADABLE):
            return {**self._counters, **now}
        return now


def _grouped(capture: Capture) -> dict[Hashable, tuple[int, ...]]:
    values: dict[Hashable, tuple[int, ...]] = {}
    for reading in capture.readings:
        values[reading.counter] = (*values.get(reading.counter, ()), reading.bytes)
    return values
