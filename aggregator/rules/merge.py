"""The merge of a state-based grow-only counter: the maximum of each number per key.

Duplicates, replays, reordering and retries change nothing; a restarted server is a new epoch.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

USAGE_KEYS: Final = ["location", "pseudonym", "epoch"]
USAGE_NUMBERS: Final = ["bytes"]
FLAGS_KEYS: Final = ["location", "epoch", "country", "asn", "app", "version"]
FLAGS_NUMBERS: Final = ["users", "attempts", "successes"]


def merge_usage(table: pa.Table) -> pa.Table:
    """Return one row a (location, pseudonym, epoch) with its largest `bytes`, sorted."""
    return _merge(table, USAGE_KEYS, USAGE_NUMBERS)


def merge_flags(table: pa.Table) -> pa.Table:
    """Return one row a (location, epoch, country, asn, app, version) with its maxima, sorted."""
    return _merge(table, FLAGS_KEYS, FLAGS_NUMBERS)


def _merge(table: pa.Table, keys: list[str], numbers: list[str]) -> pa.Table:
    merged = table.group_by(keys).aggregate([(name, "max") for name in numbers])
    merged = merged.select([*keys, *(f"{name}_max" for name in numbers)])
    merged = merged.rename_columns([*keys, *numbers])
    return merged.sort_by([(name, "ascending") for name in keys])
