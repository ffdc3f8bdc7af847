"""The command line: exit codes, one line an error, data on stdout and words on stderr."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ALL_CLOSED, ALL_IN, ALL_PURGED, START, TinyHome, crowd, usage

from aggregator.cli.main import _COMMANDS, main
from aggregator.pipeline import close, ingest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("init", "ingest", "rollup", "purge", "run")
_LOCKS = Path("/proc/locks")
# Loaded by what a command does, never by its help.
HEAVY = {
    "duckdb", "pyarrow", "numpy", "rich", "cryptography", "apscheduler", "jinja2", "babel",
    "sqlalchemy",
}  # fmt: skip

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return what runs the command line in this process: exit code, stdout, stderr."""
    monkeypatch.delenv("AGGREGATOR_HOME", raising=False)

    def run(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.ndjson"
    path.write_text("\n".join([*crowd("2026-10-05", range(20)), "planted-nonsense", ""]))
    return path


def only_line(err: str) -> str:
    """Return the one line of an expected error, without a trace of Python."""
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def python(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


def test_the_whole_way_has_data_on_stdout_and_words_on_stderr(
    call: Call, tmp_path: Path, records: Path
) -> None:
    root = tmp_path / "new" / "home"
    code, out, err = call("init", "--home", root, "--now", START)
    assert (code, out) == (0, "")
    assert "rehearsal home" in err
    code, out, err = call("--home", root, "--json", "--now", ALL_IN, "ingest", records,
                          "--confirm-clock")  # fmt: skip
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["accepted"], said["rejected"], said["reasons"]) == (20, 1, {"not_json": 1})
    assert said["schema_version"] == 1
    code, out, err = call("rollup", "--home", root, "--now", ALL_CLOSED, "--confirm-clock")
    assert (code, out, err) == (0, "closed 1 day: 2026-10-05\n", "")
    code, out, err = call("rollup", "--home", root, "--now", ALL_CLOSED)
    assert (code, out, err) == (0, "", "no day is due\n")
    assert call("-q", "rollup", "--home", root, "--now", ALL_CLOSED) == (0, "", "")
    code, out, err = call("purge", "--home", root, "--now", ALL_PURGED, "--json")
    (receipt,) = json.loads(out)["rows"]
    assert (code, err, receipt["verified"], receipt["month"]) == (0, "", True, "2026-10")
    assert call("purge", "--home", root, "--now", ALL_PURGED) == (0, "", "no month is due\n")


def test_globals_before_and_after_the_command(
    call: Call, home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, clock = ("--home", home.root), ("--now", START)
    expected = call(*where, *clock, "--json", "rollup")
    assert expected[:2] == (0, '{\n  "schema_version": 1,\n  "rows": []\n}\n')
    assert call("rollup", *where, *clock, "--json") == expected
    assert call(*where, "rollup", "--json", *clock) == expected
    # What is said after the command's name counts, and a home said over one in the environment.
    assert call("--home", "/nowhere", "rollup", *where, *clock, "--json") == expected
    monkeypatch.setenv("AGGREGATOR_HOME", str(home.root))
    assert call("rollup", *clock, "--json") == expected
    assert call("rollup", "--home", "/nowhere", *clock)[0] == 3


@pytest.mark.parametrize("words", [("ingest", "x"), ("rollup",), ("purge",), ("run", "daily")])
def test_without_a_home_it_is_usage_and_with_none_there_configuration(
    call: Call, tmp_path: Path, words: tuple[str, ...]
) -> None:
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert "--home" in only_line(err)
    code, out, err = call(*words, "--home", tmp_path / "absent")
    assert (code, out) == (3, "")
    assert "aggregator init" in only_line(err)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--nonsense",), ("nonsense",), ("rollup", "--through", "2026-02-30"),
        ("rollup", "--through", "yesterday"), ("purge", "--month", "2026-13"),
        ("purge", "--month", "october"), ("run", "nothing"), ("run",), ("rollup", "surplus"),
        ("rollup", "--now", "tomorrow"), ("rollup", "--now", "2026-10-05T00:00:00"),
    ],
)  # fmt: skip
def test_wrong_words_are_usage_errors(call: Call, home: TinyHome, words: tuple[str, ...]) -> None:
    before = home.files()
    code, out, err = call("--home", home.root, *words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert home.files() == before


def test_a_home_is_made_once_and_in_an_empty_folder(
    call: Call, home: TinyHome, tmp_path: Path
) -> None:
    before = home.files()
    code, _, err = call("init", "--home", home.root, "--now", START)
    assert code == 5
    assert "there is a home already" in only_line(err)
    assert home.files() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.part").write_text("mine")
    code, _, err = call("init", "--home", tmp_path / "full", "--now", START)
    assert code == 5
    assert "not empty" in only_line(err)
    assert (tmp_path / "full" / "thesis.part").read_text() == "mine"


@pytest.mark.parametrize("text", [None, "nonsense = 1", "k", "\xff"])
def test_a_wrong_profile_makes_no_home(call: Call, tmp_path: Path, text: str | None) -> None:
    profile = tmp_path / "profile.toml"
    if text is not None:
        profile.write_bytes(text.encode("latin-1"))
    code, _, err = call("init", "--home", tmp_path / "home", "--policy", profile, "--now", START)
    assert code == 3
    only_line(err)
    assert not (tmp_path / "home" / "config.toml").exists()


def test_now_is_refused_on_a_real_home_by_everything_that_writes(
    call: Call, tmp_path: Path, records: Path
) -> None:
    """The clock can destroy data."""
    root = tmp_path / "real"
    code, _, err = call("init", "--home", root, "--accept-weak-destruction")
    assert code == 0, err
    before = TinyHome(root).files()
    for words in (("ingest", records), ("rollup",), ("purge",), ("run", "month-end")):
        code, out, err = call("--home", root, *words, "--now", "2030-01-01T00:00:00Z")
        assert (code, out) == (5, "")
        assert "rehearsal" in only_line(err)
    assert TinyHome(root).files() == before
    assert call("--home", root, "rollup")[0] == 0


def test_files_that_cannot_be_read_do_not_stop_the_others(
    call: Call, home: TinyHome, records: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(usage().encode() * 99)[:-9])
    code, out, err = call("--home", home.root, "--now", ALL_IN, "--json", "-q", "ingest",
                          tmp_path / "absent", cut, records, "--confirm-clock")  # fmt: skip
    assert code == 4
    said = json.loads(out)
    assert (said["accepted"], said["unreadable"]) == (20, 2)
    assert [line.split(": ")[2] for line in err.splitlines()] == [
        "No such file or directory", "the compressed data is cut short or damaged",
    ]  # fmt: skip
    assert all(line.startswith("error: ") for line in err.splitlines())


def test_strict_accepts_the_good_and_ends_with_4(call: Call, home: TinyHome, records: Path) -> None:
    words = ("--home", home.root, "--now", ALL_IN, "ingest", records, "--strict")
    code, out, err = call(*words, "--confirm-clock")
    assert code == 4
    assert only_line(err) == "error: 1 records were rejected; the good ones were accepted\n"
    assert out.startswith("accepted 20, rejected 1\n")
    assert "planted" not in out + err
    records.write_text(usage() + "\n")
    assert call(*words)[0] == 0


def test_nothing_named_takes_the_empty_inbox_and_refuses_a_full_one(
    call: Call, home: TinyHome
) -> None:
    code, out, _ = call("--home", home.root, "--now", START, "ingest", "--json")
    assert code == 0
    assert json.loads(out)["accepted"] == 0
    (home.root / "inbox" / "batch").write_bytes(b"x")
    code, out, err = call("--home", home.root, "--now", START, "ingest")
    assert (code, out) == (4, "")
    only_line(err)


def test_the_dry_run_changes_nothing_and_takes_no_lock(
    call: Call, home: TinyHome, records: Path
) -> None:
    home.ingest_files([records])
    before = home.files()
    words = ("--home", home.root, "--now", ALL_PURGED, "purge", "--dry-run")
    with (home.root / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, out, _ = call(*words, "--json")
        assert code == 0
        assert call("--home", home.root, "--now", ALL_IN, "rollup")[0] == 75
    (plan,) = json.loads(out)["rows"]
    assert (plan["month"], plan["due"]) == ("2026-10", True)
    assert [step["action"] for step in plan["steps"]] == ["destroy", "remove"]
    assert "keys/2026-10.key" in call(*words)[1]
    assert home.files() == before


def test_a_month_not_due_is_refused_and_an_unverified_one_ends_with_6(
    call: Call, home: TinyHome, records: Path
) -> None:
    home.ingest_files([records])
    home.rollup()
    words = ("--home", home.root, "purge", "--json", "--confirm-clock")
    code, out, err = call(*words, "--month", "2026-10", "--now", ALL_CLOSED)
    assert (code, out) == (5, "")
    assert "not due before 2026-11-03T00:00:00Z" in only_line(err)
    (home.root / "keys" / "2026-10.key").unlink()
    code, out, err = call(*words, "--now", ALL_PURGED)
    assert code == 6
    assert "2026-10" in only_line(err)
    assert json.loads(out)["rows"][0]["verified"] is False
    assert home.files("raw") == {}


@pytest.mark.parametrize("job", ["daily", "month-end"])
def test_a_job_run_once_does_what_its_command_does(
    call: Call, home: TinyHome, records: Path, job: str
) -> None:
    home.ingest_files([records])
    code, out, _ = call("--home", home.root, "run", job, "--now", ALL_PURGED, "--json",
                        "--confirm-clock")  # fmt: skip
    assert code == 0
    said = json.loads(out)
    assert said["job"] == job
    assert said["closed" if job == "daily" else "purged"] in (["2026-10-05"], ["2026-10"])


def test_a_job_that_found_damage_ends_with_6(call: Call, home: TinyHome, records: Path) -> None:
    home.ingest_files([records])
    (path,) = (home.root / "raw/2026-10/2026-10-05").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    for job in ("daily", "month-end"):
        code, _, err = call("--home", home.root, "run", job, "--now", ALL_PURGED,
                            "--confirm-clock")  # fmt: skip
        assert code == 6
        only_line(err)


def test_an_unexpected_exception_tells_its_place_and_not_its_words(
    call: Call, home: TinyHome, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CT-3: the message of a library may quote the value that it stumbled on."""

    def stumble(*_words: object, **_named: object) -> None:
        raise ValueError("cannot convert jane.roe@example.org, 203.0.113.7")

    monkeypatch.setattr(ingest, "ingest", stumble)
    monkeypatch.setattr(close, "close_due_days", stumble)
    for words in (("ingest", records), ("rollup",)):
        code, out, err = call("--home", home.root, *words, "--now", START)
        assert (code, out) == (1, "")
        line = only_line(err)
        assert "unexpected ValueError at " in line
        assert ".py:" in line
        assert "jane" not in line
        assert "203" not in line


def test_a_refusing_system_is_told_without_a_path(
    call: Call, home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: object, **_named: object) -> None:
        raise OSError(28, "No space left on device", "/home/jane.roe")

    monkeypatch.setattr(close, "close_due_days", full)
    code, _, err = call("--home", home.root, "rollup", "--now", START)
    assert code == 1
    assert only_line(err).startswith("error: the system refused: No space left on device; nothing")


def test_an_interrupted_run_ends_with_130_and_leaves_no_lock(call: Call, home: TinyHome) -> None:
    words = ["-m", "aggregator", "--home", home.root, "ingest", "-", "--now", ALL_IN]
    with subprocess.Popen(
        # A shell that starts the tests in the background has them ignore interrupts.
        ["env", "--default-signal=INT", sys.executable, *words, "--confirm-clock"], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(usage() + "\n")
        process.stdin.flush()
        while not _locked(home.root / ".lock"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert only_line(err.removeprefix("\n")).startswith("error: interrupted")
    assert call("--home", home.root, "rollup", "--now", ALL_IN)[0] == 0


def _locked(path: Path) -> bool:
    """Look in the kernel's table: to take the lock could be what keeps the run from it."""
    inode = f":{path.stat().st_ino} "
    return any("FLOCK" in line and inode in line for line in _LOCKS.read_text().splitlines())


def test_a_reader_that_goes_away_gets_no_trace(home: TinyHome) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "aggregator", "--home", home.root, "rollup", "--json", "--now",
             START],
            cwd=ROOT, stdout=gone, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # click ends what could not print with 1


def test_a_killed_run_leaves_no_core_file() -> None:
    done = python("-c", "import resource\nfrom aggregator.cli.main import main\n"
                  "main(['--help'])\nprint(resource.getrlimit(resource.RLIMIT_CORE))")  # fmt: skip
    assert done.stdout.endswith("(0, 0)\n")


@pytest.mark.parametrize("name", ["", *(name for name in _COMMANDS if name in OURS)])
def test_help_has_an_example_and_loads_nothing_heavy(name: str) -> None:
    script = (
        "import sys\nfrom aggregator.cli.main import main\n"
        f"code = main([{name!r}, '--help'] if {name!r} else ['--help'])\n"
        "print(code, *sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = python("-c", script)
    code, *modules = done.stderr.split()
    assert code == "0"
    assert not HEAVY & {*modules}
    assert "Example" in done.stdout
    examples = done.stdout.partition("Example")[2]
    assert f"aggregator {'--home' if not name else ''}".strip() in examples
    assert name in examples
