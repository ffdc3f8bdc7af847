"""`aggregator init`: by flags for Ansible, by questions for people, and never by halves."""

from __future__ import annotations

import io
import os
import pty
import select
import shlex
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from closed import Run, Said
from pipeline.faults import STEPS, DeadError, Faults

from aggregator import app
from aggregator.cli.main import main
from aggregator.model.days import parse_instant
from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.stores import custody
from aggregator.stores.home import Home

START: Final = "2026-10-01T00:00:00Z"
MARK: Final = "mark-6604"
CORE: Final = {"limits": {"link_rate_gbits": 10}, "keys": {"accept_weak_destruction": False}}
MAIL: Final = ("mail.host=mail.example.net", "mail.from=A <a@b.example>", "mail.desk=a@b.example")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def sets(*assignments: str) -> list[str]:
    return [word for one in assignments for word in ("--set", one)]


def settings(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "config.toml").read_text("utf-8"))


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def init(run: Run, root: Path, *words: str, now: str | None = START) -> Said:
    said = run(root, "init", *words, now=now)
    assert "Traceback" not in said.err
    return said


# Flags


def test_set_writes_settings_beside_what_else_there_is(run: Run, root: Path) -> None:
    said = init(
        run, root, "--json",
        *sets(*MAIL, "mail.port=465", "mail.to_user=false", "door.listen=[::]:8443",
              'mail.password_command=["pass", "show"]', "mail.username=u=v",
              "schedule.month-end=5 * * * *", "limits.link_rate_gbits=40"),
    )  # fmt: skip
    assert said.code == 0
    assert said.json == {
        "schema_version": 1, "home": str(root), "rehearsal": True, "made": True, "differs": [],
    }  # fmt: skip
    assert settings(root) == {
        "limits": {"link_rate_gbits": 40},
        "keys": {"accept_weak_destruction": False},
        "door": {"listen": "[::]:8443"},
        "mail": {
            "host": "mail.example.net", "from": "A <a@b.example>", "desk": "a@b.example",
            "port": 465, "to_user": False, "username": "u=v", "password_command": ["pass", "show"],
        },
        "schedule": {"month-end": "5 * * * *"},
    }  # fmt: skip
    assert run(root, "status", now=START).code == 0


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        ([f"mail.port={MARK}", *MAIL], "mail.port must be a whole number"),
        ([MARK], "--set takes section.name=value"),
        (["mail.hots=x"], "did you mean mail.host?"),
        (["rehearsal=true"], "unknown setting"),
        (["=x"], "unknown setting"),
        (["schedule.daily=off"], "CL-2"),
        (["mail.host=x"], "mail.from is missing"),
        ([*MAIL, "mail.username=u"], "belong together"),
        (["watch.alert=a@b.example"], "needs [mail]"),
        ([*MAIL, "mail.host=y"], "given twice"),
        ([*MAIL, "mail.security=none"], "mail would travel readable"),
    ],
)
def test_a_wrong_set_is_a_mistake_of_usage_and_writes_nothing(
    run: Run, root: Path, assignments: list[str], told: str
) -> None:
    for words in ([], ["--exists-ok"]):
        said = init(run, root, *sets(*assignments), *words)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("error: --set")
        assert said.err.count("\n") == 1
        assert told in said.err
        assert MARK not in said.err
        assert not root.exists()


