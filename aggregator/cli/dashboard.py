"""`aggregator serve --dashboard`."""

from __future__ import annotations

import sys
import time

import click

from aggregator.cli.options import Globals, wall_clock


def run_dashboard(said: Globals, log: str | None) -> None:
    """Show the pages of the site on this machine, behind a login, until it is ended."""
    from aggregator.cli.serve import journal_of
    from aggregator.dashboard.serve import serve

    # A code is for who started it at a terminal; in a log it would stay.
    journal = journal_of(said, log, dashboard=True)
    show = _show_code if sys.stderr.isatty() else None
    serve(said.located(), said.now, wall_clock, _ticks, journal, show)


def _show_code(url: str, code: str) -> None:
    click.echo(f"Log in at {url} with the code {code}, good until this ends.", err=True)


def _ticks() -> float:
    # Goes on while the machine sleeps, so that a session does not outlive the night.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
