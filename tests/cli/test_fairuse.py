"""`aggregator fairuse check`: what it says to people, and what it never says (CS-9, CT-3)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from closed import Run
from support import START, TinyHome, usage

from aggregator.model.profile import DEFAULT_PROFILE

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests/data/profiles/first.toml"
NOW = "2026-10-09T12:00:00Z"
ROW = '[[fair_use.rules]]\nname = "cap"\nkind = "month_bytes"\nthreshold = 50_000_000\n'
# A setting of the row above, what to say in its place, and what the error names.
WRONG = {
    "name": ('name = "cap"', 'name = "No Name"', "row 1 needs a name"),
    "name twice": ('name = "cap"', 'name = "outweighs_mean"', "a name twice"),
    "kind": ("month_bytes", "week_bytes", "row 1 needs a kind"),
    "threshold": ("50_000_000", "0", "row 1: threshold must be"),
    "threshold missing": ("threshold = 50_000_000", "", "row 1: threshold must be"),
    "step": ("threshold", "warn_percent = [100, 80]\nthreshold", "row 1: warn_percent must be"),
    "plans": ("threshold", "plans = [1]\nthreshold", "row 1: plans must be"),
    "unknown": ("threshold", "limit = 1\nthreshold", "'limit' in fair_use.rules, row 1"),
}


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    home = TinyHome.make(tmp_path / "home", profile=DEFAULT_PROFILE + ROW)
    lines = [usage("2026-10-01", f"acct-{n}", bytes=1) for n in range(30)]
    home.ingest([*lines, usage("2026-10-02", "jane.roe", bytes=10**8)], NOW)
    return home.root


def test_the_footer_names_the_rules_that_were_asked_for(run: Run, heavy: Path) -> None:
    both = run(heavy, "fairuse", "check", now=NOW)
    assert both.code == 0
    assert both.err.endswith(": 1 user of 31 by outweighs_mean, cap\n")
    one = run(heavy, "fairuse", "check", "--rule", "cap", now=NOW)
    assert one.err == "2026-10-01 to 2026-10-02: 1 user of 31 by cap\n"
    assert "outweighs" not in one.out


def test_nothing_found_is_one_line(run: Run, tmp_path: Path) -> None:
    home = TinyHome.make(tmp_path / "home")
    home.ingest([usage("2026-10-01", f"acct-{n}") for n in range(5)], NOW)
    said = run(home.root, "fairuse", "check", now=NOW)
    assert (said.code, said.out) == (0, "")
    assert said.err == "2026-10-01 to 2026-10-01: nobody by outweighs_mean\n"


@pytest.mark.parametrize("words", [("jane.roe", "of-rome"), ("-", "jane.roe", "of-rome")])
def test_words_too_many_are_refused_and_not_repeated(
    run: Run, heavy: Path, words: tuple[str, ...]
) -> None:
    said = run(heavy, "fairuse", "check", "--explain", *words, now=NOW)
    assert (said.code, said.out) == (2, "")
    assert "no further words" in said.err
    assert said.err.count("\n") == 1
    assert "roe" not in said.err
    assert "rome" not in said.err


@pytest.mark.parametrize(
    "wrong", [("--month", "2026-13"), ("--rule", "nope"), ("--home", "/nowhere")]
)
def test_no_error_repeats_the_account(run: Run, heavy: Path, wrong: tuple[str, str]) -> None:
    said = run(heavy, "fairuse", "check", "--explain", "jane.roe", *wrong, now=NOW)
    assert said.code in (2, 3)
    assert said.err.startswith("error: ")
    assert "roe" not in said.err


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_account_is_read_from_standard_input_without_its_line_end(
    heavy: Path, end: bytes
) -> None:
    command = [sys.executable, "-m", "aggregator", "--home", str(heavy), "--now", NOW]
    done = subprocess.run(
        [*command, "fairuse", "check", "--explain", "-", "--rule", "cap", "--language", "de",
         "--json"],
        cwd=ROOT, input=b"jane.roe" + end, capture_output=True, check=True,
    )  # fmt: skip
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["bytes"], row["percent"]) == (10**8, 100)
    assert "Oktober" in row["sentences"][0]
    assert b"roe" not in done.stdout + done.stderr


def test_only_the_sentences_load_templates() -> None:
    script = (
        "import sys\nfrom aggregator.cli.main import main\n"
        "code = main(['fairuse', 'check', '--help'])\n"
        "print(code, sorted({'jinja2', 'sqlalchemy', 'duckdb', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\n0 []\n")
    assert "Examples:" in done.stdout


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_makes_no_home_and_is_named(run: Run, tmp_path: Path, name: str) -> None:
    old, new, told = WRONG[name]
    assert old in ROW
    profile = tmp_path / "profile.toml"
    profile.write_text(DEFAULT_PROFILE + ROW.replace(old, new, 1))
    home = tmp_path / "home"
    said = run(home, "init", "--policy", profile, now=START)
    assert (said.code, said.out) == (3, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert told in said.err
    assert not (home / "config.toml").exists()


def test_a_home_with_the_first_profile_opens_and_is_judged(run: Run, tmp_path: Path) -> None:
    text = OLD.read_text("utf-8")
    assert "notices_monthly" not in text
    assert "rules" not in text
    home = TinyHome.make(tmp_path / "home", profile=text)
    lines = [usage("2026-10-01", f"acct-{n}", bytes=1) for n in range(30)]
    home.ingest([*lines, usage("2026-10-02", "jane.roe", bytes=1001)], NOW)
    said = run(home.root, "fairuse", "check", "--json", now=NOW)
    (row,) = said.json["rows"]
    assert (row["rule"], row["threshold"], row["outweighs_mean"]) == (
        "outweighs_mean", 1000, 1001.0,
    )  # fmt: skip
