"""The fair-use check of a month beside hand-written DuckDB SQL, on the same counters.

    python -m tests.benchmarks.fairuse --users 1000000 --days 30

Both must flag the same pseudonyms with the same bytes. Ours is the whole command: sealed
segments are opened, merged and added up; the peer reads a plain Parquet file.
"""

from __future__ import annotations

import argparse
import datetime as dt
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aggregator import app
from aggregator.model.days import parse_instant
from aggregator.pipeline import raw
from aggregator.stores.home import Home

from .main_job import measure

NOW = "2026-10-31T12:00:00Z"
LOCATIONS = 120
THRESHOLD = 1000
# A user is at so many locations a day on the average.
PLACES = 1.3

_DUCKDB = """
import sys, duckdb
con = duckdb.connect()
con.sql("SET enable_progress_bar = false")
rows = con.sql(f\"\"\"
WITH merged AS (
  SELECT pseudonym, MAX(bytes) AS most FROM '{sys.argv[1]}'
  GROUP BY day, location, pseudonym, epoch
),
users AS (SELECT pseudonym, SUM(most) AS total FROM merged GROUP BY pseudonym),
everyone AS (SELECT SUM(total) AS total, COUNT(*) AS users FROM users)
SELECT users.pseudonym, users.total FROM users, everyone
WHERE users.total * (everyone.users - 1) > {sys.argv[2]} * (everyone.total - users.total)
ORDER BY 1
\"\"\").fetchall()
open(sys.argv[3], "w").write("\\n".join(f"{who:016x}={total}" for who, total in rows))
"""

# The same without the merge: what a sum alone takes.
_DUCKDB_SUM = _DUCKDB.replace(
    "SELECT pseudonym, MAX(bytes) AS most", "SELECT pseudonym, bytes AS most"
).replace("  GROUP BY day, location, pseudonym, epoch\n", "")

_OURS = """
import json, sys
from aggregator.cli.main import main
import contextlib, io
out = io.StringIO()
with contextlib.redirect_stdout(out):
    code = main(sys.argv[2:])
rows = json.loads(out.getvalue())["rows"]
found = sorted((row["pseudonym"], row["bytes"]) for row in rows if row["rule"] == "outweighs_mean")
open(sys.argv[1], "w").write("\\n".join(f"{who}={total}" for who, total in found))
sys.exit(code)
"""


def generate(home: Home, parquet: Path, users: int, days: int) -> int:
    """Seal `days` of counters into `home`, and write the same to `parquet`; return how many."""
    rng = np.random.default_rng(1)
    names = np.array([f"l{number:03d}-x" for number in range(LOCATIONS)])
    epochs = rng.integers(0, 2**63, LOCATIONS, dtype=np.uint64)
    accounts = rng.integers(0, 2**63, users, dtype=np.uint64) * np.uint64(2)
    scale = rng.pareto(1.2, users) * 1e8
    scale[rng.choice(users, 20, replace=False)] *= 5e5
    moment = parse_instant(NOW)
    count, writer = 0, None
    with app.open_to_write(home, moment, moment, confirm_clock=True) as house:
        keys = house.month_keys_for_writing("2026-10")
        for number in range(days):
            day = dt.date(2026, 10, 1 + number).isoformat()
            who = rng.integers(0, users, int(users * PLACES))
            place = rng.integers(0, LOCATIONS, who.size)
            table = pa.table(
                {
                    "location": pa.array(names[place]),
                    "pseudonym": pa.array(accounts[who]),
                    "epoch": pa.array(epochs[place]),
                    "bytes": pa.array(
                        (scale[who] * rng.random(who.size)).astype(np.int64) % 10**13
                    ),
                }
            )
            raw.add(house, keys, day, raw.USAGE, table)
            table = table.append_column("day", pa.array([day] * table.num_rows))
            writer = writer or pq.ParquetWriter(parquet, table.schema, compression="zstd")
            writer.write_table(table)
            count += table.num_rows
    assert writer is not None
    writer.close()
    return count


def main() -> None:
    """Generate, then check with ours and with the peers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home, parquet = Home(folder / "home"), folder / "peer.parquet"
        app.create(home, parse_instant("2026-10-01T00:00:00Z"), rehearsal=True, accept_weak=True)
        count = generate(home, parquet, given.users, given.days)
        print(f"{given.users:,} users, {given.days} days, {count:,} counters")
        words = ["--home", str(home.root), "--now", NOW, "fairuse", "check", "--json"]
        python = [sys.executable, "-c"]
        measure("aggregator fairuse check", [*python, _OURS, str(folder / "ours"), *words])
        for what, text in (("with the merge", _DUCKDB), ("a sum alone", _DUCKDB_SUM)):
            end = [str(parquet), str(THRESHOLD), str(folder / "peer")]
            measure(f"DuckDB SQL, {what}", [*python, text, *end])
            if what == "with the merge":
                ours, peer = ((folder / one).read_text().split() for one in ("ours", "peer"))
                if ours != peer:
                    sys.exit(f"not the same users: {len(ours)} and {len(peer)}")
                print(f"both flag the same {len(ours)} users")


if __name__ == "__main__":
    main()
