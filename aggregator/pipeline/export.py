"""The monthly public release: gather published rows, fold and check them, write a folder (CT-4).

Only of a month whose counters are destroyed, and only once: its digest is in the audit log. What
is made of the same tables, profile and receipt has the same bytes, whenever and wherever.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aggregator.errors import AggregatorError, IntegrityError, RefusedError, UsageError
from aggregator.model.days import instant
from aggregator.model.profile import Profile, parse_profile
from aggregator.pipeline import export_files, month_end
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.export_text import Facts
from aggregator.rules import deletion, public
from aggregator.rules.deletion import Item
from aggregator.rules.public import Release, Withheld
from aggregator.stores import releases, scan
from aggregator.stores.home import FOLDERS

_KIND: Final = "export"
_RECORDED: Final = ("usage_monthly", "connections_daily", "notices_monthly")
_USED: Final = (*_RECORDED, "rejections_daily")


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A release that may be published: its files by name; `digest` is that of release.json.

    `published` says whether the audit log has it already.
    """

    month: str
    release: Release
    files: Mapping[str, bytes]
    digest: str
    published: bool

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"usage-release-{self.month}"

    def rows(self) -> list[dict[str, Any]]:
        """Return its rows, as every file has them."""
        return export_files.rows_of(self.release, self.month)


@dataclasses.dataclass(frozen=True, slots=True)
class _Logged:
    """What the audit log has of a release: the digest of its release.json, and its day."""

    digest: str
    day: str


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """What an export did: the release, its folder, and whether that was not there before."""

    prepared: Prepared
    path: Path
    is_new: bool


def last_month(house: Deployment) -> str:
    """Return the last month that was purged; RefusedError says when the first will be."""
    months = house.receipts.months()
    if months:
        return months[-1]
    waiting = month_end.kept_months(house)
    when = f"; {_will_be(house, waiting[0])}" if waiting else ""
    raise RefusedError(f"no month is purged yet, so there is nothing to release{when}")


def prepare(house: Deployment, month: str) -> Prepared:
    """Return the release of `month`, checked as a whole; write nothing.

    RefusedError if the month is not purged, if a release of it was made that differs, or if it
    can no longer be made; IntegrityError if receipt or tables are not as they were recorded.
    """
    receipt = _receipt(house, month)
    before = _logged(house, month)
    try:
        return _prepared(house, month, receipt, before)
    except RefusedError as error:
        if before is None:
            raise
        raise RefusedError(
            f"a release of {month} was made on {before.day} and is immutable, so copy the folder"
            f" that was made; it cannot be made again: {error}"
        ) from None


def publish(house: Deployment, month: str, out: Path) -> Published:
    """Write the release of `month` into its folder in `out`; the home is open to write.

    The folder is complete before the audit log is told, and bears its name only after: a run that
    was killed between is simply run again. Errors as of `prepare`; RefusedError if a folder of
    that name has anything else in it, UsageError if `out` is in the home.
    """
    _check_outside(house, out)
    prepared = prepare(house, month)
    target = out / prepared.folder
    is_there = releases.is_there(target)
    if is_there and not releases.is_same(target, prepared.files):
        raise RefusedError(
            f"{prepared.folder} is there with other content; move it away, or choose another --out"
        )
    if is_there:
        _record(house, prepared)
        return Published(prepared, target, is_new=False)
    staged = releases.stage(target, prepared.files)
    try:
        _record(house, prepared)
        releases.place(staged, target)
    except (AggregatorError, OSError):
        releases.discard(staged)
        raise
    return Published(prepared, target, is_new=True)


def _record(house: Deployment, prepared: Prepared) -> None:
    """Add the audit entry of a release, unless it has one."""
    if not prepared.published:
        detail = {"month": prepared.month, "release": prepared.digest, "k": prepared.release.k}
        house.record(_KIND, detail)


def _check_outside(house: Deployment, out: Path) -> None:
    """Raise UsageError where a release would lie among the home's own files."""
    place = out.resolve()
    folders = [house.home.folder(name).resolve() for name in FOLDERS]
    if place == house.home.root.resolve() or any(place.is_relative_to(one) for one in folders):
        raise UsageError("--out names a folder of the home itself; choose one outside of it")


def _will_be(house: Deployment, month: str) -> str:
    return f"the purge of {month} will be from {instant(house.calendar.purges_at(month))} on"


def _receipt(house: Deployment, month: str) -> dict[str, Any]:
    """Return the receipt of a month's purge; RefusedError says when there will be one."""
    if month in house.receipts.months():
        return house.receipts.read(month)
    if not house.calendar.is_purgeable(month, house.now):
        raise RefusedError(
            f"{month} is released after its counters are destroyed; {_will_be(house, month)}"
        )
    if month in month_end.kept_months(house):
        raise RefusedError(
            f"the purge of {month} is due, but was not done; run: aggregator purge --month {month}"
        )
    raise RefusedError(f"there is no receipt of {month}: nothing of it was kept in this home")


