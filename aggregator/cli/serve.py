"""`aggregator serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aggregator.cli.options import Globals, command, log_option, wall_clock
from aggregator.errors import UsageError

if TYPE_CHECKING:
    from aggregator.door.journal import Journal

_EPILOG = """\b
Signals:
  TERM, INT   answer what was begun, for at most 30 s (the dashboard 2 s), then end
  HUP         take certificate, private_key and client_ca anew
\b
Examples:
  aggregator --home /srv/usage serve
  aggregator --home /srv/usage serve --plain --log json
  aggregator --home /srv/usage serve --dashboard
  ssh -L 8480:127.0.0.1:8480 HOST     # to see that host's dashboard here
"""


@command("serve", epilog=_EPILOG)
@click.option(
    "--plain",
    is_flag=True,
    help="Speak HTTP on a loopback address, to a proxy that ends TLS.",
)
@click.option(
    "--dashboard",
    is_flag=True,
    help="Show the pages of `report site` to a browser on this machine instead.",
)
@log_option
def serve_command(said: Globals, plain: bool, dashboard: bool, log: str | None) -> None:
    """Open the HTTP door for agents; it runs until it is ended.

    [door] in config.toml says where it listens and which certificate it has. /metrics and /healthz
    tell how it is; /metrics answers this machine only.

    With --dashboard it is not the door that opens but the dashboard: the pages of the site as the
    home is now, on a loopback address, behind a login. [dashboard] in config.toml says where it
    listens and gives its password; without one a code is shown on the terminal.
    """
    if dashboard and plain:
        raise UsageError("--plain is of the door; the dashboard speaks HTTP on this machine anyway")
    if dashboard:
        from aggregator.cli.dashboard import run_dashboard

        run_dashboard(said, log)
        return
    from aggregator.door.serve import serve

    serve(said.located(), said.now, wall_clock, journal_of(said, log), plain=plain)


def journal_of(said: Globals, log: str | None, *, dashboard: bool = False) -> Journal:
    """Return what says the words of a server: plain lines, or events of the common log."""
    from aggregator.door.journal import Journal
    from jobs.log import Event, Form, Log

    form = Form(log or "words")
    if form is Form.WORDS:
        return Journal(quiet=said.quiet)
    events = Log(form, quiet=said.quiet)
    told, alarm = (
        (Event.DASHBOARD, Event.DASHBOARD_ALARM) if dashboard else (Event.DOOR, Event.DOOR_ALARM)
    )
    return Journal(
        quiet=said.quiet,
        say=lambda words: events.event(told, words=words),
        warn=lambda words: events.event(alarm, words=words),
    )
