"""A small deployment: a purged month, closed days, open days, rejections; and what runs it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from aggregator.cli.main import main

NOW: Final = "2026-10-05T07:00:00Z"
EPOCH: Final = "9f3c2b7a11d04e55"
# location: users of a day; the last one is too small to be named alone.
LOCATIONS: Final = {"us-nyc": 60, "de-fra": 25, "nl-ams": 14, "se-sto": 4}
COUNTRIES: Final = {"DE": 40, "US": 15, "JP": 3}


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.out)


Run = Callable[..., Said]


def build(folder: Path) -> Path:
    """Make a rehearsal home: September purged, 1 to 3 October closed, the 4th in grace."""
    records, home = folder / "records.ndjson", folder / "home"
    lines = [json.dumps(record) for record in _records()]
    broken = ["not json", '{"record":"usage_counter.1"}', '{"record":"usage_counter.1","at":1}']
    records.write_text("\n".join([*lines, *broken, ""]))
    steps = (
        ("init", "2026-09-27T00:00:00Z"),
        ("ingest", str(records), "2026-10-02T20:00:00Z"),
        ("purge", "2026-10-03T06:00:00Z"),
        ("ingest", str(records), "2026-10-05T06:00:00Z"),
        ("rollup", "2026-10-05T06:10:00Z"),
    )
    for *words, now in steps:
        confirmed = [] if words[0] == "init" else ["--confirm-clock"]
        assert main(["-q", "--home", str(home), *words, *confirmed, "--now", now]) == 0
    return home


def _records() -> Iterator[dict[str, Any]]:
    rng = random.Random("a small deployment")
    for offset in range(7):
        day = (dt.date(2026, 9, 29) + dt.timedelta(days=offset)).isoformat()
        for place, users in LOCATIONS.items():
            common = {"day": day, "location": place, "epoch": EPOCH}
            for number in rng.sample(range(2 * users), users):
                yield {
                    "record": "usage_counter.1", **common,
                    "user": f"acct-{place[:2]}{number:05d}", "bytes": rng.randrange(10**8, 10**9),
                }  # fmt: skip
            for country, found in COUNTRIES.items():
                for asn, app in ((3320, "android"), (64500, "ios")):
                    yield {
                        "record": "connection_flags.1", **common,
                        "country": country, "asn": asn, "app": app, "version": "11.4",
                        "users": found, "attempts": 3 * found, "successes": 2 * found,
                    }  # fmt: skip
