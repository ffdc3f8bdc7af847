"""The page of connections: where they succeed less than before, by location, country and ISP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from babel import Locale

from aggregator.model.tables import OTHER, OTHER_ASN
from aggregator.site import figures as numbers
from aggregator.site.figures import Compared, Figures, Outcome
from aggregator.site.views import (
    OUTCOME_COLUMNS,
    Cell,
    Column,
    Controls,
    Section,
    Table,
    View,
    Words,
    outcome_cells,
    over_time,
    packed,
    share,
)

_WEEK, _MONTH = numbers.WINDOWS
_NAMES: Final = Locale("en").territories


def connections(figures: Figures) -> View:
    """Return the page of connections: success by location, country and ISP."""
    countries = sorted(figures.countries, key=lambda code: (code == OTHER, country(code)))
    places = sorted({place for place, _ in figures.cross[_MONTH].now})
    from_all = [("", "all countries"), *((code, country(code)) for code in countries)]
    to_all = [("", "all locations"), *((place, place) for place in places)]
    return View(
        "connections.html", "Connections",
        "Where connections succeed less than before: the last days against as many before them.",
        (
            Section("by-location", "By location", (
                Controls("connections", choices=from_all, others=to_all),
                _outcome_table("by-location-table", "Success by location", "location",
                               _grouped(figures.cross[_WEEK], 0), str, "Find a location"),
            )),
            Section("by-country", "By country", (
                _outcome_table("by-country-table", "Success by country", "country",
                               _grouped(figures.cross[_WEEK], 1), country, "Find a country"),
                over_time("chart-success", "Successful connections, %", figures.days,
                          figures.success(), share, from_zero=False),
            )),
            Section("by-isp", "By internet provider", (
                Words(("Autonomous system numbers; which provider has one is public knowledge.",)),
                _outcome_table("by-isp-table", "Success by provider", "provider",
                               figures.isps[_WEEK], _isp, "Find a provider"),
            )),
        ),
        _cross_data(figures, countries, places),
    )  # fmt: skip


def _grouped(cross: Compared, part: int) -> Compared:
    """Return outcomes by one part of their key: 0 the location, 1 the country."""
    return Compared(*(_by(one, part) for one in (cross.now, cross.before)))


def _by(found: Mapping[tuple[str, str], Outcome], part: int) -> dict[str, Outcome]:
    sums: dict[str, Outcome] = {}
    for key, (attempts, successes) in found.items():
        so_far = sums.get(key[part], (0, 0))
        sums[key[part]] = (so_far[0] + attempts, so_far[1] + successes)
    return sums


def _outcome_table(
    id_: str, caption: str, what: str, found: Compared, name: Any, filter_: str
) -> Table:
    rows = [
        (Cell(name(key), str(key)), *outcome_cells(now, found.before.get(key)))
        for key, now in found.now.items()
    ]
    rows.sort(key=lambda row: (float(row[4].value or "inf"), row[0].text))
    return Table(
        id_, f"{caption}, last {_WEEK} days", (Column(what, "name"), *OUTCOME_COLUMNS), rows,
        filter=filter_, sorted_by=4,
    )  # fmt: skip


def _cross_data(figures: Figures, countries: Sequence[str], places: Sequence[str]) -> Any:
    """Return what the script needs: the outcomes of each window, and of each country's days."""
    windows = {
        str(one.days): {
            "now": _packed(figures.cross[one.days].now, countries, places),
            "before": _packed(figures.cross[one.days].before, countries, places),
            "isps": [
                packed([*(now.get(key) or (None, None)), *(before.get(key) or (None, None))])
                for now, before in [(figures.isps[one.days].now, figures.isps[one.days].before)]
                for key in sorted(figures.isps[_MONTH].now)
            ],
            "first": str(one.now.first),
            "last": str(one.now.last),
        }
        for one in figures.windows
    }
    return {
        "first": str(figures.days[0]),
        "countries": list(countries),
        "names": [country(code) for code in countries],
        "locations": list(places),
        "isps": sorted(figures.isps[_MONTH].now),
        "windows": windows,
        "days": [
            packed([part for one in figures.countries[code] for part in one or (None, None)])
            for code in countries
        ],
    }


def _packed(
    found: Mapping[tuple[str, str], Outcome], countries: Sequence[str], places: Sequence[str]
) -> str:
    """Return rows of location, country (their numbers), attempts, successes; one after another."""
    place_of = {place: number for number, place in enumerate(places)}
    country_of = {code: number for number, code in enumerate(countries)}
    return packed(
        [
            number
            for (place, code), outcome in sorted(found.items())
            if place in place_of and code in country_of
            for number in (place_of[place], country_of[code], *outcome)
        ]
    )


def country(code: str) -> str:
    """Return a country's name with its code."""
    if code == OTHER:
        return "other countries"
    return "unknown" if code == "ZZ" else f"{_NAMES.get(code, code)} ({code})"


def _isp(asn: int) -> str:
    return {OTHER_ASN: "others", 0: "unknown"}.get(asn, f"AS{asn}")
