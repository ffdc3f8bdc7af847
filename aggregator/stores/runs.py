"""The runs of the jobs: one small file a job, and one of the troubles found.

They are there to be shown. Nothing that is due is decided by them, so a damaged file counts as
missing and the next run replaces it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aggregator.errors import LockedError
from aggregator.model.days import instant, parse_instant
from aggregator.model.runs import Known, Run
from aggregator.stores import atomic, lock

_LOCK_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.02


class RunStore:
    """`runs/` of one home."""

    def __init__(self, folder: Path) -> None:
        """Look after the files in `folder`, which need not be there yet."""
        self.folder = folder

    def load(self, job: str) -> Run | None:
        """Return the last run of `job`, None if none is known."""
        fields = _read(self._path(job))
        try:
            return _run(fields) if fields else None
        except (KeyError, TypeError, ValueError):
            return None

    def runs(self) -> tuple[Run, ...]:
        """Return the last run of every job that ever ran here, by name."""
        names = sorted(path.stem for path in self.folder.glob("*.json") if path.name != _INCIDENTS)
        return tuple(run for name in names if (run := self.load(name)) is not None)

    def save(self, run: Run) -> Run:
        """Keep `run` as its job's last, with what is known of those before; return it so.

        LockedError if another run is at it for ten seconds.
        """
        atomic.make_folder(self.folder)
        with self._locked():
            atomic.sweep(self.folder)
            settled = run.after(self.load(run.job))
            fields = dataclasses.asdict(settled)
            written = {name: _text(value) for name, value in fields.items()}
            atomic.write(self._path(run.job), _json(written))
            return settled

    def known(self) -> tuple[dt.datetime | None, dict[str, Known]]:
        """Return since when this home is watched, and what is known of which incident."""
        fields = _read(self.folder / _INCIDENTS)
        try:
            since = parse_instant(fields["since"])
            known = {
                key: Known(
                    one["what"],
                    parse_instant(one["found_at"]),
                    _moment(one["told_at"]),
                    bool(one["is_over"]),
                )
                for key, one in fields["incidents"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            return None, {}
        return since, known

    def save_known(self, since: dt.datetime, known: Mapping[str, Known]) -> None:
        """Keep what is known of incidents; LockedError as by `save`."""
        rows = {
            key: {name: _text(value) for name, value in dataclasses.asdict(one).items()}
            for key, one in known.items()
        }
        atomic.make_folder(self.folder)
        with self._locked():
            fields = {"since": instant(since), "incidents": rows}
            atomic.write(self.folder / _INCIDENTS, _json(fields))

    @contextlib.contextmanager
    def scheduling(self) -> Iterator[None]:
        """Hold the right to start jobs at their times; LockedError if another scheduler does."""
        atomic.make_folder(self.folder)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock.hold(self.folder / ".schedule.lock"))
            except LockedError:
                raise LockedError("another aggregator schedule works on this home") from None
            yield

    @contextlib.contextmanager
    def telling(self) -> Iterator[bool]:
        """Hold the right to tell the operator; False if another run tells just now."""
        atomic.make_folder(self.folder)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock.hold(self.folder / ".telling.lock"))
            except LockedError:
                yield False
            else:
                yield True

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's lock, for what two jobs that end at once must not write together."""
        atomic.make_folder(self.folder)
        with self._locked():
            yield

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock: two jobs may end in the same moment, so wait for the other."""
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(lock.hold(self.folder / ".lock"))
                except LockedError:
                    if time.monotonic() > until:
                        raise
                else:
                    yield
                    return
            time.sleep(_PAUSE_SECONDS)

    def _path(self, job: str) -> Path:
        return self.folder / f"{job}.json"


_INCIDENTS: Final = "incidents.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError):  # missing, damaged, or another user's
        return {}
    return fields if isinstance(fields, dict) else {}


def _run(fields: Mapping[str, Any]) -> Run:
    return Run(
        job=str(fields["job"]),
        began_at=parse_instant(fields["began_at"]),
        seconds=float(fields["seconds"]),
        exit_code=int(fields["exit_code"]),
        problem=None if fields["problem"] is None else str(fields["problem"]),
        succeeded_at=_moment(fields["succeeded_at"]),
        failures=int(fields["failures"]),
        failing_since=_moment(fields["failing_since"]),
    )


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else parse_instant(text)


def _text(value: object) -> object:
    return instant(value) if isinstance(value, dt.datetime) else value


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"
