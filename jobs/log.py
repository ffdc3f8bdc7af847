"""Log lines of unattended runs on stderr: an event's name and typed fields, in a closed list.

No field holds a user, an address or a rejected value: problems are the lines that the command line
prints. As text for people, or one JSON object a line.
"""

from __future__ import annotations

import contextlib
import enum
import sys
from typing import TYPE_CHECKING, TextIO

from aggregator.model.runs import Trouble

if TYPE_CHECKING:
    import structlog


class Form(enum.StrEnum):
    """How log lines look; `words` is for a person: warnings only, since results are printed."""

    WORDS = "words"
    TEXT = "text"
    JSON = "json"


class Event(enum.StrEnum):
    """Everything that is logged."""

    JOB_ENDED = "job_ended"
    JOB_FAILED = "job_failed"
    JOB_LOCKED = "job_locked"
    JOB_KILLED = "job_killed"
    NOT_RECORDED = "run_not_recorded"
    NOT_TOLD = "operator_not_told"
    TOLD = "operator_told"
    INCIDENT = "incident"
    CLOCK_MOVED = "clock_moved"
    PLANNED = "planned"
    NOT_PLANNED = "not_planned"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DOOR = "door"
    DOOR_ALARM = "door_alarm"
    DASHBOARD = "dashboard"
    DASHBOARD_ALARM = "dashboard_alarm"


_LOUD = frozenset(
    {
        Event.JOB_FAILED, Event.JOB_KILLED, Event.NOT_RECORDED, Event.NOT_TOLD, Event.INCIDENT,
        Event.CLOCK_MOVED, Event.NOT_PLANNED, Event.DOOR_ALARM,
        Event.DASHBOARD_ALARM,
    }
)  # fmt: skip


# What a person at a terminal, or cron's mail, is told besides a command's own words.
_WORDS = frozenset({Event.NOT_RECORDED, Event.NOT_TOLD, Event.INCIDENT})
_LOUD_TROUBLES = frozenset({Trouble.PURGE_LATE.value, Trouble.CLOCK_IN_DOUBT.value})


class Log:
    """Writes events; `quiet` leaves only what somebody must look at."""

    def __init__(
        self, form: Form = Form.TEXT, *, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        """Write to `stream`, stderr by default."""
        self._stream, self._quiet = stream or sys.stderr, quiet
        self._logger = None if form is Form.WORDS else _logger(form, self._stream)

    def event(self, event: Event, **fields: str | float | bool | None) -> None:
        """Write one event with its fields; those that are None are left out.

        A log that takes no line, as on a full disk, stops nothing else.
        """
        with contextlib.suppress(OSError):
            self._write(event, **fields)

    def _write(self, event: Event, **fields: str | float | bool | None) -> None:
        said = {name: value for name, value in fields.items() if value is not None}
        if self._logger is None:
            if event in _WORDS and said.get("kind", Trouble.PURGE_LATE) in _LOUD_TROUBLES:
                told = "; ".join(str(said[name]) for name in _TOLD if name in said)
                print(f"warning: {told}", file=self._stream)
        elif event in _LOUD:
            self._logger.warning(event.value, **said)
        elif not self._quiet:
            self._logger.info(event.value, **said)


_TOLD = ("what", "problem", "remedy")


def _logger(form: Form, stream: TextIO) -> structlog.BoundLogger:
    # Loaded where a log is begun, as no other command needs it.
    import structlog  # noqa: PLC0415

    shown: structlog.types.Processor = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if form is Form.JSON
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0, sort_keys=False)
    )
    stamp = structlog.processors.TimeStamper("%Y-%m-%dT%H:%M:%SZ", utc=True)
    made: structlog.BoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[structlog.processors.add_log_level, stamp, shown],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return made
