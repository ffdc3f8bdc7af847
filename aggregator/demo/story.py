"""The acts of the demonstration: each does its part and returns what is to be told of it.

Nothing is printed here. Every claim of the story is a check that was carried out; the command
fails if one does not hold.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aggregator import app
from aggregator.demo.daemons import DaemonsRead, read_daemons
from aggregator.demo.fleet import FIRST_DAY, HEAVY, LAST_DAY, PLANTED, Delivery, Fleet
from aggregator.errors import IntegrityError
from aggregator.mail.templates import Renderer
from aggregator.model.days import end_of_day, instant, month_of, start_of
from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.model.records import USAGE_COUNTER
from aggregator.model.tables import OTHER
from aggregator.pipeline import fairuse
from aggregator.pipeline.deployment import Deployment, Progress, quiet
from aggregator.pipeline.ingest import Ingested, ingest
from aggregator.pipeline.notices import TABLE
from aggregator.pipeline.pseudonyms import pseudonym
from aggregator.pipeline.search import (
    WINDOW,
    Found,
    Needles,
    What,
    Where,
    search_folder,
    search_home,
)
from aggregator.rules import notices
from aggregator.stores.home import Home
from jobs.table import JOBS

MONTH: Final = "2026-10"
"""The month whose purge is shown."""

CONTROL: Final = "nl-ams"
"""A location's name, which the tables are meant to hold."""

# In a fleet of 3,000 nobody outweighs the usual 1,000 others.
OUTWEIGHS: Final = 60
_PROFILE: Final = DEFAULT_PROFILE.replace("outweighs_mean = 1000", f"outweighs_mean = {OUTWEIGHS}")
_CRON: Final = dt.timedelta(minutes=20)  # after midnight, as in the table of jobs
_MONTH_END: Final = dt.timedelta(minutes=40)


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One claim of the story, and whether it holds."""

    claim: str
    holds: bool


@dataclasses.dataclass(slots=True)
class Days:
    """What became of the days of the fleet."""

    accepted: int = 0
    repeats: int = 0
    restarts: int = 0
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    closed: list[str] = dataclasses.field(default_factory=list)
    purged: dict[str, str] = dataclasses.field(default_factory=dict)  # month: instant
    cells: int = 0  # named cells compared with the truth
    folded: Counter[str] = dataclasses.field(default_factory=Counter)  # days, by location
    users: int = 0
    named_users: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class FairUse:
    """What the fair-use rule says of the month: its threshold, the one user, and how it is told."""

    outweighs: int
    users: int
    told: int
    sentences: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Before:
    """What a search sees while the month's key is there."""

    delivered: Found
    home: Found


@dataclasses.dataclass(frozen=True, slots=True)
class After:
    """The purge, what a search sees then, and what becomes of a record that comes too late."""

    receipt: Mapping[str, Any]
    home: Found
    control: Found
    tables: int
    added: Sequence[str]
    late_reasons: Mapping[str, int]
    audit_entries: int


