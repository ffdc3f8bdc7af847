"""The runs of jobs: kept whole through a crash, shown only, never a reason to stop."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from pipeline.faults import DeadError, Faults

from aggregator.model.runs import Known, Run
from aggregator.stores.runs import RunStore

NOW = dt.datetime(2026, 11, 3, 6, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def test_failures_add_up_until_a_success(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    assert (store.load("daily"), store.runs()) == (None, ())
    store.save(Run("daily", NOW, 1.5, 0))
    store.save(Run("daily", NOW + HOUR, 0.5, 6, "a line"))
    found = store.save(Run("daily", NOW + 2 * HOUR, 0.5, 4, "another"))
    assert found == Run("daily", NOW + 2 * HOUR, 0.5, 4, "another", NOW, 2, NOW + HOUR)
    assert store.load("daily") == found
    well = store.save(Run("daily", NOW + 3 * HOUR, 0.5, 0))
    assert well == Run("daily", NOW + 3 * HOUR, 0.5, 0, None, NOW + 3 * HOUR, 0, None)


def test_every_job_has_its_own(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    store.save_known(NOW, {})
    for name in ("month-end", "ingest"):
        store.save(Run(name, NOW, 1.0, 0))
    assert [run.job for run in store.runs()] == ["ingest", "month-end"]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"null", b'{"job": 1}', b'{"since": "x", "incidents": []}']
)
def test_a_damaged_file_counts_as_missing_and_is_replaced(tmp_path: Path, damage: bytes) -> None:
    store = RunStore(tmp_path)
    for name in ("daily", "incidents"):
        (tmp_path / f"{name}.json").write_bytes(damage)
    assert (store.load("daily"), store.runs(), store.known()) == (None, (), (None, {}))
    store.save(Run("daily", NOW, 1.0, 0))
    store.save_known(NOW, {"a": Known("what", NOW)})
    assert store.load("daily") is not None
    assert store.known() == (NOW, {"a": Known("what", NOW, None, False)})


def test_what_was_told_comes_back_as_it_was(tmp_path: Path) -> None:
    known = {"a": Known("what, as told", NOW - HOUR, NOW, True), "b": Known("other", NOW)}
    RunStore(tmp_path).save_known(NOW - 2 * HOUR, known)
    assert RunStore(tmp_path).known() == (NOW - 2 * HOUR, known)


def test_one_run_at_a_time_tells(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with store.telling() as first, store.telling() as second:
        assert (first, second) == (True, False)
    with store.telling() as again:
        assert again


def test_a_crash_at_any_step_leaves_the_run_before_or_this_one(tmp_path: Path) -> None:
    before, after = Run("daily", NOW, 1.0, 0), Run("daily", NOW + HOUR, 1.0, 6, "a line")
    steps = 0
    while True:
        store = RunStore(tmp_path / str(steps))
        store.save(before)
        steps += 1
        try:
            with Faults(dies_at=steps):
                store.save(after)
        except DeadError:
            found = store.load("daily")
            assert found is not None
            assert found.began_at in {before.began_at, after.began_at}
            again = store.save(after)
            assert again.exit_code == 6
            assert again.failures == (2 if found.exit_code else 1)
            assert store.load("daily") == again
            assert not list(store.folder.glob("*.part"))
        else:
            break
    assert steps > 3