def test_a_wrong_environment_or_profile_leaves_nothing_either(
    run: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.toml").write_text("name = 1")
    for words in (["--policy", str(tmp_path / "p.toml")], ["--policy", str(tmp_path / "none")]):
        assert init(run, root, *words).code == 3
        assert not root.exists()
    monkeypatch.setenv("AGGREGATOR_LIMITS_LINK_RATE_GBITS", MARK)
    said = init(run, root)
    assert said.code == 3
    assert "AGGREGATOR_LIMITS_LINK_RATE_GBITS" in said.err
    assert not root.exists()
    monkeypatch.setenv("AGGREGATOR_LIMITS_LINK_RATE_GBITS", "40")
    assert init(run, root).code == 0
    assert settings(root) == CORE


def test_weak_destruction_is_accepted_by_the_flag_or_by_set(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custody, "weakness", lambda _folder: "a made-up reason")
    both = ["--accept-weak-destruction", *sets("keys.accept_weak_destruction=false")]
    assert init(run, tmp_path / "a", *both, now=None).code == 2
    refused = init(run, tmp_path / "a", now=None)
    assert refused.code == 5
    assert "--accept-weak-destruction" in refused.err
    assert not (tmp_path / "a").exists()
    ways = (["--accept-weak-destruction"], sets("keys.accept_weak_destruction=true"))
    for name, words in zip("ab", ways, strict=True):
        assert init(run, tmp_path / name, *words, now=None).code == 0
        assert settings(tmp_path / name)["keys"] == {"accept_weak_destruction": True}


def test_a_config_that_is_there_already_must_agree_with_set(run: Run, root: Path) -> None:
    root.mkdir()
    text = "[limits]\nlink_rate_gbits = 40\n[keys]\naccept_weak_destruction = false\n"
    (root / "config.toml").write_text(text)
    said = init(run, root, *sets("limits.link_rate_gbits=41", f"mail.host={MARK}", *MAIL[1:]))
    assert said.code == 3
    assert "was there already and is kept; set limits.link_rate_gbits in it" in said.err
    said = init(run, root, *sets(f"mail.host={MARK}", *MAIL[1:]))
    assert (said.code, MARK in said.err) == (3, False)
    assert not (root / "home.json").exists()
    assert init(run, root, *sets("limits.link_rate_gbits=40", "door.min_free_mib=1024")).code == 0
    assert (root / "config.toml").read_text() == text


# For Ansible: again and again


def test_exists_ok_makes_a_home_once_and_changes_nothing_after(run: Run, root: Path) -> None:
    words = ["--exists-ok", "--json", *sets(*MAIL)]
    assert init(run, root, *words).json["made"] is True
    before = state(root)
    again = init(run, root, *words)
    assert (again.code, again.json["made"], again.json["differs"]) == (0, False, [])
    said = init(run, root, "--exists-ok", *sets(*MAIL))
    assert (said.code, said.out) == (0, "")
    assert said.err == f"there is a rehearsal home already in {root}; nothing was changed\n"
    assert init(run, root, "-q", "--exists-ok").err == ""
    assert state(root) == before
    assert init(run, root).code == 5
    assert state(root) == before


def test_exists_ok_says_what_differs_by_name_only(run: Run, root: Path, tmp_path: Path) -> None:
    init(run, root, *sets(*MAIL))
    before = state(root)
    other = tmp_path / "other.toml"
    other.write_text(DEFAULT_PROFILE.replace("k = 10", "k = 20"))
    asked = [
        "--exists-ok", "--policy", str(other),
        *sets(f"mail.host={MARK}", *MAIL[1:], "mail.digest_over=3", "door.min_free_mib=7",
              "keys.accept_weak_destruction=true"),
    ]  # fmt: skip
    said = init(run, root, *asked, "--json")
    differs = ["mail.host", "door.min_free_mib", "keys.accept_weak_destruction", "policy"]
    assert (said.code, said.json["made"]) == (0, False)
    assert said.json["differs"] == differs
    words = init(run, root, *asked)
    assert words.code == 0
    assert words.err.splitlines()[1:] == [
        f"warning: {name} is other than asked for, and was kept" for name in differs
    ]
    assert MARK not in said.out + words.err
    assert state(root) == before
    assert init(run, root, "--exists-ok", "--policy", "default", "--json").json["differs"] == []


def test_exists_ok_takes_no_rehearsal_for_a_live_home(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custody, "weakness", lambda _folder: None)
    homes = {None: tmp_path / "live", START: tmp_path / "rehearsal"}
    for now, home in homes.items():
        assert init(run, home, now=now).code == 0
    assert init(run, homes[None], "--exists-ok").code == 5
    assert init(run, homes[START], "--exists-ok", now=None).code == 5


def test_exists_ok_hides_no_damage(run: Run, root: Path) -> None:
    init(run, root)
    (root / "config.toml").rename(root / "aside")
    assert init(run, root, "--exists-ok").code == 3
    (root / "aside").rename(root / "config.toml")
    (root / "home.json").write_text("{")
    assert init(run, root, "--exists-ok").code == 3
    (root / "home.json").unlink()
    said = init(run, root, "--exists-ok")
    assert (said.code, "restore it" in said.err) == (5, True)


# Questions


class Terminal(io.StringIO):
    """Standard input with what a person types."""

    def isatty(self) -> bool:
        return True


Ask = Callable[..., Said]


@pytest.fixture
def ask(run: Run, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return what runs `init --interactive` with these answers."""

    def call(home: Path, answers: str, *words: str, now: str | None = START) -> Said:
        monkeypatch.setattr(sys, "stdin", Terminal(answers))
        said = init(run, home, "--interactive", *words, now=now)
        monkeypatch.undo()
        return said

    return call


def test_with_defaults_only_it_is_as_without_questions(ask: Ask, root: Path) -> None:
    said = ask(root, "\n\n\n")
    assert (said.code, said.out) == (0, "")
    assert settings(root) == CORE
    assert (root / "policy/profile.toml").read_text() == DEFAULT_PROFILE
    shown = said.err.partition("this config.toml")[0]
    assert "link_rate_gbits = 10" in shown
    assert f"--home {root}" in said.err


def test_answers_become_settings_and_wrong_ones_are_asked_again(
    ask: Ask, run: Run, root: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text(DEFAULT_PROFILE.replace("k = 10", "k = 20"))
    answers = [
        "/nowhere", str(policy), "mail.example.net", "none", "", MARK, "ops@b.example",
        "desk@b.example", "", "u", "mail.password", "y",
    ]  # fmt: skip
    said = ask(root, "".join(f"{one}\n" for one in answers), "--json")
    assert (said.code, said.json["made"]) == (0, True)
    assert said.err.count("Error: ") == 3
    assert MARK not in said.err
    assert settings(root) == CORE | {
        "mail": {
            "host": "mail.example.net", "security": "starttls", "from": "ops@b.example",
            "desk": "desk@b.example", "username": "u", "password_file": "mail.password",
        },
        "watch": {"alert": "ops@b.example"},
    }  # fmt: skip
    assert "k = 20" in (root / "policy/profile.toml").read_text()
    # What it shows as the same without questions is the same.
    (line,) = [one for one in said.err.splitlines() if one.startswith("Without questions: ")]
    words = shlex.split(line.partition(": ")[2])
    assert words[:2] == ["aggregator", "init"]
    words[words.index(str(root))] = str(tmp_path / "twin")
    assert main(words[1:]) == 0
    for name in ("config.toml", "policy/profile.toml"):
        assert (tmp_path / "twin" / name).read_bytes() == (root / name).read_bytes()


def test_what_is_said_by_set_is_not_asked(ask: Ask, root: Path) -> None:
    words = ["--policy", "default", *sets(*MAIL, "mail.security=tls", "watch.alert=a@b.example")]
    assert ask(root, "none\ny\n", *words).code == 0
    assert settings(root)["mail"]["security"] == "tls"


def test_on_this_machine_mail_may_travel_in_the_clear(ask: Ask, root: Path) -> None:
    assert ask(root, "\nlocalhost\n\nops@b.example\n\n\n\n\n").code == 0
    assert settings(root)["mail"]["security"] == "none"


@pytest.mark.parametrize("answers", ["", "\n", "\n\nn\n", "\n\nmaybe\n", "\nmail.example.net\n\n"])
def test_a_no_or_no_answer_leaves_nothing_behind(ask: Ask, root: Path, answers: str) -> None:
    said = ask(root, answers)
    assert (said.code, said.out) == (130, "")
    assert not root.exists()


def test_without_a_terminal_nobody_is_asked(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for there in (None, io.StringIO("y\n" * 20)):
        monkeypatch.setattr(sys, "stdin", there)
        said = init(run, root, "--interactive")
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert "--set" in said.err
        assert not root.exists()


def test_where_a_home_is_nobody_is_asked(ask: Ask, run: Run, root: Path) -> None:
    init(run, root)
    before = state(root)
    assert ask(root, "").code == 5
    assert ask(root, "", "--exists-ok").code == 0
    assert state(root) == before


def test_ctrl_c_leaves_nothing_behind(root: Path) -> None:
    """As typed at a real terminal, in the middle of the questions."""
    call = [sys.executable, "-m", "aggregator", "init", "--home", str(root), "--interactive"]
    child, terminal = pty.fork()
    if child == 0:
        # What runs in the background, as tests may, has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execv(sys.executable, call)
    try:
        printed = talk(
            terminal, [(b"Policy profile", b"\n"), (b"Mail server", b"mail.example.net\x03")]
        )
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130, printed
    assert b"interrupted" in printed
    assert b"Traceback" not in printed
    assert not root.exists()


def talk(terminal: int, answers: list[tuple[bytes, bytes]]) -> bytes:
    """Answer questions as they are asked; return all that was printed until the other side went."""
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # it has gone
                return seen
        elif not answers:
            # Python, about to read, only noted the one before.
            os.write(terminal, b"\x03")
        if answers and answers[0][0] in seen and seen.endswith(b": "):
            os.write(terminal, answers.pop(0)[1])
    raise AssertionError(seen)


# Stopped on the way


def make(root: Path) -> None:
    given = {"mail": {"host": "localhost", "from": "a@b.example", "desk": "a@b.example"}}
    app.create(
        Home(root), parse_instant(START), rehearsal=True, accept_weak=False, given=given
    )  # fmt: skip


def test_killed_at_any_step_the_next_run_makes_it_whole(tmp_path: Path) -> None:
    at, died = 0, True
    while died:
        at += 1
        root, died = tmp_path / str(at), False
        with Faults(at):
            try:
                make(root)
            except DeadError:
                died = True
        if not (root / "home.json").exists():
            make(root)
        assert Home(root).load_config().mail is not None
        assert Home(root).load_profile().name == "default"
    assert at > 20


def test_interrupted_at_any_step_there_is_nothing_or_a_whole_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, done = 0, False
    while not done:
        at += 1
        root, left = tmp_path / str(at), at
        for name in STEPS:
            real = getattr(os, name)

            def step(*words: Any, real: Any = real, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
                return real(*words, **named)

            monkeypatch.setattr(os, name, step)
        try:
            make(root)
            done = True
        except KeyboardInterrupt:
            pass
        monkeypatch.undo()
        whole = (root / "home.json").exists()
        assert whole or not root.exists() or not list(root.iterdir())
        if whole:
            assert Home(root).load_config().mail is not None
    assert at > 20


def test_what_is_of_others_in_the_folder_stays(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.folder("keys").mkdir(parents=True)
    (home.folder("keys") / "other").write_text("x")
    home.config_path.write_text("x")
    home.unmake()
    assert [path.name for path in home.root.rglob("*")] == ["keys", "other"]
    home.mark_path.write_text("{}")
    home.config_path.write_text("x")
    home.unmake()
    assert home.config_path.read_text() == "x"
