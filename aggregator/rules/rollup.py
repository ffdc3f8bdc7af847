"""The roll-up as portable SQL text: run verbatim by any engine, with the same result.

What makes it portable: quantiles by ROW_NUMBER and COUNT OVER, never PERCENTILE functions; every
sum cast; no alias equal to an input column; no integer division.

Relations: `raw` is one day's sealed counters; `user_day` is the result of USER_DAY; `fold` maps a
location to the cell that it is published in; `user_cell` is the result of USER_CELL.
"""

from __future__ import annotations

import itertools
from typing import Final

# Histogram edges: 0, then 1, 2, 5 times the powers of ten from 1 kB to 100 TB.
EDGES: Final = (0, *(digit * 10**power for power in range(3, 15) for digit in (1, 2, 5)))

USER_DAY: Final = """
SELECT location, pseudonym, CAST(SUM(epoch_bytes) AS BIGINT) AS user_bytes
FROM (
    SELECT location, pseudonym, epoch, MAX(bytes) AS epoch_bytes
    FROM raw
    GROUP BY location, pseudonym, epoch
) AS merged
GROUP BY location, pseudonym
"""

USER_CELL: Final = """
SELECT fold.cell AS cell, user_day.pseudonym AS member,
       CAST(SUM(user_day.user_bytes) AS BIGINT) AS cell_bytes
FROM user_day INNER JOIN fold ON user_day.location = fold.location
GROUP BY fold.cell, user_day.pseudonym
"""

TOTALS: Final = """
SELECT cell, COUNT(*) AS users, CAST(SUM(cell_bytes) AS BIGINT) AS total_bytes
FROM user_cell
GROUP BY cell
ORDER BY cell
"""

CELLS: Final = """
WITH ranked AS (
    SELECT cell, cell_bytes,
           ROW_NUMBER() OVER (PARTITION BY cell ORDER BY cell_bytes) AS place,
           COUNT(*) OVER (PARTITION BY cell) AS members
    FROM user_cell
),
cells AS (
    SELECT cell,
           COUNT(*) AS users,
           CAST(SUM(cell_bytes) AS BIGINT) AS total_bytes,
           MAX(cell_bytes) AS largest_bytes,
           MAX(CASE WHEN place = members - 1 THEN cell_bytes ELSE 0 END) AS second_bytes,
           MAX(CASE WHEN place * 100 >= members * 50 AND (place - 1) * 100 < members * 50
               THEN cell_bytes END) AS p50,
           MAX(CASE WHEN place * 100 >= members * 90 AND (place - 1) * 100 < members * 90
               THEN cell_bytes END) AS p90,
           MAX(CASE WHEN place * 100 >= members * 99 AND (place - 1) * 100 < members * 99
               THEN cell_bytes END) AS p99
    FROM ranked
    GROUP BY cell
)
SELECT cells.cell AS cell, cells.users AS users, cells.total_bytes AS total_bytes,
       cells.largest_bytes AS largest_bytes, cells.second_bytes AS second_bytes,
       cells.p50 AS p50, cells.p90 AS p90, cells.p99 AS p99,
       CAST(SUM(CASE WHEN user_cell.cell_bytes > cells.p50 THEN 1 ELSE 0 END) AS BIGINT) AS above50,
       CAST(SUM(CASE WHEN user_cell.cell_bytes > cells.p90 THEN 1 ELSE 0 END) AS BIGINT) AS above90,
       CAST(SUM(CASE WHEN user_cell.cell_bytes > cells.p99 THEN 1 ELSE 0 END) AS BIGINT) AS above99
FROM cells INNER JOIN user_cell ON cells.cell = user_cell.cell
GROUP BY cells.cell, cells.users, cells.total_bytes, cells.largest_bytes, cells.second_bytes,
         cells.p50, cells.p90, cells.p99
ORDER BY cells.cell
"""


def _ladder() -> str:
    """Return the CASE that finds a number's histogram edge."""
    steps = [f"WHEN cell_bytes < {above} THEN {edge}" for edge, above in itertools.pairwise(EDGES)]
    return " ".join(("CASE", *steps, f"ELSE {EDGES[-1]} END"))


HISTOGRAM: Final = f"""
WITH placed AS (SELECT cell, {_ladder()} AS edge FROM user_cell)
SELECT cell, edge, COUNT(*) AS users
FROM placed
GROUP BY cell, edge
ORDER BY cell, edge
"""  # noqa: S608 - put together from this file's own texts

FLAGS_DAY: Final = """
SELECT location, country, asn, app, version,
       CAST(MAX(epoch_users) AS BIGINT) AS floor_users,
       CAST(SUM(epoch_users) AS BIGINT) AS all_users,
       CAST(SUM(epoch_attempts) AS BIGINT) AS all_attempts,
       CAST(SUM(epoch_successes) AS BIGINT) AS all_successes
FROM (
    SELECT location, country, asn, app, version, epoch,
           MAX(users) AS epoch_users, MAX(attempts) AS epoch_attempts,
           MAX(successes) AS epoch_successes
    FROM raw
    GROUP BY location, country, asn, app, version, epoch
) AS merged
GROUP BY location, country, asn, app, version
"""


def flag_cells(columns: tuple[str, ...]) -> str:
    """Return the SQL that sums `flags_day` by `columns`."""
    names = ", ".join(columns)
    return f"""
SELECT {names},
       CAST(SUM(floor_users) AS BIGINT) AS cell_floor,
       CAST(SUM(all_users) AS BIGINT) AS cell_users,
       CAST(SUM(all_attempts) AS BIGINT) AS cell_attempts,
       CAST(SUM(all_successes) AS BIGINT) AS cell_successes
FROM flags_day
GROUP BY {names}
ORDER BY {names}
"""  # noqa: S608 - the names are this house's own columns
