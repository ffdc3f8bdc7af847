"""`aggregator-agent read`: what captures of a daemon say.

Data goes to stdout, words to stderr. No message holds an account, a key or text of a capture.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import secrets
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aggregator.agent.accounts import AccountMap, name_accounts, parse_accounts
from aggregator.agent.collectors import SOURCES, Source
from aggregator.agent.outgoing import is_location, line
from aggregator.agent.readings import Capture, Drop
from aggregator.agent.totals import RunningTotals
from aggregator.errors import BadInputError, UsageError
from aggregator.model.days import parse_day
from aggregator.model.records import SCHEMAS, USAGE_COUNTER, UsageCounter

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_PROGRAM: Final = "aggregator-agent"

_EXAMPLES: Final = """\
examples:
  wg show wg0 transfer | aggregator-agent read --source wireguard -
  aggregator-agent read --source openvpn /run/openvpn/status.log
  aggregator-agent read --source wireguard --records --location us-nyc \\
      --day 2026-10-05 --accounts accounts.csv 1200.txt 1201.txt 1202.txt
"""


def add_read(commands: Commands) -> None:
    """Add the command to the parser of the program."""
    command = commands.add_parser(
        "read",
        allow_abbrev=False,
        help="show what captures of a daemon say",
        description="Prints one JSON object an account: account, sessions, bytes (both directions "
        "added, as the daemon counts). Words go to stderr. Exit code 4 if a capture is unreadable.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--source",
        required=True,
        choices=sorted(SOURCES),
        help="the daemon",
    )
    command.add_argument(
        "--accounts",
        metavar="MAP.csv",
        help="two columns, key and account: the daemon's names (WireGuard: public keys) on the "
        "left, accounts on the right",
    )
    command.add_argument("files", nargs="+", metavar="FILE", help="a capture; - is standard input")
    records = command.add_argument_group("records to send")
    records.add_argument(
        "--records",
        action="store_true",
        help="take the FILEs as successive captures of one source, oldest first, and print their "
        "running totals as usage_counter.1",
    )
    records.add_argument("--location", type=_location, metavar="us-nyc", help="the VPN location")
    records.add_argument("--day", type=_day, metavar="YYYY-MM-DD", help="the captures' UTC day")
    records.add_argument("--epoch", type=_epoch, metavar="HEX", help="default: random")
    command.set_defaults(call=read)


def read(asked: argparse.Namespace) -> int:
    """Print what the captures say; return the exit code."""
    source = SOURCES[asked.source]
    _check_options(asked, source)
    accounts = None if asked.accounts is None else _accounts(asked.accounts)
    totals = RunningTotals(source)
    readable = 0
    for number, path in enumerate(asked.files, start=1):
        try:
            capture = _capture(path, source, accounts)
            if asked.records:
                totals = totals.after(capture, asked.day)
        except BadInputError as error:
            _say(f"{_PROGRAM}: capture {number}: {path}: {error}")
            continue
        readable += 1
        _say(f"capture {number}: {_summary(capture)}")
        if not asked.records:
            _print_accounts(capture, number if len(asked.files) > 1 else None, accounts is not None)
    if asked.records:
        _print_records(totals.records(asked.location, asked.epoch or secrets.token_hex(8)))
        if readable == 1:
            _say("one capture is only the baseline; totals need a second one")
    return 0 if readable == len(asked.files) else BadInputError.exit_code


def _check_options(asked: argparse.Namespace, source: Source) -> None:
    """Raise UsageError if options are missing, or of no use, beside each other."""
    if asked.records:
        if asked.location is None or asked.day is None:
            raise UsageError("--records needs --location and --day")
        if asked.accounts is None and not source.names_accounts:
            raise UsageError("--records needs --accounts here: the daemon's keys are never sent")
    elif any(given is not None for given in (asked.location, asked.day, asked.epoch)):
        raise UsageError("--location, --day and --epoch need --records")
    if asked.files.count("-") + (asked.accounts == "-") > 1:
        raise UsageError("standard input can be read only once")


def _accounts(path: str) -> AccountMap:
    try:
        return parse_accounts(_text(path))
    except BadInputError as error:
        raise BadInputError(f"--accounts {path}: {error}") from None


def _capture(path: str, source: Source, accounts: AccountMap | None) -> Capture:
    capture = source.parse(_text(path))
    return capture if accounts is None else name_accounts(capture, accounts)


def _text(path: str) -> str:
    """Return the text of a file, or of standard input for `-`.

    What is no UTF-8 becomes surrogates, which no account may hold: such rows are dropped, not
    the file.
    """
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror or type(error).__name__}") from None
    return content.decode("utf-8", errors="surrogateescape")


def _summary(capture: Capture) -> str:
    dropped = _words({reason: capture.dropped.get(reason, 0) for reason in Drop})
    return f"{len(capture.readings)} readings, dropped {dropped or 'none'}"


def _words(counts: Mapping[Drop, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)


def _print_accounts(capture: Capture, number: int | None, mapped: bool) -> None:
    """Print one object an account; the daemon's own names if there is no map."""
    counts: defaultdict[str, list[int]] = defaultdict(list)
    for reading in capture.readings:
        name = reading.account if mapped else reading.name
        if name is not None:
            counts[name].append(reading.bytes)
    for account, found in sorted(counts.items()):
        row = {} if number is None else {"capture": number}
        _print_json({**row, "account": account, "sessions": len(found), "bytes": sum(found)})


def _print_records(records: Sequence[UsageCounter]) -> None:
    for record in records:
        print(line(record))


def _print_json(row: Mapping[str, str | int]) -> None:
    # ASCII, so that the output does not depend on the locale.
    print(json.dumps(row, separators=(",", ":")))


def _location(word: str) -> str:
    if not is_location(word):
        raise argparse.ArgumentTypeError("no location; one is written like us-nyc")
    return word


def _day(word: str) -> dt.date:
    day = parse_day(word)
    if day is None:
        raise argparse.ArgumentTypeError("no day; one is written like 2026-10-05")
    return day


def _epoch(word: str) -> str:
    pattern = SCHEMAS[USAGE_COUNTER].field("epoch").pattern
    if pattern is None or pattern.fullmatch(word) is None:
        raise argparse.ArgumentTypeError("no epoch; one is 16 lower-case hex digits")
    return word


def _say(words: str) -> None:
    print(words, file=sys.stderr)
