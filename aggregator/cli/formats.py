"""The formats of a report that programs read: the same rows as JSON, CSV, Markdown, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from aggregator.model.days import text_of

if TYPE_CHECKING:
    import pyarrow as pa

    from aggregator.pipeline.report import Report

_HISTOGRAM: Final = "histogram"
_BLOCK_ROWS: Final = 65_536


def as_json(report: Report) -> bytes:
    """Return the bare list of rows, an object a line; days are text, null is none told."""
    data = report.data
    parts = [(", " if number else " {") + json.dumps(name) + ": "
             for number, name in enumerate(data.column_names)]  # fmt: skip
    rows = _lines(data, parts, "}", ",\n", _json_texts)
    return b"[\n" + rows + b"\n]\n" if rows else b"[]\n"


def as_csv(report: Report) -> bytes:
    """Return RFC 4180 text with a header; a histogram is JSON text, null an empty field."""
    data = report.data
    header = ",".join(data.column_names)
    parts = ["", *[","] * (data.num_columns - 1)]
    rows = _lines(data, parts, "", "\r\n", _csv_texts)
    return b"\r\n".join([header.encode(), *([rows] if rows else []), b""])


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


def _openmetrics(report: Report) -> bytes:
    from aggregator.cli.openmetrics import as_openmetrics

    return as_openmetrics(report)


def _svg(report: Report) -> bytes:
    from aggregator.cli.picture import as_svg

    return as_svg(report)


def _png(report: Report) -> bytes:
    from aggregator.cli.picture import as_png

    return as_png(report)


FORMATS: Final[Mapping[str, Callable[[Report], bytes]]] = MappingProxyType(
    {
        "json": as_json,
        "csv": as_csv,
        "md": as_markdown,
        "parquet": as_parquet,
        "openmetrics": _openmetrics,
        "svg": _svg,
        "png": _png,
    }
)


def dimension_text(name: str, value: Any) -> str:
    """Return a dimension's value for people: the numbers that stand for words are spelled out."""
    words = {-1: "other", 0: "unknown"} if name == "asn" else {}
    return words.get(value, str(value))


def _lines(
    data: pa.Table,
    before: Sequence[str],
    after: str,
    between: str,
    texts: Callable[[pa.ChunkedArray], pa.ChunkedArray],
) -> bytes:
    """Return a line a row: each column's text with what is `before` it, and `after` the last.

    Columns are made texts as a whole, without a Python object a value: years of rows are many.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    lines = []
    for start in range(0, data.num_rows, _BLOCK_ROWS):
        block = data.slice(start, _BLOCK_ROWS)
        columns = [texts(column).combine_chunks() for column in block.columns]
        placed = [part for pair in zip(before, columns, strict=True) for part in pair]
        rows = pc.binary_join_element_wise(*placed, after, "")
        offsets = pa.array([0, len(rows)], pa.int32())
        lines.append(pc.binary_join(pa.ListArray.from_arrays(offsets, rows), between)[0].as_py())
    return between.join(lines).encode()


def _json_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return each value of a column as JSON."""
    import pyarrow as pa

    if pa.types.is_list(column.type):
        return _histogram_texts(column)
    if pa.types.is_integer(column.type):
        return column.cast(pa.string()).fill_null("null")
    return _spelled(column, lambda value: json.dumps(text_of(value), ensure_ascii=False))


def _csv_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return each value of a column as a field of CSV."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(column.type):
        doubled = pc.replace_substring(_histogram_texts(column), '"', '""')
        return pc.binary_join_element_wise('"', doubled, '"', "")
    if pa.types.is_integer(column.type):
        return column.cast(pa.string()).fill_null("")
    return _spelled(column, _csv_field)


def _csv_field(value: Any) -> str:
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator="").writerow([value, ""])
    return sink.getvalue().removesuffix(",")


def _spelled(column: pa.ChunkedArray, spell: Callable[[Any], str]) -> pa.ChunkedArray:
    """Return each value as `spell` writes it, who is asked once for each that there is."""
    import pyarrow as pa

    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    texts = pa.array([spell(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([texts.take(encoded.indices)])


def _histogram_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return each histogram as compact JSON."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = []
    for chunk in column.chunks:
        buckets = chunk.flatten()
        edges, users = (
            pc.struct_field(buckets, name).cast(pa.string()) for name in ("from_bytes", "users")
        )
        spelled = pc.binary_join_element_wise('{"from_bytes":', edges, ',"users":', users, "}", "")
        offsets = pc.cumulative_sum(pc.list_value_length(chunk)).to_pylist()
        lists = pa.ListArray.from_arrays(pa.array([0, *offsets], pa.int32()), spelled)
        found.append(pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", ""))
    return pa.chunked_array(found, pa.string())


def _cell(name: str, value: Any) -> str:
    text = "" if value is None else dimension_text(name, value)
    return text.replace("\\", "\\\\").replace("|", "\\|")


def edges_of(histograms: Iterable[list[dict[str, int]]]) -> list[int]:
    """Return the lower edges on which `histograms` lie, without those that no one reaches."""
    from aggregator.rules.rollup import EDGES

    used = {bucket["from_bytes"] for histogram in histograms for bucket in histogram}
    return [edge for edge in EDGES if used and min(used) <= edge <= max(used)]
