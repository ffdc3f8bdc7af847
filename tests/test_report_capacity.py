"""`report capacity`: its figures against the table's rows, and who comes first."""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from benchmarks import years
from closed import Run

from aggregator import app
from aggregator.model.days import parse_instant
from aggregator.stores.home import Home


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with a year of tables of fourteen locations."""
    home = tmp_path_factory.mktemp("year") / "home"
    years.make(home, 1, 14)
    return home


def rows_of(home: Path) -> list[dict[str, Any]]:
    now = parse_instant(years.NOW)
    tables = app.open_to_read(Home(home), now, now).tables
    return tables.rows("usage_daily", tables.periods("usage_daily"))


def test_the_figures_are_those_of_the_days(year: Path, run: Run) -> None:
    said = run(year, "report", "capacity", "--from", "2026-10-01", "--json", now=years.NOW)
    places = defaultdict(list)
    for row in rows_of(year):
        if row["day"] >= dt.date(2026, 10, 1):
            places[row["location"]].append(row)
    assert {row["location"] for row in said.json} == set(places)
    for row in said.json:
        days = places[row["location"]]
        peak = max(days, key=lambda one: one["bytes"])
        assert (row["peak_day"], row["peak_bytes"]) == (str(peak["day"]), peak["bytes"])
        assert row["mean_bytes"] == round(sum(one["bytes"] for one in days) / len(days))
        assert row["mean_users"] == round(sum(one["users"] for one in days) / len(days))
        assert row["p90_bytes"] == days[-1]["p90_bytes"]
        if row["location"] == "other":
            assert row["forecast_bytes"] is None
        else:
            ends = (row["forecast_low_bytes"], row["forecast_high_bytes"])
            assert ends[0] <= row["forecast_bytes"] <= ends[1]
            assert row["forecast_tests"] > 10
    means = [row["mean_bytes"] for row in said.json]
    assert means == sorted(means, reverse=True)  # no agent, so no load of a server


def test_the_fastest_grows_fastest(year: Path, run: Run) -> None:
    words = ("--sort", "-growth_percent", "--limit", "1", "--json")
    rows = run(year, "report", "capacity", *words, now=years.NOW).json
    assert [row["location"] for row in rows] == [years.FASTEST]
    assert 3 < rows[0]["growth_percent"] < 8  # 90 % in a year are 5.4 % in 30 days


def test_servers_are_counted_and_those_with_most_to_carry_come_first(
    year: Path, run: Run, tmp_path: Path
) -> None:
    for place, servers in (("location-003", 1), ("location-005", 2)):
        for number in range(servers):
            enrolled = run(
                year, "agent", "enrol", f"{place}-{number}", "--location", place,
                "--door", "https://door.example:8443", "--out", tmp_path / f"{place}{number}.toml",
                now=years.NOW,
            )  # fmt: skip
            assert enrolled.code == 0, enrolled.err
    said = run(year, "report", "capacity", "--server-mbits", "500", "--json", now=years.NOW)
    rows = {row["location"]: row for row in said.json}
    assert [rows[place]["servers"] for place in ("location-003", "location-005")] == [1, 2]
    told = [row["server_mbits"] for row in said.json if row["servers"]]
    assert said.json[:2] == [row for row in said.json if row["servers"]]
    assert told == sorted(told, reverse=True)
    for row in said.json:
        if row["location"] != "other":
            ratio = row["peak_bytes"] / row["mean_bytes"]
            most = row["forecast_high_bytes"] * ratio * 8 / 1e6 / 86_400
            assert row["servers_needed"] == pytest.approx(math.ceil(most / 500), abs=1)


def test_every_format_has_the_same_numbers(year: Path, run: Run, tmp_path: Path) -> None:
    words = ("report", "capacity", "--limit", "3")
    rows = run(year, *words, "--json", now=years.NOW).json
    file = tmp_path / "capacity.parquet"
    run(year, *words, "--format", "parquet", "--out", file, now=years.NOW)
    read = pq.ParquetFile(file).read().to_pylist()
    assert [{**row, "peak_day": str(row["peak_day"])} for row in read] == rows
    text = run(year, *words, "--format", "csv", now=years.NOW).out
    for fields, row in zip(csv.DictReader(io.StringIO(text)), rows, strict=True):
        assert fields == {name: "" if value is None else str(value) for name, value in row.items()}


def test_a_young_home_is_told_without_a_forecast(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "report", "capacity")
    assert said.code == 0
    assert "us-nyc" in said.out
    assert "forecast" not in said.out
    assert "six weeks" in said.err
    empty = run(closed_home, "report", "capacity", "--from", "2027-01-01")
    assert (empty.code, empty.out) == (0, "")
    assert "no closed day" in empty.err


@pytest.mark.parametrize("words", [("--sort", "planted"), ("--ahead", "1"), ("--where", "x=1")])
def test_what_cannot_be_asked_is_a_mistake_of_usage(
    closed_home: Path, run: Run, words: tuple[str, str]
) -> None:
    said = run(closed_home, "report", "capacity", *words)
    assert (said.code, said.out) == (2, "")
    assert "planted" not in said.err
