"""Progress on stderr: bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aggregator.cli.options import Globals
    from aggregator.pipeline.deployment import Progress

_WIDTH = 24


def shown(said: Globals) -> Progress:
    """Return what tells a stage's progress: one line that rewrites itself, or nothing."""
    from aggregator.pipeline.deployment import quiet

    if said.quiet or not sys.stderr.isatty():
        return quiet

    def show(what: str, done: int, total: int) -> None:
        filled = _WIDTH * done // max(total, 1)
        bar = "━" * filled + "╌" * (_WIDTH - filled)
        end = "\r\033[K" if done >= total else ""
        print(f"\r\033[K{what} {bar} {done}/{total}{end}", end="", file=sys.stderr, flush=True)

    return show


@contextlib.contextmanager
def byte_bar(said: Globals, what: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """Give what tells how many bytes were read, as a bar on a terminal; None elsewhere."""
    if said.quiet or not sys.stderr.isatty() or not total:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, advance=count)
