"""The pages of what is kept and why: the crowd, fair-use counts, receipts, the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aggregator.model.days import instant
from aggregator.model.profile import Profile
from aggregator.model.tables import TABLES
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.dictionary import Entry
from aggregator.pipeline.report_rows import CROWD_FLOOR
from aggregator.pipeline.status import next_purge
from aggregator.site import figures as numbers
from aggregator.site.figures import Figures
from aggregator.site.views import (
    Cell,
    Column,
    Fact,
    Facts,
    Listing,
    Section,
    Table,
    View,
    Words,
    over_time,
    share,
    volume,
    whole,
)

_, _MONTH = numbers.WINDOWS
_NOTICE_COLUMNS: Final = ("notices", "sent", "delayed", "failed", "withheld", "expired")
_ABOUT: Final = {
    "usage_daily": "users and bytes by day and location",
    "connections_daily": "attempts and successes by day, location and country",
    "connections_isp_daily": "attempts and successes by day and internet provider",
    "apps_daily": "attempts and successes by day, app and version",
    "usage_monthly": "distinct users and bytes by month and location",
    "notices_monthly": "fair-use notices by month and rule, counts",
    "rejections_daily": "rejected records by day and reason, counts",
    "closings_daily": "how much of each day could be named",
}


def crowd(figures: Figures, k: int) -> View:
    """Return the page of the crowd: how many users share a location (CS-4)."""
    rows = []
    for name, series in figures.users.items():
        known = [value for value in series[-_MONTH:] if value is not None]
        if known:
            below = sum(value < CROWD_FLOOR for value in known)
            rows.append(
                (Cell(name), whole(len(known)), whole(below), whole(min(known)),
                 whole(round(sum(known) / len(known))), whole(max(known)))
            )  # fmt: skip
    rows.sort(key=lambda row: (int(row[3].value), row[0].text))
    columns = (
        Column("location"),
        Column("days", is_number=True),
        Column(f"below {CROWD_FLOOR:,}", is_number=True, hint="days with fewer users"),
        Column("least", is_number=True),
        Column("mean", is_number=True),
        Column("most", is_number=True),
    )
    table = Table(
        "crowd-table", f"Users who share a location on a day, {_MONTH} days to {figures.last}",
        columns, rows, filter="Find a location", sorted_by=3,
    )  # fmt: skip
    named = _named(figures)
    words = Words((
        "The policy promises that a user's pattern matches that of thousands of others who"
        " connected to the same location on the same day. This is how many there were.",
        f"No cell of fewer than {k:,} users is published at all, and none in which one user has"
        " most of the bytes: what fails is folded into other, so that totals stay exact.",
    ))  # fmt: skip
    chart = over_time(
        "named", "Users in cells with a name, %", figures.days, named, share, from_zero=False
    )
    return View(
        "crowd.html", "Crowd", "How many others a user of a location is one of (promise CS-4).",
        (
            Section("share", "By location", (words, table)),
            Section("folded", "What may be named", (chart,)),
        ),
    )  # fmt: skip


def _named(figures: Figures) -> list[float | None]:
    shares: dict[Any, float] = {
        row["day"]: numbers.one_decimal(100.0 * row["named_users"] / row["users"])
        for row in figures.closings
        if row["table"] == "usage_daily" and row["users"]
    }
    return [shares.get(day) for day in figures.days]


def facts(house: Deployment, figures: Figures) -> Facts:
    """Return what the first page tells of it: the purges, the smallest crowd, what has a name."""
    least = [values[-1] for values in figures.users.values() if values[-1] is not None]
    shares = [one for one in _named(figures) if one is not None]
    purges = _purge_facts(house).facts
    crowd_fact = Fact("Smallest crowd", "-")
    if least:
        below = sum(value < CROWD_FLOOR for value in least)
        crowd_fact = Fact(
            "Smallest crowd", f"{min(least):,} users", str(min(least)),
            f"{below:,} of {len(least):,} locations of the last day below {CROWD_FLOOR:,} (CS-4)",
        )  # fmt: skip
    named = share(shares[-1] if shares else None)
    note = f"the rest is other: fewer than {house.profile.k:,}, or one weighs too much"
    return Facts((*purges[:2], crowd_fact, Fact("Users at named places", named.text, named.value,
                                               note)))  # fmt: skip


def fair_use(house: Deployment) -> View:
    """Return the page of fair-use notices: counts of months, no person."""
    found = house.tables.rows("notices_monthly", house.tables.periods("notices_monthly"))
    rows = [
        (Cell(row["month"]), Cell(row["rule"]), Cell(f"{row['percent']} %", str(row["percent"])),
         Cell(row["audience"]), *(whole(row[name]) for name in _NOTICE_COLUMNS))
        for row in reversed(found)
    ]  # fmt: skip
    columns = (
        Column("month"), Column("rule"), Column("step", is_number=True), Column("to"),
        *(Column(name, is_number=True) for name in _NOTICE_COLUMNS),
    )  # fmt: skip
    rules = [
        f"{rule.name}: {rule.kind.value.replace('_', ' ')}, threshold {rule.threshold:,}"
        for rule in house.profile.fair_use
    ]
    words = (
        "Service is unlimited. A user whose month outweighs very many others may be asked for an"
        " explanation; software tells the support desk, and a person decides (CS-9).",
        f"Rules in force: {'; '.join(rules) or 'none'}.",
        "Kept are these counts. Who was meant went with the month's key.",
    )
    return View(
        "fair-use.html", "Fair use", "How often somebody was told, month by month.",
        (
            Section("rules", "The rules", (Words(words),)),
            Section("counts", "Notices", (
                Table("notices", "Fair-use notices by month, rule and step", columns, rows,
                      empty="No notice was ever queued."),
            )),
        ),
    )  # fmt: skip


def retention(house: Deployment) -> View:
    """Return the page of what is kept for how long, and of every purge with its receipt."""
    profile = house.profile
    tables = [
        (Cell(name), Cell(_ABOUT[name]), _kept(profile.retention_months[name])) for name in TABLES
    ]
    columns = (Column("table"), Column("a row says"), Column("kept"))
    return View(
        "retention.html", "Retention", "What is kept for how long, and what was destroyed.",
        (
            Section("raw", "Counters of persons", (_purge_facts(house), Words((_raw(profile),)))),
            Section("receipts", "Receipts", (
                Words((
                    "Each purge leaves a receipt: audit/receipt-purge-YYYY-MM.json. Its SHA-256 is"
                    " in the audit log; aggregator audit verify checks both.",
                )),
                _receipts(house),
            )),
            Section("tables", "Published tables", (
                Table("retention", "How long tables are kept", columns, tables),
            )),
        ),
    )  # fmt: skip


def _kept(months: int) -> Cell:
    return Cell("for good" if not months else f"{months} months after its own", f"{months:04d}")


def _raw(profile: Profile) -> str:
    oldest = 31 + -(-profile.purge_grace_hours // 24)
    return (
        "Counters of users are sealed under a key of their month. A day is closed"
        f" {profile.day_grace_hours} h after its end; the purge comes {profile.purge_grace_hours} h"
        f" after the month's, and destroys the key. So a counter is at most {oldest} days old."
    )


def _purge_facts(house: Deployment) -> Facts:
    purge, months = next_purge(house), house.receipts.months()
    last = house.receipts.read(months[-1]) if months else None
    nothing = Fact("Next purge", "nothing to purge")
    due = nothing
    if purge is not None:
        day, hour = _when(instant(purge.due_at))
        due = Fact("Next purge", day, purge.month, f"{hour}, of {purge.month}")
    told = Fact("Last purge", "none yet")
    if last is not None:
        sound = last["verified"] and not last["late"]
        told = Fact(
            "Last purge", _when(last["purged_at"])[0], months[-1],
            f"of {months[-1]}, {'verified' if last['verified'] else 'NOT verified'}"
            f"{', late' if last['late'] else ''}", "" if sound else "bad",
        )  # fmt: skip
    return Facts((due, told, Fact("Receipts", f"{len(months):,}", str(len(months)))))


def _when(text: str) -> tuple[str, str]:
    """Return the day and the hour of an instant."""
    day, _, hour = text.removesuffix("Z").partition("T")
    return day, f"{hour[:5]} UTC"


def _receipts(house: Deployment) -> Table:
    rows = []
    for month in reversed(house.receipts.months()):
        receipt = house.receipts.read(month)
        gone = receipt["destroyed"]
        rows.append(
            (Cell(month), Cell(receipt["purged_at"]), Cell("yes" if receipt["verified"] else "NO"),
             Cell("LATE" if receipt["late"] else "on time"), whole(gone["key_sets"]),
             whole(gone["segments"]), volume(gone["bytes"]),
             Cell(house.receipts.digest(month)[:16] + "…", house.receipts.digest(month)))
        )  # fmt: skip
    columns = (
        Column("month"), Column("purged"), Column("verified"), Column("due"),
        Column("key sets", is_number=True), Column("segments", is_number=True),
        Column("size", is_number=True), Column("SHA-256 of the receipt"),
    )  # fmt: skip
    return Table("receipts-table", "Purges", columns, rows, empty="No month was purged yet.")


def policy(house: Deployment, dictionary: Sequence[Entry]) -> View:
    """Return the page of the policy: the profile in force, and what every column means."""
    profile = house.profile
    text = house.home.profile_path.read_text("utf-8")
    sections = [
        Section(
            f"table-{one.table}",
            one.table,
            (Words((one.description, f"Kept: {one.retention}.")), _columns(one)),
        )
        for one in dictionary
    ]
    return View(
        "policy.html", "Policy", "What this service lets itself know, as the machine enforces it.",
        (
            Section("promises", "In words", (Words(_promises(profile)),)),
            Section("profile", "The profile in force", (
                Listing(f"policy/profile.toml, {profile.name} version {profile.version},"
                        f" SHA-256 {profile.digest}", text),
            )),
            *sections,
        ),
    )  # fmt: skip


def _promises(profile: Profile) -> tuple[str, ...]:
    return (
        "No address, no time of day, no destination and no content can be expressed in a record;"
        " one that holds any is refused, and only the reason is counted (CS-1, CS-6).",
        "A user's bytes are known by month, sealed, under a pseudonym, and are destroyed at its end"
        " (CL-2, CV-5).",
        f"A published cell has at least {profile.k:,} users; its largest has at most"
        f" {profile.largest_percent} % of its bytes, the two largest"
        f" {profile.two_largest_percent} % (CS-4, CT-4).",
        "These pages are made of published tables, receipts and the profile. No person is in them.",
    )


def _columns(table: Entry) -> Table:
    rows = [
        (Cell(one.name), Cell(one.arrow_type.removesuffix("[day]")), Cell(one.meaning))
        for one in table.columns
    ]
    columns = (Column("column"), Column("type"), Column("meaning"))
    return Table(f"columns-{table.table}", f"Columns of {table.table}", columns, rows)
