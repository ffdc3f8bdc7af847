"""The data dictionary beside the tables: it says what the schemas say, and disturbs nobody."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from closed import Run
from support import TinyHome, crowd

from aggregator.errors import IntegrityError
from aggregator.model.profile import DEFAULT_PROFILE, parse_profile
from aggregator.model.tables import TABLES
from aggregator.pipeline import dictionary
from aggregator.stores import schemas
from aggregator.stores.tables import arrow_schema

NOW = "2026-10-05T08:00:00Z"
PROFILE = parse_profile(DEFAULT_PROFILE)


def keep(home: Path) -> bool:
    with TinyHome(home).open(NOW) as house:
        return dictionary.keep_dictionary(house)


def described(home: Path) -> dict[str, dict[str, Any]]:
    fields = json.loads((home / "tables/dictionary.json").read_text())
    return {table["table"]: table for table in fields["tables"]}


def test_every_column_of_every_table_is_described(home: Path) -> None:
    """Closing its days left it there."""
    tables = described(home)
    assert list(tables) == list(TABLES)
    for name, table in TABLES.items():
        schema = schemas.load(f"{name}.table")
        assert tables[name]["description"] == schema["description"]
        columns = tables[name]["columns"]
        assert [column["name"] for column in columns] == list(table.columns)
        for number, column in enumerate(columns):
            field = arrow_schema(table).field(column["name"])
            assert column["role"] == ("dimension" if number < table.dimensions else "measure")
            assert column["arrow_type"] == str(field.type)
            assert column["nullable"] == field.nullable
            assert column["json_type"].endswith("or null") == field.nullable
            assert column["meaning"].startswith(
                schema["properties"][column["name"]]["description"]
            )  # fmt: skip


def test_the_text_for_people_has_the_same(home: Path) -> None:
    keep(home)
    text = (home / "tables/README.md").read_text()
    for name, table in described(home).items():
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert table["description"] in section
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert len(rows) == len(table["columns"])
        for row, column in zip(rows, table["columns"], strict=True):
            assert row.startswith(f"| `{column['name']}` | {column['role']} |")
            assert row.count("|") == 7


def test_retention_and_partitions_are_told() -> None:
    kept = {**PROFILE.retention_months, "usage_daily": 1, "apps_daily": 13}
    entries = dictionary.table_entries(dataclasses.replace(PROFILE, retention_months=kept))
    found = {entry.table: (entry.retention, entry.partitioning) for entry in entries}
    daily = "hive, month=YYYY-MM/YYYY-MM-DD.parquet, a file a day"
    assert found["usage_daily"] == ("1 month after its own", daily)
    assert found["apps_daily"] == ("13 months after its own", daily)
    monthly = "hive, month=YYYY-MM/YYYY-MM.parquet, a file a month"
    assert found["usage_monthly"] == ("for ever", monthly)


def test_closed_lists_are_spelled_out(home: Path) -> None:
    keep(home)
    columns = described(home)["rejections_daily"]["columns"]
    reason = next(column for column in columns if column["name"] == "reason")
    assert "one of: too_large, not_json, " in reason["meaning"]


def test_nothing_is_written_while_nothing_changed(home: Path) -> None:
    paths = [home / "tables" / name for name in ("README.md", "dictionary.json")]
    for path in paths:
        path.unlink()
    assert keep(home)
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]
    assert not keep(home)
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths] == before
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o644, 0o644]


@pytest.mark.parametrize("name", ["README.md", "dictionary.json"])
def test_what_was_changed_or_removed_comes_back(home: Path, name: str) -> None:
    keep(home)
    path = home / "tables" / name
    right = path.read_bytes()
    path.write_bytes(right + b"x")
    assert keep(home)
    assert path.read_bytes() == right
    path.unlink()
    assert keep(home)
    assert path.read_bytes() == right


def test_it_follows_the_profile(home: Path) -> None:
    keep(home)
    path = home / "policy/profile.toml"
    path.write_text(path.read_text().replace("apps_daily = 0", "apps_daily = 3"))
    assert keep(home)
    assert described(home)["apps_daily"]["retention"] == "3 months after its own"


def test_a_home_without_tables_has_none(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home")
    assert not keep(home.root)
    assert home.files("tables") == {}


def test_it_disturbs_neither_the_house_nor_a_reader(home: Path, run: Run) -> None:
    usage = run(home, "report", "usage", "--format", "csv").out
    partitions = run(home, "audit", "verify").out.rpartition(", ")[2]
    periods = {name: TinyHome(home).read(NOW).tables.periods(name) for name in TABLES}
    keep(home)
    assert run(home, "report", "usage", "--format", "csv").out == usage
    verified = run(home, "audit", "verify")
    assert (verified.code, verified.out.rpartition(", ")[2]) == (0, partitions)
    assert {n: TinyHome(home).read(NOW).tables.periods(n) for n in TABLES} == periods
    assert run(home, "doctor").code == run(home, "migrate", "--dry-run").code == 0
    for name in ("usage_daily", "usage_monthly"):
        expected = sum(
            pq.ParquetFile(path).metadata.num_rows
            for path in (home / "tables" / name).rglob("*.parquet")
        )
        folder = home / "tables" / name
        hive = None if TABLES[name].monthly else "hive"  # as README.md says
        assert pq.read_table(folder, partitioning=hive).num_rows == expected
        pattern = f"{folder}/*/*.parquet"
        text = f"SELECT count(*) FROM read_parquet('{pattern}', hive_partitioning = true)"
        with duckdb.connect() as connection:
            assert connection.execute(text).fetchone() == (expected,)


def test_a_purge_takes_tables_past_their_retention_and_leaves_the_dictionary(
    tmp_path: Path,
) -> None:
    profile = DEFAULT_PROFILE.replace("usage_daily = 0", "usage_daily = 1")
    home = TinyHome.make(tmp_path / "home", "2026-08-01T00:00:00Z", profile)
    for month in ("2026-08", "2026-09", "2026-10"):
        home.ingest(crowd(f"{month}-05", range(20)), f"{month}-06T00:00:00Z")
    home.rollup("2026-11-02T00:30:00Z")
    keep(home.root)
    before = {name: data for name, data in home.files("tables").items() if name.count("/") == 1}
    home.purge("2026-11-03T00:30:00Z")
    after = home.files("tables")
    assert {name: data for name, data in after.items() if name.count("/") == 1} == before
    assert len(before) == 2
    assert not [name for name in after if "usage_daily/" in name and "2026-08" in name]


def test_a_schema_that_is_missing_is_told_in_one_line() -> None:
    with pytest.raises(IntegrityError, match="the schema of nothing is missing"):
        schemas.load("nothing")
    assert schemas.path("door.openapi.json").exists()
