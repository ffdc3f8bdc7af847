"""The roll-up's engine reaches no file and cannot spill (CV-3)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from aggregator.errors import IntegrityError
from aggregator.stores import engine as module
from aggregator.stores.engine import DuckDBEngine


@pytest.fixture
def engine() -> Iterator[DuckDBEngine]:
    with DuckDBEngine() as opened:
        yield opened


def test_registered_tables_are_seen_and_replaced(engine: DuckDBEngine) -> None:
    engine.register("t", pa.table({"x": [1, 2]}))
    engine.register("t", pa.table({"x": [5]}))
    assert engine.query("SELECT x FROM t").to_pylist() == [{"x": 5}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM read_text('{file}')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "ATTACH '{folder}/out.db'",
        "EXPORT DATABASE '{folder}/out'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET temp_directory = '{folder}'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
    ],
)
def test_no_file_can_be_read_or_written(engine: DuckDBEngine, tmp_path: Path, sql: str) -> None:
    file = tmp_path / "in.csv"
    file.write_text("a\nplanted\n")
    with pytest.raises(Exception, match=r"(?i)disabled|locked|cannot|extension") as refused:
        engine.query(sql.format(file=file, folder=tmp_path))
    assert "planted" not in str(refused.value)
    assert os.listdir(tmp_path) == ["in.csv"]


def test_no_variable_of_a_caller_becomes_a_table(engine: DuckDBEngine) -> None:
    """A forgotten `register` must fail, not take what happens to be called so."""
    raw = pa.table({"x": [1]})
    assert raw.num_rows == 1
    with pytest.raises(Exception, match="does not exist"):
        engine.query("SELECT * FROM raw")


def test_it_fails_rather_than_spills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CV-3: out of memory is an error; a plain spill of pseudonyms would outlive their key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_SETTINGS", ("memory_limit = '30MB'", *module._SETTINGS))
    with DuckDBEngine() as engine:
        settings = engine.query(
            "SELECT current_setting('temp_directory') AS folder,"
            " current_setting('enable_external_access') AS reach"
        )
        assert settings.to_pylist() == [{"folder": "", "reach": False}]
        with pytest.raises(Exception, match=r"(?i)memory"):
            engine.query("SELECT x, MAX(y) FROM (SELECT range % 4000000 AS x, range AS y"
                         " FROM range(8000000)) AS t GROUP BY x ORDER BY x")  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_a_total_that_fits_no_column_is_an_integrity_error(engine: DuckDBEngine) -> None:
    """Hostile counters can add up beyond 2^63; that must neither wrap nor stop other days."""
    engine.register("t", pa.table({"x": pa.array([2**62, 2**62], pa.int64())}))
    with pytest.raises(IntegrityError, match="larger than a table can hold"):
        engine.query("SELECT CAST(SUM(x) AS BIGINT) AS total FROM t")


def test_an_interrupt_in_the_midst_of_a_query_is_one() -> None:
    """DuckDB makes a RuntimeError of it, which would be told as a fault of ours."""
    for error in (RuntimeError("Query interrupted"), duckdb.InterruptException("INTERRUPT")):
        with pytest.raises(KeyboardInterrupt), module.interruptible():
            raise error
    with pytest.raises(RuntimeError, match="another"), module.interruptible():
        raise RuntimeError("another")
