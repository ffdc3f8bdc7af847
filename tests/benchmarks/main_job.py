"""The main job beside hand-written DuckDB SQL, on the same records, in the same run.

    python -m tests.benchmarks.main_job --records 1000000

Each step is a process of its own; CPU seconds and the peak of its resident memory are the
kernel's figures. Wall seconds depend on what else the machine does, CPU seconds hardly.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What a careful engineer would write: every column as JSON text, keys and types checked.
_DUCKDB_INGEST = """
import sys, duckdb
con = duckdb.connect()
con.sql("SET enable_progress_bar = false")
con.sql(\"\"\"
CREATE TABLE good AS
SELECT json_extract_string(json, '$.day') AS day, json_extract_string(json, '$.user') AS user,
       json_extract_string(json, '$.location') AS location,
       json_extract_string(json, '$.epoch') AS epoch,
       CAST(json_extract_string(json, '$.bytes') AS BIGINT) AS bytes
FROM read_ndjson_objects('SOURCE')
WHERE list_sort(json_keys(json)) = ['bytes', 'day', 'epoch', 'location', 'record', 'user']
  AND json_type(json, '$.bytes') = 'UBIGINT' AND json_type(json, '$.user') = 'VARCHAR'
  AND json_type(json, '$.day') = 'VARCHAR' AND json_type(json, '$.location') = 'VARCHAR'
  AND regexp_full_match(json_extract_string(json, '$.epoch'), '[0-9a-f]{16}')
  AND regexp_full_match(json_extract_string(json, '$.location'), '[a-z][a-z0-9-]{1,31}')
  AND regexp_full_match(json_extract_string(json, '$.day'), '[0-9]{4}-[0-9]{2}-[0-9]{2}')
  AND NOT regexp_matches(json_extract_string(json, '$.user'), '[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+|:')
\"\"\".replace("SOURCE", sys.argv[1]))
assert con.sql("SELECT COUNT(*) FROM good").fetchall()[0][0] == int(sys.argv[3])
con.sql(f"COPY good TO '{sys.argv[2]}' (FORMAT parquet, COMPRESSION zstd)")
"""

# Merge by maximum, then users, bytes and exact percentiles a day and location; no release rule.
_DUCKDB_ROLLUP = """
import sys, duckdb
con = duckdb.connect()
con.sql("SET enable_progress_bar = false")
days = [row[0] for row in con.sql(f"SELECT DISTINCT day FROM '{sys.argv[1]}'").fetchall()]
for day in sorted(days):
    con.sql(f\"\"\"
    SELECT location, COUNT(*), SUM(total), quantile_disc(total, [0.5, 0.9, 0.99]) FROM (
      SELECT location, user, SUM(most) AS total FROM (
        SELECT location, user, epoch, MAX(bytes) AS most FROM '{sys.argv[1]}'
        WHERE day = '{day}' GROUP BY ALL) GROUP BY ALL) GROUP BY location
    \"\"\").fetchall()
"""


def generate(path: Path, records: int) -> None:
    """Write a month of counters: 1 M users, 120 locations, heavy tails."""
    rng = random.Random(1)
    locations = [f"l{number:03d}-x" for number in range(120)]
    epochs = {location: f"{rng.getrandbits(64):016x}" for location in locations}
    with path.open("w", encoding="utf-8") as file:
        for number in range(records):
            location = rng.choice(locations)
            record = {
                "record": "usage_counter.1",
                "day": f"2026-10-{1 + number % 30:02d}",
                "user": f"acct-{rng.randrange(1_000_000)}",
                "location": location,
                "epoch": epochs[location],
                "bytes": int(rng.paretovariate(1.2) * 1e6) % 10**13,
            }
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def measure(what: str, command: Sequence[str]) -> None:
    """Run `command` and print its wall and CPU seconds and its peak memory."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=dict(os.environ, PYTHONPATH=str(ROOT))
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        sys.exit(f"{what} failed")
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{what:<34}{wall:>9.1f} s wall{cpu:>9.1f} s CPU{usage.ru_maxrss / 1024:>8.0f} MiB")


def main() -> None:
    """Generate, then run our steps and the peers' in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    records = parser.parse_args().records
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        source, home = Path(folder, "month.ndjson"), Path(folder, "home")
        generate(source, records)
        print(f"{records:,} records, {source.stat().st_size / 1e6:,.0f} MB of NDJSON")
        ours = [sys.executable, "-m", "aggregator", "-q", "--home", str(home), "--now"]
        subprocess.run([*ours, "2026-10-30T00:00:00Z", "init"], check=True, cwd=ROOT)
        measure("aggregator ingest", [*ours, "2026-10-31T00:30:00Z", "ingest", str(source)])
        parquet = str(Path(folder, "peer.parquet"))
        peer = [sys.executable, "-c"]
        measure(
            "DuckDB SQL, strict ingest", [*peer, _DUCKDB_INGEST, str(source), parquet, str(records)]
        )
        measure("aggregator rollup, 30 days", [*ours, "2026-11-02T00:20:00Z", "rollup"])
        measure("DuckDB SQL, roll-up, 30 days", [*peer, _DUCKDB_ROLLUP, parquet])
        measure("aggregator purge, verified", [*ours, "2026-11-03T00:40:00Z", "purge"])


if __name__ == "__main__":
    main()
