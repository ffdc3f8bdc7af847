"""`aggregator serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aggregator.cli.options import Globals, command, log_option, wall_clock

if TYPE_CHECKING:
    from aggregator.door.journal import Journal

_EPILOG = """\b
Signals:
  TERM, INT   answer what was begun, for at most 30 s, then end
  HUP         take certificate, private_key and client_ca anew
\b
Examples:
  aggregator --home /srv/usage serve
  aggregator --home /srv/usage serve --plain --log json
"""


@command("serve", epilog=_EPILOG)
@click.option(
    "--plain",
    is_flag=True,
    help="Speak HTTP on a loopback address, to a proxy that ends TLS.",
)
@log_option
def serve_command(said: Globals, plain: bool, log: str | None) -> None:
    """Open the HTTP door for agents; it runs until it is ended.

    [door] in config.toml says where it listens and which certificate it has. /metrics and /healthz
    tell how it is; /metrics answers this machine only.
    """
    from aggregator.door.serve import serve

    serve(said.located(), said.now, wall_clock, _journal(said, log), plain=plain)


def _journal(said: Globals, log: str | None) -> Journal:
    """Return what says the door's words: plain lines, or events of the common log."""
    from aggregator.door.journal import Journal
    from jobs.log import Event, Form, Log

    form = Form(log or "words")
    if form is Form.WORDS:
        return Journal(quiet=said.quiet)
    events = Log(form, quiet=said.quiet)
    return Journal(
        quiet=said.quiet,
        say=lambda words: events.event(Event.DOOR, words=words),
        warn=lambda words: events.event(Event.DOOR_ALARM, words=words),
    )
