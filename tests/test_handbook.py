"""The handbook of reports: each question's command runs, and finds what it is about."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from benchmarks import years
from closed import Run

TEXT = (Path(__file__).parents[1] / "deploy/reports.md").read_text("utf-8")
_TABLE = TEXT.partition("| question | command")[2].partition("\n\n")[0]
COMMANDS = [
    words
    for line in _TABLE.splitlines()
    for words in re.findall(r"`(report [^`]+)`", line.rpartition(" | ")[2])
]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("year") / "home"
    years.make(home, 1, 14)
    return home


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_question_has_an_answer(year: Path, run: Run, command: str) -> None:
    said = run(year, *shlex.split(command), now=years.NOW)
    assert said.code == 0, said.err
    assert said.out or "no " in said.err


def test_the_worst_location_from_germany_is_first(year: Path, run: Run) -> None:
    (command,) = (one for one in COMMANDS if "--by location --where country=DE" in one)
    rows = run(year, *shlex.split(command), "--json", now=years.NOW).json
    assert rows[0]["location"] == years.WORSE[0]
    place = next(one for one in COMMANDS if "--by country --where" in one)
    words = shlex.split(place.replace("nl-ams", years.WORSE[0]))
    rows = run(year, *words, "--json", now=years.NOW).json
    assert rows[0]["country"] == years.WORSE[1]
    assert rows[0]["success_change_points"] < -10 < rows[1]["success_change_points"]


def test_the_location_that_grows_fastest_is_first(year: Path, run: Run) -> None:
    (command,) = (one for one in COMMANDS if "--sort -change_percent" in one)
    rows = run(year, *shlex.split(command), "--json", now=years.NOW).json
    assert rows[0]["location"] == years.FASTEST