class Story:
    """The demonstration in a home of its own; call the acts in their order.

    `delivered` is the folder for what servers send: it stands for the wire, and is no part of the
    home. `checks` grows as claims are tested.
    """

    def __init__(self, root: Path, delivered: Path, progress: Progress = quiet) -> None:
        """Make a rehearsal home in `root`, which must be empty or missing."""
        self.home = Home(root)
        self.delivered = delivered
        self.progress = progress
        self.checks: list[Check] = []
        self._daemons: list[str] = []
        self._truth: dict[str, Mapping[str, Mapping[str, int]]] = {}
        # None, or why keys could outlive their destruction on this file system.
        self.weakness = app.create(
            self.home, start_of(FIRST_DAY), rehearsal=True, accept_weak=True, profile=_PROFILE
        )

    @property
    def now(self) -> dt.datetime:
        """The clock when the last act is over: when the kept home was last written."""
        return end_of_day(LAST_DAY) + _MONTH_END

    def read(self) -> Deployment:
        """Open the home to read it."""
        return app.open_to_read(self.home, self.now, self.now)

    def read_daemons(self) -> DaemonsRead:
        """Read the captures; what their agents send is delivered on the first day."""
        told = read_daemons(FIRST_DAY)
        self._daemons = [
            json.dumps({"record": USAGE_COUNTER, **dataclasses.asdict(record)})
            for record in told.records
        ]
        self._truth["daemons"] = {
            source.location: {record.user: record.bytes for record in source.records}
            for source in told.sources
        }
        self._check("counters that fell at a restart were added, not lost", _added_up(told))
        return told

    def run_days(self) -> Days:
        """Live through all days: what is delivered, and the jobs that cron runs every night."""
        fleet, days = Fleet(), Days()
        total = (LAST_DAY - FIRST_DAY).days + 1
        as_expected = exact = True
        for number, delivery in enumerate(fleet.deliveries()):
            self.progress("living through 40 days", number, total)
            extra = self._daemons if number == 0 else []
            self._truth[delivery.day.isoformat()] = self._with_daemons(delivery.truth, number == 0)
            access = self._access(end_of_day(delivery.day) + _CRON)
            with access.write() as house:
                got = ingest(house, [self._deliver(delivery, extra)])
            as_expected &= _as_expected(got, delivery, len(extra))
            days.accepted += got.accepted
            days.repeats += delivery.repeats
            days.reasons.update(got.reasons)
            exact &= self._run_jobs(access, days, last=number == total - 1)
        self.progress("living through 40 days", total, total)
        days.restarts = fleet.restarts
        self._check("every record was accepted or refused as the fleet expected", as_expected)
        self._check(f"{days.cells:,} named cells equal the fleet's own counts, to the byte", exact)
        return days

    def fair_use(self) -> FairUse:
        """Tell who outweighs many others, in a sentence, and that a notice waits for its mail."""
        house = self.read()
        found = fairuse.judge(house, MONTH)
        heavy = pseudonym(HEAVY.encode(), house.month_keys(MONTH))
        self._check("the fair-use rule finds the one heavy account, and nobody else",
                    [one.pseudonym for one in found] == [heavy])  # fmt: skip
        truth = sum(
            users.get(HEAVY, 0)
            for day, places in self._truth.items()
            if day.startswith(MONTH)
            for users in places.values()
        )
        self._check("its month is what its servers counted, to the byte",
                    [one.month_bytes for one in found] == [truth])  # fmt: skip
        book = notices.replay(house.outbox.read(house.month_keys(MONTH)))
        self._check("it was queued once, in as many nights as it was seen",
                    len(book.notices) == 1)  # fmt: skip
        sentences = [line for one in found for line in Renderer(None).sentences(one, "en")]
        return FairUse(OUTWEIGHS, found[0].users if found else 0, len(book.notices), sentences)

    def search_before(self) -> Before:
        """Search for the planted accounts while the month's key is there: they must be found."""
        house = self.read()
        names = Needles(names=PLANTED)
        delivered = search_folder(self.delivered, names, self.progress)
        needles = Needles(names=PLANTED, secrets=(_key_bytes(house),))
        found = search_home(house, needles, self.progress)
        everyone = len(PLANTED)
        self._check(
            "every file and every sealed segment could be read",
            not (delivered.unread or found.unread or found.sealed),
        )
        self._check("the search finds the planted accounts in what was delivered",
                    delivered.names == everyone)  # fmt: skip
        self._check("no account's name is in the home, even before the purge", found.names == 0)
        self._check("with the month's key their pseudonyms are found", found.pseudonyms == everyone)
        key_files = found.files_with(What.SECRET)
        self._check("the key's bytes are in its own file only", key_files == [f"keys/{MONTH}.key"])
        return Before(delivered, found)

    def purge(self) -> After:
        """Let the month end: purge, search again, and send a record that comes too late."""
        needles = self._remembered()
        before = _digests(self.home.folder("tables"))
        for job in JOBS:
            if job.name == "month-end":
                job.run(self._access(self.now))
        with self._access(self.now).write() as house:
            after = _digests(house.home.folder("tables"))
            receipt = house.receipts.read(MONTH)
            found = search_home(house, needles, self.progress)
            control = search_home(house, Needles(names=(CONTROL,)), self.progress)
            late = self._late_record(house)
            entries = _audit_entries(house)
        counted = f"{TABLE}/"  # goes on counting until the purge is over
        before = {path: digest for path, digest in before.items() if not path.startswith(counted)}
        kept = {path: digest for path, digest in after.items() if path in before}
        self._check("the month's tables verified against its counters", bool(receipt["verified"]))
        self._check("nothing of the planted accounts is found: no name, no pseudonym",
                    found.names == found.pseudonyms == 0)  # fmt: skip
        self._check(f"no {WINDOW} bytes in a row of the key are found", found.secrets == 0)
        self._check("every file could be read, and no sealed counter is without its key",
                    not found.unread and found.sealed == 0)  # fmt: skip
        self._check("the same search finds what is meant to stay, in decoded tables",
                    len(control.files_with(What.NAME, Where.DECODED)) > 0)  # fmt: skip
        self._check("every closed table that was there is unchanged, byte for byte", kept == before)
        self._check("a late record is refused", dict(late.reasons) == {"day_purged": 1})
        self._check("the audit log's chain is whole", entries > 0)
        added = sorted(
            path for path in after.keys() - before.keys() if not path.startswith(counted)
        )
        return After(receipt, found, control, len(before), added, late.reasons, entries)

    def _access(self, now: dt.datetime) -> app.Access:
        return app.Access(self.home, now, now)

    def _check(self, claim: str, holds: bool) -> None:
        self.checks.append(Check(claim, bool(holds)))

    def _with_daemons(
        self, truth: Mapping[str, Mapping[str, int]], first: bool
    ) -> Mapping[str, Mapping[str, int]]:
        daemons = self._truth.get("daemons", {}) if first else {}
        return {place: {**users, **daemons.get(place, {})} for place, users in truth.items()}

    def _deliver(self, delivery: Delivery, extra: Sequence[str]) -> str:
        """Write what the servers send for one day; return the file's name."""
        path = self.delivered / f"{delivery.day}.ndjson"
        path.write_text("\n".join([*delivery.lines, *extra, ""]), "utf-8")
        return str(path)

    def _run_jobs(self, access: app.Access, days: Days, *, last: bool) -> bool:
        """Run the nightly jobs; say whether the days that they closed tell the truth."""
        exact, house = True, self.read()
        for job in JOBS:
            if last and job.name == "month-end":
                continue  # an act of its own
            result = job.run(access)
            for month in result.get("purged", ()):
                days.purged[month] = instant(access.wall)
            for day in result.get("closed", ()):
                days.closed.append(day)
                exact &= self._is_true(house, day, days)
        return exact

    def _is_true(self, house: Deployment, day: str, days: Days) -> bool:
        """Compare a closed day with the truth: every named cell, and what was folded together."""
        truth = self._truth[day]
        rows = {row["location"]: row for row in house.tables.rows("usage_daily", [day])}
        folded = [place for place in truth if place not in rows and truth[place]]
        days.folded.update(folded)
        expected = {place: (len(users), sum(users.values())) for place, users in truth.items()
                    if place in rows}  # fmt: skip
        if folded:
            together: Counter[str] = Counter()
            for place in folded:
                together.update(truth[place])
            expected[OTHER] = (len(together), together.total())
        for row in house.tables.rows("closings_daily", [day]):
            if row["table"] == "usage_daily":
                days.users += row["users"]
                days.named_users += row["named_users"]
        days.cells += len(rows.keys() - {OTHER})
        return expected == {place: (row["users"], row["bytes"]) for place, row in rows.items()}

    def _remembered(self) -> Needles:
        """Return all that anyone could have noted while the month's key was there."""
        house = self.read()
        keys = house.month_keys(MONTH)
        numbers = frozenset(pseudonym(name.encode(), keys) for name in PLANTED)
        return Needles(PLANTED, numbers, (_key_bytes(house),))

    def _late_record(self, house: Deployment) -> Ingested:
        record = {
            "record": USAGE_COUNTER,
            "day": f"{MONTH}-31",
            "user": PLANTED[0],
            "location": CONTROL,
            "epoch": "00000000000000ff",
            "bytes": 1,
        }
        path = self.delivered / "late.ndjson"
        path.write_text(json.dumps(record) + "\n", "utf-8")
        return ingest(house, [str(path)])


