"""Make a rehearsal home with years of published tables, as large fleets leave them.

    python -m tests.benchmarks.years --home DIR --years 5 --locations 120

The tables only: no raw counter was ever there, and the receipts say what the tables need. The
numbers have weeks, growth, a location that gets worse to connect from Germany in the last days,
and one whose traffic grows fastest.
"""

from __future__ import annotations

import argparse
import calendar
import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from aggregator import app
from aggregator.model.days import parse_instant
from aggregator.pipeline.deployment import Deployment
from aggregator.stores.home import Home

LAST_DAY: Final = dt.date(2026, 10, 28)
NOW: Final = "2026-10-30T06:00:00Z"
WORSE: Final = ("location-007", "DE", 3)  # where, from which country, for how many days
FASTEST: Final = "location-011"
_COUNTRIES: Final = (
    "DE", "US", "GB", "FR", "NL", "JP", "BR", "IN", "CA", "AU", "ES", "IT", "SE", "NO", "PL", "TR",
    "MX", "AR", "ZA", "EG", "ID", "VN", "TH", "KR", "FI", "CH", "AT", "BE", "ZZ", "other",
)  # fmt: skip
_ISPS: Final = 400
_APPS: Final = ("android", "ios", "windows", "macos", "linux", "unknown")
_EDGES: Final = (10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000)
_EXAMPLE: Final = Path(__file__).parents[2] / "schemas/examples/purge_receipt.1/pass/verified.json"


def make(root: Path, years: int, locations: int) -> None:
    """Make the home in `root`, with so many years that end on `LAST_DAY`."""
    first = LAST_DAY.replace(year=LAST_DAY.year - years) + dt.timedelta(days=1)
    start = f"{first - dt.timedelta(days=1)}T00:00:00Z"
    app.create(Home(root), parse_instant(start), rehearsal=True, accept_weak=True)
    now = parse_instant(NOW)
    house = app.open_to_read(Home(root), now, now)
    rng = random.Random("years of tables")
    places = [f"location-{number:03d}" for number in range(locations - 1)] + ["other"]
    sizes = {place: 12_000 * rng.paretovariate(1.6) for place in places}
    days = [first + dt.timedelta(days=number) for number in range((LAST_DAY - first).days + 1)]
    for day in days:
        _write_day(house, rng, day, sizes)
        if day.day == calendar.monthrange(day.year, day.month)[1]:
            _write_month(house, rng, day.isoformat()[:7], sizes)


def _users(rng: random.Random, place: str, size: float, day: dt.date) -> int:
    age = (day - LAST_DAY).days / 365
    growth = 1.9 if place == FASTEST else 1.15
    week = 1.2 if day.weekday() >= 5 else 1.0
    return int(size * growth**age * week * rng.uniform(0.93, 1.07)) + 40


