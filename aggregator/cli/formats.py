"""The formats of a report that programs read: the same rows as JSON, CSV, Markdown, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

    from aggregator.pipeline.report import Report

_HISTOGRAM: Final = "histogram"


def as_json(report: Report) -> bytes:
    """Return the bare list of rows, an object a line; days are text, null is none told."""
    data = report.data
    names = [json.dumps(name) for name in data.column_names]
    columns = [_json_texts(column) for column in data.columns]
    rows = ",\n".join(
        " {" + ", ".join(map(": ".join, zip(names, row, strict=True))) + "}"
        for row in zip(*columns, strict=True)
    )
    return f"[\n{rows}\n]\n".encode() if rows else b"[]\n"


def as_csv(report: Report) -> bytes:
    """Return RFC 4180 text with a header; a histogram is JSON text, null an empty field."""
    data = report.data
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(data.column_names)
    columns = [
        _histogram_texts(data[name]) if name == _HISTOGRAM else data[name].to_pylist()
        for name in data.column_names
    ]
    writer.writerows(zip(*columns, strict=True))
    return sink.getvalue().encode()


def as_markdown(report: Report) -> bytes:
    """Return a GitHub table with plain numbers; histograms are left out, they would not read."""
    from aggregator.pipeline.report_rows import with_success_percent

    data = with_success_percent(report.data)
    names = [name for name in data.column_names if name != _HISTOGRAM]
    dimensions = set(report.plan.by)
    rule = ["---" if name in dimensions else "---:" for name in names]
    columns = [data[name].to_pylist() for name in names]
    rows = ([_cell(name, value) for name, value in zip(names, row, strict=True)]
            for row in zip(*columns, strict=True))  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in (names, rule, *rows)).encode()


def as_parquet(report: Report) -> bytes:
    """Return a Parquet file with the columns' own types; exact rows have their table's schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(report.data, sink, compression="zstd")
    return bytes(memoryview(sink.getvalue()))


FORMATS: Final[Mapping[str, Callable[[Report], bytes]]] = MappingProxyType(
    {"json": as_json, "csv": as_csv, "md": as_markdown, "parquet": as_parquet}
)


def dimension_text(name: str, value: Any) -> str:
    """Return a dimension's value for people: the numbers that stand for words are spelled out."""
    words = {-1: "other", 0: "unknown"} if name == "asn" else {}
    return words.get(value, str(value))


def _json_texts(column: pa.ChunkedArray) -> list[str]:
    """Return each value of a column as JSON; by column, since years of rows are many."""
    import pyarrow as pa

    if pa.types.is_list(column.type):
        return _histogram_texts(column)
    if pa.types.is_integer(column.type):
        texts: list[str] = column.cast(pa.string()).fill_null("null").to_pylist()
        return texts
    if pa.types.is_date(column.type):
        column = column.cast(pa.string())
    return [json.dumps(value, ensure_ascii=False) for value in column.to_pylist()]


def _histogram_texts(column: pa.ChunkedArray) -> list[str]:
    """Return each histogram as compact JSON, with as few Python objects as possible."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts: list[str] = []
    for chunk in column.chunks:
        buckets = chunk.flatten()
        edges, users = (
            pc.struct_field(buckets, name).cast(pa.string()) for name in ("from_bytes", "users")
        )
        spelled = pc.binary_join_element_wise('{"from_bytes":', edges, ',"users":', users, "}", "")
        offsets = pc.cumulative_sum(pc.list_value_length(chunk)).to_pylist()
        lists = pa.ListArray.from_arrays(pa.array([0, *offsets], pa.int32()), spelled)
        texts += [f"[{joined}]" for joined in pc.binary_join(lists, ",").to_pylist()]
    return texts


def _cell(name: str, value: Any) -> str:
    text = "" if value is None else dimension_text(name, value)
    return text.replace("\\", "\\\\").replace("|", "\\|")


def edges_of(histograms: Iterable[list[dict[str, int]]]) -> list[int]:
    """Return the lower edges on which `histograms` lie, without those that no one reaches."""
    from aggregator.rules.rollup import EDGES

    used = {bucket["from_bytes"] for histogram in histograms for bucket in histogram}
    return [edge for edge in EDGES if used and min(used) <= edge <= max(used)]
