"""`aggregator export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, confirm_clock_option
from aggregator.errors import UsageError
from aggregator.model.days import is_month

if TYPE_CHECKING:
    from aggregator.pipeline.export import Prepared

_EPILOG = """\b
Examples:
  aggregator export --dry-run
  aggregator export --month 2026-10 --out /srv/www/transparency
  cd /srv/www/transparency/usage-release-2026-10 && sha256sum -c SHA256SUMS
\b
It is made once: asked for again, it is the same to the byte, or refused (exit 5).
"""


@command("export", epilog=_EPILOG)
@click.option("--month", metavar="YYYY-MM", help="The month; else the last one that was purged.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the folder usage-release-YYYY-MM in here.",
)
@click.option("--dry-run", is_flag=True, help="Show the rows and what is folded; write nothing.")
@confirm_clock_option
def export_command(
    said: Globals, month: str | None, out: Path | None, dry_run: bool, confirm_clock: bool
) -> None:
    """Write the public release of a purged month: its numbers, method, checksums.

    At least 50 distinct users are behind every row. With it come a data dictionary, the policy, and
    a text for a transparency report with the receipt of what was destroyed.
    """
    from aggregator.pipeline import export

    if month is not None and not is_month(month):
        raise UsageError("--month takes a month such as 2026-10")
    if dry_run:
        house = said.read()
        prepared = export.prepare(house, month or export.last_month(house))
        _print(said, prepared, {"dry_run": True})
        state = "is published already, as it is here" if prepared.published else "is not published"
        show.words(said, f"the release of {prepared.month} {state}; nothing was written")
        return
    if out is None:
        raise UsageError("--out names the folder for the release; --dry-run shows it without one")
    try:
        with said.write(confirm_clock=confirm_clock) as house:
            made = export.publish(house, month or export.last_month(house), out)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UsageError(f"--out cannot be written: {error.strerror}") from None
    fields = {"dry_run": False, "path": str(made.path), "written": made.is_new}
    _print(said, made.prepared, fields)
    state = "written to" if made.is_new else "is already in"
    show.words(said, f"the release of {made.prepared.month} {state} {made.path}")


def _print(said: Globals, prepared: Prepared, fields: dict[str, Any]) -> None:
    """Print the rows; with `--json` also what a dry run is asked for: which row is in which."""
    release = prepared.release
    folded = {name: cell for name, cell in sorted(release.folding.items()) if name != cell}
    if said.json:
        show.as_json(
            {
                "month": prepared.month,
                "release": prepared.digest,
                "k": release.k,
                "withheld": release.withheld,
                "connections_withheld": release.connections_withheld,
                **fields,
                "folded": folded,
                "rows": prepared.rows(),
            }
        )
        return
    if release.withheld is not None:
        print(f"{prepared.month}: withheld, {release.withheld.replace('_', ' ')}; k = {release.k}")
        return
    print(f"{prepared.month}: {show.counted(len(release.cells), 'row')}, k = {release.k}")
    names = ("location", "users", "bytes", "attempts", "successes")
    rows = [[_shown(row[name]) for name in names] for row in prepared.rows()]
    show.table(names, rows, numbers=names[1:])
    for cell in sorted(set(folded.values())):
        members = ", ".join(name for name, target in folded.items() if target == cell)
        print(f"in {cell}: {members}")
    if release.connections_withheld:
        print(f"connections are told only where {release.k} users can be shown behind them")


def _shown(value: int | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else value