def _logged(house: Deployment, month: str) -> _Logged | None:
    """Return what the audit log has of the release of `month`, None if there is none.

    The log must have the receipt as it is: it is what the release refers to as the proof.
    """
    released, receipts = None, set()
    for entry in house.audit.entries():
        if entry.kind == "purge" and entry.detail["month"] == month:
            receipts.add(entry.detail["receipt"])
        if entry.kind == _KIND and entry.detail["month"] == month:
            released = _Logged(str(entry.detail["release"]), entry.at[:10])
    if not receipts:
        raise RefusedError(f"the purge of {month} is not in the audit log; run: aggregator purge")
    if receipts != {house.receipts.digest(month)}:
        raise IntegrityError(
            f"the receipt of {month} is not as it was recorded; see: aggregator audit verify"
        )
    return released


def _prepared(
    house: Deployment, month: str, receipt: Mapping[str, Any], before: _Logged | None
) -> Prepared:
    profile, policy = _profile_of(house, month, receipt)
    if not public.is_strict_enough(profile):
        raise RefusedError(
            f"a public release needs a profile with release.largest_percent of at most"
            f" {public.LARGEST_PERCENT} and two_largest_percent of {public.TWO_LARGEST_PERCENT}"
        )
    _check_kept(house, month)
    _check_partitions(house, month, receipt)
    release = _release(house, month, receipt, profile)
    problems = public.check(release)
    if problems:
        raise IntegrityError(f"the release of {month} is not made: {problems[0]}")
    notices = [row["notices"] for row in house.tables.rows("notices_monthly", [month])]
    facts = Facts(
        month=month,
        release=release,
        profile=profile,
        receipt=receipt,
        receipt_sha256=house.receipts.digest(month),
        notices=sum(notices),
        most_notices=max(notices, default=0),
        rejected={
            row["reason"]: row["records"]
            for row in _sums(house, month, "rejections_daily", "reason")
        },
    )
    files = export_files.make(facts, policy)
    digest = hashlib.sha256(files[export_files.MAIN]).hexdigest()
    if before is not None and before.digest != digest:
        raise RefusedError("its tables, its profile or this software were others then")
    return Prepared(month, release, files, digest, before is not None)


def _profile_of(house: Deployment, month: str, receipt: Mapping[str, Any]) -> tuple[Profile, bytes]:
    """Return the profile under which the month was kept, and its text (CV-9).

    It is the active one, or an earlier one whose text is still in `policy/`.
    """
    wanted = receipt["policy"]["sha256"]
    folder = house.home.folder("policy")
    for path in (house.home.profile_path, *sorted(folder.rglob("*.toml"))):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == wanted:
            return parse_profile(content.decode()), content
    raise RefusedError(
        f"{month} was kept under another profile, version {receipt['policy']['version']}; put its"
        " text into policy/ beside the active one, as a file that ends in .toml"
    )


def _check_kept(house: Deployment, month: str) -> None:
    """Raise RefusedError where the profile's retention let a table of `month` go."""
    last = house.receipts.months()[-1]
    items = [Item(f"tables/{table}", deletion.Kind.TABLE, month, 0) for table in _USED]
    for step in deletion.expired(items, last, house.profile.retention_months):
        table = step.item.path.removeprefix("tables/")
        raise RefusedError(f"{table} of {month} is {step.reason}, and gone; nothing to release")


def _check_partitions(house: Deployment, month: str, receipt: Mapping[str, Any]) -> None:
    """Raise IntegrityError unless the tables are those that the receipt names."""
    recorded = {(row["table"], row["period"]): row["sha256"] for row in receipt["tables"]}
    wanted = {key for key in recorded if key[0] in _RECORDED}
    found = {(table, one) for table in _RECORDED for one in house.tables.periods(table, month)}
    for table, period in sorted(wanted | found):
        key = (table, period)
        if key not in wanted & found or house.tables.digest(table, period) != recorded[key]:
            raise IntegrityError(
                f"{table} of {period} is not as the receipt has it; see: aggregator audit verify"
            )


def _release(
    house: Deployment, month: str, receipt: Mapping[str, Any], profile: Profile
) -> Release:
    usage = house.tables.rows("usage_monthly", [month])
    leaves = public.leaves_of(usage, _sums(house, month, "connections_daily", "location"))
    if not receipt["verified"]:
        why = Withheld.NOT_VERIFIED
        return public.withhold(leaves, profile.regions, profile.export_k, why)
    return public.release(leaves, profile.regions, profile.export_k)


_MEASURES: Final = {
    "connections_daily": ("users", "attempts", "successes"),
    "rejections_daily": ("records",),
}


def _sums(house: Deployment, month: str, table: str, by: str) -> list[dict[str, Any]]:
    """Return the sums of a daily table over the month, by one dimension, in its order."""
    periods = house.tables.periods(table, month)
    try:
        found = scan.sums(house.tables, table, periods, (by,), _MEASURES[table])
    except OverflowError:
        raise IntegrityError(f"the sums of {table} of {month} are implausible") from None
    return sorted(found.to_pylist(), key=lambda row: str(row[by]))
