"""Ask the operator's directory: who of the accounts is wanted, and what it says of them (CT-3).

Rows are streamed: an account becomes a pseudonym in memory, and is dropped unless it is one of
those wanted. Nothing is written. Whatever cannot be trusted fails the whole look-up: a directory
that was read in part would lift the exemptions and objections in the part that was not.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from typing import Final, NamedTuple

from aggregator.directory import command, csv_file, http, sql
from aggregator.directory.entries import Batch, Row, entry, merged, verify
from aggregator.directory.errors import BrokenError, DirectoryError, Trouble, told
from aggregator.directory.watch import Watch
from aggregator.errors import ConfigError
from aggregator.model.settings import DirectoryKind, DirectorySettings, Entry

__all__ = ["SOURCES", "DirectoryError", "check", "look_up"]

Source = Callable[[DirectorySettings, Watch, int], Generator[Batch]]

SOURCES: Final[Mapping[DirectoryKind, Source]] = {
    DirectoryKind.CSV: csv_file.batches,
    DirectoryKind.SQL: sql.batches,
    DirectoryKind.HTTP: http.batches,
    DirectoryKind.COMMAND: command.batches,
}

_BATCH_ROWS: Final = 2_000
_BATCHES_AHEAD: Final = 4
# A source that was ended is waited for so long, to leave nothing behind; it may be deaf.
_FAREWELL_SECONDS: Final = 1.0


class _End(NamedTuple):
    """How a source ended: well, or with what; texts only, so that no row hangs on to it."""

    trouble: Trouble | None = None
    n: int | str = ""
    config: str | None = None


_Queue = queue.Queue[Batch | _End]


def look_up(
    settings: DirectorySettings,
    pseudonym_of: Callable[[bytes], int],
    wanted: Collection[int],
    needed: Collection[str] = (),
) -> Mapping[int, Entry]:
    """Return what the directory says of the accounts whose pseudonyms are `wanted`.

    `pseudonym_of` is given the UTF-8 bytes of each account. A pseudonym that the directory does
    not know is not in the result. Rows of one account that contradict each other protect it: a
    flag set in one is set; all else is of the last one. `needed` are columns that some row must
    have. DirectoryError, of one line without any
    value, if the whole did not come within `timeout_seconds` or cannot be trusted; ConfigError if
    a setting or SQLAlchemy is missing.
    """
    if not wanted:
        return {}
    found: dict[int, Entry] = {}
    end = _gather(settings, pseudonym_of, frozenset(wanted), found, frozenset(needed))
    _raise(settings, end, found)
    return found


def check(settings: DirectorySettings) -> tuple[str, ...]:
    """Return the columns that the directory has, of those that it may have, from its first row.

    Nothing of the row is told. DirectoryError and ConfigError as `look_up` has them; rows after
    the first are not asked for.
    """
    columns: list[str] = []
    end = _first(settings, columns)
    _raise(settings, end, {})
    return tuple(columns)


def _raise(settings: DirectorySettings, end: _End, found: dict[int, Entry]) -> None:
    """Raise what `end` tells of, with nothing in any frame that an account could be read from."""
    if end.trouble is None and end.config is None:
        return
    found.clear()
    if end.config is not None:
        raise ConfigError(end.config)
    assert end.trouble is not None
    raise told(settings.kind, end.trouble, end.n)


def _gather(
    settings: DirectorySettings,
    pseudonym_of: Callable[[bytes], int],
    wanted: frozenset[int],
    found: dict[int, Entry],
    needed: frozenset[str],
) -> _End:
    """Put the wanted entries into `found`; return how it ended."""
    rows, missing = 0, set(needed)
    with _asked(settings, _BATCH_ROWS) as parts:
        for part in parts:
            if isinstance(part, _End):
                well = part.trouble is None and part.config is None
                if well and rows and missing:
                    return _End(Trouble.LACKS_COLUMN, min(missing))
                return _End(Trouble.NO_ACCOUNTS) if well and not rows else part
            rows += len(part.rows)
            missing.difference_update(part.columns)
            for row in part.rows:
                pseudonym = pseudonym_of(row[0].encode())
                if pseudonym in wanted:
                    _put(found, pseudonym, row)
    return _End(Trouble.TIMED_OUT, settings.timeout_seconds)


def _put(found: dict[int, Entry], pseudonym: int, row: Row) -> None:
    earlier, later = found.get(pseudonym), entry(row)
    found[pseudonym] = later if earlier is None else merged(earlier, later)


def _first(settings: DirectorySettings, columns: list[str]) -> _End:
    """Put the columns of the first row into `columns`; return how it ended."""
    with _asked(settings, 1) as parts:
        for part in parts:
            if isinstance(part, _End):
                well = part.trouble is None and part.config is None
                return _End(Trouble.NO_ACCOUNTS) if well else part
            if part.rows:
                columns += part.columns
                return _End()
    return _End(Trouble.TIMED_OUT, settings.timeout_seconds)


@contextlib.contextmanager
def _asked(settings: DirectorySettings, size: int) -> Iterator[Iterator[Batch | _End]]:
    """Yield the batches of the source and then its end; fewer if the deadline comes first.

    The source reads in a thread, since there is no other way to give up what hangs in a library.
    It is ended when this is left, and only waited for a moment: a thread that is deaf does not
    keep the process from ending, and closes what it holds once it wakes.
    """
    watch = Watch(settings.timeout_seconds)
    parts: _Queue = queue.Queue(_BATCHES_AHEAD)
    thread = threading.Thread(
        target=_read, args=(settings, watch, size, parts), name="directory", daemon=True
    )
    thread.start()
    try:
        yield _received(parts, watch)
    finally:
        watch.end()
        thread.join(_FAREWELL_SECONDS)


def _received(parts: _Queue, watch: Watch) -> Iterator[Batch | _End]:
    # The deadline also holds where the source is so quick that it is never waited for.
    while (seconds := watch.left()) > 0:
        try:
            part = parts.get(timeout=seconds)
        except queue.Empty:
            continue
        yield part


def _read(settings: DirectorySettings, watch: Watch, size: int, parts: _Queue) -> None:
    """Put the verified batches of the source, and how it ended, where they are waited for."""
    end = _End()
    rows = 0
    try:
        with contextlib.closing(SOURCES[settings.kind](settings, watch, size)) as batches:
            for batch in batches:
                verify(batch.rows, rows)
                rows += len(batch.rows)
                if not _offered(parts, batch, watch):
                    return
    except BrokenError as error:
        end = _End(error.trouble, error.n)
    except ConfigError as error:
        end = _End(config=str(error))
    except Exception as error:  # noqa: BLE001 - told by its class: its words may hold a value
        end = _End(Trouble.UNEXPECTED, type(error).__name__)
    _offered(parts, end, watch)


def _offered(parts: _Queue, part: Batch | _End, watch: Watch) -> bool:
    """Put `part` where it is waited for; False if nobody waits any more."""
    while not watch.over:
        with contextlib.suppress(queue.Full):
            parts.put(part, timeout=0.1)
            return True
    return False
