"""What is known of the clock from the audit log."""

from __future__ import annotations

import dataclasses
import datetime as dt


@dataclasses.dataclass(frozen=True, slots=True)
class Clock:
    """The last entry's instant and, while the clock is in doubt, the jump's two ends.

    `behind` is the latest instant that the clock had before it turned back, until it is there
    again.
    """

    last_at: dt.datetime | None = None
    doubt_since: dt.datetime | None = None
    before_jump: dt.datetime | None = None
    behind: dt.datetime | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether a purge has to wait."""
        return self.doubt_since is not None
