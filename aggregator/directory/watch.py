"""The deadline of one look-up, and how a source that hangs is ended from outside."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

Way = Callable[[], None]


class Watch:
    """What the one who waits and a source share: when it is over, and how to end the source.

    A source reads in a thread of its own, and may hang there; whoever waits for it calls `end`.
    """

    def __init__(self, seconds: int) -> None:
        """Begin to count `seconds`."""
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._over = threading.Event()
        # Held while a way is taken, so that none is taken after its `with` was left.
        self._lock = threading.Lock()
        self._ways: list[Way] = []

    @property
    def over(self) -> bool:
        """Whether nobody waits for the source any more."""
        return self._over.is_set()

    def left(self) -> float:
        """Return the seconds until the deadline, 0 once it has passed."""
        return max(0.0, self._deadline - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Wait so long, or until it is over."""
        self._over.wait(seconds)

    @contextlib.contextmanager
    def ending(self, way: Way) -> Iterator[None]:
        """Within it, `end` takes `way`, from another thread and at most once.

        It is to be quick, to raise nothing, and to make a blocked read return.
        """
        with self._lock:
            if self.over:
                way()
            else:
                self._ways.append(way)
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._ways.remove(way)

    def end(self) -> None:
        """Say that nobody waits any more, and end what a source still does."""
        with self._lock:
            self._over.set()
            ways, self._ways = self._ways, []
            for way in reversed(ways):
                way()
