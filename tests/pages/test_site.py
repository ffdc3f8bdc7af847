"""`report site`: its numbers are those of the reports, and nothing in it is from elsewhere."""

from __future__ import annotations

import datetime as dt
import html.parser
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks import years
from closed import NOW, Run
from hypothesis import given
from hypothesis import strategies as st

from aggregator import app
from aggregator.model.days import parse_instant
from aggregator.model.tables import TABLES
from aggregator.rules.periods import Span
from aggregator.site.build import pages
from aggregator.site.figures import change, percent
from aggregator.site.views import packed
from aggregator.stores.home import Home

PAGES = {
    "index.html", "locations.html", "connections.html", "apps.html", "crowd.html",
    "fair-use.html", "retention.html", "policy.html",
}  # fmt: skip
_VOID = {"meta", "link", "input", "br", "img"}


class Page(html.parser.HTMLParser):
    """A page read as a browser does: its tables, by their id, and every address in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str]]]] = {}
        self.facts: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self._table: list[list[tuple[str, str]]] | None = None
        self._value: str | None = None
        self._text: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert not any(name.startswith("on") for name in found), "a script in an attribute"
        assert "style" not in found, "a style in an attribute, which the policy forbids"
        self.addresses += [found[name] for name in ("href", "src", "action") if name in found]
        self.ids.update([found["id"]] if "id" in found else [])
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(found.get("id", ""), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th"):
            self._text, self._value = [], found.get("data-value")
        elif tag == "dd" and "data-value" in found:
            self.facts.append(found["data-value"])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An empty element of a picture."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th") and self._text is not None and self._table:
            text = "".join(self._text).strip()
            self._table[-1].append((text, text if self._value is None else self._value))
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def rows(self, table: str) -> dict[str, list[str]]:
        """Return the exact values of a table's rows by their first."""
        return {row[0][1]: [value for _, value in row[1:]] for row in self.tables[table][1:] if row}


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("year") / "home"
    years.make(home, 1, 14)
    return home


def made(home: Path, now: str, span: Span | None = None) -> dict[str, bytes]:
    moment = parse_instant(now)
    house = app.open_to_read(Home(home), moment, moment)
    return {page.path: page.content for page in pages(house, span)}


@pytest.fixture(scope="module")
def site(year: Path) -> dict[str, Page]:
    found = made(year, years.NOW)
    return {name: Page(found[name].decode()) for name in PAGES}


def test_the_site_is_whole_and_from_here(year: Path) -> None:
    found = made(year, years.NOW)
    assert set(found) == PAGES | {"assets/site.css", "assets/site.js"}
    for name, content in found.items():
        text = content.decode()
        assert "http:" not in text.replace("http://www.w3.org/2000/svg", ""), name
        assert "https:" not in text, name
        assert "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.M).replace(
            "http://www.w3.org/2000/svg", ""
        ), name
        assert "url(" not in text
        assert "@import" not in text
        if name in PAGES:
            page = Page(text)
            assert page.open == []
            assert max(page.ids.values()) == 1
            for address in page.addresses:
                assert address.startswith("#") or address in {*found, "data:,"}, address


def test_the_same_tables_give_the_same_bytes(year: Path) -> None:
    first, second = made(year, years.NOW), made(year, years.NOW)
    assert first == second


def test_locations_have_the_numbers_of_the_report(
    year: Path, run: Run, site: dict[str, Page]
) -> None:
    words = ("--by", "location", "--from", "2026-09-29", "--to", "2026-10-28", "--compare")
    rows = {
        row["location"]: row
        for row in run(year, "report", "usage", *words, "--json", now=years.NOW).json
    }
    table = site["locations.html"].rows("locations")
    assert set(table) == set(rows)
    for name, (users, size, grown, *percentiles, _trend) in table.items():
        assert size == str(rows[name]["bytes"])
        assert grown == str(rows[name]["change_percent"])
        assert users == str(round(rows[name]["user_days"] / 30)) if "user_days" in rows[name] else 1
        assert len(percentiles) == 3


def test_connections_have_the_numbers_of_the_report(
    year: Path, run: Run, site: dict[str, Page]
) -> None:
    for by, table in (("location", "by-location-table"), ("country", "by-country-table"),
                      ("asn", "by-isp-table")):  # fmt: skip
        words = ("--by", by, "--from", "2026-10-22", "--to", "2026-10-28", "--compare", "--json")
        rows = run(year, "report", "connections", *words, now=years.NOW).json
        found = site["connections.html"].rows(table)
        assert len(found) == len(rows) > 10
        for row in rows:
            expected = ["attempts", "success_percent", "success_percent_before",
                        "success_change_points"]  # fmt: skip
            assert found[str(row[by])] == [str(row[name]) for name in expected]


def test_the_crowd_is_that_of_the_report(year: Path, run: Run, site: dict[str, Page]) -> None:
    words = ("--from", "2026-09-29", "--to", "2026-10-28", "--json")
    rows = run(year, "report", "crowd", *words, now=years.NOW).json
    names = ("cells", "cells_below", "least_users", "mean_users", "most_users")
    assert site["crowd.html"].rows("crowd-table") == {
        row["location"]: [str(row[name]) for name in names] for row in rows
    }


