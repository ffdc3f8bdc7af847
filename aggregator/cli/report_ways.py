"""The ways that a report goes: shown once, again and again, into a file, or by mail."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from aggregator.cli import show
from aggregator.cli.options import Globals
from aggregator.errors import UsageError

FORMATS: Final = ("table", "json", "csv", "md", "parquet", "openmetrics", "svg", "png")
_BINARY: Final = {"parquet": "Parquet", "png": "PNG"}
_WATCH_SECONDS: Final = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """In which format a report goes, into which file, to whom by mail, how often in seconds."""

    format: str
    out: str | None
    to: tuple[str, ...]
    watch: int | None

    @property
    def is_table(self) -> bool:
        """Whether people read it."""
        return self.format == "table"

    @property
    def to_file(self) -> bool:
        """Whether it is written into a file that has a name."""
        return self.out not in (None, "-")


def way_options(formats: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds the options that say how a report goes; it can be in `formats`."""
    options = (
        click.option("--format", "format_", type=click.Choice(formats), help="Default: table."),
        click.option(
            "--out", metavar="FILE", help="Write to this file instead of standard output."
        ),
        click.option(
            "--mail",
            "to",
            metavar="ADDRESS",
            multiple=True,
            help="Send it there by the server of [mail], with its rows as CSV.",
        ),
        click.option(
            "--watch",
            type=click.IntRange(1, 86_400),
            is_flag=False,
            flag_value=_WATCH_SECONDS,
            metavar="[SECONDS]",
            help="Show it again and again, each minute or so often, until Ctrl-C.",
        ),
    )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def deliver(
    said: Globals,
    asked: dict[str, Any],
    tell: Callable[[Way], None],
    mail: Callable[[Sequence[str]], None],
) -> None:
    """Take the options of `way_options` out of what was `asked`, and let the report go that way.

    `tell` shows or writes it once, `mail` sends it. UsageError where options contradict each other.
    """
    given = {name: asked.pop(name) for name in ("format_", "out", "to", "watch")}
    way = Way(
        _format(said, given["format_"], given["out"]), given["out"], given["to"], given["watch"]
    )
    if way.to:
        if said.json or any(given[name] is not None for name in ("format_", "out", "watch")):
            raise UsageError(
                "--mail sends a table and its CSV; leave --format, --out and --watch away"
            )
        mail(way.to)
        number = show.counted(len(way.to), "address", "addresses")
        show.words(said, f"the mail server took it for {number}")
    elif way.watch is None:
        tell(way)
    else:
        _watch(way, lambda: tell(way))


def _format(said: Globals, format_: str | None, out: str | None) -> str:
    if said.json and format_ not in (None, "json"):
        raise UsageError(f"--json and --format {format_} contradict each other; give one")
    chosen = "json" if said.json else format_ or "table"
    if chosen in _BINARY and out in (None, "-") and sys.stdout.isatty():
        name = _BINARY[chosen]
        raise UsageError(f"a terminal cannot show {name}; name a file with --out FILE, or pipe it")
    return chosen


def _watch(way: Way, tell: Callable[[], None]) -> None:
    """Show a table again and again until Ctrl-C, which is how it is meant to end."""
    import threading

    if not way.is_table or way.out is not None:
        raise UsageError("--watch shows a table on the terminal; leave --format and --out away")
    pause = threading.Event()
    clear = "\033[H\033[2J\033[3J" if sys.stdout.isatty() else ""
    try:
        while True:
            sys.stdout.write(clear)
            tell()
            print(f"every {way.watch} s; Ctrl-C ends it", file=sys.stderr, flush=True)
            pause.wait(way.watch)
            if not clear:
                print()
    except KeyboardInterrupt:
        print(file=sys.stderr)