def month_days(days: Sequence[str]) -> list[str]:
    """Return those of `days` that lie in the month whose purge is shown."""
    return [day for day in days if month_of(dt.date.fromisoformat(day)) == MONTH]


def _added_up(told: DaemonsRead) -> bool:
    """Say whether WireGuard's totals are what was counted before its restart, and after it."""
    wireguard = told.sources[0]
    sums = {}
    for account, shown in wireguard.shown.items():
        first, *_, last, restarted = (0 if one is None else one[1] for one in shown)
        sums[account] = last - first + restarted
    return {record.user: record.bytes for record in wireguard.records} == {
        account: total for account, total in sums.items() if total
    }


def _as_expected(got: Ingested, delivery: Delivery, extra: int) -> bool:
    accepted = got.accepted == delivery.accepted + extra
    return accepted and got.reasons == dict(delivery.rejected) and not got.unreadable


def _key_bytes(house: Deployment) -> bytes:
    """Return the month's key block without its first line, which all months share."""
    return house.keys.path(MONTH).read_bytes().partition(b"\n")[2]


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _audit_entries(house: Deployment) -> int:
    """Return how many entries the audit log's chain has, 0 if it is broken."""
    try:
        return sum(1 for _ in house.audit.entries())
    except IntegrityError:
        return 0
