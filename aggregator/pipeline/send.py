"""Send the messages of one month: withhold, write, hand over, note, one after another.

The account behind a pseudonym is looked up now, for these messages only, and let go of with them
(CT-3). What the directory says may withhold a notice: an exemption, an objection, a restriction.
Each mail's outcome is durable before the next one begins, so a killed run sends at most one mail
again, the same one with the same Message-ID.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from aggregator.directory.lookup import DirectoryError, look_up
from aggregator.errors import DeliveryError
from aggregator.mail.letter import (
    BadAddressError,
    Case,
    Letter,
    content,
    envelope_address,
    needs_utf8,
)
from aggregator.mail.smtp import Outcome, ServerError, Session
from aggregator.mail.templates import Renderer
from aggregator.model.days import instant
from aggregator.model.notices import Audience, Deferral, Message, Notice, State, Withheld
from aggregator.model.settings import Entry, MailSettings
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.pseudonyms import pseudonym
from aggregator.rules import notices
from aggregator.rules.notices import Book, Tracked
from aggregator.stores import secret
from aggregator.stores.keys import MonthKeys

USER: Final = "user"
"""How the outbox names a user's own address, which it never holds."""

_GIVE_UP_AFTER: Final = 3
"""So many mails in a row that the server did not answer for end a run: the rest waits."""

_REFUSED_IN_A_ROW: Final = 20
"""So many mails in a row refused for good are the settings' fault, not that of the recipients."""

Pause = Callable[[float], None]
"""Wait for so many seconds."""

Elapsed = Callable[[], float]
"""The seconds since the run began."""


class Run:
    """One run over all months: its clock, its templates, and the counts of what it did."""

    def __init__(self, house: Deployment, pause: Pause, elapsed: Elapsed, *, again: bool) -> None:
        """Begin at the instant of `house`; with `again` also send what was refused for good."""
        self.house = house
        self.pause = pause
        self.elapsed = elapsed
        self.again = again
        self.months: list[str] = []
        self.counts: Counter[str] = Counter()
        self.problems: set[str] = set()
        self.rests = False  # whether a mail went out since the last pause
        self._renderer: Renderer | None = None

    def now(self) -> dt.datetime:
        """Return the instant now: that of the house, and what has passed since."""
        return self.house.now + dt.timedelta(seconds=self.elapsed())

    def renderer(self, settings: MailSettings) -> Renderer:
        """Return the templates, all of them checked before the first mail is sent."""
        if self._renderer is None:
            self._renderer = Renderer(settings)
            self._renderer.check()
        return self._renderer


