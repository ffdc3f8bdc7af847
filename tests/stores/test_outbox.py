"""The sealed outbox: whole frames or none, nothing moved or changed, two writers at once."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from pipeline.faults import DeadError, Faults

from aggregator.errors import IntegrityError, LockedError
from aggregator.stores.keys import KeyStore, MonthKeys
from aggregator.stores.outbox import Outbox

OCTOBER, NOVEMBER = "2026-10", "2026-11"


@pytest.fixture
def keys(tmp_path: Path) -> MonthKeys:
    return KeyStore(tmp_path).create(OCTOBER)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    (tmp_path / "outbox").mkdir()
    return Outbox(tmp_path / "outbox")


def events(*numbers: int) -> list[dict[str, int]]:
    return [{"event": number} for number in numbers]


def test_events_come_back_in_order(outbox: Outbox, keys: MonthKeys) -> None:
    assert outbox.read(keys) == []
    assert outbox.months() == []
    assert outbox.append(keys, events(1, 2), create=True)
    assert outbox.append(keys, events(3), create=False)
    assert Outbox(outbox.folder).append(keys, events(4), create=False)
    assert outbox.append(keys, events(5), create=False)
    assert outbox.read(keys) == events(1, 2, 3, 4, 5)
    assert outbox.months() == [OCTOBER]
    assert outbox.files(OCTOBER) == [outbox.path(OCTOBER)]
    assert stat.S_IMODE(outbox.path(OCTOBER).stat().st_mode) == 0o600


def test_a_month_that_was_purged_is_not_made_again(outbox: Outbox, keys: MonthKeys) -> None:
    assert not outbox.append(keys, events(1), create=False)
    assert not outbox.append(keys, [], create=False)
    outbox.append(keys, events(1), create=True)
    outbox.path(OCTOBER).unlink()
    assert not outbox.append(keys, events(2), create=False)
    assert outbox.months() == []


def test_nothing_of_an_event_can_be_read_without_the_key(outbox: Outbox, keys: MonthKeys) -> None:
    outbox.append(keys, [{"event": "a-word-to-look-for"}], create=True)
    assert b"a-word" not in outbox.path(OCTOBER).read_bytes()


def test_every_torn_end_is_cut_off_and_nothing_else(outbox: Outbox, keys: MonthKeys) -> None:
    outbox.append(keys, events(1), create=True)
    whole = outbox.path(OCTOBER).read_bytes()
    outbox.append(keys, events(2), create=False)
    both = outbox.path(OCTOBER).read_bytes()
    for length in range(len(whole), len(both)):
        outbox.path(OCTOBER).write_bytes(both[:length])
        again = Outbox(outbox.folder)
        assert again.read(keys) == events(1)
        again.append(keys, events(3), create=False)
        assert again.read(keys) == events(1, 3)


def test_any_changed_byte_is_told(outbox: Outbox, keys: MonthKeys) -> None:
    outbox.append(keys, events(1), create=True)
    outbox.append(keys, events(2), create=False)
    good = outbox.path(OCTOBER).read_bytes()
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 1
        outbox.path(OCTOBER).write_bytes(changed)
        with pytest.raises(IntegrityError):
            outbox.read(keys)


def test_a_frame_cannot_be_moved_dropped_or_brought_from_elsewhere(
    outbox: Outbox, keys: MonthKeys, tmp_path: Path
) -> None:
    ends = []
    for number in (1, 2, 3):
        outbox.append(keys, events(number), create=True)
        ends.append(outbox.path(OCTOBER).stat().st_size)
    content = outbox.path(OCTOBER).read_bytes()
    first, second, third = content[: ends[0]], content[ends[0] : ends[1]], content[ends[1] :]
    other = KeyStore(tmp_path).create(NOVEMBER)
    outbox.append(other, events(1), create=True)
    elsewhere = outbox.path(NOVEMBER).read_bytes()
    for forged in (second + first, first + third, first + first, elsewhere, first + elsewhere):
        outbox.path(OCTOBER).write_bytes(forged)
        with pytest.raises(IntegrityError):
            outbox.read(keys)


def test_death_at_any_step_of_an_append_leaves_all_or_nothing(
    outbox: Outbox, keys: MonthKeys
) -> None:
    outbox.append(keys, events(1), create=True)
    step, done = 1, False
    while not done:
        try:
            with Faults(step):
                Outbox(outbox.folder).append(keys, events(2, 3), create=False)
            done = True
        except DeadError:
            pass
        found = outbox.read(keys)
        assert found[:1] == events(1)
        assert len(found) % 2 == 1
        step += 1
    assert step > 3
    assert outbox.read(keys)[-2:] == events(2, 3)


def test_two_writers_at_once_lose_nothing(outbox: Outbox, keys: MonthKeys) -> None:
    outbox.append(keys, events(0), create=True)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(outbox.folder, keys, n)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = [event["event"] for event in outbox.read(keys)]
    assert sorted(found) == sorted([0, *[1] * 50, *[2] * 50])


def _write(folder: Path, keys: MonthKeys, number: int) -> None:
    outbox = Outbox(folder)
    for _ in range(50):
        assert outbox.append(keys, events(number), create=False)
    os._exit(0)


def test_looking_for_room_changes_nothing_whenever_it_is_killed(
    outbox: Outbox, keys: MonthKeys
) -> None:
    outbox.append(keys, events(1), create=True)
    before = outbox.path(OCTOBER).read_bytes()
    outbox.check_room(OCTOBER)
    assert outbox.path(OCTOBER).read_bytes() == before
    step, done = 1, False
    while not done:
        try:
            with Faults(step):
                outbox.check_room(OCTOBER)
            done = True
        except DeadError:
            pass
        assert outbox.read(keys) == events(1)
        again = Outbox(outbox.folder)
        again.append(keys, events(2), create=False)
        assert again.read(keys) == events(1, 2)
        outbox.path(OCTOBER).write_bytes(before)
        step += 1
    assert step > 3


def test_one_run_sends_at_a_time(outbox: Outbox) -> None:
    with outbox.lock(), pytest.raises(LockedError, match="sending"), outbox.lock():
        pass
    with outbox.lock():
        pass
