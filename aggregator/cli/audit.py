"""`aggregator audit`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, global_options, take_globals
from aggregator.errors import IntegrityError, UsageError

_EPILOG = """\b
Examples:
  aggregator audit log --last 20
  aggregator audit log --kind purge --json
  aggregator audit verify
  aggregator audit checkpoint --out /mnt/elsewhere/usage.ndjson
"""
_LOG_EPILOG = """\b
Examples:
  aggregator audit log --last 20
  aggregator audit log --kind purge --json
"""
_VERIFY_EPILOG = """\b
Examples:
  aggregator audit verify
  aggregator audit verify --json
  aggregator audit verify --checkpoint /mnt/elsewhere/usage.ndjson
"""
_CHECKPOINT_EPILOG = """\b
Examples:
  aggregator audit checkpoint
  aggregator audit checkpoint --out /mnt/elsewhere/usage.ndjson
  aggregator -q audit checkpoint --out - | ssh auditor 'cat >> usage.ndjson'
"""
_DIGEST_CHARACTERS = 12


@click.group("audit", epilog=_EPILOG)
@global_options
@click.pass_context
def audit_command(context: click.Context, /, **values: Any) -> None:
    """Read and verify the audit log: what was done, in a chain that shows changes."""
    context.obj = take_globals(context, values)


@command("log", epilog=_LOG_EPILOG)
@click.option("--kind", metavar="KIND", help="Only entries of this kind, such as purge.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last N of them.")
def log_command(said: Globals, kind: str | None, last: int | None) -> None:
    """Print the entries, oldest first; exit 6 where the chain breaks."""
    from aggregator.pipeline import audit

    entries, broken = audit.read(said.read())
    chosen = [entry for entry in entries if kind is None or entry.kind == kind]
    chosen = chosen[-last:] if last else chosen
    if said.json:
        rows = [
            {
                "n": entry.number,
                "at": entry.at,
                "kind": entry.kind,
                "detail": dict(entry.detail),
                "digest": entry.digest,
            }
            for entry in chosen
        ]
        show.as_json({"rows": rows})
    elif chosen:
        show.table(
            ("n", "at", "kind", "detail"),
            [(entry.number, entry.at, entry.kind, _brief(entry.detail)) for entry in chosen],
            numbers=("n",),
        )
    else:
        show.words(said, "no entry is of that kind" if kind else "the audit log is empty")
    if broken is not None:
        raise IntegrityError(broken)


@command("verify", epilog=_VERIFY_EPILOG)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Checkpoints that were kept elsewhere, compared as well as the home's own.",
)
def verify_command(said: Globals, checkpoint: Path | None) -> None:
    """Compare chain, receipts, checkpoints and closed tables; exit 6 if anything differs."""
    from aggregator.pipeline import audit

    found = audit.verify(said.read(), checkpoint)
    counts = {
        "entries": found.entries, "receipts": found.receipts, "partitions": found.partitions,
        "checkpoints": found.checkpoints,
    }  # fmt: skip
    if said.json:
        rows = [{"check": problem.check, "what": problem.what} for problem in found.problems]
        show.as_json({"verified": not rows, **counts, "rows": rows})
    else:
        for problem in found.problems:
            print(f"{problem.check}: {problem.what}")
        if not found.problems:
            if not found.checkpoints:
                del counts["checkpoints"]
            print("verified: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    if found.problems:
        count = len(found.problems)
        raise IntegrityError(
            f"{count} {'thing does' if count == 1 else 'things do'} not agree with the audit log;"
            " restore what was changed from a backup, or find out who changed it"
        )


@command("checkpoint", epilog=_CHECKPOINT_EPILOG)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Add it to a file off this host as well; - for standard output.",
)
def checkpoint_command(said: Globals, out: Path | None) -> None:
    """Note where the log ends, so that a log cut short or written anew is seen.

    It is kept in the home, in audit/checkpoints.ndjson; only a copy elsewhere also tells of one
    who may change the home.
    """
    from aggregator.pipeline import audit

    to_stdout = out is not None and str(out) == "-"
    if to_stdout and said.json:
        raise UsageError("--out - prints the checkpoint itself; leave --json out")
    with said.write() as house:
        noted = audit.checkpoint(house)
        if out is not None and not to_stdout:
            audit.copy_checkpoint(house, noted.checkpoint, out)
    made = noted.checkpoint
    if to_stdout:
        print(made.line().decode(), end="")
    elif said.json:
        show.as_json({"new": noted.is_new, **made.fields()})
    else:
        what = "noted" if noted.is_new else "was noted already"
        show.words(said, f"entry {made.number:,} {what}: {made.digest}")


audit_command.add_command(log_command)
audit_command.add_command(verify_command)
audit_command.add_command(checkpoint_command)


def _brief(detail: Mapping[str, Any]) -> str:
    """Return an entry's details in one line: digests cut short, tables counted."""
    return ", ".join(f"{name} {_brief_value(value)}" for name, value in detail.items())


def _brief_value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        numbers = all(isinstance(one, int) for one in value.values())
        if numbers:
            return "(" + ", ".join(f"{key} {one:,}" for key, one in value.items()) + ")"
        return str(len(value))
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    return text[:_DIGEST_CHARACTERS] + "…" if len(text) == 64 else text
