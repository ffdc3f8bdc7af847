"""`aggregator ingest`."""

from __future__ import annotations

import os
import sys

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option
from aggregator.cli.progress import byte_bar
from aggregator.errors import BadInputError

_EPILOG = """\b
Examples:
  aggregator ingest counters.ndjson flags.ndjson.gz
  zstdcat *.zst | aggregator ingest -
  aggregator ingest --strict --json counters.ndjson
"""


@command("ingest", epilog=_EPILOG)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--strict", is_flag=True, help="Exit 4 if any record was rejected.")
@confirm_clock_option
def ingest_command(
    said: Globals, files: tuple[str, ...], strict: bool, confirm_clock: bool
) -> None:
    """Take in records: NDJSON files (plain, gzip or zstd), "-" for standard input.

    Good records are accepted, bad ones counted by reason; the same file twice changes nothing.
    """
    from aggregator.pipeline.ingest import ingest

    with said.write(confirm_clock=confirm_clock) as house:
        if not files:
            _nothing(said, house.home.folder("inbox"))
            return
        with byte_bar(said, "reading", _total_size(files)) as progress:
            outcome = ingest(house, files, progress)
    if said.json:
        show.as_json(
            {
                "accepted": outcome.accepted,
                "rejected": outcome.rejected,
                "reasons": outcome.reasons,
                "files": outcome.files,
                "unreadable": len(outcome.unreadable),
                "days": list(outcome.days),
            }
        )
    else:
        print(f"accepted {outcome.accepted:,}, rejected {outcome.rejected:,}")
        if outcome.reasons:
            rows = [(reason, f"{count:,}") for reason, count in outcome.reasons.items()]
            show.table(("reason", "records"), rows, numbers=("records",))
    for line in outcome.unreadable[:-1]:
        print(f"error: {line}", file=sys.stderr)
    if outcome.unreadable:
        raise BadInputError(outcome.unreadable[-1])
    if strict and outcome.rejected:
        raise BadInputError(
            f"{outcome.rejected:,} records were rejected; the good ones were accepted"
        )


def _nothing(said: Globals, inbox: os.PathLike[str]) -> None:
    waiting = len(os.listdir(inbox))
    if waiting:
        raise BadInputError(f"the inbox holds {waiting} files; this version takes named files only")
    if said.json:
        nothing = {"accepted": 0, "rejected": 0, "reasons": {}, "files": 0, "unreadable": 0}
        show.as_json({**nothing, "days": []})
    else:
        show.words(said, "the inbox is empty; name files to take in")


def _total_size(files: tuple[str, ...]) -> int:
    sizes = [os.stat(name).st_size for name in files if name != "-" and os.path.exists(name)]
    return sum(sizes)
