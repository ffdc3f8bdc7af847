"""A table that fits its terminal: the columns that may go are left out before a line is broken.

It looks like `show.table`, but is made for reports: years of rows are printed at once, a column
can be a bar, and the caller learns what did not fit.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Final

from aggregator.cli import chart

_GAP: Final = "  "
_LEAST_BAR: Final = 8
_MOST_BAR: Final = 24
FILE_WIDTH: Final = 160


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column of cells that are ready to print.

    `priority` 0 stays; of the others the highest goes first where the terminal is narrow. With
    `bar_of` the column is a bar of these numbers, and `cells` are not used.
    """

    name: str
    cells: Sequence[str]
    right: bool = False
    priority: int = 0
    bar_of: Sequence[float] | None = None

    @property
    def width(self) -> int:
        """How many characters it needs at the least."""
        if self.bar_of is not None:
            return max(_LEAST_BAR, len(self.name))
        return max(len(self.name), *map(len, self.cells), 1) if self.cells else len(self.name)


def width_of_output() -> int:
    """Return how many characters a line may have: the terminal's, or many in a file or pipe.

    The variable COLUMNS is believed before either.
    """
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        return FILE_WIDTH
    return shutil.get_terminal_size().columns


def fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Return the columns that fit into `width`, and the names of those left out."""
    kept = list(columns)
    while sum(column.width for column in kept) + len(_GAP) * (len(kept) - 1) > width:
        optional = [column for column in kept if column.priority]
        if not optional:
            break
        kept.remove(max(optional, key=lambda column: column.priority))
    return kept, [column.name for column in columns if column not in kept]


def lines(columns: Sequence[Column], width: int) -> list[str]:
    """Return the header, a rule, and a line a row; bars share the room that is left."""
    widths = [column.width for column in columns]
    left = width - sum(widths) - len(_GAP) * (len(columns) - 1)
    printed: list[Sequence[str]] = []
    for index, column in enumerate(columns):
        if column.bar_of is None:
            printed.append(column.cells)
            continue
        widths[index] = min(_MOST_BAR, widths[index] + max(0, left))
        largest = max(column.bar_of, default=0)
        printed.append([chart.bar(value, largest, widths[index]) for value in column.bar_of])
    place = _GAP.join(
        f"{{:{'>' if column.right else '<'}{width}}}"
        for column, width in zip(columns, widths, strict=True)
    ).format  # one for all rows: there may be hundreds of thousands
    header = place(*(column.name for column in columns)).rstrip()
    rule = "─" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    return [header, rule, *(place(*row).rstrip() for row in zip(*printed, strict=True))]


def bold(text: str) -> str:
    """Return `text` in bold where standard output is a terminal that may be styled."""
    styled = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[1m{text}\033[0m" if styled and os.environ.get("TERM") != "dumb" else text
