"""Charts of plain text: bars, a series of days, a spark line. No colour is needed to read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_LEVELS: Final = " ▁▂▃▄▅▆▇█"
_LEAST_BAR: Final = 4


def bar(value: float, largest: float, width: int) -> str:
    """Return a bar of at most `width` characters for `value`, `largest` being the whole width.

    What is more than nothing is seen: it gets an eighth of a character at least.
    """
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, round(min(value / largest, 1.0) * width * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def spark(values: Sequence[float], largest: float | None = None) -> str:
    """Return one character a value, as high as the value is; a space for nothing."""
    most = max(values, default=0) if largest is None else largest
    if most <= 0:
        return " " * len(values)
    return "".join(
        _LEVELS[max(1, round(min(value / most, 1.0) * 8))] if value > 0 else " " for value in values
    )


def bars(
    rows: Sequence[tuple[str, float]], *, width: int, unit: Callable[[float], str]
) -> list[str]:
    """Return a horizontal bar chart, a line a row: label, bar, value as `unit` writes it.

    No line is wider than `width` characters, unless labels and values alone are.
    """
    if not rows:
        return []
    values = [unit(value) for _, value in rows]
    label_width = max(len(label) for label, _ in rows)
    value_width = max(len(value) for value in values)
    room = max(_LEAST_BAR, width - label_width - value_width - 4)
    if label_width + value_width + 4 + room > width:
        label_width = max(1, width - value_width - 4 - room)
    largest = max(value for _, value in rows)
    return [
        f"{_cut(label, label_width):<{label_width}}  {text:>{value_width}}  "
        f"{bar(value, largest, room)}".rstrip()
        for (label, value), text in zip(rows, values, strict=True)
    ]


def series(
    rows: Sequence[tuple[str, float]],
    *,
    width: int,
    unit: Callable[[float], str],
    height: int = 8,
) -> list[str]:
    """Return a column chart of values in time: a scale, the columns, first and last label.

    A column is as many characters wide as fit, one at most three; where there are more rows than
    fit, neighbours share a column, which shows their mean, and the last line says so.
    """
    if not rows:
        return []
    largest = max(value for _, value in rows)
    scale = [unit(largest), unit(largest / 2), unit(0)]
    margin = max(len(text) for text in scale)
    room = max(_LEAST_BAR, width - margin - 2)
    share = math.ceil(len(rows) / room)
    columns = [
        sum(value for _, value in part) / len(part)
        for part in (rows[start : start + share] for start in range(0, len(rows), share))
    ]
    each = max(1, min(3, room // len(columns)))
    lines = []
    for level in range(height, 0, -1):
        label = {height: scale[0], (height + 1) // 2: scale[1]}.get(level, "")
        blocks = "".join(_block(value, largest, level, height, each) for value in columns)
        lines.append(f"{label:>{margin}} ┤{blocks}".rstrip())
    span = len(columns) * each
    lines.append(f"{scale[2]:>{margin}} └{'─' * span}")
    first, last = rows[0][0], rows[-1][0]
    gap = span - len(first) - len(last)
    ends = (
        f"{first}{' ' * gap}{last}"
        if gap > 0
        else (first if len(rows) == 1 else f"{first} to {last}")
    )
    lines.append(f"{'':>{margin}}  {ends}")
    if share > 1:
        lines.append(f"{'':>{margin}}  a column is the mean of {share}")
    return lines


def _block(value: float, largest: float, level: int, height: int, width: int) -> str:
    """Return what a column shows at one `level` of its `height`; the gap is its last character."""
    eighths = round(value / largest * height * 8) if largest > 0 else 0
    if value > 0:
        eighths = max(1, eighths)
    filled = min(8, max(0, eighths - (level - 1) * 8))
    character = _LEVELS[filled]
    return character * max(1, width - 1) + " " * (1 if width > 1 else 0)


def _cut(label: str, width: int) -> str:
    return label if len(label) <= width else label[: max(0, width - 1)] + "…"
