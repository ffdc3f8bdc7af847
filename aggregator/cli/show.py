"""How results are printed: data on stdout, words on stderr, numbers that people can read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aggregator.model.numbers import size

if TYPE_CHECKING:
    from aggregator.cli.options import Globals

__all__ = ["SCHEMA_VERSION", "as_json", "counted", "size", "table", "words"]

SCHEMA_VERSION = 1


def words(said: Globals, text: str) -> None:
    """Print a line for people on stderr, unless they asked for quiet."""
    if not said.quiet:
        print(text, file=sys.stderr)


def as_json(fields: Mapping[str, Any]) -> None:
    """Print one JSON object with its schema version."""
    print(json.dumps({"schema_version": SCHEMA_VERSION, **fields}, ensure_ascii=False, indent=2))


def counted(number: int, what: str, many: str | None = None) -> str:
    """Return a number with its noun, such as "1 day", "30 days" or "2 batches"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {many or what + 's'}"


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Iterable[str] = ()
) -> None:
    """Print a table on stdout; the columns named in `numbers` are right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    right = set(numbers)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        shown.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column in right,
            overflow="fold",
        )
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no width to fit into
    console.print(shown)
