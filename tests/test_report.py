"""Reports: the right table, exact sums, the same numbers in every format, words on stderr."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from closed import NOW, Run
from prometheus_client.openmetrics import parser

from aggregator import app
from aggregator.cli import chart, grid, show
from aggregator.cli.formats import dimension_text
from aggregator.model.days import end_of_day, parse_instant
from aggregator.model.tables import TABLES
from aggregator.pipeline import report, report_rows
from aggregator.pipeline.report import SUBJECTS
from aggregator.pipeline.report_rows import with_success_percent
from aggregator.stores.home import Home
from aggregator.stores.tables import arrow_schema

Row = dict[str, Any]
DEFAULTS: Final = {
    "usage": "usage_daily", "connections": "connections_daily", "apps": "apps_daily",
}  # fmt: skip


def stored(home: Path, table: str) -> list[Row]:
    """Return a table's rows as they lie on disk, days as text, without the code under test."""
    rows: list[Row] = []
    for path in sorted((home / "tables" / table).rglob("*.parquet")):
        rows += pq.ParquetFile(path).read().to_pylist()
    return [{**row, "day": str(row["day"])} if "day" in row else row for row in rows]


def summed(rows: list[Row], by: tuple[str, ...], measure: str) -> dict[tuple[Any, ...], int]:
    """Return the sums of `measure` by `by`, `month` being the start of a day."""
    sums: dict[tuple[Any, ...], int] = defaultdict(int)
    for row in rows:
        named = {**row, "month": row["day"][:7]}
        sums[tuple(named[name] for name in by)] += row[measure]
    return dict(sums)


@pytest.mark.parametrize(("kind", "table"), DEFAULTS.items())
def test_the_default_is_the_daily_table_as_it_is(
    closed_home: Path, run: Run, kind: str, table: str
) -> None:
    rows = run(closed_home, "report", kind, "--format", "json").json
    assert rows == stored(closed_home, table)
    assert [list(row) for row in rows] == [list(TABLES[table].columns)] * len(rows)
    assert run(closed_home, "--json", "report", kind).json == rows
    assert run(closed_home, "report", kind, "--json").json == rows


def test_month_and_location_read_the_monthly_table(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "report", "usage", "--by", "month,location", "--json")
    assert said.json == stored(closed_home, "usage_monthly")
    assert "2026-10 is not purged yet" in said.err


def test_an_asn_reads_the_table_of_isps(closed_home: Path, run: Run) -> None:
    rows = run(closed_home, "report", "connections", "--by", "day,asn", "--json").json
    assert rows == stored(closed_home, "connections_isp_daily")
    coarse = run(closed_home, "report", "connections", "--by", "asn", "--json").json
    attempts = summed(stored(closed_home, "connections_isp_daily"), ("asn",), "attempts")
    assert {(row["asn"],): row["attempts"] for row in coarse} == attempts


@pytest.mark.parametrize(
    ("kind", "by", "measure"),
    [
        ("usage", ("day",), "bytes"),
        ("usage", ("month",), "bytes"),
        ("usage", ("location", "month", "day"), "bytes"),
        ("connections", ("country",), "attempts"),
        ("connections", ("month", "location"), "successes"),
        ("apps", ("app",), "attempts"),
        ("apps", ("version", "month"), "attempts"),
    ],
)
def test_a_coarser_grouping_adds_up(
    closed_home: Path, run: Run, kind: str, by: tuple[str, ...], measure: str
) -> None:
    table = stored(closed_home, DEFAULTS[kind])
    rows = run(closed_home, "report", kind, "--by", ",".join(by), "--json").json
    keys = [tuple(row[name] for name in by) for row in rows]
    assert keys == sorted(keys)
    for name, column in ((measure, measure), ("users", "user_days")):
        found = {tuple(row[one] for one in by): row[column] for row in rows}
        assert found == summed(table, by, name)
    assert not {"users", "p50_bytes", "histogram"} & set(rows[0])


def test_rejections_are_by_reason_and_have_all_their_dimensions(
    closed_home: Path, run: Run
) -> None:
    table = stored(closed_home, "rejections_daily")
    rows = run(closed_home, "report", "rejections", "--json").json
    assert {list(row)[-1] for row in rows} == {"records"}
    found = {(row["day"], row["reason"]): row["records"] for row in rows}
    assert found == summed(table, ("day", "reason"), "records")
    every = ",".join(list(TABLES["rejections_daily"].columns)[:-1])
    assert run(closed_home, "report", "rejections", "--by", every, "--json").json == table


