"""`aggregator ingest`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option
from aggregator.cli.progress import byte_bar
from aggregator.errors import BadInputError

if TYPE_CHECKING:
    from aggregator.pipeline.ingest import Ingested

_EPILOG = """\b
Examples:
  aggregator ingest counters.ndjson flags.ndjson.gz
  zstdcat *.zst | aggregator ingest -
  aggregator ingest --strict --json counters.ndjson
  aggregator ingest
"""


@command("ingest", epilog=_EPILOG)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--strict", is_flag=True, help="Exit 4 if any record was rejected.")
@confirm_clock_option
def ingest_command(
    said: Globals, files: tuple[str, ...], strict: bool, confirm_clock: bool
) -> None:
    """Take in records: NDJSON files (plain, gzip or zstd), "-" for standard input.

    Without files, the sealed batches that agents left in the inbox.

    Good records are accepted, bad ones counted by reason; the same file twice changes nothing.
    """
    from aggregator.pipeline.drain import drain_inbox
    from aggregator.pipeline.ingest import ingest

    with said.write(confirm_clock=confirm_clock) as house:
        if files:
            with byte_bar(said, "reading", _total_size(files)) as progress:
                outcome = ingest(house, files, progress)
        else:
            outcome = drain_inbox(house)
        strangers = 0 if files else house.inbox.others()
    if not strangers or outcome.batches or said.json:
        _tell(said, outcome)
    for line in outcome.unreadable[:-1]:
        print(f"error: {line}", file=sys.stderr)
    if outcome.unreadable:
        raise BadInputError(outcome.unreadable[-1])
    if outcome.refused:
        refused = show.counted(sum(outcome.refused.values()), "batch", "batches")
        raise BadInputError(
            f"{refused} refused and removed: {_words(outcome.refused)}; see: aggregator agent list"
        )
    if strangers:
        lying = show.counted(strangers, "file that is no batch", "files that are no batches")
        raise BadInputError(f"the inbox holds {lying}; name plain files on the command line")
    if strict and outcome.rejected:
        raise BadInputError(
            f"{outcome.rejected:,} records were rejected; the good ones were accepted"
        )


def _tell(said: Globals, outcome: Ingested) -> None:
    if said.json:
        show.as_json(
            {
                "accepted": outcome.accepted,
                "rejected": outcome.rejected,
                "reasons": dict(outcome.reasons),
                "files": outcome.files,
                "unreadable": len(outcome.unreadable),
                "batches": outcome.batches,
                "refused": dict(outcome.refused),
                "waiting": dict(outcome.waiting),
                "days": list(outcome.days),
            }
        )
        return
    if outcome.waiting:
        show.words(said, f"batches that wait in the inbox: {_words(outcome.waiting)}")
    if not (outcome.files or outcome.batches or outcome.refused):
        show.words(said, "the inbox holds nothing to take in")
        return
    print(f"accepted {outcome.accepted:,}, rejected {outcome.rejected:,}")
    if outcome.reasons:
        rows = [(reason, f"{count:,}") for reason, count in outcome.reasons.items()]
        show.table(("reason", "records"), rows, numbers=("records",))


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


def _total_size(files: tuple[str, ...]) -> int:
    sizes = [os.stat(name).st_size for name in files if name != "-" and os.path.exists(name)]
    return sum(sizes)
