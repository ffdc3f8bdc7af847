"""A policy profile: what is kept, how finely, and for how long, as data.

Every number that decides what may be published or must be destroyed is here and nowhere in code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from aggregator.errors import ConfigError
from aggregator.model.fairuse import Rule, rules_from
from aggregator.model.records import RESERVED_LOCATIONS, SCHEMAS, USAGE_COUNTER
from aggregator.model.tables import TABLES

DEFAULT_PROFILE: Final = """\
# A policy profile: what this deployment keeps, how finely, and for how long.
name = "default"
version = 1

[release]              # every published cell (promises CS-4, CT-4)
k = 10                 # users that a cell has at the least
largest_percent = 50   # of a cell's bytes that its largest user may have
two_largest_percent = 85
# allow_k_below_2 = false   # every report repeats it when this is true

# [export]             # the monthly public release (CT-4)
# k = 50               # users that each of its cells has at the least; never below 50

[grace]
day_hours = 24         # after a day's end, before it is closed
purge_hours = 48       # after a month's end, before its raw counters are destroyed (CL-2)

[retention]            # months that a published table is kept after its own; 0 is for ever
usage_daily = 0
connections_daily = 0
connections_isp_daily = 0
apps_daily = 0
usage_monthly = 0
notices_monthly = 0
rejections_daily = 0
closings_daily = 0

[fair_use]             # CS-9: "more traffic than thousands of others combined"
outweighs_mean = 1000  # tell of a user whose month outweighs this many others

# Further rules, each a row; kinds: outweighs_mean, outweighs_lightest, month_bytes, day_bytes,
# times_median, location_share (percent of a location's bytes of one day).
# [[fair_use.rules]]
# name = "fifty-terabytes"
# kind = "month_bytes"
# threshold = 50_000_000_000_000
# warn_percent = [80, 100]     # told once at each step
# plans = ["personal"]         # accounts on these plans only, as the directory names them

[regions]              # small locations fold into their region before they fold into "other"
# "region-benelux" = ["nl-ams", "be-bru", "lu-lux"]
"""

LEAST_EXPORT_K: Final = 50
"""Users that a cell of a public release has at the least, whatever a profile says (CT-4)."""

# Tables that came after the first profiles were written.
_NEWER_TABLES: Final = frozenset({"notices_monthly"})


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """The active policy profile; `digest` is the SHA-256 of its text."""

    name: str
    version: int
    k: int
    largest_percent: int
    two_largest_percent: int
    day_grace_hours: int
    purge_grace_hours: int
    retention_months: Mapping[str, int]
    fair_use: tuple[Rule, ...]
    regions: Mapping[str, str]
    digest: str
    export_k: int = LEAST_EXPORT_K


def parse_profile(text: str) -> Profile:
    """Return the profile that the TOML `text` spells; ConfigError names what is wrong."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and depths beyond all measure
        reason = " ".join(str(error).split())
        raise ConfigError(f"the policy profile is not TOML: {reason}") from None
    known = {"name", "version", "release", "grace", "retention", "fair_use", "regions", "export"}
    _refuse_unknown(data, known, "")
    release = _table(
        data,
        "release",
        {
            "k",
            "largest_percent",
            "two_largest_percent",
            "allow_k_below_2",
        },
    )
    grace = _table(data, "grace", {"day_hours", "purge_hours"})
    name = data.get("name")
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= 64:
        raise ConfigError("the policy profile needs a name of 1 to 64 printable characters")
    k = _integer(release, "release.k", 1, 10_000)
    allowed = release.get("allow_k_below_2", False)
    if not isinstance(allowed, bool):
        raise ConfigError("the policy profile's release.allow_k_below_2 must be true or false")
    if k < 2 and not allowed:
        raise ConfigError("release.k below 2 publishes single users: set allow_k_below_2 = true")
    return Profile(
        name=name,
        version=_integer(data, "version", 1, 1_000_000),
        k=k,
        largest_percent=_integer(release, "release.largest_percent", 1, 100),
        two_largest_percent=_integer(release, "release.two_largest_percent", 1, 100),
        day_grace_hours=_integer(grace, "grace.day_hours", 0, 24 * 14),
        purge_grace_hours=_integer(grace, "grace.purge_hours", 0, 24 * 14),
        retention_months=_retention(data),
        fair_use=rules_from(data.get("fair_use", {})),
        regions=_regions(data),
        digest=hashlib.sha256(text.encode()).hexdigest(),
        export_k=_export_k(data),
    )


def _refuse_unknown(table: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(table.keys() - known)
    if unknown:
        raise ConfigError(f"the policy profile has an unknown setting: {where + unknown[0]!a}")


def _table(data: Mapping[str, Any], name: str, known: set[str]) -> Mapping[str, Any]:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"the policy profile's {name} is no table")
    _refuse_unknown(table, known, f"{name}.")
    return table


def _integer(table: Mapping[str, Any], path: str, least: int, most: int) -> int:
    value = table.get(path.rpartition(".")[2])
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"the policy profile's {path} must be an integer {least} to {most}")
    return value


def _retention(data: Mapping[str, Any]) -> dict[str, int]:
    """Return the months that each table is kept; one that the profile does not name, for ever.

    A profile may be older than a table; those that it has always had must be named.
    """
    table = _table(data, "retention", set(TABLES))
    named = [name for name in TABLES if name in table or name not in _NEWER_TABLES]
    return {
        **dict.fromkeys(TABLES, 0),
        **{name: _integer(table, f"retention.{name}", 0, 1200) for name in named},
    }


def _export_k(data: Mapping[str, Any]) -> int:
    """Return the least users of a cell in a public release; a profile need not name it."""
    table = _table(data, "export", {"k"})
    return (
        _integer(table, "export.k", LEAST_EXPORT_K, 1_000_000) if "k" in table else LEAST_EXPORT_K
    )


def _regions(data: Mapping[str, Any]) -> dict[str, str]:
    """Return location → region, from the profile's region → locations."""
    pattern = SCHEMAS[USAGE_COUNTER].field("location").pattern
    assert pattern is not None
    regions: dict[str, str] = {}
    table = data.get("regions", {})
    if not isinstance(table, dict):
        raise ConfigError("the policy profile's regions is no table")
    for region, locations in table.items():
        names = [region, *locations] if isinstance(locations, list) else [None]
        for name in names:
            if not isinstance(name, str) or not pattern.fullmatch(name):
                raise ConfigError("the policy profile's regions hold a name that is no location")
            if name in RESERVED_LOCATIONS:
                raise ConfigError(f"the policy profile's regions use the reserved name {name}")
        for location in locations:
            if location in regions or location in table:
                raise ConfigError(f"the policy profile names the location {location} twice")
            regions[location] = region
    return regions
