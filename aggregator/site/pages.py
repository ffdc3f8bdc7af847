"""The pages: what each tells, as views of the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from babel import Locale

from aggregator.model.tables import OTHER
from aggregator.pictures.chart import Chart, Series, lines, spark
from aggregator.site import figures as numbers
from aggregator.site.connections import country
from aggregator.site.figures import Figures, Outcome, percent, summed
from aggregator.site.views import (
    HEIGHT,
    LETTER,
    OUTCOME_COLUMNS,
    WIDTH,
    Cell,
    Column,
    Controls,
    Fact,
    Facts,
    Picture,
    Section,
    Table,
    View,
    moved,
    outcome_cells,
    over_time,
    packed,
    share,
    volume,
    whole,
)

_WEEK, _MONTH = numbers.WINDOWS
_SHOWN: Final = 10
_PERIODS: Final = (("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("0", "everything"))
_LEAST_ATTEMPTS: Final = 100
_NAMES: Final = Locale("en").territories


def overview(figures: Figures, kept: Facts) -> View:
    """Return the first page: how busy it is, whether it works, what changed, what is kept."""
    return View(
        "index.html", "Overview",
        f"How busy the service was, and whether connections succeeded, up to {figures.last}.",
        (
            Section("now", f"The week to {figures.last}", (_week(figures),)),
            Section("year", "Day by day", tuple(_days(figures)), side_by_side=True),
            Section("busy", "Busiest and fastest growing",
                    (_busiest(figures), _fastest(figures)), side_by_side=True),
            Section("worse", "Harder to connect than before", (_worse(figures),)),
            Section("kept", "What is kept", (kept,)),
        ),
    )  # fmt: skip


def _week(figures: Figures) -> Facts:
    users, size = (figures.total(series) for series in (figures.users, figures.bytes))
    cross = figures.cross[_WEEK]
    now, before = (summed(iter(one.values())) for one in (cross.now, cross.before))
    rate = percent(now)
    fall = numbers.points(rate, percent(before))
    return Facts(
        (
            _mean_fact("Users a day", users, whole),
            _mean_fact("Bytes a day", size, volume),
            Fact(
                "Attempts to connect", whole(now[0]).text, str(now[0]),
                _against(numbers.change([now[0]], [before[0]])),
            ),
            Fact(
                "Successful", share(rate).text, share(rate).value,
                f"{moved(fall, ' points').text} against the week before",
                "bad" if fall is not None and fall <= -1 else "",
            ),
        )
    )  # fmt: skip


def _mean_fact(name: str, series: Sequence[int | None], cell: Any) -> Fact:
    now, before = series[-_WEEK:], series[-2 * _WEEK : -_WEEK]
    mean = cell(_mean(now))
    return Fact(name, mean.text, mean.value, _against(numbers.change(now, before)))


def _mean(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known)) if known else None


def _against(change: float | None) -> str:
    return f"{moved(change).text} against the week before" if change is not None else ""


def _days(figures: Figures) -> Iterator[Picture]:
    days = figures.days
    yield over_time("users", "Users a day", days, figures.total(figures.users), whole)
    yield over_time("bytes", "Bytes a day", days, figures.total(figures.bytes), volume)
    yield over_time(
        "success", "Successful connections, %", days, figures.success(), share, from_zero=False
    )


def _busiest(figures: Figures) -> Table:
    totals = {name: numbers.added(values[-_MONTH:]) for name, values in figures.bytes.items()}
    every = numbers.added(list(totals.values())) or 1
    ranked = sorted(totals, key=lambda name: (-(totals[name] or 0), name))[:_SHOWN]
    rows = [
        (Cell(name), volume(totals[name]), share(percent((every, totals[name] or 0))))
        for name in ranked
    ]
    columns = (Column("location"), Column("bytes", is_number=True), Column("share", is_number=True))
    return Table("busiest", f"Most bytes in {_MONTH} days", columns, rows)


def _fastest(figures: Figures) -> Table:
    changes = {
        name: numbers.change(values[-_MONTH:], values[-2 * _MONTH : -_MONTH])
        for name, values in figures.bytes.items()
        if name != OTHER
    }
    known = {name: value for name, value in changes.items() if value is not None}
    ranked = sorted(known, key=lambda name: (-known[name], name))[:_SHOWN]
    rows = [
        (Cell(name), moved(known[name]), Cell("", svg=_spark(figures.bytes[name], name)))
        for name in ranked
    ]
    columns = (
        Column("location"),
        Column("growth", is_number=True, hint="bytes a day, against the 30 days before"),
        Column("trend", hint="weeks of the time shown"),
    )
    return Table("fastest", f"Growth in {_MONTH} days", columns, rows)


def _worse(figures: Figures) -> Table:
    """Return where the success fell most, among cells with enough attempts to tell."""
    cross = figures.cross[_WEEK]
    falls = []
    for key, now in cross.now.items():
        before = cross.before.get(key)
        if before and min(now[0], before[0]) >= _LEAST_ATTEMPTS:
            fall = numbers.points(percent(now), percent(before))
            if fall is not None and fall < 0:
                falls.append((fall, key))
    rows = [
        (Cell(place), Cell(country(code), code), *outcome_cells(
            cross.now[place, code], cross.before[place, code]))
        for _, (place, code) in sorted(falls)[:_SHOWN]
    ]  # fmt: skip
    window = next(one for one in figures.windows if one.days == _WEEK)
    caption = f"Success fell most, {window.now.first} to {window.now.last}, against the week before"
    columns = (Column("location"), Column("from"), *OUTCOME_COLUMNS)
    note = f"Only where both weeks had {_LEAST_ATTEMPTS} attempts."
    return Table("worse-table", caption, columns, rows, note=note, empty="Nowhere it fell.")


def locations(figures: Figures) -> View:
    """Return the page of the locations: a row each, and the charts of one of them."""
    rows = [_location(figures, name) for name in figures.bytes]
    columns = (
        Column("location", "location"),
        Column("users a day", "users", True, "mean of the days"),
        Column("bytes", "bytes", True),
        Column("change", "change", True, "bytes a day, against the time before"),
        Column("p50", "p50", True, "a user's bytes of the last day; half take no more"),
        Column("p90", "p90", True),
        Column("p99", "p99", True),
        Column("trend", "trend", hint="bytes, weeks of the time shown"),
    )
    table = Table(
        "locations", f"Locations, {_MONTH} days to {figures.last}", columns, rows,
        filter="Find a location", note=_other_note(figures),
    )  # fmt: skip
    users, size = (figures.total(series) for series in (figures.users, figures.bytes))
    charts = (
        over_time("chart-users", "Users a day", figures.days, users, whole),
        over_time("chart-bytes", "Bytes a day", figures.days, size, volume),
    )
    choices = [("", "all together"), *((name, name) for name in figures.bytes)]
    return View(
        "locations.html", "Locations", f"Every location that may be named, up to {figures.last}.",
        (
            Section("table", "All locations",
                    (Controls("locations", choices=_PERIODS), table)),
            Section("one", "One location", (Controls("location", choices=choices), *charts),
                    side_by_side=True),
        ),
        {
            "first": str(figures.days[0]),
            "days": len(figures.days),
            "users": {name: packed(values) for name, values in figures.users.items()},
            "bytes": {name: packed(values) for name, values in figures.bytes.items()},
        },
    )  # fmt: skip


def _location(figures: Figures, name: str) -> Sequence[Cell]:
    users, size = figures.users[name], figures.bytes[name]
    change = numbers.change(size[-_MONTH:], size[-2 * _MONTH : -_MONTH])
    told = figures.percentiles.get(name, {})
    return (
        Cell(name, name),
        whole(_mean(users[-_MONTH:])),
        volume(numbers.added(size[-_MONTH:])),
        moved(change),
        *(volume(told.get(f"p{number}_bytes")) for number in (50, 90, 99)),
        Cell("", svg=_spark(size, name)),
    )


def _spark(values: Sequence[int | None], name: str) -> str:
    weeks = [_mean(values[start : start + 7]) for start in range(len(values) % 7, len(values), 7)]
    return spark([None if one is None else float(one) for one in weeks], title=name)


def _other_note(figures: Figures) -> str:
    if OTHER not in figures.bytes:
        return ""
    return "other: locations that may not be named (too few users, or one weighs too much)."


def apps(figures: Figures) -> View:
    """Return the page of apps and versions: who uses what, and whether it connects."""
    by_app: dict[str, list[Outcome | None]] = {}
    for (name, _), series in figures.apps.items():
        by_app[name] = [_plus(*pair) for pair in zip(
            by_app.get(name, [None] * len(series)), series, strict=True)]  # fmt: skip
    sizes = {name: _sum(series)[0] for name, series in by_app.items()}
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:6]
    chart = Chart(
        "Attempts a day by app", [str(day) for day in figures.days],
        [Series(name, [one and float(one[0]) for one in by_app[name]]) for name in largest],
        lambda value: f"{value:,.0f}", letter=LETTER,
    )  # fmt: skip
    drawn = lines(chart, width=WIDTH, height=HEIGHT)
    totals = Table(
        "apps-table", "Attempts by app, over the time shown",
        (Column("app"), Column("attempts", is_number=True), Column("success", is_number=True)),
        [
            (Cell(name), whole(sizes[name]), share(percent(_sum(by_app[name]))))
            for name in sorted(sizes, key=lambda one: (-sizes[one], one))
        ],
    )  # fmt: skip
    return View(
        "apps.html", "Apps", "Which apps and versions connect, and whether they succeed (CS-3).",
        (
            Section("apps", "Apps", (Picture("apps-chart", chart.title, drawn, totals),)),
            Section("versions", "Versions", (_versions(figures),)),
        ),
    )  # fmt: skip


def _plus(one: Outcome | None, other: Outcome | None) -> Outcome | None:
    if one is None or other is None:
        return one or other
    return one[0] + other[0], one[1] + other[1]


def _sum(series: Sequence[Outcome | None]) -> Outcome:
    return summed(iter([one for one in series if one]))


def _versions(figures: Figures) -> Table:
    rows = []
    for (name, version), series in figures.apps.items():
        now = _sum(series[-_MONTH:])
        before = _sum(series[-2 * _MONTH : -_MONTH])
        if not now[0]:
            continue
        first = next(day for day, one in zip(figures.days, series, strict=True) if one)
        cells = outcome_cells(now, before if before[0] else None)
        known = [None if one is None else one[0] for one in series]
        rows.append(
            (Cell(name), Cell(version, _version_key(version)), Cell(str(first), str(first)), *cells,
             Cell("", svg=_spark(known, f"{name} {version}")))
        )  # fmt: skip
    rows.sort(key=lambda row: (row[0].text, -int(row[3].value or 0)))
    columns = (
        Column("app"), Column("version"),
        Column("first seen", hint="in the time shown"), *OUTCOME_COLUMNS,
        Column("trend", hint="attempts, weeks of the time shown"),
    )  # fmt: skip
    caption = f"Versions of the last {_MONTH} days, against the {_MONTH} before"
    return Table("versions-table", caption, columns, rows, filter="Find an app or a version")


def _version_key(version: str) -> str:
    """Return what versions are sorted by: 9.2 comes before 11.0."""
    parts = version.split(".")
    return "".join(part.zfill(9) for part in parts) if parts[0].isdigit() else version
