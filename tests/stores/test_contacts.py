"""Contacts: who was heard and what was taken in, to the hour, and never at anybody's cost."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.model.runs import Run
from aggregator.stores import atomic, lock
from aggregator.stores.contacts import Contacts, Taken, TakenIn, TakenInFile, to_the_hour
from aggregator.stores.runs import RunStore

NOW = dt.datetime(2026, 10, 5, 12, 34, 56, 789, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
TODAY = "2026-10-05"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def refusing(*_words: object, **_named: object) -> None:
    raise OSError(28, "No space left on device")


def test_an_agent_is_heard_to_the_hour_and_nothing_else_is_kept(inbox: Path) -> None:
    """CS-6: no content, no address, and no time from which a user's could be told."""
    contacts = Contacts(inbox)
    assert (contacts.since(), contacts.heard()) == (None, {})
    contacts.hear("us-nyc-01", NOW)
    contacts.hear("de-fra-01", NOW + 3 * HOUR)
    assert contacts.heard() == {
        "us-nyc-01": to_the_hour(NOW), "de-fra-01": to_the_hour(NOW + 3 * HOUR)
    }  # fmt: skip
    assert contacts.since() == to_the_hour(NOW)
    files = sorted(path for path in inbox.rglob("*") if path.is_file())
    assert [path.name for path in files] == [".since", "de-fra-01", "us-nyc-01"]
    assert [path.stat().st_size for path in files] == [0, 0, 0]
    assert {path.stat().st_mode & 0o077 for path in (inbox / ".heard", *files)} == {0}
    Contacts(inbox).hear("us-nyc-01", NOW - 5 * HOUR)  # a clock that was ahead
    assert contacts.heard()["us-nyc-01"] == to_the_hour(NOW - 5 * HOUR)
    assert contacts.since() == to_the_hour(NOW)


def test_an_agent_that_asks_often_costs_one_write_an_hour(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contacts, written = Contacts(inbox), []
    real = os.utime

    def counting(*words: Any, **named: Any) -> None:
        written.append(words[0])
        real(*words, **named)

    contacts.hear("us-nyc-01", NOW)
    monkeypatch.setattr(os, "utime", counting)
    for minute in range(120):
        contacts.hear("us-nyc-01", to_the_hour(NOW) + dt.timedelta(minutes=minute))
    assert len(written) == 1


@pytest.mark.parametrize("name", ["utime", "open", "mkdir"])
def test_a_contact_that_cannot_be_noted_is_passed_over(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    contacts = Contacts(inbox)
    with monkeypatch.context() as full:
        full.setattr(os, name, refusing)
        contacts.hear("us-nyc-01", NOW)
    assert "us-nyc-01" not in contacts.heard() or name == "utime"
    contacts.hear("us-nyc-01", NOW + HOUR)
    assert contacts.heard() == {"us-nyc-01": to_the_hour(NOW + HOUR)}


def test_a_link_in_the_place_of_a_contact_is_not_followed(inbox: Path, tmp_path: Path) -> None:
    contacts, other = Contacts(inbox), tmp_path / "other"
    other.write_bytes(b"")
    before = other.stat().st_mtime_ns
    contacts.hear("de-fra-01", NOW)
    (inbox / ".heard" / "us-nyc-01").symlink_to(other)
    contacts.hear("us-nyc-01", NOW)
    assert other.stat().st_mtime_ns == before


def test_what_was_taken_in_is_added_up_and_told_to_the_hour(tmp_path: Path) -> None:
    noted = TakenInFile(tmp_path / "runs")
    assert noted.load() is None
    noted.add(NOW, {"us-nyc-01": TODAY, "de-fra-01": None}, {"malformed": 2}, {"no_key": 1})
    noted.add(NOW + HOUR, {"us-nyc-01": TODAY}, {"malformed": 1, "revoked": 1})
    assert noted.load() == TakenIn(
        to_the_hour(NOW),
        {
            "us-nyc-01": Taken(to_the_hour(NOW + HOUR), TODAY),
            "de-fra-01": Taken(to_the_hour(NOW), None),
        },
        {TODAY: {"malformed": 3, "revoked": 1}},
        {"no_key": 1},
    )
    noted.add(NOW + HOUR, {}, {}, {})
    found = noted.load()
    assert found is not None
    assert found.waiting == {}


def test_a_run_that_changes_nothing_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = TakenInFile(tmp_path / "runs")
    noted.add(NOW, {}, {}, {})
    assert not noted.path.exists()
    noted.add(NOW, {"us-nyc-01": TODAY}, {}, {"clock": 1})
    monkeypatch.setattr(atomic, "write", refusing)
    before = noted.path.stat().st_mtime_ns
    noted.add(NOW, {"us-nyc-01": TODAY}, {}, {"clock": 1})
    noted.add(NOW + HOUR, {"us-nyc-01": TODAY}, {}, {})  # passed over: the disk is full
    assert noted.path.stat().st_mtime_ns == before


def test_a_note_waits_for_a_job_that_ends_and_gives_up_where_it_never_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.setattr("aggregator.stores.runs._LOCK_SECONDS", 0.0)
    with lock.hold(runs / ".lock"):
        TakenInFile(runs).add(NOW, {"us-nyc-01": TODAY}, {})
    assert TakenInFile(runs).load() is None


def test_only_the_last_days_of_refusals_are_kept() -> None:
    noted = TakenIn(NOW)
    for number in range(20):
        noted = noted.after(NOW + number * 24 * HOUR, {}, {"malformed": 1}, None)
    assert list(noted.refused) == [f"2026-10-{day}" for day in range(17, 25)]


@given(st.binary(max_size=80) | st.sampled_from([b"{}", b"[]", b"null", b'{"since": 1}']))
def test_a_damaged_note_counts_as_missing(tmp_path_factory: Any, content: bytes) -> None:
    noted = TakenInFile(tmp_path_factory.mktemp("runs"))
    noted.path.write_bytes(content)
    assert noted.load() is None
    noted.add(NOW, {"us-nyc-01": TODAY}, {})
    assert noted.load() is not None


def test_the_note_is_no_run_of_a_job(tmp_path: Path) -> None:
    runs = RunStore(tmp_path / "runs")
    TakenInFile(runs.folder).add(NOW, {"us-nyc-01": TODAY}, {})
    runs.save(Run("ingest", NOW, 1.0, 0))
    assert [run.job for run in runs.runs()] == ["ingest"]
