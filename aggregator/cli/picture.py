"""A report as a picture: lines over days or months, else bars; SVG, and PNG of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aggregator.cli.report_table import number_text
from aggregator.errors import UsageError

if TYPE_CHECKING:
    from aggregator.pictures.chart import Chart
    from aggregator.pipeline.report import Report

_FONT: Final = "DejaVuSans-latin.ttf"
_MOST_LINES: Final = 6
_MOST_BARS: Final = 30
_TIME: Final = ("day", "month")
_REST: Final = "all others"
_ZOOM: Final = 2.0
_TITLES: Final = {
    "bytes": "Bytes",
    "success_percent": "Successful connections, %",
    "notices": "Fair-use notices",
    "records": "Rejected records",
    "least_users": "Least users of a day",
    "forecast_peak_bytes": "Forecast of the peak day",
    "peak_bytes": "Peak day",
}


def as_svg(report: Report) -> bytes:
    """Return the chart of a report as an SVG file; UsageError where nothing is to be drawn."""
    from aggregator.pictures import chart

    drawn = chart_of(report)
    over_time = set(_TIME) & set(report.plan.by)
    text = (chart.lines if over_time else chart.bars)(drawn, standalone=True)
    return text.encode()


def as_png(report: Report) -> bytes:
    """Return the same chart as PNG, twice as large, with a font of our own."""
    import resvg_py

    from aggregator import pictures

    font = Path(pictures.__file__).parent / _FONT
    rendered: bytes = resvg_py.svg_to_bytes(
        svg_string=as_svg(report).decode(),
        zoom=_ZOOM,
        skip_system_fonts=True,
        font_files=[str(font)],
        font_family="DejaVu Sans",
        sans_serif_family="DejaVu Sans",
    )
    return bytes(rendered)


def chart_of(report: Report) -> Chart:
    """Return what is drawn of a report: its main measure, of connections the success."""
    from aggregator.pictures.chart import Chart
    from aggregator.pipeline.report_rows import main_measure, with_success_percent

    if not report.data.num_rows:
        raise UsageError("there are no rows to draw a picture of")
    data = with_success_percent(report.data)
    measure = main_measure(data)
    if measure == "attempts":
        measure = "success_percent"
    by = report.plan.by
    title = f"{_TITLES.get(measure, measure)} by {' and '.join(by)}"
    time = next((name for name in _TIME if name in by), None)
    rows = data.to_pylist()
    if time is None:
        labels, series = _bars(rows, by, measure)
    else:
        labels, series = _lines(rows, time, [name for name in by if name != time], measure)
    first, last = report.periods[0], report.periods[-1]
    note = first if first == last else f"{first} to {last}"
    if few := _left_out(rows, series, time):
        note += f"; {few}"
    return Chart(
        title, labels, series, lambda value: number_text(measure, _plain(value)), note,
        from_zero=measure != "success_percent",
    )  # fmt: skip


def _plain(value: float) -> float:
    """Return a whole number as one, so that it is written as one."""
    return int(value) if float(value).is_integer() else value


def _bars(rows: Sequence[Any], by: Sequence[str], measure: str) -> tuple[list[str], list[Any]]:
    from aggregator.pictures.chart import Series

    few = rows[:_MOST_BARS]
    labels = [_name(row, by) for row in few]
    return labels, [Series(measure, [row[measure] for row in few])]


def _lines(
    rows: Sequence[Any], time: str, by: Sequence[str], measure: str
) -> tuple[list[str], list[Any]]:
    """Return the times there are, and a series for each of the largest groups and for the rest."""
    from aggregator.pictures.chart import Series

    times = sorted({str(row[time]) for row in rows})
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    weights: dict[str, float] = defaultdict(float)
    for row in rows:
        name = _name(row, by)
        groups[name][str(row[time])] = row
        weights[name] += row["attempts"] if "attempts" in row else row[measure] or 0
    largest = sorted(groups, key=lambda name: (-weights[name], name))[:_MOST_LINES]
    series = [
        Series(name, [_value(groups[name].get(one), measure) for one in times]) for name in largest
    ]
    rest = [groups[name] for name in groups if name not in largest]
    if rest and measure == "success_percent":
        series.append(Series(_REST, [_sum(rest, one, measure) for one in times]))
    return times, series


def _left_out(rows: Sequence[Any], series: Sequence[Any], time: str | None) -> str:
    """Return what a picture does not show, "" if it shows all."""
    if time is None:
        return f"the first {_MOST_BARS} of {len(rows):,}" if len(rows) > _MOST_BARS else ""
    return "the largest" if len(series) == _MOST_LINES else ""


def _value(row: Any, measure: str) -> float | None:
    return None if row is None else row[measure]


def _sum(rest: Sequence[dict[str, Any]], time: str, measure: str) -> float | None:
    """Return what groups come to together; of a rate, that of their attempts."""
    rows = [group[time] for group in rest if time in group]
    if measure == "success_percent":
        attempts = sum(row["attempts"] for row in rows)
        return 100 * sum(row["successes"] for row in rows) / attempts if attempts else None
    values = [row[measure] for row in rows if row[measure] is not None]
    return sum(values) if values else None


def _name(row: Any, by: Sequence[str]) -> str:
    from aggregator.cli.formats import dimension_text

    words = [dimension_text(name, row[name]) for name in by]
    return " ".join(f"AS{word}" if name == "asn" and word.isdigit() else word
                    for name, word in zip(by, words, strict=True)) or "all"  # fmt: skip
