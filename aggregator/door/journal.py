"""The door's words on standard error: a few events of its own, and nothing that others logged.

The server below logs peers, and exceptions whose words may hold anything. Of all that, only where
it happened and the exception's type are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from aggregator.errors import place

_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
_AGAIN_SECONDS: Final = 60.0
# What the server says without an exception, and what it means here.
_SAID: Final = {
    "Cancel %s running task(s), timeout graceful shutdown exceeded": (
        "stopped before every request was answered"
    ),
}
_EXPECTED: Final = (asyncio.CancelledError, ConnectionError, TimeoutError)


class Journal:
    """Says what happens to the door; an alarm that repeats itself is told once a minute."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        say: Callable[[str], None] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Say words with `say` and alarms with `warn`, on standard error unless given.

        `quiet` leaves only alarms.
        """
        self._quiet = quiet
        self._say = say or _print
        self._warn = warn or (lambda words: self._say(f"warning: {words}"))
        self._said: dict[str, float] = {}

    def tell(self, words: str) -> None:
        """Say what happened as it should."""
        if not self._quiet:
            self._say(words)

    def alarm(self, words: str) -> None:
        """Say what somebody must look at."""
        now = time.monotonic()
        if now - self._said.get(words, -_AGAIN_SECONDS) >= _AGAIN_SECONDS:
            self._said[words] = now
            self._warn(words)

    def unexpected(self, error: BaseException | None) -> None:
        """Say that something unexpected happened, by the place and the type of its exception."""
        if error is None:
            self.alarm("something unexpected happened in the server; please report it")
        elif not isinstance(error, _EXPECTED):
            kind = type(error).__name__
            self.alarm(f"unexpected {kind} at {place(error)}; please report it")

    def on_loop_exception(self, _loop: object, context: dict[str, Any]) -> None:
        """Take what asyncio cannot give to anybody."""
        self.unexpected(context.get("exception"))

    @contextlib.contextmanager
    def in_charge(self) -> Iterator[None]:
        """Take over what the server below would log."""
        handler = _Closed(self)
        kept = []
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            kept.append((logger, logger.handlers, logger.level, logger.propagate))
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.ERROR)
        # One handler is enough for a child.
        logging.getLogger("uvicorn.error").handlers = []
        logging.getLogger("uvicorn.error").propagate = True
        logging.getLogger("uvicorn.access").handlers = []
        try:
            yield
        finally:
            for logger, handlers, level, propagate in kept:
                logger.handlers, logger.propagate = handlers, propagate
                logger.setLevel(level)


class _Closed(logging.Handler):
    """Tells of a log record only that it was, and the place and type of its exception."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.ERROR)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg in _SAID:
            self._journal.alarm(_SAID[record.msg])
        else:
            self._journal.unexpected(record.exc_info[1] if record.exc_info else None)


def _print(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
