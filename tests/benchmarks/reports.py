"""Reports over years of tables: whole commands, beside DuckDB and Polars over the same day files.

    python -m tests.benchmarks.reports --years 5 --locations 120

Each is a process of its own, the best of so many; the time that an interpreter needs to start is
taken off. The peers only add up and print what they found; it must be what the report says.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aggregator.stores.gathered import keep_months
from aggregator.stores.tables import TableStore

from . import years

REPORTS: Final = (
    ("usage", "--by", "location"),
    ("usage", "--by", "month"),
    ("usage", "--by", "month,location"),
    ("usage", "--by", "location", "--from", "last-month", "--compare"),
    ("usage", "--from", "last-month"),
    ("connections", "--by", "location"),
    ("connections", "--by", "country"),
    ("connections", "--by", "asn"),
    (
        "connections", "--by", "location", "--where", "country=DE", "--from", "monday",
        "--compare", "--sort", "success_change_points",
    ),
    ("apps", "--by", "app,version"),
    ("crowd",),
    ("rejections", "--by", "reason"),
    ("fair-use",),
    ("health",),
    ("capacity", "--limit", "10"),
    ("usage", "--format", "csv"),
)  # fmt: skip
# (table, dimension): what the peers add up, and which report says the same.
SUMS: Final = (
    ("usage_daily", "location", "usage"),
    ("connections_daily", "country", "connections"),
)
_DUCKDB: Final = """
import sys, duckdb
rows = duckdb.sql(f"SELECT {sys.argv[2]}, CAST(SUM(users) AS BIGINT) FROM"
                  f" read_parquet('{sys.argv[1]}/*/*.parquet') GROUP BY 1 ORDER BY 1").fetchall()
print(*(f"{name},{users}" for name, users in rows), sep="\\n")
"""
_POLARS: Final = """
import sys, polars
rows = (polars.scan_parquet(sys.argv[1] + "/").group_by(sys.argv[2]).agg(polars.col("users").sum())
        .sort(sys.argv[2]).collect().rows())
print(*(f"{name},{users}" for name, users in rows), sep="\\n")
"""


def best(command: Sequence[str | Path], rounds: int) -> tuple[float, str]:
    """Return the least wall time of a command in milliseconds, and what it printed."""
    least, said = float("inf"), ""
    for _ in range(rounds):
        started = time.perf_counter()
        done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
        least, said = min(least, 1000 * (time.perf_counter() - started)), done.stdout
    return least, said


def main() -> None:
    """Make the home unless it is there, then time every report and the peers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="made unless it is there; else a temporary one")
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--locations", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home: Path = args.home or Path(temporary) / "home"
        if not home.exists():
            years.make(home, args.years, args.locations)
        keep_months(TableStore(home / "tables"), years.NOW[:7])
        _time(home, args.rounds, Path(temporary) / "site")


def _time(home: Path, rounds: int, site: Path) -> None:
    python = sys.executable
    start, _ = best([python, "-c", "pass"], rounds)
    imports, _ = best(
        [python, "-c", "import click, duckdb, pyarrow.compute, pyarrow.parquet"], rounds
    )
    print(
        f"an interpreter starts in {start:.0f} ms; importing the engine takes {imports - start:.0f}"
    )
    ours = [python, "-m", "aggregator", "-q", "--home", home, "--now", years.NOW, "report"]
    for words in (*REPORTS, ("site", "--out", site)):
        took, _ = best([*ours, *words], rounds)
        print(f"{took - start - (imports - start):>8.0f} ms  report {' '.join(map(str, words))}")
    for table, dimension, report in SUMS:
        took, said = best([*ours, report, "--by", dimension, "--format", "csv"], rounds)
        expected = sorted(",".join(line.split(",")[:2]) for line in said.splitlines()[1:])
        print(f"{took:>8.0f} ms  aggregator, {table} by {dimension}: a whole process")
        for name, code in (("duckdb", _DUCKDB), ("polars", _POLARS)):
            if importlib.util.find_spec(name) is None:
                continue
            took, said = best([python, "-c", code, home / "tables" / table, dimension], rounds)
            if sorted(said.split()) != expected:
                sys.exit(f"{name} found other sums of {table}")
            print(f"{took:>8.0f} ms  {name}, the same")


if __name__ == "__main__":
    main()
