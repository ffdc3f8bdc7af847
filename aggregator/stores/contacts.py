"""When agents were heard at the door, and what of theirs was taken in last.

They are there to be shown: nothing that is due is decided by them, a damaged note counts as
missing, and one that could not be written is passed over. Instants are to the hour, in which every
agent is heard whether it has users or not: a finer one would tell when a server's only user was
connected (CS-1, CS-6).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aggregator.errors import LockedError
from aggregator.model.days import instant, parse_day, parse_instant
from aggregator.stores import atomic
from aggregator.stores.runs import RunStore

HEARD: Final = ".heard"
"""In the inbox, which is the one folder that the door may write to."""
_SINCE: Final = ".since"
_NOTE: Final = "agents.json"
_REFUSED_DAYS: Final = 8


def to_the_hour(moment: dt.datetime) -> dt.datetime:
    """Return the beginning of the hour that `moment` lies in."""
    return moment.replace(minute=0, second=0, microsecond=0)


class Contacts:
    """When the door heard each agent: an empty file an agent, whose time of change says it.

    May be used from several threads, and by one door at a time.
    """

    def __init__(self, inbox: Path) -> None:
        """Look after the contacts in the folder `inbox`; they need not be there yet."""
        self.folder = inbox / HEARD
        self._noted: dict[str, dt.datetime] = {}

    def hear(self, agent: str, now: dt.datetime) -> None:
        """Note that `agent` was heard at `now`: once an hour, whatever the door is asked.

        A note that cannot be written, as on a full disk, is passed over: no request fails by it.
        """
        hour = to_the_hour(now)
        if self._noted.get(agent) == hour:
            return
        self._noted[agent] = hour
        try:
            if not (self.folder / _SINCE).exists():
                self.folder.mkdir(mode=0o700, exist_ok=True)
                _touch(self.folder / _SINCE, hour)
            _touch(self.folder / agent, hour)
        except (OSError, OverflowError):
            return

    def since(self) -> dt.datetime | None:
        """Return since when contacts are noted, None if none ever was."""
        return _changed_at(self.folder / _SINCE)

    def heard(self) -> dict[str, dt.datetime]:
        """Return when each agent that was ever heard was heard last, to the hour."""
        try:
            with os.scandir(self.folder) as found:
                paths = [Path(entry.path) for entry in found if not entry.name.startswith(".")]
        except OSError:
            return {}
        moments = {path.name: _changed_at(path) for path in paths}
        return {agent: moment for agent, moment in moments.items() if moment is not None}


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """When, to the hour, records of an agent were taken in last, and the latest day in them."""

    at: dt.datetime
    day: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class TakenIn:
    """What the drains noted since the instant `since`.

    `refused` has, for each of the last days with any, how many batches were refused for which
    reason; `waiting` how many the last drain left in the inbox, and why.
    """

    since: dt.datetime
    agents: Mapping[str, Taken] = dataclasses.field(default_factory=dict)
    refused: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    waiting: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def after(
        self,
        now: dt.datetime,
        days: Mapping[str, str | None],
        refused: Mapping[str, int],
        waiting: Mapping[str, int] | None,
    ) -> TakenIn:
        """Return it with what a run came to at `now`.

        `days` has the agents whose records it took, each with the latest day in them; `waiting`
        is None while the run goes on.
        """
        today, hour = f"{now:%Y-%m-%d}", to_the_hour(now)
        by_day = {day: dict(counts) for day, counts in self.refused.items()}
        for reason, count in refused.items():
            counts = by_day.setdefault(today, {})
            counts[reason] = counts.get(reason, 0) + count
        kept = sorted(by_day)[-_REFUSED_DAYS:]
        return TakenIn(
            self.since,
            {**self.agents, **{agent: Taken(hour, day) for agent, day in days.items()}},
            {day: by_day[day] for day in kept},
            self.waiting if waiting is None else dict(waiting),
        )


class TakenInFile:
    """The note of the drains, one small file among the records of the jobs' runs."""

    def __init__(self, runs: Path) -> None:
        """Look after the note in the folder `runs`, which need not be there yet."""
        self._runs = RunStore(runs)
        self.path = runs / _NOTE

    def load(self) -> TakenIn | None:
        """Return what is noted, None if nothing is."""
        try:
            return _taken_in(json.loads(self.path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def add(
        self,
        now: dt.datetime,
        days: Mapping[str, str | None],
        refused: Mapping[str, int],
        waiting: Mapping[str, int] | None = None,
    ) -> None:
        """Note what a run came to, as `TakenIn.after` says; write nothing where nothing changed.

        A note that cannot be written is passed over: what it tells of is sealed already.
        """
        before = self.load()
        start = before or TakenIn(to_the_hour(now))
        after = start.after(now, days, refused, waiting)
        if after == before or not (before or after.agents or after.refused or after.waiting):
            return
        try:
            # A job that ends just now sweeps this folder under its lock.
            with self._runs.writing():
                atomic.write(self.path, _json(after))
        except (OSError, LockedError):
            return


def _touch(path: Path, moment: dt.datetime) -> None:
    """Give the empty file `path` the time `moment`; no sync: what a crash loses, comes again."""
    stamp = (moment.timestamp(),) * 2
    try:
        os.utime(path, stamp, follow_symlinks=False)
    except FileNotFoundError:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.utime(descriptor, stamp)
        finally:
            os.close(descriptor)


def _changed_at(path: Path) -> dt.datetime | None:
    try:
        return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    except (OSError, OverflowError, ValueError):
        return None


def _taken_in(fields: Mapping[str, Any]) -> TakenIn:
    agents = {
        str(agent): Taken(parse_instant(one["taken_at"]), _day(one["day"]))
        for agent, one in fields["agents"].items()
    }
    refused = {
        day: {str(reason): int(count) for reason, count in counts.items()}
        for day, counts in fields["refused"].items()
        if parse_day(day) is not None
    }
    waiting = {str(reason): int(count) for reason, count in fields["waiting"].items()}
    return TakenIn(parse_instant(fields["since"]), agents, refused, waiting)


def _day(text: Any) -> str | None:
    return text if isinstance(text, str) and parse_day(text) is not None else None


def _json(noted: TakenIn) -> bytes:
    fields = {
        "schema_version": 1,
        "since": instant(noted.since),
        "agents": {
            agent: {"taken_at": instant(one.at), "day": one.day}
            for agent, one in sorted(noted.agents.items())
        },
        "refused": noted.refused,
        "waiting": noted.waiting,
    }
    return json.dumps(fields).encode() + b"\n"
