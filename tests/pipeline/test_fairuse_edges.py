"""A judgement beside a run that writes, and where several answers would be possible (CS-9)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import TinyHome, crowd, usage

from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.pipeline import fairuse, raw
from aggregator.pipeline.pseudonyms import pseudonym
from aggregator.stores.keys import MonthKeys
from aggregator.stores.segments import Segment, SegmentStore

NOW = "2026-10-09T12:00:00Z"
MONTH = "2026-10"
CAP = """
[[fair_use.rules]]
name = "cap"
kind = "month_bytes"
threshold = 5_000_000
"""
SHARE = """
[[fair_use.rules]]
name = "share"
kind = "location_share"
threshold = 30
"""
LITERAL = "outweighs_mean = 1000"


def profile(rules: str, *changes: tuple[str, str]) -> str:
    text = DEFAULT_PROFILE.replace(LITERAL, "")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text + rules


@pytest.mark.parametrize("before", ["first list", "second list", "read"])
def test_a_day_that_is_closed_meanwhile_is_judged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """`fairuse check` takes no lock: a roll-up may replace segments between look and read."""
    home = TinyHome.make(tmp_path / "home", profile=profile(CAP))
    heavy = [usage("2026-10-05", "acct-heavy", bytes=size) for size in (10**6, 10**7)]
    for line in heavy:
        home.ingest([line, *crowd("2026-10-05", range(20))], "2026-10-06T00:00:00Z")
    plain = (SegmentStore.list, SegmentStore.read)
    steps = {"days": 0, "list": 0, "read": 0}
    listed, read = plain

    def close() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SegmentStore, "list", listed)
            patch.setattr(SegmentStore, "read", read)
            home.rollup("2026-10-08T00:00:00Z")

    def listing(store: SegmentStore, day: str, kind: str) -> list[Segment]:
        # The first look is which days there are; what follows is of the one day.
        steps["list"] += 1
        if (before, steps["list"]) in (("first list", 2), ("second list", 3)):
            close()
        return listed(store, day, kind)

    def reading(
        store: SegmentStore, keys: MonthKeys, segment: Segment, bucket: int = 0, of: int = 1
    ) -> object:
        steps["read"] += 1
        if before == "read" and steps["read"] == 1:
            close()
        return read(store, keys, segment, bucket, of)

    house = home.read(NOW)
    monkeypatch.setattr(SegmentStore, "list", listing)
    monkeypatch.setattr(SegmentStore, "read", reading)
    (found,) = fairuse.judge(house, MONTH)
    monkeypatch.undo()
    assert house.segments.list("2026-10-05", raw.USAGE + raw.FROZEN)
    assert (found.bytes, found.users) == (10**7, 21)


def test_equal_shares_are_told_of_the_first_day_and_location(tmp_path: Path) -> None:
    """The same answer from every run, whatever order an engine gives its rows in."""
    places = [f"l{number:02d}-x" for number in range(40)]
    home = TinyHome.make(tmp_path / "home", profile=profile(SHARE))
    for day in ("2026-10-04", "2026-10-03"):
        lines = [usage(day, f"acct-{n}", place, bytes=10) for place in places for n in range(12)]
        home.ingest([*lines, *(usage(day, "acct-x", place, bytes=1000) for place in places)], NOW)
    for _run in range(5):
        house = home.read(NOW)
        (one,) = fairuse.judge(house, MONTH)
        assert one.pseudonym == pseudonym(b"acct-x", house.month_keys(MONTH))
        assert (one.day, one.location) == ("2026-10-03", "l00-x")
        (same,) = fairuse.explain(house, MONTH, b"acct-x")
        assert same == one


def test_a_location_of_one_user_has_no_share_even_where_k_is_1(tmp_path: Path) -> None:
    text = profile(SHARE, ("k = 10 ", "allow_k_below_2 = true\nk = 1 "))
    home = TinyHome.make(tmp_path / "home", profile=text)
    lines = [usage("2026-10-01", f"acct-{n}", bytes=100) for n in range(20)]
    home.ingest([*lines, usage("2026-10-01", "acct-alone", "is-rkv")], NOW)
    assert fairuse.judge(home.read(NOW), MONTH) == []
    home.ingest([usage("2026-10-01", "acct-1", "is-rkv", bytes=1)], NOW)
    (one,) = fairuse.judge(home.read(NOW), MONTH)
    assert (one.location, one.location_users, one.bytes) == ("is-rkv", 2, 1000)


@pytest.mark.parametrize("scale", [1, 10**12 + 7])
def test_exactly_the_share_is_not_more_than_it(tmp_path: Path, scale: int) -> None:
    """Beyond floating point too: shares are whole numbers."""
    home = TinyHome.make(tmp_path / "home", profile=profile(SHARE))
    others = [usage("2026-10-01", f"acct-{n}", bytes=7 * scale) for n in range(10)]
    home.ingest([*others, usage("2026-10-01", "acct-x", bytes=30 * scale)], NOW)
    assert fairuse.judge(home.read(NOW), MONTH) == []
    home.ingest([usage("2026-10-01", "acct-x", bytes=30 * scale + 1)], NOW)
    (one,) = fairuse.judge(home.read(NOW), MONTH)
    assert (one.bytes, one.location_bytes) == (30 * scale + 1, 100 * scale + 1)


def test_a_location_where_nobody_moved_anything_has_no_share(tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home", profile=profile(SHARE))
    home.ingest([usage("2026-10-01", f"acct-{n}", bytes=0) for n in range(12)], NOW)
    assert fairuse.judge(home.read(NOW), MONTH) == []
    (one,) = fairuse.explain(home.read(NOW), MONTH, b"acct-3")
    assert (one.percent, one.bytes, one.location_bytes) == (0, 0, 0)


def test_plans_are_carried_through(tmp_path: Path) -> None:
    text = profile(CAP + 'plans = ["home", "business"]\n')
    home = TinyHome.make(tmp_path / "home", profile=text)
    home.ingest([usage("2026-10-01", bytes=10**7)], NOW)
    (one,) = fairuse.judge(home.read(NOW), MONTH)
    assert one.plans == ("home", "business")
