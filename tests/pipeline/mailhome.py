"""A rehearsal home with users to be told of, its directory, and what sends their notices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support import TinyHome, usage

from aggregator import app
from aggregator.model.days import parse_instant
from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.pipeline import notices
from aggregator.stores.home import Home
from jobs import mail

NOW = "2026-10-05T12:00:00Z"
DESK = "desk@vpn.example"
# Whoever moves more than this in October is told of.
CAP = 1_000_000
_RULE = f"""
[[fair_use.rules]]
name = "cap"
kind = "month_bytes"
threshold = {CAP}
warn_percent = [80, 100]
"""


def profile(rules: str = _RULE) -> str:
    """Return the default profile with further rules and without the literal one."""
    text = DEFAULT_PROFILE.replace("outweighs_mean = 1000", "#")
    return text + rules


def address(number: int) -> str:
    """Return the address of a user."""
    return f"user-{number}@mail.example"


@dataclasses.dataclass(frozen=True, slots=True)
class MailHome:
    """The home and the directory beside it."""

    tiny: TinyHome
    directory: Path

    @classmethod
    def make(cls, folder: Path, port: int, *, more: str = "", rules: str = _RULE) -> MailHome:
        """Make the home; mail goes to `port` of this machine, `more` is added to [mail]."""
        tiny = TinyHome.make(folder / "home", profile=profile(rules))
        directory = folder / "accounts.csv"
        home = cls(tiny, directory)
        home.configure(port, more)
        return home

    def configure(self, port: int, more: str = "") -> None:
        """Write [mail] and [directory] anew."""
        path = Home(self.tiny.root).config_path
        own = path.read_text("utf-8").partition("\n[mail]\n")[0]
        path.write_text(
            f'{own}\n[mail]\nhost = "localhost"\nport = {port}\nsecurity = "none"\n'
            f'from = "Alerts <alerts@vpn.example>"\ndesk = ["{DESK}"]\n'
            f"timeout_seconds = 20\n{more}\n"
            f'[directory]\nkind = "csv"\npath = "{self.directory}"\ntimeout_seconds = 60\n',
            "utf-8",
        )

    def list_accounts(self, numbers: Iterable[int], **fields: str) -> None:
        """Write the directory; `fields` are further columns, the same for all."""
        names = ["account", "address", *fields]
        rows = [",".join([f"acct-{n}", address(n), *fields.values()]) for n in numbers]
        self.directory.write_text("\n".join([",".join(names), *rows, ""]), "utf-8")

    def use(self, numbers: Iterable[int], size: int = 2 * CAP, now: str = NOW) -> None:
        """Let accounts move so many bytes on the first of October, with one that moves little."""
        lines = [usage("2026-10-01", f"acct-{n}", bytes=size) for n in numbers]
        self.tiny.ingest([*lines, usage("2026-10-01", "acct-light", bytes=1)], now)

    def queue(self, now: str = NOW) -> int:
        """Judge and queue; return how many notices are new."""
        with self.tiny.open(now) as house:
            return notices.queue(house).notices

    def send(self, now: str = NOW, *, by_hand: bool = False, again: bool = False) -> Any:
        """Send what is due, as the job does; return the counts."""
        moment = parse_instant(now)
        access = app.Access(Home(self.tiny.root), moment, moment)
        delivered = mail.send(access, by_hand=by_hand, again=again)
        mail.check(delivered)
        return delivered.counts()

    def states(self, now: str = NOW) -> dict[str, int]:
        """Return how many messages are in which state."""
        from aggregator.pipeline.status import messages_by_state

        counts, damaged = messages_by_state(self.tiny.read(now))
        assert damaged is None
        return counts