def test_days_have_the_numbers_of_the_report(year: Path, run: Run, site: dict[str, Page]) -> None:
    rows = run(year, "report", "usage", "--by", "day", "--json", now=years.NOW).json
    assert site["index.html"].rows("bytes-table") == {
        row["day"]: [str(row["bytes"])] for row in rows
    }
    rows = run(year, "report", "connections", "--by", "day", "--json", now=years.NOW).json
    assert site["index.html"].rows("success-table") == {
        row["day"]: [str(row["success_percent"])] for row in rows
    }


def test_what_got_worse_is_seen_first(site: dict[str, Page]) -> None:
    place, country, _ = years.WORSE
    first = site["index.html"].tables["worse-table"][1]
    assert (first[0][1], first[1][1]) == (place, country)
    assert float(first[5][1]) < -5


def test_every_receipt_is_listed(year: Path, site: dict[str, Page]) -> None:
    now = parse_instant(years.NOW)
    receipts = app.open_to_read(Home(year), now, now).receipts
    rows = site["retention.html"].rows("receipts-table")
    assert list(rows) == receipts.months()[::-1]
    for month, values in rows.items():
        assert values[-1] == receipts.digest(month)


def test_a_span_has_its_days_only(year: Path) -> None:
    span = Span(dt.date(2026, 3, 1), dt.date(2026, 3, 31))
    page = Page(made(year, years.NOW, span)["index.html"].decode())
    days = list(page.rows("users-table"))
    assert (days[-1], days[0], len(days)) == ("2026-03-01", "2026-03-31", 31)


def test_a_site_is_written_and_written_again(closed_home: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "site"
    said = run(closed_home, "report", "site", "--out", out)
    assert (said.code, said.out) == (0, f"{out / 'index.html'}\n")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files > PAGES
    known = json.loads((out / ".usage-site.json").read_text())
    (out / "old.html").write_text("of an earlier site")
    known["files"].append("old.html")
    (out / ".usage-site.json").write_text(json.dumps(known))
    (out / "mine.txt").write_text("not of a site")
    again = run(closed_home, "report", "site", "--out", out, "--json").json
    assert again["files"] == len(files) - 1
    assert not (out / "old.html").exists()
    assert (out / "mine.txt").exists()
    assert (out / "index.html").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("manifest", [None, "nonsense", '{"files": 7}'])
def test_a_folder_of_somebody_else_is_left_alone(
    closed_home: Path, run: Run, tmp_path: Path, manifest: str | None
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    if manifest:
        (tmp_path / ".usage-site.json").write_text(manifest)
    before = sorted(path.name for path in tmp_path.iterdir())
    said = run(closed_home, "report", "site", "--out", tmp_path)
    assert (said.code, said.out) == (2, "")
    assert "a folder of its own" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_manifest_cannot_reach_out_of_its_folder(
    closed_home: Path, run: Run, tmp_path: Path
) -> None:
    out, outside = tmp_path / "site", tmp_path / "outside.txt"
    outside.write_text("here before")
    out.mkdir()
    files = {"files": ["../outside.txt", str(outside)]}
    (out / ".usage-site.json").write_text(json.dumps(files))
    assert run(closed_home, "report", "site", "--out", out).code == 0
    assert outside.exists()


def test_an_empty_home_says_so(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "home", "init")
    out = tmp_path / "site"
    assert run(tmp_path / "home", "report", "site", "--out", out).code == 0
    text = (out / "index.html").read_text()
    assert "No day is closed" in text
    assert "A rehearsal" in text
    assert (out / "policy.html").exists()
    assert not (out / "locations.html").exists()


def test_nothing_of_a_table_is_markup(home: Path) -> None:
    """No table can hold such a name; a page must not depend on it."""
    moment = parse_instant(NOW)
    house = app.open_to_read(Home(home), moment, moment)
    planted = "x</script><script>alert(1)</script>&"
    rows = house.tables.rows("usage_daily", ["2026-10-03"])
    house.tables.write("usage_daily", "2026-10-03", [
        {**row, "location": planted} if row["location"] == "us-nyc" else row for row in rows
    ])  # fmt: skip
    for page in pages(house):
        assert b"<script>alert" not in page.content
        if page.path in PAGES:
            assert Page(page.content.decode()).open == []


def test_the_policy_page_describes_every_column(site: dict[str, Page]) -> None:
    for name, table in TABLES.items():
        assert list(site["policy.html"].rows(f"columns-{name}")) == list(table.columns)


def test_pages_hold_to_a_closed_policy(site: dict[str, Page], year: Path) -> None:
    text = made(year, years.NOW)["index.html"].decode()
    assert "default-src 'none'" in text
    assert "unsafe" not in text


_NUMBERS = st.lists(st.none() | st.integers(0, 2**53), min_size=1, max_size=12)


@given(_NUMBERS)
def test_packed_numbers_are_the_same_numbers(values: list[Any]) -> None:
    parts = packed(values).split(",")
    assert [int(part, 36) if part else None for part in parts] == values


@given(_NUMBERS, _NUMBERS)
def test_a_change_is_none_or_the_change_of_means(now: list[Any], before: list[Any]) -> None:
    one, other = ([value for value in part if value is not None] for part in (now, before))
    found = change(now, before)
    if not one or not sum(other):
        assert found is None
    else:
        mean, base = sum(one) / len(one), sum(other) / len(other)
        assert found == pytest.approx(100 * (mean - base) / base, rel=1e-9, abs=0.051)


def test_no_attempt_has_no_success() -> None:
    assert percent((0, 0)) is None
    assert percent((8, 7)) == 87.5
