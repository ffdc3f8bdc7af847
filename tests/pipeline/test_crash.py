"""Killed at any durable step of any stage, and simply run again: the same truth.

The default run kills at a seeded sample of the steps, `-m slow` at every one.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ALL_CLOSED, ALL_IN, TinyHome, flags, month, usage

from .faults import DeadError, Faults

_DAYS = ("2026-10-01", "2026-10-02")
_BAD = [usage(user="203.0.113.7"), "{", '{"record":"usage_counter.1","ip":"x"}']
_LINES = [
    *month(3, days=(1, 2), users=24),
    flags("2026-10-01", country="FR", users=40),
    *_BAD,
]
_SAMPLE = 4


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command, and the homes before it and at the end of an undisturbed run."""

    before: Path
    run: Callable[[TinyHome], Any]
    steps: int
    tables: dict[str, bytes]


def _ingest(home: TinyHome) -> Any:
    return home.ingest(_LINES, ALL_IN, parts=2)


def _purge(home: TinyHome) -> Any:
    return home.purge()


_STAGES: dict[str, Callable[[TinyHome], Any]] = {
    "ingest": _ingest,
    "rollup": lambda home: home.rollup(ALL_CLOSED),
    "purge": _purge,
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """Run all stages once without a fault, keeping the home before each."""
    root = tmp_path_factory.mktemp("undisturbed")
    home = TinyHome.make(root / "home")
    before, steps = {}, {}
    for name, run in _STAGES.items():
        before[name] = root / f"before-{name}"
        shutil.copytree(home.root, before[name])
        with Faults() as faults:
            run(home)
        steps[name] = faults.seen
    tables = home.tables()
    assert len(tables) > 8
    return {name: Stage(before[name], run, steps[name], tables) for name, run in _STAGES.items()}


def _kill(stage: Stage, folder: Path, number: int) -> TinyHome:
    """Return a copy of the home in which the stage died before its step `number`."""
    home = TinyHome(folder / "home")
    shutil.copytree(stage.before, home.root)
    with Faults(number) as faults, pytest.raises(DeadError):
        stage.run(home)
    assert faults.dead
    return home


def _check_end(home: TinyHome, stage: Stage) -> None:
    """CL-2, CV-5: the truth, one entry a day, one receipt, and nothing left of the month."""
    assert home.tables() == stage.tables
    assert [entry["day"] for entry in home.audit("close_day")] == list(_DAYS)
    assert [entry["month"] for entry in home.audit("purge")] == ["2026-10"]
    assert home.audit("purge_remnants") == []
    receipts = [name for name in home.files("audit") if "log" not in name]
    assert receipts == ["audit/receipt-purge-2026-10.json"]
    receipt = home.read(ALL_CLOSED).receipts.read("2026-10")
    assert receipt["verified"], receipt["problems"]
    assert receipt["destroyed"]["key_sets"] == 1
    assert len(receipt["tables"]) == len(stage.tables)
    assert home.files("keys") == home.files("raw") == {}
    assert list((home.root / "raw").iterdir()) == []
    assert not [name for name in home.files() if name.endswith(".part")]


def _check_stage(stages: dict[str, Stage], name: str, folder: Path, number: int) -> None:
    stage = stages[name]
    home = _kill(stage, folder, number)
    counted = {path for path in home.files("tables") if path.endswith(".parquet")}
    stage.run(home)
    if name == "ingest":
        # What was counted before the kill counts again, as every replay does, and only that.
        rejected = sum(row["records"] for row in home.rows("rejections_daily"))
        assert rejected == len(_BAD) * (2 if counted else 1)
    names = list(_STAGES)
    for later in names[names.index(name) + 1 :]:
        _STAGES[later](home)
    _check_end(home, stage)


@pytest.mark.parametrize("name", _STAGES)
@pytest.mark.parametrize("part", range(_SAMPLE))
def test_a_killed_stage_is_simply_run_again(
    stages: dict[str, Stage], name: str, part: int, tmp_path: Path
) -> None:
    """One step of each quarter of the stage, chosen by a seed."""
    steps = stages[name].steps
    bounds = range(1 + part * steps // _SAMPLE, 1 + (part + 1) * steps // _SAMPLE)
    number = random.Random(f"{name} {part}").choice(bounds)
    _check_stage(stages, name, tmp_path, number)


@pytest.mark.slow
@pytest.mark.parametrize("name", _STAGES)
def test_a_stage_killed_at_any_step_is_simply_run_again(
    stages: dict[str, Stage], name: str, tmp_path: Path
) -> None:
    for number in range(1, stages[name].steps + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            _check_stage(stages, name, folder, number)
        except BaseException as error:
            error.add_note(f"killed before step {number} of {stages[name].steps} of {name}")
            raise
        shutil.rmtree(folder)


def test_a_stage_killed_again_and_again_gets_there(
    stages: dict[str, Stage], tmp_path: Path
) -> None:
    """Each run dies further on; what runs repeat of each other changes nothing."""
    home = TinyHome(tmp_path / "home")
    shutil.copytree(stages["ingest"].before, home.root)
    rng = random.Random(9)
    for name, run in _STAGES.items():
        for _ in range(4):
            with Faults(rng.randint(1, stages[name].steps)) as faults:
                try:
                    run(home)
                except DeadError:
                    continue
            assert not faults.dead
        run(home)
    _check_end(home, stages["purge"])


def test_a_killed_making_of_a_home_is_simply_run_again(tmp_path: Path) -> None:
    with Faults() as faults:
        TinyHome.make(tmp_path / "undisturbed")
    for number in range(1, faults.seen + 1):
        root = tmp_path / str(number)
        with Faults(number), pytest.raises(DeadError):
            TinyHome.make(root)
        if not (root / "home.json").exists():
            TinyHome.make(root)
        assert TinyHome(root).ingest([usage()]).accepted == 1


def test_keys_killed_at_any_step_of_their_making_stop_nothing(tmp_path: Path) -> None:
    """Half a key set is none: it must neither be used nor stand in the way of a whole one."""

    def make(home: TinyHome) -> Any:
        with home.open(ALL_IN) as house:
            return house.month_keys_for_writing("2026-10")

    empty = TinyHome.make(tmp_path / "empty")
    shutil.copytree(empty.root, tmp_path / "undisturbed")
    with Faults() as faults:
        make(TinyHome(tmp_path / "undisturbed"))
    for number in range(1, faults.seen + 1):
        home = TinyHome(tmp_path / str(number))
        shutil.copytree(empty.root, home.root)
        with Faults(number), pytest.raises(DeadError):
            make(home)
        assert make(home) == home.read(ALL_IN).keys.load("2026-10")
        assert list(home.files("keys")) == ["keys/2026-10.key"]
