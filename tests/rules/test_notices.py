"""The book of notices: one a user, rule and step; what waits, what is told, what never is."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.errors import IntegrityError
from aggregator.model.fairuse import Excess, RuleKind
from aggregator.model.notices import Audience, Notice, State, Withheld
from aggregator.rules import notices
from aggregator.rules.notices import Book, replay

NOW = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
TODAY = "2026-10-05"
A_MINUTE = dt.timedelta(minutes=1)


def excess(
    user: int = 1, percent: int = 100, rule: str = "cap", kind: RuleKind = RuleKind.MONTH_BYTES,
    users: int = 500,
) -> Excess:  # fmt: skip
    return Excess(
        rule=rule, kind=kind, threshold=10, percent=percent, plans=(), month="2026-10",
        through=TODAY, pseudonym=user, bytes=20, month_bytes=20, projected_bytes=30, users=users,
        others_bytes=100, median_bytes=1, outweighs_mean=2.0, outweighs_lightest=3,
        times_median=20.0,
    )  # fmt: skip


class Desk:
    """Builds events as a queueing run does; references and Message-IDs count up."""

    def __init__(self, **settings: Any) -> None:
        self.events: list[Any] = []
        self.settings = {"to_user": False, "digest_over": 3, "k": 10, **settings}
        self._numbers = itertools.count(1)

    @property
    def book(self) -> Book:
        return replay(self.events)

    def queue(self, *excesses: Excess, now: dt.datetime = NOW) -> list[str]:
        """Queue what is new; return its references."""
        book = self.book
        fresh = notices.fresh(excesses, book, now.date().isoformat())
        found = [Notice(f"n-{next(self._numbers)}", TODAY, one) for one in fresh]
        messages = notices.messages_for(
            found, now, message_id=lambda: f"{next(self._numbers)}@x.example", **self.settings
        )
        self.events += notices.superseded(book, found, now)
        if found:
            self.events.append(notices.queued(now, found, messages))
        return [one.reference for one in found]

    def tried(self, message_id: str, **outcome: Any) -> None:
        usual = {"accepted": [], "refused": [], "deferred": [], "next_at": None}
        self.events.append(
            {"event": "tried", "at": "x", "message_id": message_id, **usual, **outcome}
        )

    def send_all(self, now: dt.datetime = NOW) -> list[str]:
        due = [one.message.message_id for one in notices.due(self.book, now, False)]
        for message_id in due:
            self.tried(message_id, accepted=["desk"])
        return due

    def states(self) -> list[State]:
        return [one.state for one in self.book.messages.values()]


def test_a_user_and_rule_are_noted_once() -> None:
    desk = Desk()
    assert len(desk.queue(excess(), excess(rule="other"), excess(user=2))) == 3
    assert desk.queue(excess(), excess(rule="other"), excess(user=2)) == []


def test_each_step_is_told_once_and_a_jump_is_one_notice() -> None:
    desk = Desk()
    assert desk.queue(excess(percent=80))
    desk.send_all()
    assert desk.queue(excess(percent=80)) == []
    assert desk.queue(excess(percent=100))
    assert desk.queue(excess(percent=80)) == []
    assert len(desk.send_all()) == 1
    jump = Desk()
    assert len(jump.queue(excess(percent=100))) == 1
    assert jump.queue(excess(percent=80)) == []


def test_a_lower_step_that_nobody_was_told_of_gives_way() -> None:
    desk = Desk()
    (low,) = desk.queue(excess(percent=80))
    desk.queue(excess(percent=100))
    assert desk.states() == [State.WITHHELD, State.QUEUED]
    withheld = next(iter(desk.book.messages.values())).withheld
    assert withheld == {low: Withheld.SUPERSEDED.value}
    assert len(desk.send_all()) == 1


def test_the_rules_of_one_user_are_one_message_and_many_users_are_digests() -> None:
    desk = Desk()
    desk.queue(excess(), excess(rule="b"), excess(user=2))
    assert [len(one.message.references) for one in desk.book.messages.values()] == [2, 1]
    many = Desk()
    many.queue(*(excess(user) for user in range(2500)))
    assert [len(one.message.references) for one in many.book.messages.values()] == [
        1000, 1000, 500,
    ]  # fmt: skip


def test_a_user_is_told_nothing_of_a_few_others() -> None:
    desk = Desk(to_user=True)
    kinds = [RuleKind.OUTWEIGHS_MEAN, RuleKind.MONTH_BYTES]
    desk.queue(*(excess(rule=kind.value, kind=kind, users=10) for kind in kinds))
    told = {
        audience: [
            desk.book.notices[reference].excess.kind
            for one in desk.book.messages.values()
            if one.message.audience is audience
            for reference in one.message.references
        ]
        for audience in Audience
    }
    assert told == {Audience.DESK: kinds, Audience.USER: [RuleKind.MONTH_BYTES]}
    assert notices.may_tell_user(excess(kind=RuleKind.OUTWEIGHS_MEAN, users=11), 10)


def test_the_next_try_is_later_and_later() -> None:
    waits = [(notices.retry_at(n, NOW) - NOW) // A_MINUTE for n in range(12)]
    assert waits == [5, 5, 15, 30, 60, 120, 240, 360, 360, 360, 360, 360]


def test_what_was_put_off_waits_and_a_person_need_not() -> None:
    desk = Desk()
    desk.queue(excess())
    (message_id,) = desk.book.messages
    desk.tried(message_id, deferred=[["desk", "slow"]], next_at="2026-10-05T12:05:00Z")
    assert desk.states() == [State.DEFERRED]
    assert notices.due(desk.book, NOW, False) == []
    assert len(notices.due(desk.book, NOW, True)) == 1
    assert len(notices.due(desk.book, NOW + 5 * A_MINUTE, False)) == 1


def test_some_who_accept_and_some_who_refuse_is_sent() -> None:
    desk = Desk()
    desk.queue(excess())
    (message_id,) = desk.book.messages
    desk.tried(
        message_id, accepted=["a"], refused=[["b", 550]], deferred=[["c", "slow"]],
        next_at="2026-10-05T12:05:00Z",
    )  # fmt: skip
    assert desk.states() == [State.DEFERRED]
    desk.tried(message_id, refused=[["c", 551]])
    assert desk.states() == [State.SENT]
    tracked = desk.book.messages[message_id]
    assert (tracked.accepted, tracked.refused, tracked.attempts) == (["a"], {"b": 550, "c": 551}, 2)


def test_an_acknowledged_notice_is_told_no_more() -> None:
    desk = Desk(to_user=True)
    (reference,) = desk.queue(excess(percent=80))
    desk.events.append({"event": "acknowledged", "at": "x", "reference": reference})
    assert desk.states() == [State.WITHHELD, State.WITHHELD]
    assert notices.due(desk.book, NOW, True) == []
    assert desk.queue(excess(percent=100)) == []
    assert desk.queue(excess(user=2), excess(rule="other"))


def test_what_was_sent_stays_sent_when_it_is_acknowledged() -> None:
    desk = Desk()
    (reference,) = desk.queue(excess())
    desk.send_all()
    desk.events.append({"event": "acknowledged", "at": "x", "reference": reference})
    assert desk.states() == [State.SENT]


def test_a_snoozed_notice_rests_until_its_day() -> None:
    desk = Desk()
    (reference,) = desk.queue(excess(percent=80))
    event = {"event": "snoozed", "at": "x", "reference": reference, "until": "2026-10-08"}
    desk.events.append(event)
    assert notices.due(desk.book, NOW, True) == []
    assert desk.queue(excess(percent=100)) == []
    later = NOW + dt.timedelta(days=3)
    assert len(notices.due(desk.book, later, False)) == 1
    assert desk.queue(excess(percent=100), now=later)


def test_figures_count_every_notice_once_by_what_became_of_it() -> None:
    desk = Desk(to_user=True, digest_over=100)
    desk.queue(*(excess(user) for user in range(1, 6)))
    ids = list(desk.book.messages)
    desk.tried(ids[0], accepted=["desk"])
    desk.tried(ids[1], refused=[["desk", 550]])
    desk.tried(ids[2], deferred=[["desk", "slow"]], next_at="2026-10-05T12:05:00Z")
    desk.tried(ids[3], deferred=[["desk", "slow"]], next_at="2026-10-05T12:05:00Z")
    desk.tried(ids[3], accepted=["desk"])
    open_rows = {
        row["audience"]: row for row in notices.figures(desk.book, "2026-10", expired=False)
    }
    wanted = {"notices": 5, "sent": 2, "delayed": 2, "failed": 1, "withheld": 0, "expired": 0}
    assert {name: open_rows["desk"][name] for name in wanted} == wanted
    rows = {row["audience"]: row for row in notices.figures(desk.book, "2026-10", expired=True)}
    assert (rows["desk"]["expired"], rows["user"]["expired"]) == (2, 5)
    for row in rows.values():
        ends = ("sent", "failed", "withheld", "expired")
        assert row["notices"] == sum(row[name] for name in ends)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": "never"},
        {"event": "tried", "message_id": "unknown"},
        {"event": "withheld", "message_id": "unknown"},
        {"event": "acknowledged", "reference": "n-0"},
        {"event": "queued", "notices": [{}], "messages": []},
    ],
)
def test_an_event_that_is_none_is_an_integrity_error(event: Any) -> None:
    with pytest.raises(IntegrityError):
        replay([event])


_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["queue", "send", "defer", "refuse", "withhold", "ack", "snooze"]),
        st.integers(0, 3),
        st.sampled_from([80, 100]),
    ),
    max_size=25,
)


@given(_ACTIONS)
def test_whatever_happens_nothing_is_told_twice(actions: list[tuple[str, int, int]]) -> None:
    desk = Desk(to_user=True)
    accepted: dict[tuple[str, str], int] = {}
    now = NOW
    for action, number, percent in actions:
        now += dt.timedelta(hours=7)
        book = desk.book
        due = notices.due(book, now, True)
        references = list(book.notices)
        if action == "queue":
            desk.queue(excess(user=number, percent=percent), now=now)
        elif action in ("send", "defer", "refuse") and due:
            message_id = due[number % len(due)].message.message_id
            if action == "send":
                key = (message_id, "desk")
                accepted[key] = accepted.get(key, 0) + 1
            desk.tried(
                message_id,
                **{
                    "send": {"accepted": ["desk"]},
                    "defer": {"deferred": [["desk", "slow"]], "next_at": "2026-10-05T13:00:00Z"},
                    "refuse": {"refused": [["desk", 550]]},
                }[action],
            )
        elif action == "withhold" and due:
            tracked = due[number % len(due)]
            one = notices.open_references(tracked)[0]
            desk.events.append(notices.withheld(tracked, one, Withheld.EXEMPT, now))
        elif references and action in ("ack", "snooze"):
            reference = references[number % len(references)]
            kind = "acknowledged" if action == "ack" else "snoozed"
            desk.events.append(
                {"event": kind, "at": "x", "reference": reference, "until": "2026-10-20"}
            )
    book = desk.book
    assert set(accepted.values()) <= {1}
    steps = [(book.key(one), notice.excess.percent) for one, notice in book.notices.items()]
    assert len(set(steps)) == len(steps)
    for tracked in notices.due(book, now, True):
        assert tracked.state.waits
        assert not tracked.accepted
        assert notices.open_references(tracked)
    for row in notices.figures(book, "2026-10", expired=True):
        ends = ("sent", "failed", "withheld", "expired")
        assert row["notices"] == sum(row[name] for name in ends)


def test_a_message_never_shows_a_pseudonym() -> None:
    notice = Notice("n-1", TODAY, dataclasses.replace(excess(), pseudonym=987654321))
    assert "987654321" not in repr(notice)
    assert "987654321" not in repr(notice.excess)