class Month:
    """The messages of one month that are due, by one reading of its book."""

    def __init__(self, run: Run, keys: MonthKeys, book: Book, settings: MailSettings) -> None:
        self.run = run
        self.house = run.house
        self.keys = keys
        self.book = book
        self.settings = settings
        self.renderer = run.renderer(settings)
        self.entries: Mapping[int, Entry] | None = None
        self.at = instant(run.now())
        self.unanswered = self.refused = 0

    def send(self, due: Sequence[Tracked], part: int) -> bool:
        """Send the first `part` messages of those due; return whether to go on with the others.

        When nobody can be asked, all of them wait.
        """
        try:
            self.entries = self._look_up(due[:part])
        except DirectoryError as error:
            self._defer(due, Deferral.DIRECTORY, str(error))
            return False
        password = secret.read(self.settings.password, "mail.password")
        done = 0
        try:
            self.house.outbox.check_room(self.keys.month)
            with Session(self.settings, password) as session:
                for done, tracked in enumerate(due[:part]):
                    self.house.progress("sending notices", done, len(due))
                    if not self._send_one(session, tracked):
                        return False  # the month was purged meanwhile, and its notices with it
                    stop = self._stop()
                    if stop is not None:
                        self._defer(due[done + 1 :], *stop, tried=False)
                        return False
        except FileNotFoundError:
            return False
        except ServerError as error:
            self._defer(due[done:], error.reason, str(error))
            return False
        return True

    def _stop(self) -> tuple[Deferral, str] | None:
        """Return why the rest is better left for a later run, None if it is not."""
        if self.unanswered >= _GIVE_UP_AFTER:
            return Deferral.UNREACHABLE, "the mail server stopped answering"
        if self.refused >= _REFUSED_IN_A_ROW:
            why = "the mail server refuses mail after mail; does it relay for us?"
            return Deferral.SETTINGS, why
        return None

    def _look_up(self, due: Sequence[Tracked]) -> Mapping[int, Entry] | None:
        """Return the directory's entries of the accounts concerned, None without a directory."""
        settings = self.house.config.directory
        if settings is None:
            return None
        wanted = {
            self.book.notices[reference].excess.pseudonym
            for tracked in due
            for reference in tracked.message.references
        }
        self.house.progress("asking the directory", 0, 1)
        needed = set()
        if any(tracked.message.audience is Audience.USER for tracked in due):
            needed.add("address")
        if any(self.book.notices[one].excess.plans for t in due for one in t.message.references):
            needed.add("plan")
        return look_up(settings, lambda account: pseudonym(account, self.keys), wanted, needed)

    def _send_one(self, session: Session, tracked: Tracked) -> bool:
        """Send one message, or withhold it; return False if its month is gone."""
        if self.run.rests:
            self.run.pause(60 / self.settings.per_minute)
            self.run.rests = False
        if not self.house.outbox.path(self.keys.month).exists():
            return False
        events: list[Mapping[str, Any]] = []
        cases = list(self._cases(tracked, events))
        try:
            recipients = self._recipients(tracked, cases)
            written = self._written(tracked, cases, recipients) if cases and recipients else None
        except BadAddressError:
            recipients, written = {}, None
        except (DeliveryError, ValueError):  # its words would be about one mail
            return self._put_off(tracked)
        if written is not None:
            self.run.rests = bool(self.settings.per_minute)
            wide = needs_utf8(written)
            outcome = session.send(self.settings.sender, list(recipients), written, wide)
            events.append(self._tried(tracked, outcome, recipients))
        elif tracked.accepted and cases:  # whoever has not got it is no desk any more
            events.append(self._tried(tracked, Outcome((), {}, {}), {}))
        else:
            events += self._withheld(tracked, cases, Withheld.NO_ADDRESS)
        self.run.counts["withheld"] += sum(
            event["event"] == "withheld" and event["reason"] != Withheld.SNOOZED for event in events
        )
        return self.house.outbox.append(self.keys, events, create=False)

    def _put_off(self, tracked: Tracked) -> bool:
        """Note that a message cannot be written with these settings; the others can."""
        self._defer(
            [tracked], Deferral.SETTINGS, "a mail cannot be written; see: aggregator doctor"
        )
        return True

    def _written(
        self,
        tracked: Tracked,
        cases: Sequence[tuple[Case, Entry | None]],
        recipients: Mapping[str, str],
    ) -> bytes:
        """Return the message; BadAddressError if a recipient's address is none."""
        message = tracked.message
        letter = Letter(
            audience=message.audience,
            message_id=message.message_id,
            at=message.at,
            to=tuple(recipients) if message.audience is Audience.USER else self.settings.desk,
            language=self._language(tracked, cases),
            cases=tuple(case for case, _entry in cases),
        )
        return content(letter, self.settings, self.renderer)

    def _cases(
        self, tracked: Tracked, events: list[Mapping[str, Any]]
    ) -> Iterator[tuple[Case, Entry | None]]:
        """Yield what the message may tell; what it may not is added to `events`."""
        today = self.run.now().date().isoformat()
        references = notices.open_references(tracked)
        resting = [one for one in references if notices.rests(self.book, one, today)]
        if resting:  # they get a message of their own, for when they are awake
            events.append(self._split(tracked, resting))
            events += [self._withheld_event(tracked, one, Withheld.SNOOZED) for one in resting]
        for reference in references:
            if reference in resting:
                continue
            notice = self.book.notices[reference]
            entry = (self.entries or {}).get(notice.excess.pseudonym)
            reason = _withholding(notice, entry)
            if reason is not None:
                events.append(self._withheld_event(tracked, reference, reason))
                continue
            account, plan = (entry.account, entry.plan) if entry else (None, None)
            yield Case(notice.excess, account, plan, reference), entry

    def _split(self, tracked: Tracked, references: Sequence[str]) -> Mapping[str, Any]:
        domain = tracked.message.message_id.rpartition("@")[2]
        message_id = f"{secrets.token_hex(16)}@{domain}"
        message = Message(message_id, tracked.message.audience, self.at, tuple(references))
        return notices.queued(self.run.now(), [], [message])

    def _recipients(
        self, tracked: Tracked, cases: Sequence[tuple[Case, Entry | None]]
    ) -> dict[str, str]:
        """Return the addresses that have not answered for good: envelope → name in the outbox.

        BadAddressError if one of them is no address.
        """
        if tracked.message.audience is Audience.USER:
            address = next((entry.address for _case, entry in cases if entry), None)
            return {envelope_address(address): USER} if address else {}
        over = {*tracked.accepted, *(() if self.run.again else tracked.refused)}
        return {envelope_address(one): one for one in self.settings.desk if one not in over}

    def _language(self, tracked: Tracked, cases: Sequence[tuple[Case, Entry | None]]) -> str:
        if tracked.message.audience is Audience.USER:
            entry = cases[0][1]
            return (entry.language if entry else None) or self.settings.language
        return self.settings.language

    def _tried(
        self, tracked: Tracked, outcome: Outcome, names: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the event of one try, and count it."""
        after = State.SENT if outcome.accepted or not outcome.refused else State.FAILED
        after = State.DEFERRED if outcome.deferred else after
        self.run.counts[after.value] += 1
        if outcome.deferred:
            self.run.problems |= {reason.value for reason in outcome.deferred.values()}
        if outcome.refused:
            self.run.problems.add("refused for good")
        cut = {Deferral.CUT, Deferral.SLOW} & set(outcome.deferred.values())
        self.unanswered = self.unanswered + 1 if cut and not outcome.accepted else 0
        self.refused = self.refused + 1 if after is State.FAILED else 0
        next_at = notices.retry_at(tracked.attempts + 1, self.run.now())
        return {
            "event": "tried",
            "at": self.at,
            "message_id": tracked.message.message_id,
            "accepted": [names[one] for one in outcome.accepted],
            "refused": [[names[one], code] for one, code in outcome.refused.items()],
            "deferred": [[names[one], reason.value] for one, reason in outcome.deferred.items()],
            "next_at": instant(next_at) if outcome.deferred else None,
        }

    def _defer(
        self, due: Sequence[Tracked], reason: Deferral, why: str, *, tried: bool = True
    ) -> None:
        """Note that nobody could be asked: all of `due` wait for a later run."""
        self.run.problems.add(why)
        if not due:
            return
        attempts = max(tracked.attempts for tracked in due) + 1 if tried else 1
        event = {
            "event": "deferred",
            "at": self.at,
            "message_ids": [tracked.message.message_id for tracked in due],
            "reason": reason.value,
            "next_at": instant(notices.retry_at(attempts, self.run.now())),
            "tried": tried,
        }
        self.run.counts["deferred"] += len(due)
        self.house.outbox.append(self.keys, [event], create=False)

    def _withheld(
        self, tracked: Tracked, cases: Sequence[tuple[Case, Entry | None]], reason: Withheld
    ) -> list[dict[str, Any]]:
        return [self._withheld_event(tracked, case.reference, reason) for case, _entry in cases]

    def _withheld_event(self, tracked: Tracked, reference: str, reason: Withheld) -> dict[str, Any]:
        """Return that a message does not tell of one of its notices."""
        return {
            "event": "withheld",
            "at": self.at,
            "message_id": tracked.message.message_id,
            "reference": reference,
            "reason": reason.value,
        }


def _withholding(notice: Notice, entry: Entry | None) -> Withheld | None:
    """Return why nobody may be told of `notice`, as the directory has it; None if they may."""
    if entry is not None:
        if entry.restricted:
            return Withheld.RESTRICTED
        if entry.objects:
            return Withheld.OBJECTS
        if entry.exempt:
            return Withheld.EXEMPT
    plans = notice.excess.plans
    if plans and (entry is None or entry.plan not in plans):
        return Withheld.PLAN
    return None
