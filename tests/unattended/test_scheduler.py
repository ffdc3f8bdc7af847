"""The scheduler: each job at its time, as a process that may die; it keeps nothing, so may it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from blackbox.forensics import Finder
from integration.processes import wait_for
from support import TinyHome

from aggregator import app
from aggregator.agent.journal import Notifier
from aggregator.cli.main import main
from aggregator.model.days import parse_instant
from aggregator.stores.home import Home
from aggregator.stores.runs import RunStore
from jobs import scheduler
from jobs.log import Event, Form, Log
from jobs.scheduler import Plan, Scheduler
from jobs.table import JOBS
from jobs.times import Planned, planned

from .schedules import (
    ADDRESS,
    FEW,
    NOW,
    ORDER,
    USERS,
    Daemon,
    Work,
    jobs_of,
    kill_all,
    notify_socket,
)  # fmt: skip

Start = Callable[..., Daemon]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts schedulers; whatever they leave is ended."""
    daemons: list[Daemon] = []

    def begin(home: Path, *options: str, **more: Any) -> Daemon:
        daemons.append(Daemon(home, *options, **more))
        return daemons[-1]

    yield begin
    kill_all(daemons)


class TestDaemon:
    """`aggregator schedule`, as systemd starts it."""

    def test_every_job_runs_in_order_until_it_is_ended_by_sigterm(
        self, tmp_path: Path, start: Start
    ) -> None:
        """CL-2, CV-5: and neither its log nor its records name anyone."""
        work = Work.make(tmp_path)
        with notify_socket(tmp_path) as (path, told):
            daemon = start(work.root, "--every", "3600", NOTIFY_SOCKET=path)
            daemon.wait(lambda: "READY=1" in told(), "READY=1")
            daemon.wait_for_job("doctor")
            assert daemon.stop() == 0
            assert (told()[0], told()[-1]) == ("READY=1", "STOPPING=1")
        assert jobs_of(work.root) == {}
        assert [job for job in daemon.ended() if job in ORDER] == list(ORDER)
        assert "month-end" in daemon.ended()
        assert daemon.ended("mail") == ["mail"]
        assert [one["job"] for one in daemon.named(Event.PLANNED)] == [job.name for job in JOBS]
        assert [one["event"] for one in daemon.events()][-1] == "stopped"
        work.check_tables()
        runs = {one.job: one.exit_code for one in RunStore(work.root / "runs").runs()}
        assert runs == {job.name: 0 for job in JOBS}
        written = daemon.process.log.read_bytes() + b"".join(work.tiny.files("runs").values())
        assert Finder([*USERS, ADDRESS]).find(written) == set()

    def test_a_killed_scheduler_loses_nothing_and_does_nothing_twice(
        self, tmp_path: Path, start: Start
    ) -> None:
        """CV-5: what ran goes on or dies; the next scheduler catches up at its start."""
        work = Work.make(tmp_path, FEW)
        first = start(work.root, "--every", "1")
        orphan = first.wait_for_child("ingest")
        first.process.kill()
        os.killpg(orphan, signal.SIGSTOP)  # it is there still when the next one starts
        second = start(work.root, "--every", "1")
        second.wait_for_child("ingest", {orphan})
        os.killpg(orphan, signal.SIGCONT)
        wait_for(lambda: orphan not in jobs_of(work.root), "the orphan to end")
        mark = len(second.ended())
        second.wait(lambda: "daily" in second.ended()[mark:], "daily to end")
        assert second.stop() == 0
        assert jobs_of(work.root) == {}
        work.check_tables()

    def test_a_killed_job_is_a_failure_of_that_job_alone(
        self, tmp_path: Path, start: Start
    ) -> None:
        """CV-5: the scheduler stays, and the next run does the work."""
        work = Work.make(tmp_path, FEW)
        daemon = start(work.root, "--every", "1")
        victim = daemon.wait_for_child("daily")
        os.killpg(victim, signal.SIGKILL)
        runs = RunStore(work.root / "runs")
        killed = daemon.wait(
            lambda: (run := runs.load("daily")) is not None and run.failures and run,
            "the record of the killed run",
        )
        assert killed
        assert killed.exit_code == 128 + signal.SIGKILL
        assert killed.problem == "it was ended by SIGKILL; is there memory enough?"
        assert killed.failing_since == killed.began_at
        (told,) = daemon.named(Event.JOB_KILLED)
        assert (told["job"], told["signal"]) == ("daily", "SIGKILL")
        daemon.wait_for_job("daily")
        daemon.wait_for_job("month-end")
        assert daemon.stop() == 0
        settled = runs.load("daily")
        assert settled is not None
        assert (settled.exit_code, settled.failures, settled.problem) == (0, 0, None)
        work.check_tables()

    def test_another_run_s_lock_is_waited_for(self, tmp_path: Path, start: Start) -> None:
        """CV-5: one run at a time; a daily job that meets another is not put off for a day."""
        work = Work.make(tmp_path, FEW)
        daemon = start(work.root, "--every", "3600")
        # A job that holds the lock for as long as we like.
        with app.open_to_write(
            Home(work.root), parse_instant(NOW), parse_instant(NOW), confirm_clock=True
        ):
            daemon.wait(lambda: daemon.named(Event.JOB_LOCKED, job="month-end"), "a refused job")
        daemon.wait_for_job("month-end")
        daemon.wait_for_job("daily")
        assert daemon.stop() == 0
        work.check_tables()

    def test_a_second_scheduler_of_a_home_is_refused(self, tmp_path: Path, start: Start) -> None:
        """CV-5: until the first is gone, however it went; else all alerts would come twice."""
        work = Work.make(tmp_path, FEW)
        first = start(work.root, "--every", "3600")
        first.wait_for_job("daily")
        words = ["--home", str(work.root), "--now", NOW, "schedule", "--every", "3600"]
        assert main(words) == 75
        first.process.kill()
        second = start(work.root, "--every", "3600")
        second.wait_for_job("daily")
        assert second.stop() == 0
        work.check_tables()

    def test_a_home_that_goes_away_and_comes_back(self, tmp_path: Path, start: Start) -> None:
        """CV-5: as a disk that is not mounted; nothing is laid in its place."""
        work = Work.make(tmp_path, FEW)
        daemon = start(work.root, "--every", "0.5")
        daemon.wait_for_child("ingest")
        away = tmp_path / "away"
        work.root.rename(away)
        daemon.wait_for_child("daily")
        assert not work.root.exists()
        away.rename(work.root)
        before = len(daemon.ended("daily"))
        daemon.wait_for_job("daily", before + 1)
        assert daemon.stop() == 0
        work.check_tables()

    def test_sighup_takes_the_settings_anew(self, tmp_path: Path, start: Start) -> None:
        """What is wrong in them leaves the plan as it was, and is said."""
        work = Work.make(tmp_path, {**FEW, "ingest": "off"})
        daemon = start(work.root, "--every", "3600")
        daemon.wait_for_child("daily")
        work.schedule({**FEW, "doctor": "1 2 * * *"})
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: len(daemon.named(Event.PLANNED)) == 6, "the new plan")
        (work.root / "config.toml").write_text("[schedule")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: daemon.named(Event.NOT_PLANNED), "the mistake to be told")
        daemon.wait(lambda: len(daemon.named(Event.PLANNED)) == 10, "the plan as it was")
        assert daemon.stop() == 0
        new = ["ingest", "daily", "month-end", "doctor"]
        found = [one["job"] for one in daemon.named(Event.PLANNED)]
        assert found == ["daily", "month-end", *new, *new]

    def test_a_short_interval_is_for_rehearsals(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """CL-2, CV-5: nobody runs a real home by a clock of his own."""
        app.create(Home(tmp_path / "live"), parse_instant(NOW), rehearsal=False, accept_weak=True)
        live = ["--home", str(tmp_path / "live")]
        for words in (["--every", "5"], ["--now", NOW], ["--now", NOW, "--speed", "60"]):
            assert main([*live, "schedule", *words]) == 5
            assert "are for a rehearsal home" in capfd.readouterr().err
        tiny = TinyHome.make(tmp_path / "tiny")
        assert main(["--home", str(tiny.root), "schedule", "--speed", "60"]) == 2
        assert main(["--home", str(tmp_path / "absent"), "schedule"]) == 3
        assert main(["--home", str(tiny.root), "schedule", "--every", "0.01"]) == 2


class World:
    """A scheduler in this process, whose jobs are shell lines and whose clocks are ours."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder, io.StringIO()
        self.jobs: Sequence[Planned] = [one for one in planned({}) if one.job.name in ORDER]
        self.every: float | None = 3600.0
        self.line = 'echo "$0" >> ran'
        self.died: list[tuple[str, int]] = []
        self.looks = 0
        self.plans = 0
        self.jump = 0.0
        monkeypatch.chdir(folder)

    @property
    def ran(self) -> list[str]:
        path = self.folder / "ran"
        return path.read_text().split() if path.exists() else []

    @property
    def events(self) -> list[dict[str, Any]]:
        text = self.log.getvalue()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def named(self, event: Event) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event.value]

    def record(self, job: str) -> object:
        """As a job would: by a file."""
        return (self.folder / f"{job}.record").exists()

    def look(self) -> None:
        self.looks += 1

    def plan(self) -> Plan:
        self.plans += 1
        return Plan(self.jobs, self.every)

    @contextlib.contextmanager
    def running(self, notifier: Notifier | None = None, tick: float = 0.05) -> Iterator[Scheduler]:
        """Run it in a thread; stopped at the end."""
        made = Scheduler(
            self.plan,
            lambda job: ["/bin/sh", "-c", self.line, job],
            lambda job, code, _problem: self.died.append((job, code)),
            Log(Form.JSON, stream=self.log),
            record=self.record,
            look=self.look,
            look_seconds=tick,
            wall=lambda: time.time() + self.jump,
            tick_seconds=tick,
        )
        thread = threading.Thread(target=made.run, args=(notifier,))
        thread.start()
        try:
            yield made
        finally:
            made.stop()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


class TestScheduler:
    """The scheduler itself, with jobs that take no time and clocks that jump."""

    def test_each_job_runs_once_at_the_start_in_the_table_s_order(self, world: World) -> None:
        with world.running():
            wait_for(lambda: len(world.ran) == len(ORDER), lambda: str(world.ran))
        assert world.ran == list(ORDER)

    def test_a_job_runs_again_at_its_interval(self, world: World) -> None:
        world.jobs, world.every = planned({"mail": "off"})[:2], 0.2
        with world.running():
            wait_for(lambda: len(world.ran) >= 8, lambda: str(world.ran))
        assert world.ran.count("ingest") in range(3, len(world.ran) - 2)

    def test_a_clock_that_jumps_plans_and_catches_up_at_once(self, world: World) -> None:
        world.jobs, world.every = planned({"mail": "off"})[:1], None
        for jump in (86_400.0, -86_400.0, 5.0):
            world.jump = 0.0
            with world.running():
                wait_for(lambda: len(world.ran) == 1, "the run at the start")
                world.jump = jump
                if jump == 5.0:
                    time.sleep(0.3)  # several ticks, in which nothing may happen
                else:
                    wait_for(lambda: len(world.ran) == 2, lambda: str(world.ran))
            moved = [one["seconds"] for one in world.named(Event.CLOCK_MOVED)]
            assert moved == ([] if jump == 5.0 else [round(jump)])
            (world.folder / "ran").unlink()
            world.log.truncate(0)
            world.log.seek(0)
        assert world.plans == 5

    def test_a_job_that_cannot_be_started_is_told_and_the_others_run(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = scheduler.subprocess.Popen

        def refuse(words: Sequence[str], **more: Any) -> Any:
            if words[-1] == "daily":
                raise OSError(12, "Cannot allocate memory", "/planted/path")
            return real(words, **more)

        monkeypatch.setattr(scheduler.subprocess, "Popen", refuse)
        with world.running():
            wait_for(lambda: len(world.ran) == len(ORDER) - 1, lambda: str(world.ran))
        (told,) = world.named(Event.JOB_FAILED)
        assert (told["job"], told["problem"]) == (
            "daily", "could not be started: Cannot allocate memory"
        )  # fmt: skip
        assert "daily" not in world.ran
        assert world.died == [("daily", 126)]

    def test_a_job_ended_by_a_signal_is_told_and_the_others_run(self, world: World) -> None:
        world.line = 'echo "$0" >> ran; case $0 in daily) kill -ABRT $$;; esac'
        with world.running():
            wait_for(lambda: len(world.ran) == len(ORDER), lambda: str(world.ran))
        assert world.died == [("daily", 128 + signal.SIGABRT)]
        (told,) = world.named(Event.JOB_KILLED)
        assert (told["job"], told["signal"]) == ("daily", "SIGABRT")

    @pytest.mark.parametrize(
        ("code", "kept", "told"),
        [(1, False, True), (1, True, False), (6, False, False), (75, False, False),
         (127, False, True), (0, False, False)],
    )  # fmt: skip
    def test_a_job_that_ends_before_it_could_tell_is_told(
        self, world: World, code: int, kept: bool, told: bool
    ) -> None:
        """As with half of an upgrade in place: it does not get as far as its own log."""
        world.line = f'{"touch $0.record;" * kept} echo "$0" >> ran; exit {code}'
        with world.running():
            wait_for(lambda: len(world.ran) == len(ORDER), lambda: str(world.ran))
        assert [job for job, _ in world.died if job == "ingest"] == ["ingest"] * told
        assert {number for _, number in world.died} <= {code}

    def test_a_hung_job_keeps_nobody_from_looking(self, world: World) -> None:
        world.line = 'echo "$0" >> ran; while [ ! -e go ]; do sleep 0.05; done'
        with world.running():
            wait_for(lambda: world.looks >= 3, lambda: str(world.looks))
            assert world.ran == ["ingest"]
            (world.folder / "go").touch()

    def test_a_purge_waits_for_no_other_job(self, world: World) -> None:
        """CL-2: not for a daily job that sends many mails."""
        world.jobs = planned({"mail": "off"})
        world.line = (
            'echo "$0" >> ran; [ "$0" = month-end ] || while [ ! -e go ]; do sleep 0.05; done'
        )
        with world.running():
            wait_for(lambda: set(world.ran) == {"ingest", "month-end"}, lambda: str(world.ran))
            (world.folder / "go").touch()

    def test_a_job_that_runs_may_end_and_no_other_begins(self, world: World) -> None:
        world.line = 'echo "$0" >> ran; while [ ! -e go ]; do sleep 0.05; done; echo end >> ran'
        with world.running() as made:
            wait_for(lambda: world.ran == ["ingest"], lambda: str(world.ran))
            made.stop()
            wait_for(lambda: world.named(Event.STOPPING), "it to be stopping")
            (world.folder / "go").touch()
        assert world.ran == ["ingest", "end"]
        assert world.named(Event.STOPPING)[0]["running"] == 1
        assert [one["event"] for one in world.events][-1] == "stopped"

    @pytest.mark.parametrize(
        ("trap", "last"), [("echo term >> ran; exit 1", ["term"]), ("", [])], ids=["TERM", "KILL"]
    )
    def test_a_job_that_does_not_end_is_ended_with_all_that_it_started(
        self, world: World, monkeypatch: pytest.MonkeyPatch, trap: str, last: list[str]
    ) -> None:
        monkeypatch.setattr(scheduler, "GRACE_SECONDS", 0.2)
        monkeypatch.setattr(scheduler, "_KILL_SECONDS", 0.5 if not trap else 30.0)
        world.line = (
            f"trap '{trap}' TERM; echo $0 >> ran; sh -c 'trap \"{trap and 'exit'}\" TERM;"
            " echo $$ > inner; while :; do sleep 0.05; done' & while :; do sleep 0.05; done"
        )
        with world.running() as made:
            wait_for((world.folder / "inner").exists, "the job's own child")
            inner = wait_for(lambda: (world.folder / "inner").read_text().strip(), "its id")
            made.stop()
        assert world.ran == ["ingest", *last]
        assert world.died == []  # that was our doing, no failure of the job
        wait_for(lambda: not is_running(int(inner)), "the job's own child to be gone")

    def test_systemd_is_told_that_all_is_well(self, world: World, tmp_path: Path) -> None:
        world.jobs = ()
        with notify_socket(tmp_path) as (path, told):
            with world.running(Notifier({"NOTIFY_SOCKET": path})):
                wait_for(lambda: told().count("WATCHDOG=1") >= 3, lambda: str(told()))
            assert told()[0] == "READY=1"
            assert told()[-1] == "STOPPING=1"
            assert set(told()) == {"READY=1", "WATCHDOG=1", "STOPPING=1"}

    def test_a_scheduler_that_plans_no_more_is_not_called_well(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its heart beats through the planner; without it systemd starts it anew."""
        world.jobs = ()
        monkeypatch.setattr(Scheduler, "_pulse", lambda self: None)
        monkeypatch.setattr(scheduler, "_BEATS_LATE", 0)
        with notify_socket(tmp_path) as (path, told):
            with world.running(Notifier({"NOTIFY_SOCKET": path})):
                wait_for(lambda: told() == ["READY=1"], "READY=1")
                time.sleep(0.3)  # several ticks
            assert told() == ["READY=1", "STOPPING=1"]

    def test_a_new_plan_replaces_the_old_one(self, world: World) -> None:
        world.jobs, world.every = planned({"mail": "off"})[:2], 3600.0
        with world.running() as made:
            wait_for(lambda: world.ran == ["ingest", "daily"], lambda: str(world.ran))
            world.jobs = planned({"mail": "off"})[1:3]
            made.reload()
            wait_for(lambda: len(world.ran) == 4, lambda: str(world.ran))
        assert sorted(world.ran[2:]) == ["daily", "month-end"]  # which do not wait for each other

    def test_mail_that_takes_long_holds_up_nothing(self, world: World) -> None:
        world.jobs = planned({})
        world.line = '[ "$0" != mail ] || sleep 60; echo "$0" >> ran'
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scheduler, "GRACE_SECONDS", 0.0)
            with world.running():
                wait_for(lambda: len(world.ran) == len(ORDER) + 1, lambda: str(world.ran))
        assert [job for job in world.ran if job in ORDER] == list(ORDER)


def is_running(pid: int) -> bool:
    """Say whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