def _write_day(
    house: Deployment, rng: random.Random, day: dt.date, sizes: dict[str, float]
) -> None:
    usage: list[dict[str, Any]] = []
    connections: list[dict[str, Any]] = []
    for place, size in sizes.items():
        users = _users(rng, place, size, day)
        usage.append(_usage(rng, place, users) | {"day": day})
        connections += _connections(rng, place, users, day)
    tables = {
        "usage_daily": usage,
        "connections_daily": connections,
        "connections_isp_daily": [
            {"day": day, "asn": asn if asn else -1, **_outcome(rng, 90_000 // (asn + 1) + 20)}
            for asn in range(_ISPS)
        ],
        "apps_daily": list(_apps(rng, day)),
    }
    for name, rows in tables.items():
        house.tables.write(name, day.isoformat(), rows)
    house.tables.write(
        "closings_daily", day.isoformat(), [_closing(day, *t) for t in tables.items()]
    )
    house.tables.write("rejections_daily", day.isoformat(), list(_rejections(rng, day)))


def _usage(rng: random.Random, place: str, users: int) -> dict[str, Any]:
    bucket = users // len(_EDGES)
    return {
        "location": place,
        "users": users,
        "bytes": int(users * 1.4e9 * rng.uniform(0.9, 1.1)),
        "p50_bytes": round(410_000_000 * rng.uniform(0.95, 1.05), -6),
        "p90_bytes": round(3_100_000_000 * rng.uniform(0.95, 1.05), -7),
        "p99_bytes": round(18_000_000_000 * rng.uniform(0.95, 1.05), -8) if users > 1200 else None,
        "histogram": [{"from_bytes": edge, "users": bucket} for edge in _EDGES],
    }  # fmt: skip


def _connections(
    rng: random.Random, place: str, users: int, day: dt.date
) -> Iterator[dict[str, Any]]:
    share = 1.0
    for country in _COUNTRIES:
        share *= 0.82
        worse = (place, country) == WORSE[:2] and (LAST_DAY - day).days < WORSE[2]
        found = max(10, int(users * share * 0.3))
        yield {
            "day": day, "location": place, "country": country,
            **_outcome(rng, found, 0.71 if worse else 0.97),
        }  # fmt: skip


def _outcome(rng: random.Random, users: int, success: float = 0.97) -> dict[str, int]:
    attempts = int(users * rng.uniform(2.0, 2.4))
    return {
        "users": users,
        "attempts": attempts,
        "successes": int(attempts * min(1.0, success * rng.uniform(0.99, 1.01))),
    }


def _apps(rng: random.Random, day: dt.date) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(_APPS):
        month = (day.year - 2020) * 12 + day.month
        for age in range(1 if name == "unknown" else 4):
            version = "unknown" if name == "unknown" else f"{month // 6}.{month % 6 + 4 - age}"
            users = 400_000 // (number + 1) // (age + 1)
            yield {"day": day, "app": name, "version": version, **_outcome(rng, users)}


def _closing(day: dt.date, table: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    users = sum(row["users"] for row in rows)
    return {
        "day": day, "table": table, "cells": len(rows), "folded": 7, "users": users,
        "named_users": int(users * 0.97), "withheld": False,
    }  # fmt: skip


def _rejections(rng: random.Random, day: dt.date) -> Iterator[dict[str, Any]]:
    for reason, field in (("address_like", "user"), ("unknown_field", "unknown")):
        yield {
            "day": day, "location": "unknown", "agent_build": "aggregator-agent-0.2.0",
            "schema": "usage_counter.1", "reason": reason, "field": field,
            "json_type": "string", "records": rng.randint(1, 40),
        }  # fmt: skip


def _write_month(
    house: Deployment, rng: random.Random, month: str, sizes: dict[str, float]
) -> None:
    last = dt.date.fromisoformat(f"{month}-28")
    rows = [
        {
            key: value
            for key, value in _usage(rng, place, 3 * _users(rng, place, size, last)).items()
            if key != "histogram"
        }
        | {"month": month, "late_bytes": rng.choice([0, 0, 10**9, None])}
        for place, size in sizes.items()
    ]
    house.tables.write("usage_monthly", month, rows)
    notices = {"notices": 7, "sent": 6, "delayed": 1, "failed": 0, "withheld": 1, "expired": 0}
    row = {"month": month, "rule": "outweighs_mean", "percent": 100, "audience": "desk", **notices}
    house.tables.write("notices_monthly", month, [row])
    after = dt.date.fromisoformat(f"{month}-01") + dt.timedelta(days=32)
    purged = f"{after.replace(day=1) + dt.timedelta(days=2)}T00:40:00Z"
    receipt = json.loads(_EXAMPLE.read_text()) | {
        "month": month, "due_at": purged.replace("00:40", "00:00"), "started_at": purged,
        "purged_at": purged, "tables": [],
    }  # fmt: skip
    house.receipts.write(month, receipt)


def main() -> None:
    """Make a home as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--locations", type=int, default=120)
    said = parser.parse_args()
    make(said.home, said.years, said.locations)
    print(f"made {said.home}; read it with --now {NOW}")


if __name__ == "__main__":
    main()