def test_the_share_of_successes_is_added_where_it_is_due(closed_home: Path, run: Run) -> None:
    (row,) = run(closed_home, "report", "connections", "--by", "month", "--to", "2026-09",
                 "--json").json  # fmt: skip
    assert row["success_percent"] == round(100 * row["successes"] / row["attempts"], 1) == 66.7
    exact = run(closed_home, "report", "connections", "--json").json
    assert "success_percent" not in exact[0]
    assert "success_percent" in run(closed_home, "report", "connections", "--format", "md").out
    assert "success %" in run(closed_home, "report", "connections").out


def test_no_attempt_has_no_share_of_successes() -> None:
    counts = pa.table({"attempts": [0, 3, 8], "successes": [0, 2, 8]})
    assert with_success_percent(counts)["success_percent"].to_pylist() == [None, 66.7, 100.0]


def test_people_read_words_for_the_numbers_that_are_none() -> None:
    names = [dimension_text("asn", value) for value in (-1, 0, 3320)]
    assert names == ["other", "unknown", "3320"]
    assert dimension_text("location", "other") == "other"


@pytest.mark.parametrize(
    ("words", "days"),
    [
        (("--from", "2026-10-02"), {"2026-10-02", "2026-10-03"}),
        (("--to", "2026-09-29"), {"2026-09-29"}),
        (("--from", "2026-09-30", "--to", "2026-10-01"), {"2026-09-30", "2026-10-01"}),
        (("--from", "2026-10"), {"2026-10-01", "2026-10-02", "2026-10-03"}),
        (("--to", "2026-09"), {"2026-09-29", "2026-09-30"}),
        (("--from", "2026-09", "--to", "2026-09"), {"2026-09-29", "2026-09-30"}),
    ],
)
def test_both_ends_of_a_period_are_in_it(
    closed_home: Path, run: Run, words: tuple[str, ...], days: set[str]
) -> None:
    rows = run(closed_home, "report", "usage", *words, "--json").json
    assert {row["day"] for row in rows} == days


