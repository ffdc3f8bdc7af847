"""The command `aggregator-agent`: parse, call, print, exit. Standard library only.

Data goes to stdout, words to stderr. No message holds an account, a key or text of a capture.
`openvpn-hook` is looked for before anything else is imported: no packet passes an OpenVPN server
while it waits for that one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from aggregator.agent.openvpn_hook import send_hook
from aggregator.errors import AggregatorError, UsageError

if TYPE_CHECKING:
    import argparse

PROGRAM: Final = "aggregator-agent"
_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`, or the process's arguments; return the exit code."""
    try:
        code = _run(argv)
        sys.stdout.flush()
    except AggregatorError as error:
        _say(f"{PROGRAM}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has left; keep the interpreter from flushing into the pipe at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return AggregatorError.exit_code
    except Exception as error:  # noqa: BLE001 - told, and ends the process
        # The message may hold values, so only the kind and the place are told.
        _say(f"{PROGRAM}: {_unexpected(error)}")
        return AggregatorError.exit_code
    return code


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    match words:
        case ["openvpn-hook", socket, *_] if not socket.startswith("-"):
            send_hook(os.environ, socket)
            return 0
    try:
        asked = _parser().parse_args(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else UsageError.exit_code
    code: int = asked.call(asked)
    return code


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _unexpected(error: BaseException) -> str:
    from aggregator.agent.journal import unexpected  # noqa: PLC0415 - see above

    return unexpected(error)


def _parser() -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 - see above

    import aggregator  # noqa: PLC0415 - see above
    from aggregator.agent.cli_read import add_read  # noqa: PLC0415 - see above
    from aggregator.agent.cli_run import add_run  # noqa: PLC0415 - see above

    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Reads VPN daemons' per-user counters, and reports their daily totals, sealed.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {aggregator.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_read(commands)
    add_run(commands)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
