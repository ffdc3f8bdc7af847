"""`aggregator serve`."""

from __future__ import annotations

import click

from aggregator.cli.options import Globals, command, wall_clock

_EPILOG = """\b
Signals:
  TERM, INT   answer what was begun, for at most 30 s, then end
  HUP         take certificate, private_key and client_ca anew
\b
Examples:
  aggregator --home /srv/usage serve
  aggregator --home /srv/usage serve --plain
"""


@command("serve", epilog=_EPILOG)
@click.option(
    "--plain",
    is_flag=True,
    help="Speak HTTP on a loopback address, to a proxy that ends TLS.",
)
def serve_command(said: Globals, plain: bool) -> None:
    """Open the HTTP door for agents; it runs until it is ended.

    [door] in config.toml says where it listens and which certificate it has. /metrics and /healthz
    tell how it is; /metrics answers this machine only.
    """
    from aggregator.door.serve import serve

    serve(said.located(), said.now, wall_clock, plain=plain, quiet=said.quiet)
