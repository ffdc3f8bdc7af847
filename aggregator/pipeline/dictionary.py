"""The data dictionary: what each table and column means, as its schema says, for who opens them.

It is generated: from the schema files, the Arrow schemas that the files are written with, and the
retention of the policy profile (CL-1).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from aggregator.model.profile import Profile
from aggregator.model.tables import TABLES
from aggregator.pipeline.deployment import Deployment
from aggregator.stores import atomic, schemas
from aggregator.stores.tables import arrow_schema

README: Final = "README.md"
JSON: Final = "dictionary.json"
_OPEN: Final = """\
# The published tables

Aggregates without a person in them, as Parquet in hive partitions: `TABLE/month=YYYY-MM/`, a file
a day, or a file a month in a monthly table. A partition that is closed is not written again.
Nothing needs to be configured to read them, and nothing but this software should write them:

```
duckdb    SELECT * FROM read_parquet('usage_daily/*/*.parquet', hive_partitioning = true);
polars    pl.scan_parquet("usage_daily/", hive_partitioning=True)
pandas    pd.read_parquet("usage_daily/")
spark     spark.read.parquet("usage_daily/")
```

pandas reads a monthly table that version 0.1 wrote with `partitioning=None`.

Users are distinct within their row only: of days, or of locations, they must not be added up as
if they were persons. The text below, and `dictionary.json`, are generated from the schemas.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column: its types, whether it may be null, and what it means, with its unit."""

    name: str
    role: str
    json_type: str
    arrow_type: str
    nullable: bool
    meaning: str


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One table of the dictionary; `partitioning` and `retention` are words."""

    table: str
    description: str
    partitioning: str
    retention: str
    columns: tuple[Column, ...]


def table_entries(profile: Profile) -> tuple[Entry, ...]:
    """Return the published tables, as their schemas describe them and `profile` keeps them."""
    return tuple(_table_entry(name, profile) for name in TABLES)


def columns(
    described: Mapping[str, Any], types: pa.Schema, dimensions: Iterable[str]
) -> tuple[Column, ...]:
    """Return the columns of a row: `described` are the properties of its JSON schema."""
    keys = set(dimensions)
    return tuple(
        Column(
            name,
            "dimension" if name in keys else "measure",
            _json_type(column),
            str(types.field(name).type),
            types.field(name).nullable,
            _meaning(column),
        )
        for name, column in described.items()
    )


def dictionary_markdown(entries: Sequence[Entry], introduction: str) -> str:
    """Return the dictionary as Markdown: the `introduction`, then a section a table."""
    return "\n".join([introduction, *(line for entry in entries for line in _section(entry))])


def dictionary_json(entries: Sequence[Entry]) -> str:
    """Return the dictionary as JSON text, for programs."""
    fields = {"dictionary": 1, "tables": [dataclasses.asdict(entry) for entry in entries]}
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def keep_dictionary(house: Deployment) -> bool:
    """Write README.md and dictionary.json beside the tables where they differ; say if they did.

    Nothing is written while there is no table. Both are files of `tables/` itself, where no
    partition lies, and are for everybody who may read the tables.
    """
    folder = house.tables.folder
    if not any((folder / name).is_dir() for name in TABLES):
        return False
    entries = table_entries(house.profile)
    wanted = {
        README: dictionary_markdown(entries, _OPEN),
        JSON: dictionary_json(entries),
    }
    changed = [name for name, text in wanted.items() if _differs(folder / name, text.encode())]
    for name in changed:
        atomic.write(folder / name, wanted[name].encode(), mode=0o644)
    return bool(changed)


def _differs(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() != content
    except FileNotFoundError:
        return True


def _table_entry(name: str, profile: Profile) -> Entry:
    schema, table = schemas.load(f"{name}.table"), TABLES[name]
    period = "YYYY-MM" if table.monthly else "YYYY-MM-DD"
    months = profile.retention_months[name]
    kept = (
        f"{months} {'month' if months == 1 else 'months'} after its own" if months else "for ever"
    )
    return Entry(
        name,
        schema["description"],
        f"hive, month=YYYY-MM/{period}.parquet, a file a {'month' if table.monthly else 'day'}",
        kept,
        columns(schema["properties"], arrow_schema(table), schema["x-dimensions"]),
    )


def _json_type(column: Mapping[str, Any]) -> str:
    found = column["type"]
    if isinstance(found, list):
        return " or ".join(found)
    if found == "array":
        inner = column["items"]["properties"].items()
        return (
            f"array of objects: {', '.join(f'{name} {_json_type(part)}' for name, part in inner)}"
        )
    return f"{found} ({column['format']})" if "format" in column else str(found)


def _meaning(column: Mapping[str, Any]) -> str:
    """Return the description of a column, with the values it can have and the parts it has."""
    parts = [str(column["description"])]
    if column["type"] == "string" and "enum" in column:
        parts.append(f"one of: {', '.join(column['enum'])}")
    for name, part in column.get("items", {}).get("properties", {}).items():
        parts.append(f"{name}: {part['description']}")
    return "; ".join(parts)


def _section(entry: Entry) -> Iterator[str]:
    yield f"## {entry.table}\n"
    yield f"{entry.description}\n"
    yield f"Files: {entry.partitioning}. Kept: {entry.retention}.\n"
    yield "| column | | JSON | Arrow | null | meaning |"
    yield "|---|---|---|---|---|---|"
    for one in entry.columns:
        cells = (
            f"`{one.name}`", one.role, one.json_type, f"`{one.arrow_type}`",
            "may be" if one.nullable else "never", one.meaning,
        )  # fmt: skip
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
