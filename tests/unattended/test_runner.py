"""`aggregator run JOB`: its exit code, its log, and its patience with another run's lock."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mail.servers import RawServer
from support import TinyHome, usage

from aggregator.app import Access
from aggregator.cli.main import main
from aggregator.errors import ConfigError, LockedError
from aggregator.model.days import parse_instant
from aggregator.stores import home as stores_home
from aggregator.stores import lock
from aggregator.stores.home import Home
from aggregator.stores.runs import RunStore
from jobs import runner
from jobs.log import Form, Log
from jobs.table import JOBS, Job

NOW = "2026-10-05T12:00:00Z"


@pytest.fixture
def tiny(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home", now=NOW)


def run(tiny: TinyHome, *words: str) -> int:
    return main(["--home", str(tiny.root), "--now", NOW, "run", *words])


def logged(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("form", ["words", "text", "json"])
def test_cron_and_systemd_see_how_a_run_went(
    tiny: TinyHome, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is the job's, whatever the log looks like."""
    assert run(tiny, "ingest", "--log", form) == 0
    (tiny.root / "inbox" / "junk.batch").write_bytes(b"junk")
    assert run(tiny, "ingest", "--log", form) == 4
    with lock.hold(Home(tiny.root).lock_path):
        assert run(tiny, "ingest", "--log", form) == 75
    (tiny.root / "config.toml").write_text("x = [")
    assert run(tiny, "ingest", "--log", form) == 3
    assert capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json"])
