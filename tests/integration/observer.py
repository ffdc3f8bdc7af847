"""What an agent makes of a daemon, beside what the daemon itself says at the same instant."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from aggregator.agent.accounts import name_accounts, parse_accounts
from aggregator.agent.collectors import SOURCES
from aggregator.agent.readings import Capture, nowhere
from aggregator.agent.totals import RunningTotals

from .net import wait_for

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

DAY: Final = dt.date(2026, 10, 5)


class Observer(Generic[T]):
    """Reads one source again and again, as a running agent does.

    `ask` returns the daemon's own numbers, in any form that can be compared.
    """

    def __init__(
        self, kind: str, settings: Mapping[str, Any], ask: Callable[[], T], accounts: str = ""
    ) -> None:
        """Read a source of `kind`; `accounts` is the operator's map as CSV, if one is needed."""
        source = SOURCES[kind]
        self.reader = source.connect(source.settings(**settings), nowhere)
        self.totals = RunningTotals(source)
        self.ask = ask
        self._accounts = None if source.names_accounts else parse_accounts(accounts)

    def read(self) -> T:
        """Take a capture into the totals, and return the daemon's own numbers of that instant.

        They are asked for before and after the capture, until nothing changed in between:
        daemons have words of their own to say to each other.
        """

        def agreed() -> list[T]:
            before = self.ask()
            capture = self.reader.read(dt.datetime.now(dt.UTC))
            # A reader may remember what it read, so every capture counts.
            self._take(capture)
            return [before] if self.ask() == before else []

        return wait_for(agreed, "an instant at which the daemon's counters stand still")[0]

    def read_alone(self) -> None:
        """Take a capture, whatever the daemon does; BadInputError if there is none."""
        self._take(self.reader.read(dt.datetime.now(dt.UTC)))

    def _take(self, capture: Capture) -> None:
        if self._accounts is not None:
            capture = name_accounts(capture, self._accounts)
        self.totals = self.totals.after(capture, DAY)

    def reported(self) -> dict[str, int]:
        """Return the bytes that would be sent, by account."""
        records = self.totals.records("us-nyc", "9f3c2b7a11d04e55")
        return {record.user: record.bytes for record in records}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reader.close()


class Ledger(Generic[K]):
    """What the daemon's own counters grew by since the first look at them, by name.

    It does not guess at resets: the test, which makes them, tells of them.
    """

    def __init__(self, first: Mapping[K, int]) -> None:
        """Begin with the numbers of the baseline."""
        self._before = dict(first)
        self._grown: Counter[K] = Counter()

    def look(self, numbers: Mapping[K, int]) -> None:
        """Take the numbers of a later instant."""
        for name, number in numbers.items():
            grown = number - self._before.get(name, 0)
            assert grown >= 0, "a counter was reset, and nobody told"
            self._grown[name] += grown
        self._before = dict(numbers)

    def reset(self, *names: K) -> None:
        """Tell that the counters of `names` (of all, if none is named) begin at 0 again."""
        self._before = {
            name: number for name, number in self._before.items() if names and name not in names
        }

    @property
    def grown(self) -> dict[K, int]:
        """The bytes of all names that moved any."""
        return {name: number for name, number in self._grown.items() if number}
