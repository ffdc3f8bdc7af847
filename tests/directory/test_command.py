"""A command: all of its rows or none, and nothing of it or of its children is left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from aggregator.directory import lookup
from aggregator.directory.lookup import check
from aggregator.directory.watch import Watch
from aggregator.model.settings import DirectoryKind, DirectorySettings, Entry

from . import places
from .places import MARK

GOOD = f"print('account,address\\nacct-1,{MARK}@example.net', flush=True)\n"
# A child that holds on to what `%s` says, and tells its number once it runs.
CHILD = """
import pathlib, subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-I", "-c", "import time; time.sleep(600)"], %s
)
path = pathlib.Path(sys.argv[1])
path.with_suffix(".new").write_text(str(child.pid))
path.with_suffix(".new").rename(path)
"""
QUIET = "stdout=subprocess.DEVNULL"
SLEEP = "import time; time.sleep(600)\n"


def until(path: Path) -> type[Watch]:
    """Return a watch whose deadline comes when there is a file at `path`."""

    class Until(Watch):
        def left(self) -> float:
            return 0.0 if path.exists() else 0.05

    return Until


@pytest.mark.parametrize("status", [1, 3, 255])
def test_good_rows_before_a_bad_end_are_no_directory(status: int) -> None:
    text = f"{GOOD}import sys; print('{MARK}', file=sys.stderr); sys.exit({status})"
    assert f"ended with status {status}; " in places.fails(places.command(text))


def test_a_command_that_was_killed_has_no_good_end() -> None:
    text = f"{GOOD}import os; os.kill(os.getpid(), {signal.SIGKILL:d})"
    assert "ended with status 137; " in places.fails(places.command(text))


def test_its_error_output_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    settings = places.command(f"{GOOD}import sys; print('{MARK}', file=sys.stderr)")
    assert places.ask(settings, ["acct-1"]) == {"acct-1": Entry("acct-1", f"{MARK}@example.net")}
    assert capfd.readouterr() == ("", "")


def test_it_has_no_input_and_no_shell() -> None:
    settings = places.command(
        "import sys; assert sys.stdin.read() == ''; print('account\\n' + sys.argv[1])", "$HOME;`id`"
    )
    assert places.ask(settings, ["$HOME;`id`"]) == {"$HOME;`id`": Entry("$HOME;`id`")}


@pytest.mark.parametrize(
    ("program", "said"),
    [("", "is empty"), ("print('account')", "names no account"), (f"print('{MARK}')", "no column")],
)
def test_a_command_that_says_nothing_is_no_empty_directory(program: str, said: str) -> None:
    assert said in places.fails(places.command(program))


def test_a_command_that_is_not_there_or_cannot_run(tmp_path: Path) -> None:
    def of(*words: str) -> DirectorySettings:
        return DirectorySettings(DirectoryKind.COMMAND, command=words)

    text = tmp_path / "text"
    text.write_text(MARK)
    assert "not found" in places.fails(of(f"/{MARK}/{MARK}"))
    assert "cannot be run" in places.fails(of(str(text)))
    assert "cannot be run" in places.fails(of(str(tmp_path)))
    assert "cannot be run" in places.fails(of(f"{MARK}\0"))


@pytest.mark.parametrize(
    "program",
    [
        SLEEP,
        GOOD + SLEEP,
        GOOD + "import os\nos.close(1)\n" + SLEEP,
        GOOD + "import time\nwhile True: print(end='a', flush=True); time.sleep(0.05)",
        GOOD + "while True: print('acct-2,')",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP,
    ],
    ids=["silent", "stuck", "closed its output", "drips", "never ends", "stubborn"],
)
def test_the_deadline_ends_it(program: str) -> None:
    before = places.open_files()
    assert "timed out after 0.3 s; " in places.fails(places.command(program, seconds=places.SOON))
    assert places.open_files() == before


@pytest.mark.parametrize("end", ["", "sys.exit(1)", "1 / 0"])
def test_a_child_that_outlives_it_is_ended(tmp_path: Path, end: str) -> None:
    number = tmp_path / "number"
    settings = places.command(CHILD % QUIET + GOOD + end, number)
    if end:
        assert "ended with status 1; " in places.fails(settings)
    else:
        assert places.ask(settings, ["acct-1"])
    assert places.gone(int(number.read_text()))


def test_a_child_that_holds_its_output_open_is_waited_for_until_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = tmp_path / "number"
    settings = places.command(CHILD % "" + GOOD, number)
    monkeypatch.setattr(lookup, "Watch", until(number))
    assert "timed out after 600 s; " in places.fails(settings)
    assert places.gone(int(number.read_text()))


def test_a_child_that_went_its_own_way_does_not_hold_up_the_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = tmp_path / "number"
    settings = places.command(CHILD % "start_new_session=True" + GOOD, number)
    monkeypatch.setattr(lookup, "Watch", until(number))
    before = places.open_files()
    assert "timed out after 600 s; " in places.fails(settings)
    assert places.open_files() == before
    child = int(number.read_text())
    assert places.is_running(child)
    os.kill(child, signal.SIGKILL)
    assert places.gone(child)


def test_a_check_ends_it_after_the_first_row() -> None:
    with places.nothing_left():
        assert check(places.command(GOOD + SLEEP)) == ("account", "address")