def test_settings_that_cannot_be_read_are_logged_and_kept(
    tiny: TinyHome, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scheduler would start such a job for ever, and nobody would know."""
    path = tiny.root / "config.toml"
    before = path.read_text()
    path.write_text("x = [")
    assert run(tiny, "daily", "--log", form) == 3
    told = capsys.readouterr().err
    assert "job_failed" in told
    assert "is not TOML" in told
    kept = RunStore(tiny.root / "runs").load("daily")
    assert kept is not None
    assert (kept.exit_code, kept.failures) == (3, 1)
    path.write_text(before)
    assert run(tiny, "daily", "--log", form) == 0
    kept = RunStore(tiny.root / "runs").load("daily")
    assert kept is not None
    assert (kept.exit_code, kept.failures) == (0, 0)


def test_a_home_that_is_away_is_logged_and_nothing_laid_in_its_place(
    tiny: TinyHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a disk that is not mounted."""
    tiny.root.rename(tmp_path / "away")
    assert run(tiny, "daily", "--log", "json") == 3
    (told,) = logged(capsys.readouterr().err)
    assert (told["event"], told["job"], told["exit_code"]) == ("job_failed", "daily", 3)
    assert not tiny.root.exists()
    tiny.root.mkdir()
    assert run(tiny, "daily", "--log", "json") == 3
    assert list(tiny.root.iterdir()) == []


def test_a_wrong_schedule_is_one_thing_and_a_wrong_watch_another(tiny: TinyHome) -> None:
    path = tiny.root / "config.toml"
    before = path.read_text()
    path.write_text(before + '\n[schedule]\nmail = "off"\n[watch]\nrepeat_hours = "x"\n')
    config = Home(tiny.root).load_config()
    assert config.schedule == {"mail": "off"}
    assert config.schedule_problem is None
    assert config.watch_problem is not None
    path.write_text(before + '\n[schedule]\nmail = "never"\n[watch]\nrepeat_hours = 5\n')
    config = Home(tiny.root).load_config()
    assert config.schedule == {}
    assert config.schedule_problem is not None
    assert (config.watch_problem, config.watch.repeat_hours) == (None, 5)
    assert len(config.problems) == 1


class Waiting:
    """A job that takes the home's lock, as they do, and notes when."""

    def __init__(self, tiny: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runner, "_PAUSE_SECONDS", 0.01)
        self.home, self.tries, self.log = Home(tiny.root), 0, io.StringIO()
        self.was_locked, self.seen = threading.Event(), list[Access]()

    def run(self, wait_seconds: float, *, wait: bool) -> Mapping[str, Any]:
        def work(access: Access) -> Mapping[str, Any]:
            self.tries += 1
            try:
                with access.write():
                    self.seen.append(access)
                    return {"done": 1}
            except LockedError:
                self.was_locked.set()
                raise

        access = Access(self.home, parse_instant(NOW), dt.datetime.now(dt.UTC), confirm_clock=True)
        job = Job("daily", "20 0 * * *", "", "", work, wait_seconds)
        return runner.run(job, access, Log(Form.JSON, stream=self.log), wait=wait)

    @property
    def events(self) -> list[str]:
        return [one["event"] for one in logged(self.log.getvalue())]


def test_an_unattended_run_waits_for_the_lock(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CV-5: a daily job that meets another is not put off for a day."""
    job = Waiting(tiny, monkeypatch)
    held = threading.Event()

    def hold() -> None:
        with lock.hold(job.home.lock_path):
            held.set()
            job.was_locked.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    assert job.run(60.0, wait=True) == {"done": 1}
    other.join()
    assert job.events == ["job_locked", "job_ended"]
    assert job.tries > 1


@pytest.mark.parametrize(("seconds", "wait"), [(60.0, False), (0.0, True)])
def test_a_person_s_run_and_a_frequent_one_are_refused_at_once(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch, seconds: float, wait: bool
) -> None:
    job = Waiting(tiny, monkeypatch)
    with lock.hold(job.home.lock_path), pytest.raises(LockedError):
        job.run(seconds, wait=wait)
    assert job.tries == 1


def test_patience_has_an_end(tiny: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Waiting(tiny, monkeypatch)
    with lock.hold(job.home.lock_path), pytest.raises(LockedError):
        job.run(0.2, wait=True)
    assert job.tries > 1
    assert job.events == ["job_locked"]
    assert RunStore(tiny.root / "runs").runs() == ()


def test_only_jobs_whose_next_run_is_far_away_wait_long() -> None:
    far = {job.name for job in JOBS if job.wait_seconds > 60}
    assert far == {"daily", "month-end", "checkpoint"}


def test_settings_that_break_raise_what_the_job_would(tiny: TinyHome) -> None:
    (tiny.root / "config.toml").unlink()
    access = Access(Home(tiny.root), parse_instant(NOW), dt.datetime.now(dt.UTC))
    with pytest.raises(ConfigError):
        runner.run(JOBS[0], access, Log(stream=io.StringIO()))


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_the_system_refuses_is_a_line_of_the_log_as_well(
    tiny: TinyHome, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a disk that is read-only: no words stand between the events."""

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system", "/planted/path")

    monkeypatch.setattr(lock, "hold", refuse)
    assert run(tiny, "ingest", "--log", form) == 1
    told = capsys.readouterr().err
    assert "Read-only file system" in told
    assert "planted" not in told
    assert not [line for line in told.splitlines() if line.startswith("error: ")]
    assert "job_failed" in told


@contextlib.contextmanager
def told_by_mail(tiny: TinyHome) -> Iterator[RawServer]:
    """Let the home have a mail server and an operator, in its own settings."""
    with RawServer() as server:
        found = server.settings()
        with (tiny.root / "config.toml").open("a") as config:
            config.write(
                f'''
[mail]
host = "{found.host}"
port = {found.port}
security = "{found.security.value}"
from = "usage@vpn.example"
desk = ["desk@vpn.example"]
[watch]
alert = ["ops@vpn.example"]
'''
            )
        yield server


@pytest.mark.parametrize("section", ["[shedule]\n", "[limits]\nlink_rate_gbits = 0\n"])
def test_settings_that_stop_everything_are_told_by_those_that_are_right(
    tiny: TinyHome, section: str
) -> None:
    """CL-2: a misspelt section stops the purge as well; [mail] and [watch] are right."""
    path = tiny.root / "config.toml"
    with told_by_mail(tiny) as server:
        text = path.read_text()
        path.write_text(text.replace("[limits]\nlink_rate_gbits = 10", "") + section)
        assert run(tiny, "month-end", "--log", "json") == 3
    (mail,) = server.mails
    assert b"the job month-end failed (exit 3)" in mail.content
    assert mail.recipients == ("ops@vpn.example",)


def test_an_alert_does_not_wait_for_the_directory(
    tiny: TinyHome, capsys: pytest.CaptureFixture[str]
) -> None:
    """CL-2: what only notices need is wrong; a late purge is told all the same."""
    with told_by_mail(tiny) as server:
        with (tiny.root / "config.toml").open("a") as config:
            config.write('[directory]\nkind = "csvv"\n')
        tiny.ingest([usage()], NOW)
        late = "2026-11-03T06:00:00Z"
        assert (
            main(["--home", str(tiny.root), "--now", late, "run", "ingest", "--log", "json"]) == 0
        )
    assert any(b"PURGE LATE" in mail.content for mail in server.mails)
    assert "operator_told" in capsys.readouterr().err


def test_what_nobody_could_be_told_is_not_remembered_as_told(
    tiny: TinyHome, capsys: pytest.CaptureFixture[str]
) -> None:
    """CL-2: without a mail server that can be used; once there is one, it is told at once."""
    with told_by_mail(tiny) as server:
        path = tiny.root / "config.toml"
        right = path.read_text()
        path.write_text(right.replace('desk = ["desk@vpn.example"]', "desk = 5"))
        tiny.ingest([usage()], NOW)
        late = ["--home", str(tiny.root), "--now", "2026-11-03T06:00:00Z", "run", "ingest"]
        assert main([*late, "--log", "json"]) == 0
        assert "nobody could be told" in capsys.readouterr().err
        assert server.mails == []
        path.write_text(right)
        assert main([*late, "--log", "json"]) == 0
    assert any(b"PURGE LATE" in mail.content for mail in server.mails)


def test_a_log_that_takes_no_line_keeps_nothing_from_its_work(tiny: TinyHome) -> None:
    """As a full disk under `>> log`: the run is recorded, and its exit code is its own."""
    with open("/dev/full", "w") as full:
        access = Access(Home(tiny.root), parse_instant(NOW), dt.datetime.now(dt.UTC))
        runner.run(JOBS[0], access, Log(Form.JSON, stream=full))
        with contextlib.suppress(OSError):
            full.close()
    kept = RunStore(tiny.root / "runs").load("ingest")
    assert kept is not None
    assert kept.exit_code == 0


def test_root_does_not_work_in_another_user_s_home(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What root writes there, the jobs could not read."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(stores_home, "_owner", lambda _path: 990)
    assert run(tiny, "ingest") == 5
    assert "run it as that user" in capsys.readouterr().err
    assert RunStore(tiny.root / "runs").runs() == ()


def test_batches_that_are_refused_fail_the_daily_job_as_well(tiny: TinyHome) -> None:
    (tiny.root / "inbox" / "junk.batch").write_bytes(b"junk")
    assert run(tiny, "daily") == 4
    assert run(tiny, "daily") == 0


def test_a_sender_that_hangs_is_no_success(tiny: TinyHome) -> None:
    with lock.hold(tiny.root / "outbox" / ".lock"):
        assert run(tiny, "mail") == 75
        assert run(tiny, "daily") == 0
    assert RunStore(tiny.root / "runs").load("mail") is None


def test_cron_is_not_mailed_that_another_run_works(
    tiny: TinyHome, capsys: pytest.CaptureFixture[str]
) -> None:
    with lock.hold(tiny.root / "outbox" / ".lock"):
        assert main(["-q", "--home", str(tiny.root), "--now", NOW, "run", "mail", "--wait"]) == 75
        assert capsys.readouterr().err == ""
        assert run(tiny, "mail") == 75
        assert "another run" in capsys.readouterr().err


def test_a_file_of_another_user_among_the_runs_counts_as_missing(tiny: TinyHome) -> None:
    assert run(tiny, "ingest") == 0
    (tiny.root / "runs" / "ingest.json").unlink()
    (tiny.root / "runs" / "ingest.json").mkdir()  # root reads whatever mode a file has
    assert RunStore(tiny.root / "runs").load("ingest") is None
    assert main(["--home", str(tiny.root), "--now", NOW, "status"]) == 0


@pytest.mark.parametrize(
    ("now", "is_late"), [("2026-11-03T01:00:00Z", False), ("2026-11-03T03:00:00Z", True)]
)
def test_a_purge_that_is_made_up_for_late_says_so(
    tiny: TinyHome, now: str, is_late: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """CL-2: where it is the first job after an outage, nobody else can tell."""
    tiny.ingest([usage()], NOW)
    words = ["--home", str(tiny.root), "--now", now, "run", "month-end", "--confirm-clock"]
    assert main([*words, "--log", "json"]) == 0
    (ended,) = [one for one in logged(capsys.readouterr().err) if one["event"] == "job_ended"]
    assert (ended["purged"], ended.get("late")) == (1, 1 if is_late else None)