def test_a_day_means_its_month_in_a_monthly_table(closed_home: Path, run: Run) -> None:
    by = ("report", "usage", "--by", "month,location", "--json")
    assert run(closed_home, *by, "--from", "2026-09-30", "--to", "2026-09-30").json
    assert run(closed_home, *by, "--from", "2026-10-01").json == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("usage", "--by", "secret-thing"), "month, day, location"),
        (("usage", "--by", ""), "month, day, location"),
        (("usage", "--by", "day,country"), "month, day, location"),
        (("usage", "--by", "day,day"), "twice"),
        (("connections", "--by", "asn,country"), "month, day, location, country; or month, day, a"),
        (("apps", "--by", "location"), "month, day, app, version"),
        (("usage", "--from", "someday"), "2026-10-05"),
        (("usage", "--to", "2026-02-30"), "2026-10-05"),
        (("usage", "--from", "2026-10-02", "--to", "2026-10-01"), "is after"),
        (("usage", "--json", "--format", "csv"), "contradict"),
        (("usage", "--out", "missing-folder/x.csv"), "folder"),
        (("usage", "--format", "xml"), "parquet"),
        (("horoscope",), "No such command"),
    ],
)
def test_what_cannot_be_answered_is_a_usage_error(
    closed_home: Path, run: Run, words: tuple[str, ...], hint: str
) -> None:
    said = run(closed_home, "report", *words)
    assert (said.code, said.out) == (2, "")
    assert hint in said.err
    assert "secret-thing" not in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("usage",),
        ("usage", "--by", "day"),
        ("usage", "--by", "month,location"),
        ("connections",),
        ("connections", "--by", "day,asn"),
        ("apps", "--by", "month"),
        ("rejections",),
    ],
)
def test_every_format_has_the_same_numbers(
    closed_home: Path, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    rows = run(closed_home, "report", *words, "--format", "json").json
    assert rows
    file = tmp_path / "report.parquet"
    assert run(closed_home, "report", *words, "--format", "parquet", "--out", file).out == ""
    read = pq.ParquetFile(file).read().to_pylist()
    assert [{**row, "day": str(row["day"])} if "day" in row else row for row in read] == rows

    text = run(closed_home, "report", *words, "--format", "csv").out
    assert text.count("\r\n") == len(rows) + 1
    for fields, row in zip(csv.DictReader(io.StringIO(text, newline="")), rows, strict=True):
        assert {name: _parsed(value) for name, value in fields.items()} == row

    header, _, *lines = run(closed_home, "report", *words, "--format", "md").out.splitlines()
    names = _cells(header)
    for line, row in zip(lines, rows, strict=True):
        shown = dict(zip(names, map(_parsed, _cells(line)), strict=True))
        kept = {name: value for name, value in row.items() if name != "histogram"}
        assert {name: shown[name] for name in kept} == kept


def _parsed(text: str) -> Any:
    if text == "":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_parquet_of_the_default_has_the_tables_schema(
    closed_home: Path, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "usage.parquet"
    run(closed_home, "report", "usage", "--format", "parquet", "--out", file)
    assert pq.ParquetFile(file).schema_arrow.equals(arrow_schema(TABLES["usage_daily"]))
    run(closed_home, "report", "usage", "--format", "parquet", "--out", file, "--from", "2027-01")
    empty = pq.ParquetFile(file).read()
    assert (empty.num_rows, empty.schema.names) == (0, list(TABLES["usage_daily"].columns))


def test_out_replaces_a_file_but_writes_into_what_is_none(
    closed_home: Path, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "report.csv"
    file.write_text("old")
    run(closed_home, "report", "usage", "--format", "csv", "--out", file)
    assert file.read_bytes().startswith(b"day,location,users,bytes,")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    run(closed_home, "report", "usage", "--by", "month", "--format", "csv", "--out", pipe)
    assert os.read(reader, 100).startswith(b"month,user_days")
    assert pipe.is_fifo()


def test_nothing_found_is_said_in_words(closed_home: Path, run: Run, tmp_path: Path) -> None:
    later = ("report", "usage", "--from", "2027-01-01")
    for format_, out in (
        ("json", "[]\n"),
        ("csv", ",".join(TABLES["usage_daily"].columns) + "\r\n"),
        ("table", ""),
    ):
        said = run(closed_home, *later, "--format", format_)
        assert (said.code, said.out) == (0, out)
        assert "no rows from 2027-01-01; usage_daily has 2026-09-29 to 2026-10-03" in said.err
    run(tmp_path / "new", "init")
    for kind, words in (("usage", "no day is closed yet"), ("rejections", "ever rejected")):
        said = run(tmp_path / "new", "report", kind)
        assert (said.code, said.out) == (0, "")
        assert words in said.err


def test_the_table_says_what_it_is_on_stderr(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "report", "usage", "--from", "2026-10-01")
    assert "2026-10-01 to 2026-10-03: 9 rows of usage_daily" in said.err
    assert "other: cells that may not be named" in said.err
    assert "█" in said.out
    assert "us-nyc" in said.out
    assert run(closed_home, "-q", "report", "usage").err == ""


@pytest.mark.parametrize("words", [(), ("-q",)])
def test_a_profile_below_2_is_named_in_every_report(
    home: Path, run: Run, words: tuple[str, ...]
) -> None:
    profile = home / "policy" / "profile.toml"
    text = profile.read_text().replace("k = 10 ", "k = 1\nallow_k_below_2 = true\n#")
    profile.write_text(text)
    for kind in SUBJECTS:
        said = run(home, *words, "report", kind, "--json")
        assert (
            "warning: this profile publishes cells of fewer than 2 users (release.k = 1)"
            in said.err
        )


def test_only_partitions_in_range_are_read(home: Path, run: Run) -> None:
    broken = home / "tables/usage_daily/month=2026-10/2026-10-02.parquet"
    broken.write_bytes(b"not Parquet")
    assert run(home, "report", "usage", "--to", "2026-10-01", "--json").code == 0
    said = run(home, "report", "usage", "--json")
    assert said.code == 6
    assert "2026-10-02 of usage_daily" in said.err


def in_terminal(home: Path, width: int, *words: str, **environment: str) -> str:
    """Return what a report prints on a terminal so wide, its exit code ignored."""
    parent, child = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        [sys.executable, "-m", "aggregator", "--home", str(home), "report", *words],
        stdin=subprocess.DEVNULL, stdout=child, stderr=child, check=False,
        env={**kept, "COLUMNS": str(width), "TERM": "xterm", **environment},
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    os.close(child)
    read = b""
    try:
        while block := os.read(parent, 65536):
            read += block
    except OSError:  # what a terminal's parent reads after the last writer has gone
        pass
    finally:
        os.close(parent)
    return read.decode().replace("\r\n", "\n")


def test_a_terminal_gets_what_fits_and_no_parquet(closed_home: Path) -> None:
    narrow = in_terminal(closed_home, 60, "usage", NO_COLOR="1")
    wide = in_terminal(closed_home, 130, "usage")
    table = [line for line in narrow.splitlines() if line.startswith(("day", "2026-10-01  "))]
    assert max(map(len, table)) <= 60
    assert "too narrow for" in narrow
    assert "\033[" not in narrow
    assert "histogram" in wide
    assert wide.startswith("\033[1m")
    refused = in_terminal(closed_home, 80, "usage", "--format", "parquet")
    assert "--out FILE" in refused
    assert "PAR1" not in refused


def test_columns_go_by_priority_and_bars_take_the_rest() -> None:
    columns = [
        grid.Column("day", ("2026-10-01",)),
        grid.Column("bytes", ("5",), right=True),
        grid.Column("", (), priority=1, bar_of=(5,)),
        grid.Column("p99", ("1234567890",), priority=2),
    ]
    kept, left_out = grid.fit(columns, 30)
    assert ([column.name for column in kept], left_out) == (["day", "bytes", ""], ["p99"])
    assert grid.lines(kept, 30)[2] == "2026-10-01      5  " + "█" * 11
    assert grid.fit(columns, 20)[1] == ["", "p99"]
    assert grid.fit(columns, 200)[1] == []


def test_bars_are_as_long_as_their_values() -> None:
    assert [chart.bar(value, 8, 4) for value in (0, 0.01, 1, 4, 8, 99)] == [
        "", "▏", "▌", "██", "████", "████",
    ]  # fmt: skip
    lines = chart.bars([("us-nyc", 40.0), ("de", 10.0), ("a" * 60, 0.0)], width=40, unit=str)
    assert max(map(len, lines)) <= 40
    assert lines[0].count("█") == 4 * lines[1].count("█") > 0
    assert lines[2].startswith("aaaa")
    assert chart.bars([], width=40, unit=str) == []


def test_a_series_shows_every_day_or_says_what_a_column_is() -> None:
    days = [(f"2026-10-{day:02d}", float(day)) for day in range(1, 31)]
    lines = chart.series(days, width=60, unit=lambda value: f"{value:.0f} GB", height=4)
    assert max(map(len, lines)) <= 60
    assert (lines[0][:5], len(lines)) == ("30 GB", 6)
    assert lines[-1].split() == ["2026-10-01", "2026-10-30"]
    assert lines[3].count("█") > lines[0].count("█") > 0
    squeezed = chart.series(days, width=20, unit=lambda value: f"{value:.0f} GB", height=4)
    assert squeezed[-1].endswith("a column is the mean of 3")
    assert chart.series([("a", 0.0)], width=20, unit=str)[0] == "0.0 ┤"


def test_a_spark_line_is_as_high_as_its_values() -> None:
    assert chart.spark([0, 1, 4, 8]) == " ▁▄█"
    assert chart.spark([0, 0]) == "  "


@pytest.mark.parametrize("kind", ["", *SUBJECTS])
def test_help_has_an_example_and_names_the_dimensions(
    closed_home: Path, run: Run, kind: str
) -> None:
    words = [word for word in ("report", kind, "--help") if word]
    said = run(closed_home, *words, now=None)
    assert f"  aggregator report {kind}" in said.out
    for name in SUBJECTS[kind].dimensions if kind else ():
        assert name in said.out


# Which rows, in which order, beside which before


def test_where_leaves_the_rows_that_are_meant(closed_home: Path, run: Run) -> None:
    every = stored(closed_home, "connections_daily")
    rows = run(closed_home, "report", "connections", "--where", "country=de,US", "--json").json
    assert rows == [row for row in every if row["country"] in ("DE", "US")]
    rows = run(closed_home, "report", "connections", "--where", "country!=DE", "--json").json
    assert rows == [row for row in every if row["country"] != "DE"]
    words = ("--where", "country=DE", "--where", "location=us-nyc", "--by", "day", "--json")
    rows = run(closed_home, "report", "connections", *words).json
    meant = [row for row in every if (row["country"], row["location"]) == ("DE", "us-nyc")]
    assert {(row["day"],): row["attempts"] for row in rows} == summed(meant, ("day",), "attempts")


def test_an_asn_is_named_as_it_is_shown(closed_home: Path, run: Run) -> None:
    every = stored(closed_home, "connections_isp_daily")
    number = next(row["asn"] for row in every if row["asn"] > 0)
    for text in (str(number), f"AS{number}"):
        words = ("--by", "day,asn", "--where", f"asn={text}", "--json")
        rows = run(closed_home, "report", "connections", *words).json
        assert rows == [row for row in every if row["asn"] == number]


@pytest.mark.parametrize("column", ["users", "bytes", "location"])
def test_rows_are_put_in_order_and_limited(closed_home: Path, run: Run, column: str) -> None:
    every = stored(closed_home, "usage_daily")
    up = run(closed_home, "report", "usage", "--sort", column, "--json").json
    down = run(closed_home, "report", "usage", "--sort", f"-{column}", "--json").json
    assert [row[column] for row in up] == sorted(row[column] for row in every)
    assert [row[column] for row in down] == sorted((row[column] for row in every), reverse=True)
    assert sorted(map(str, up)) == sorted(map(str, every))
    few = run(closed_home, "report", "usage", "--sort", f"-{column}", "--limit", "2")
    assert "the first 2 of" in few.err
    assert few.out.count("\n") == 4


def test_a_report_compares_with_the_time_right_before(closed_home: Path, run: Run) -> None:
    words = ("--by", "location", "--from", "2026-10-02", "--compare", "--json")
    said = run(closed_home, "report", "usage", *words)
    assert "compared with 2026-09-30 to 2026-10-01" in said.err
    every = stored(closed_home, "usage_daily")
    now = summed([row for row in every if row["day"] >= "2026-10-02"], ("location",), "bytes")
    day_before = [row for row in every if "2026-09-30" <= row["day"] < "2026-10-02"]
    before = summed(day_before, ("location",), "bytes")
    assert {(row["location"],) for row in said.json} == set(now) | set(before)
    for row in said.json:
        key = (row["location"],)
        assert (row["bytes"], row["bytes_before"]) == (now.get(key), before.get(key))
        change = 100 * (row["bytes"] - row["bytes_before"]) / row["bytes_before"]
        assert row["change_percent"] == pytest.approx(change, abs=0.05001)


def test_a_comparison_says_what_became_of_success(closed_home: Path, run: Run) -> None:
    words = ("--by", "location", "--from", "2026-10-03", "--compare", "--sort",
             "success_change_points", "--json")  # fmt: skip
    rows = run(closed_home, "report", "connections", *words).json
    assert rows
    for row in rows:
        points = row["success_percent"] - row["success_percent_before"]
        assert row["success_change_points"] == pytest.approx(points, abs=0.05001)
    points = [row["success_change_points"] for row in rows]
    assert points == sorted(points)


def test_days_are_named_as_people_do(closed_home: Path, run: Run) -> None:
    named = run(closed_home, "report", "usage", "--from", "friday", "--to", "saturday", "--json")
    exact = ("--from", "2026-10-02", "--to", "2026-10-03", "--json")
    assert named.json == run(closed_home, "report", "usage", *exact).json
    week = run(closed_home, "report", "usage", "--from", "last-week", "--json").json
    assert {row["day"] for row in week} <= {f"2026-09-{day}" for day in range(28, 31)} | {
        f"2026-10-0{day}" for day in range(1, 5)
    }


@pytest.mark.parametrize(
    "words",
    [
        ("--where", "day=2026-10-01"), ("--where", "location"), ("--where", "user=x"),
        ("--where", "location="), ("--sort", "nothing"), ("--limit", "0"),
        ("--compare",), ("--compare", "--by", "location"), ("--from", "someday"),
        ("--compare", "--by", "day", "--from", "2026-10-02"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_a_mistake_of_usage(
    closed_home: Path, run: Run, words: tuple[str, ...]
) -> None:
    said = run(closed_home, "report", "usage", *words)
    assert (said.code, said.out) == (2, "")
    assert "someday" not in said.err


# The crowd


def test_a_crowd_is_counted_by_location(closed_home: Path, run: Run) -> None:
    """CS-4: how many others a user of a location was one of, day by day."""
    said = run(closed_home, "report", "crowd", "--floor", "26", "--json")
    users = defaultdict(list)
    for row in stored(closed_home, "usage_daily"):
        users[row["location"]].append(row["users"])
    assert said.json == [
        {
            "location": location,
            "cells": len(found),
            "cells_below": sum(number < 26 for number in found),
            "least_users": min(found),
            "mean_users": round(sum(found) / len(found)),
            "most_users": max(found),
        }
        for location, found in sorted(users.items())
    ]
    cells = sum(map(len, users.values()))
    below = sum(number < 26 for found in users.values() for number in found)
    assert 0 < below < cells
    assert f"fewer than 26 users (CS-4): {below} of {cells} cells" in said.err


def test_a_crowd_of_a_day_is_one_cell(closed_home: Path, run: Run) -> None:
    words = ("--by", "day,location", "--where", "location=us-nyc", "--sort", "-least_users")
    rows = run(closed_home, "report", "crowd", *words, "--json").json
    every = [row for row in stored(closed_home, "usage_daily") if row["location"] == "us-nyc"]
    assert sorted((row["day"], row["least_users"], row["cells"]) for row in rows) == sorted(
        (row["day"], row["users"], 1) for row in every
    )
    assert {row["cells_below"] for row in rows} == {1}  # of a thousand, by default
    assert run(closed_home, "report", "crowd").code == 0
    assert run(closed_home, "report", "crowd", "--compare", "--from", "monday").code == 2
    assert run(closed_home, "report", "usage", "--floor", "5").code == 2


def test_petabytes_compare() -> None:
    """Sums beyond 2**53, where a float is no longer exact, have their change all the same."""

    def sums(size: int) -> pa.Table:
        return pa.table({"location": ["de-fra"], "bytes": [size]})

    rows = report_rows.compared(sums(3 * 2**53), sums(2**53 + 1), ("location",)).to_pylist()
    assert rows[0]["bytes"] == 3 * 2**53
    assert rows[0]["change_percent"] == 200.0


# How it went over its time


def test_a_sum_over_days_has_its_trend(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "report", "usage", "--by", "location")
    assert "trend: bytes over that time, a day each, not from zero" in said.err
    line = next(line for line in said.out.splitlines() if line.startswith("us-nyc"))
    values = [
        row["bytes"] for row in stored(closed_home, "usage_daily") if row["location"] == "us-nyc"
    ]
    trend = line.split()[-1]
    assert len(trend) == len(values) == 5
    assert trend[values.index(max(values))] == "█"
    for words in (("--by", "day"), ("--by", "month"), ("--by", "location", "--from", "2026-10-01",
                  "--to", "2026-10-01"), ("--by", "location", "--json")):  # fmt: skip
        shown = run(closed_home, "report", "usage", *words)
        assert "trend" not in shown.out + shown.err


def test_the_trend_of_connections_is_their_success(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "report", "connections", "--by", "country")
    assert "trend: success % over that time" in said.err


def test_a_sum_with_its_trend_is_the_same_sum(closed_home: Path) -> None:
    now = parse_instant(NOW)
    house = app.open_to_read(Home(closed_home), now, now)
    for kind, by in (("usage", ["location"]), ("connections", ["country"]), ("apps", ["app"])):
        question = report.Question(by)
        with_trend = report.gather(house, report.plan(kind, question, now.date(), trend=True))
        without = report.gather(house, report.plan(kind, question, now.date()))
        assert with_trend.data.to_pylist() == without.data.to_pylist()
        assert with_trend.trend is not None
        assert without.trend is None


# A shell has what it starts in the background ignore Ctrl-C: these tests too, perhaps.
_HEARS_CTRL_C = """
import signal, sys
from aggregator.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


def test_a_watched_report_is_shown_again_until_it_is_interrupted(closed_home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HEARS_CTRL_C, "--home", str(closed_home), "--now", NOW,
         "report", "usage", "--by", "location", "--watch", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        seen = 0
        for line in watching.stdout:
            seen += line.startswith("location")
            if seen == 2:
                break
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "every 1 s; Ctrl-C ends it" in err
    assert "Traceback" not in err


def test_only_a_table_can_be_watched(closed_home: Path, run: Run) -> None:
    for words in (("--json",), ("--out", "x.txt")):
        said = run(closed_home, "report", "usage", "--watch", "1", *words)
        assert (said.code, said.out) == (2, "")


# For Prometheus


def samples(text: str) -> dict[tuple[Any, ...], float]:
    """Return each sample by its family, labels and timestamp."""
    return {
        (
            family.name,
            *sorted(one.labels.items()),
            one.timestamp and int(float(one.timestamp)),
        ): one.value
        for family in parser.text_string_to_metric_families(text)
        for one in family.samples
    }


def test_openmetrics_has_the_same_numbers(closed_home: Path, run: Run) -> None:
    words = ("report", "usage", "--format")
    found = samples(run(closed_home, *words, "openmetrics").out)
    expected = {}
    for row in run(closed_home, *words, "json").json:
        end = int(end_of_day(dt.date.fromisoformat(row["day"])).timestamp())
        for name in ("users", "bytes", "p50_bytes", "p90_bytes", "p99_bytes"):
            if row[name] is not None:
                key = (f"aggregator_usage_{name}", ("location", row["location"]), end)
                expected[key] = row[name]
    assert found == expected


def test_metrics_tell_of_the_last_closed_day(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "report", "metrics")
    found = samples(said.out)
    assert re.fullmatch(r"2026-10-03: \d+ rows\n", said.err)
    usage = [row for row in stored(closed_home, "usage_daily") if row["day"] == "2026-10-03"]
    for row in usage:
        key = ("aggregator_usage_bytes", ("location", row["location"]), None)
        assert found[key] == row["bytes"]
    assert {name for name, *_ in found} >= {
        "aggregator_connections_successes", "aggregator_connections_isp_attempts",
        "aggregator_apps_success_percent",
    }  # fmt: skip
    assert {key[-1] for key in found} == {None}


def test_metrics_of_a_time_have_timestamps(closed_home: Path, run: Run, tmp_path: Path) -> None:
    run(closed_home, "report", "metrics", "--from", "2026-10-02", "--out", tmp_path / "m.om")
    found = samples((tmp_path / "m.om").read_text())
    ends = {int(end_of_day(dt.date(2026, 10, day)).timestamp()) for day in (2, 3)}
    assert {key[-1] for key in found} == ends
    empty = run(tmp_path / "new", "init")
    assert empty.code == 0
    said = run(tmp_path / "new", "report", "metrics")
    assert (said.code, samples(said.out)) == (0, {})
    assert said.err == "no day is closed in that time\n"


# As a picture


@pytest.mark.parametrize(
    "words",
    [
        ("usage",), ("usage", "--by", "location"), ("connections", "--by", "day,country"),
        ("connections", "--by", "asn"), ("apps", "--by", "app"), ("rejections", "--by", "reason"),
        ("crowd",), ("usage", "--by", "month,location"),
    ],
)  # fmt: skip
def test_a_report_is_drawn(
    closed_home: Path, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    svg = run(closed_home, "report", *words, "--format", "svg")
    assert svg.code == 0, svg.err
    root = ElementTree.fromstring(svg.out.encode())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "http" not in svg.out.replace("http://www.w3.org/2000/svg", "")
    file = tmp_path / "chart.png"
    assert run(closed_home, "report", *words, "--format", "png", "--out", file).code == 0
    head = file.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width = int.from_bytes(head[16:20], "big")
    assert width == 2 * int(root.get("width", ""))


def test_a_picture_has_the_numbers_of_the_report(closed_home: Path, run: Run) -> None:
    rows = run(closed_home, "report", "usage", "--by", "location", "--json").json
    svg = run(closed_home, "report", "usage", "--by", "location", "--format", "svg").out
    for row in rows:
        assert f">{row['location']}</text>" in svg
        assert f">{show.size(row['bytes'])}</text>" in svg


def test_nothing_is_not_drawn(closed_home: Path, run: Run) -> None:
    said = run(closed_home, "report", "usage", "--from", "2027-01-01", "--format", "svg")
    assert (said.code, said.out) == (2, "")
    assert "no rows" in said.err
    assert "--out FILE" in in_terminal(closed_home, 80, "usage", "--format", "png")
