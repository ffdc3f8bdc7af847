"""The files of a public release: the same numbers as CSV and Parquet, and what explains them.

The same facts give the same bytes: no clock is in them but the instants of the receipt.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from aggregator.errors import IntegrityError
from aggregator.pipeline import dictionary, export_text
from aggregator.pipeline.dictionary import Entry
from aggregator.pipeline.export_text import Facts
from aggregator.rules import public
from aggregator.rules.public import Release
from aggregator.stores import schemas

RELEASE: Final = "public_release.1"
MAIN: Final = "release.json"
SUMS: Final = "SHA256SUMS"
_SCHEMA: Final = pa.schema(
    [
        pa.field("month", pa.string(), nullable=False),
        pa.field("location", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("users", pa.int64()),
        pa.field("bytes", pa.int64(), nullable=False),
        *(pa.field(name, pa.int64()) for name in public.ABOVE_PERCENT),
        pa.field("attempts", pa.int64()),
        pa.field("successes", pa.int64()),
    ]
)


def make(facts: Facts, policy: bytes) -> dict[str, bytes]:
    """Return every file of a release by its name; `policy` is the text of its profile (CV-9)."""
    rows = rows_of(facts.release, facts.month)
    entries = [_entry(facts.month)]
    title = f"# Data dictionary of the release of {facts.month}\n"
    files = {
        "usage.csv": _csv(rows),
        "usage.parquet": _parquet(rows, facts.month),
        "dictionary.md": dictionary.dictionary_markdown(entries, title).encode(),
        "dictionary.json": dictionary.dictionary_json(entries).encode(),
        "method.md": export_text.method(facts).encode(),
        "transparency.md": export_text.transparency(facts).encode(),
        "policy.toml": policy,
    }
    files[MAIN] = _json(facts, rows, files)
    sums = (f"{_digest(content)}  {name}\n" for name, content in sorted(files.items()))
    return {**files, SUMS: "".join(sums).encode()}


def rows_of(release: Release, month: str) -> list[dict[str, Any]]:
    """Return the rows of a release of `month`."""
    return [{"month": month, **dataclasses.asdict(cell)} for cell in release.cells]


def _entry(month: str) -> Entry:
    """Return what the dictionary of a release says of its one table."""
    usage = schemas.load(RELEASE)["properties"]["usage"]
    row = usage["items"]
    return Entry(
        "usage",
        f"{usage['description']}. How they are made: method.md.",
        f"usage.csv and usage.parquet, with the same rows of {month}",
        "for ever; a release is never changed",
        dictionary.columns(row["properties"], _SCHEMA, row["x-dimensions"]),
    )


def _json(facts: Facts, rows: Sequence[Mapping[str, Any]], files: Mapping[str, bytes]) -> bytes:
    fields = {
        "release": RELEASE,
        "month": facts.month,
        "k": facts.release.k,
        "withheld": facts.release.withheld,
        "connections_withheld": facts.release.connections_withheld,
        "rehearsal": facts.receipt["rehearsal"],
        "policy": {
            "name": facts.profile.name,
            "version": facts.profile.version,
            "sha256": facts.profile.digest,
        },
        "receipt_sha256": facts.receipt_sha256,
        "usage": rows,
        "files": [{"name": name, "sha256": _digest(files[name])} for name in sorted(files)],
    }
    return json.dumps(fields, indent=2, ensure_ascii=False).encode() + b"\n"


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return RFC 4180 text with a header; null is an empty field."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _SCHEMA.names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: Sequence[Mapping[str, Any]], month: str) -> bytes:
    try:
        data = pa.Table.from_pylist([dict(row) for row in rows], schema=_SCHEMA)
    except (OverflowError, pa.ArrowInvalid):
        raise IntegrityError(f"the sums of the release of {month} are implausible") from None
    sink = pa.BufferOutputStream()
    pq.write_table(data, sink, compression="zstd", compression_level=3)
    return bytes(memoryview(sink.getvalue()))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
