"""`aggregator doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.cli import show
from aggregator.cli.options import Globals, command
from aggregator.errors import AggregatorError, IntegrityError

if TYPE_CHECKING:
    from aggregator.pipeline.findings import Finding

_EPILOG = """\b
Examples:
  aggregator doctor
  aggregator doctor --json
"""


@command("doctor", epilog=_EPILOG)
def doctor_command(said: Globals) -> None:
    """Check whether this deployment is sound; exit 6 if anything fails.

    Looks at file system, permissions, keys, audit log, tables, clock, jobs, disk and memory, and
    changes nothing.
    """
    from aggregator.pipeline import doctor
    from aggregator.pipeline.findings import State

    findings = doctor.examine(said.located(), said.read)
    findings += _of_jobs(said)
    failed = [finding for finding in findings if finding.state is State.FAIL]
    if said.json:
        rows = [
            {
                "check": finding.check,
                "state": finding.state.value,
                "what": finding.what,
                "remedy": finding.remedy,
            }
            for finding in findings
        ]
        show.as_json({"sound": not failed, "rows": rows})
    else:
        show.table(
            ("state", "check", "what was found", "what to do"),
            [
                (
                    finding.state.value if finding.state is State.OK
                    else finding.state.value.upper(),
                    finding.check, finding.what, finding.remedy,
                )
                for finding in findings
            ],
        )  # fmt: skip
    if failed:
        names = ", ".join(dict.fromkeys(finding.check for finding in failed))
        raise IntegrityError(f"not sound: {names}")


def _of_jobs(said: Globals) -> list[Finding]:
    """Return what the jobs' records say, nothing where the home cannot be opened."""
    from jobs.findings import examine

    try:
        return examine(said.read())
    except AggregatorError:
        return []  # told by the checks of what keeps it from being opened
