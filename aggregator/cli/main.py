"""The command `aggregator`: its list of commands, and what becomes of errors."""

from __future__ import annotations

import importlib
import os
import resource
import sys
from collections.abc import Sequence
from typing import Any

import click

from aggregator import __version__
from aggregator.cli.options import global_options, take_globals
from aggregator.errors import explain

# name: (module, what it does); a module is imported only when its command runs.
_COMMANDS = {
    "init": ("home", "Make a home: configuration, policy profile, folders."),
    "demo": ("demo", "Show the whole way, from daemons' captures through a purge."),
    "ingest": ("ingest", "Take in records: files named, else the inbox."),
    "rollup": ("rollup", "Close every day that is due and write its tables."),
    "purge": ("purge", "Destroy the raw counters of every month that is over."),
    "report": ("report", "Read the tables: usage, connections, apps, fair use, rejections."),
    "export": ("export", "Write the public release of a purged month."),
    "fairuse": ("fairuse", "Who exceeds a fair-use rule, and the mails that tell of it."),
    "serve": ("serve", "Open the HTTP door for agents."),
    "agent": ("agent", "Enrol agents, list, rotate and revoke them."),
    "keys": ("keys", "Announce the month keys that agents seal to."),
    "status": ("status", "One screen: what is due, what ran, when the next purge is."),
    "doctor": ("doctor", "Check whether this deployment is sound."),
    "config": ("config", "Check the settings: each mistake with its line and its remedy."),
    "migrate": ("migrate", "Bring a home of an older release to this one's format, or back."),
    "audit": ("audit", "Read and verify the audit log."),
    "run": ("run", "Run one job once, for cron and systemd."),
    "schedule": ("schedule", "Run every job at its time; the daemon."),
    "install-units": ("install_units", "Write the systemd units, or the lines for cron."),
    "completion": ("completion", "Print what completes commands in a shell."),
}

_EPILOG = """\b
Examples:
  aggregator --home /srv/usage init
  aggregator --home /srv/usage ingest counters.ndjson.zst
  aggregator --home /srv/usage rollup
  aggregator --home /srv/usage report usage --from 2026-10-01 --by month,location
  aggregator --home /srv/usage purge --dry-run

\b
Exit codes: 0 done, 1 unexpected, 2 usage, 3 configuration, 4 bad input,
5 refused by policy, 6 integrity, 7 mail not delivered, 75 locked by another run.
"""


class _Commands(click.Group):
    """A group that imports a command's module only when that command is asked for."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"aggregator.cli.{_COMMANDS[name][0]}")
        found: click.Command = getattr(module, f"{name.replace('-', '_')}_command")
        return found

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.command(cls=_Commands, epilog=_EPILOG, context_settings={"max_content_width": 96})
@global_options
@click.version_option(__version__, prog_name="aggregator")
@click.pass_context
def cli(context: click.Context, /, **values: Any) -> None:
    """A minimal-telemetry usage aggregator for VPN providers.

    Rolls per-user running totals up into day tables without a person in them, and destroys the
    raw counters at month end, with a receipt.
    """
    context.obj = take_globals(context, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    # A core file would hold keys and accounts.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        # What a command ends with by Exit comes back as a result.
        code = cli.main(args=arguments, prog_name="aggregator", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as request:
        return int(request.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _fail("interrupted; nothing acknowledged is lost, run it again", 130)
    except BrokenPipeError:
        # The reader has gone; keep the interpreter from complaining when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - told by kind and place, or by our own words
        return _fail(*explain(error))
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
