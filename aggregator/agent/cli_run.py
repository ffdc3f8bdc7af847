"""`aggregator-agent run`, `keys` and `openvpn-hook`: the agent on its VPN server.

What they need is imported when they run: cryptography and TLS would slow down every `--help`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_CONFIG: Final = Path("/etc/aggregator-agent/agent.toml")
_SIGNING_KEY: Final = Path("/etc/aggregator-agent/signing.key")

_SIGNALS: Final = """\
signals:
  TERM, INT   read and send once more, then end; a second one ends at once
  HUP         take maps, certificates and the enrolment anew
"""


def add_run(commands: Commands) -> None:
    """Add the three commands to the parser of the program."""
    run = commands.add_parser(
        "run",
        allow_abbrev=False,
        help="read sources and report to the door, until ended",
        description="Reads every source at each interval and reports its totals, sealed. Counters "
        "stay in memory, and the spool on tmpfs. Exit code 3 if the configuration is wrong.",
        epilog=_SIGNALS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "--config", type=Path, default=_CONFIG, metavar="FILE", help=f"default: {_CONFIG}"
    )
    run.add_argument(
        "--check", action="store_true", help="check the configuration, and do nothing else"
    )
    run.set_defaults(call=_run)
    keys = commands.add_parser(
        "keys",
        allow_abbrev=False,
        help="make the agent's own signing key",
        description="Writes a private Ed25519 key for this agent, which never leaves the machine, "
        "and prints the public half for `aggregator agent enrol --public-key`.",
    )
    keys.add_argument(
        "--out",
        type=Path,
        default=_SIGNING_KEY,
        metavar="FILE",
        help=f"the new file; what is there is never overwritten (default: {_SIGNING_KEY})",
    )
    keys.set_defaults(call=_keys)
    # `cli` runs this one itself, before there is a parser: this is for its help.
    hook = commands.add_parser(
        "openvpn-hook",
        allow_abbrev=False,
        help="tell a running agent of a session's end: OpenVPN's client-disconnect",
        description="Called by OpenVPN as `client-disconnect`: hands the byte counts at the end "
        "of a session to the agent that listens at SOCKET. Never fails, and waits for nobody.",
    )
    hook.add_argument("socket", metavar="SOCKET", help="the agent's socket for this server")


def _run(asked: argparse.Namespace) -> int:
    from aggregator.agent import runner  # noqa: PLC0415 - see above

    if asked.check:
        config, _enrolment = runner.load(asked.config)
        count = len(config.sources)
        sources = "1 source" if count == 1 else f"{count} sources"
        print(f"{asked.config}: good, {sources}", file=sys.stderr)
    else:
        runner.run(asked.config)
    return 0


def _keys(asked: argparse.Namespace) -> int:
    from aggregator.agent.enrolment import make_keys  # noqa: PLC0415 - see above

    print(make_keys(asked.out))
    return 0
