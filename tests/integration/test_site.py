"""The site in a real browser, from disk and without a network: as people meet it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks import years
from closed import Run

from aggregator.cli.main import main

from . import browser
from .browser import Tab

pytestmark = pytest.mark.integration
NEEDS = None
PAGES = (
    "index", "locations", "connections", "apps", "crowd", "fair-use", "retention", "policy",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("year") / "home"
    years.make(made, 1, 20)
    return made


@pytest.fixture(scope="module")
def site(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    words = ["-q", "--home", str(home), "--now", years.NOW, "report", "site", "--out", str(out)]
    assert main(words) == 0
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.launched() as running:
        yield running


def shown(tab: Tab, site: Path, name: str) -> None:
    tab.page.goto((site / f"{name}.html").as_uri())
    tab.page.wait_for_function("document.documentElement.dataset.ready !== undefined")


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (360, "light")])
def test_every_page_is_sound_for_everybody(
    chromium: Any, site: Path, width: int, scheme: str
) -> None:
    with browser.tab(chromium, width, scheme) as tab:
        for name in PAGES:
            shown(tab, site, name)
            assert tab.violations() == [], name
            assert not tab.is_wider_than_its_window(), name
            assert tab.page.locator("nav a[aria-current=page]").count() == 1
            for chart in tab.page.locator("svg.chart").all():
                box = chart.bounding_box()
                assert box is not None
                assert box["height"] > 80
                assert "M" in (chart.locator("path.line").first.get_attribute("d") or "")


def test_every_page_is_reached_from_the_first(chromium: Any, site: Path) -> None:
    with browser.tab(chromium) as tab:
        shown(tab, site, "index")
        for title in ("Locations", "Connections", "Apps", "Crowd", "Fair use", "Retention",
                      "Policy", "Overview"):  # fmt: skip
            tab.page.get_by_role("link", name=title, exact=True).click()
            assert tab.page.locator("h1").inner_text() == title


def test_which_location_got_worse_from_germany(
    chromium: Any, site: Path, home: Path, run: Run
) -> None:
    with browser.tab(chromium) as tab:
        shown(tab, site, "connections")
        for country, days, span in (("DE", "7", ("2026-10-22", "2026-10-28")),
                                    ("FR", "30", ("2026-09-29", "2026-10-28"))):  # fmt: skip
            tab.page.get_by_label("From", exact=True).select_option(country)
            tab.page.get_by_label("Compare", exact=True).select_option(days)
            rows = values(tab, "by-location-table")
            words = ("--by", "location", "--where", f"country={country}", "--from", span[0],
                     "--to", span[1], "--compare", "--json")  # fmt: skip
            expected = run(home, "report", "connections", *words, now=years.NOW).json
            names = ("attempts", "success_percent", "success_percent_before",
                     "success_change_points")  # fmt: skip
            assert {row[0]: row[1:] for row in rows} == {
                row["location"]: [str(row[name]) for name in names] for row in expected
            }
            if country == "DE":
                assert rows[0][0] == years.WORSE[0]
                assert "Germany (DE)" in tab.page.locator("#chart-success figcaption").inner_text()
        assert tab.violations() == []


def values(tab: Tab, table: str) -> list[list[str]]:
    """Return the exact values of the rows that are shown, in their order."""
    found: list[list[str]] = tab.page.evaluate(
        """(id) => [...document.getElementById(id).tBodies[0].rows].filter((row) => !row.hidden)
           .map((row) => [...row.cells].map((cell) => cell.dataset.value ?? cell.innerText))""",
        table,
    )
    return found


def test_the_time_of_the_locations_is_chosen(
    chromium: Any, site: Path, home: Path, run: Run
) -> None:
    with browser.tab(chromium) as tab:
        shown(tab, site, "locations")
        before = values(tab, "locations")
        tab.page.get_by_label("Time", exact=True).select_option("90")
        assert "90 days" in tab.page.locator("#locations caption").inner_text()
        after = {row[0]: row[1:4] for row in values(tab, "locations")}
        assert {row[0]: row[1:4] for row in before} != after
        words = ("--by", "location", "--from", "2026-07-31", "--to", "2026-10-28", "--compare",
                 "--json")  # fmt: skip
        expected = run(home, "report", "usage", *words, now=years.NOW).json
        assert {name: row[1] for name, row in after.items()} == {
            row["location"]: str(row["bytes"]) for row in expected
        }
        assert {name: row[2] for name, row in after.items()} == {
            row["location"]: str(row["change_percent"]) for row in expected
        }
        tab.page.get_by_label("Time", exact=True).select_option("30")
        assert values(tab, "locations") == before  # as it was written, and as the script has it


def test_one_location_is_drawn(chromium: Any, site: Path, home: Path, run: Run) -> None:
    with browser.tab(chromium) as tab:
        shown(tab, site, "locations")
        path = tab.page.locator("#chart-users path.line").get_attribute("d")
        tab.page.get_by_role("button", name=years.FASTEST, exact=True).click()
        assert tab.page.locator("#chart-users path.line").get_attribute("d") != path
        assert years.FASTEST in tab.page.locator("#chart-bytes figcaption").inner_text()
        words = ("--where", f"location={years.FASTEST}", "--json")
        rows = run(home, "report", "usage", *words, now=years.NOW).json
        drawn = values(tab, "chart-bytes-table")
        assert dict(drawn) == {row["day"]: str(row["bytes"]) for row in rows}
        # All together, drawn by the script, is what was written.
        tab.page.get_by_label("Location", exact=True).select_option("")
        again = tab.page.locator("#chart-users path.line").get_attribute("d")
        assert points(again) == pytest.approx(points(path), abs=0.11)


def points(path: str) -> list[float]:
    """Return the numbers of a path; halves of the last digit are rounded in two ways."""
    return [float(number) for number in re.findall(r"[0-9.]+", path)]


def test_tables_are_sorted_and_filtered_by_keyboard(chromium: Any, site: Path) -> None:
    with browser.tab(chromium) as tab:
        shown(tab, site, "locations")
        page = tab.page
        button = page.locator("#locations thead button", has_text="bytes")
        button.focus()
        page.keyboard.press("Enter")
        sizes = [int(row[2]) for row in values(tab, "locations")]
        assert sizes == sorted(sizes, reverse=True)
        assert page.locator("#locations th[aria-sort=descending]").inner_text().startswith("bytes")
        page.keyboard.press("Space")
        assert [int(row[2]) for row in values(tab, "locations")] == sorted(sizes)
        page.get_by_label("Find a location", exact=True).focus()
        page.keyboard.type("location-01")
        names = [row[0] for row in values(tab, "locations")]
        assert names
        assert all(name.startswith("location-01") for name in names)
        assert page.locator(".tool output").first.inner_text() == f"{len(names)} of 20"
        assert tab.violations() == []


def test_the_keyboard_goes_past_the_menu(chromium: Any, site: Path) -> None:
    with browser.tab(chromium) as tab:
        shown(tab, site, "crowd")
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate("document.activeElement.textContent") == "To the content"
        tab.page.keyboard.press("Enter")
        assert tab.page.evaluate("document.activeElement.id") == "main"


def test_without_its_script_a_page_says_the_same(chromium: Any, site: Path) -> None:
    context = chromium.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        assert page.locator("h1").is_visible()
        assert not page.locator("form").first.is_visible()
    page.goto((site / "index.html").as_uri())
    assert page.locator("svg.chart").count() == 3
    context.close()


def test_it_prints(chromium: Any, site: Path) -> None:
    with browser.tab(chromium) as tab:
        shown(tab, site, "index")
        tab.page.emulate_media(media="print")
        assert not tab.page.locator("nav").is_visible()
        assert tab.page.pdf(format="A4").startswith(b"%PDF")


def test_a_year_of_120_locations_is_less_than_2_mb(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("large")
    years.make(folder / "home", 1, 120)
    out = folder / "site"
    words = ["-q", "--home", str(folder / "home"), "--now", years.NOW, "report", "site"]
    assert main([*words, "--out", str(out)]) == 0
    files = json.loads((out / ".usage-site.json").read_text())["files"]
    assert sum((out / name).stat().st_size for name in files) < 2_000_000
