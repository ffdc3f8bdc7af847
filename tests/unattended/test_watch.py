"""What happens after a job: its record, metrics, the ping URL, and mail to the operator."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import email
import email.policy
import io
import json
import os
import stat
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mail.servers import Fault, RawServer
from prometheus_client.parser import text_string_to_metric_families
from support import TinyHome, usage

from aggregator import app
from aggregator.app import Access
from aggregator.errors import DeliveryError, IntegrityError, LockedError, RefusedError
from aggregator.model.days import parse_instant
from aggregator.model.settings import WatchSettings
from aggregator.stores import lock
from aggregator.stores.config import Contact
from aggregator.stores.home import Home
from aggregator.stores.runs import RunStore
from jobs import metrics, ping, runner, watch
from jobs.log import Form, Log
from jobs.table import JOBS, Job

NOW = "2026-10-05T12:00:00Z"
OPERATOR = "ops@vpn.example"
ACCOUNT = "acct-planted"


class Pings:
    """A server that is asked, and keeps the paths."""

    def __init__(self, status: int = 200) -> None:
        self.paths: list[str] = []
        self.headers: list[Mapping[str, str]] = []

        pings = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pings.paths.append(self.path)
                pings.headers.append(dict(self.headers))
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/secret-token"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Pings:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class World:
    """A home whose settings of mail and watch the test gives, and jobs of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tiny = TinyHome.make(folder / "home", now=NOW)
        self.runs = RunStore(self.tiny.root / "runs")
        self.log = io.StringIO()
        self.watch, self.mail = WatchSettings(), None
        real = Home.load_config

        def load(home: Home) -> Any:
            return dataclasses.replace(real(home), watch=self.watch, mail=self.mail)

        def contact(home: Home) -> Contact:
            return Contact(self.mail, self.watch, real(home).schedule)

        monkeypatch.setattr(Home, "load_config", load)
        monkeypatch.setattr(Home, "load_contact", contact)

    def run(self, name: str = "ingest", now: str = NOW, error: Exception | None = None) -> Any:
        """Run a job of that name which does nothing, or raises `error`."""

        def work(_access: Access) -> Mapping[str, Any]:
            if error is not None:
                raise error
            return {"days": []}

        access = Access(Home(self.tiny.root), parse_instant(now), dt.datetime.now(dt.UTC))
        job = Job(name, "* * * * *", "", "", work)
        return runner.run(job, access, Log(Form.JSON, stream=self.log))

    def fail(self, name: str = "ingest", now: str = NOW, words: str = "a line") -> None:
        with pytest.raises(IntegrityError):
            self.run(name, now, IntegrityError(words))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.fixture
def mta(world: World) -> Iterator[RawServer]:
    with RawServer() as server:
        world.mail = server.settings()
        world.watch = dataclasses.replace(world.watch, alert=(OPERATOR,))
        yield server


def read(mail: Any) -> tuple[str, str]:
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    return str(message["Subject"]), message.get_content()


def test_a_run_is_remembered_and_logged(world: World) -> None:
    world.run()
    run = world.runs.load("ingest")
    assert run is not None
    assert (run.exit_code, run.failures, run.began_at) == (0, 0, parse_instant(NOW))
    world.fail()
    run = world.runs.load("ingest")
    assert run is not None
    assert (run.exit_code, run.problem, run.failures) == (6, "a line", 1)
    assert [one["event"] for one in world.events] == ["job_ended", "job_failed", "incident"]
    assert world.named("job_failed")[0]["problem"] == "a line"


def test_a_value_in_an_unexpected_error_reaches_no_record_and_no_log(world: World) -> None:
    with pytest.raises(ValueError, match=ACCOUNT):
        world.run(error=ValueError(ACCOUNT))
    kept = "".join(path.read_text() for path in world.runs.folder.glob("*.json"))
    assert "unexpected ValueError at" in kept
    assert ACCOUNT not in kept + world.log.getvalue()


def test_a_run_that_the_lock_refuses_leaves_no_record(world: World) -> None:
    access = Access(Home(world.tiny.root), parse_instant(NOW), dt.datetime.now(dt.UTC))
    log = Log(Form.JSON, stream=world.log)
    with lock.hold(world.tiny.root / ".lock"), pytest.raises(LockedError):
        runner.run(JOBS[0], access, log)
    assert world.runs.runs() == ()
    assert [one["event"] for one in world.events] == ["job_locked"]


def test_a_lock_that_is_never_free_is_told_in_the_end(world: World, mta: RawServer) -> None:
    """One that hangs keeps every job from its work, the one that would tell among them."""
    world.run()
    log = Log(Form.JSON, stream=world.log)
    with lock.hold(world.tiny.root / ".lock"):
        for hour in range(13, 18):
            now = parse_instant(f"2026-10-05T{hour}:30:00Z")
            access = Access(Home(world.tiny.root), now, dt.datetime.now(dt.UTC))
            with pytest.raises(LockedError):
                runner.run(JOBS[0], access, log)
    told = [read(mail) for mail in mta.mails]
    assert any("the job ingest has not run to its end since" in words for _, words in told)


def test_a_clock_for_rehearsals_leaves_a_live_home_as_it_is(world: World, tmp_path: Path) -> None:
    live = Home(tmp_path / "live")
    wall = dt.datetime.now(dt.UTC)
    app.create(live, wall, rehearsal=False, accept_weak=True)
    with pytest.raises(RefusedError):
        runner.run(JOBS[0], Access(live, parse_instant(NOW), wall), Log(stream=world.log))
    assert RunStore(live.folder("runs")).runs() == ()


def test_a_trouble_is_mailed_once_a_day_with_its_remedy_and_its_end(
    world: World, mta: RawServer
) -> None:
    world.fail()
    world.fail(now="2026-10-05T12:05:00Z")
    world.run(now="2026-10-05T12:10:00Z")
    world.run(now="2026-10-05T12:15:00Z")
    first, over = [read(mail) for mail in mta.mails]
    assert first[0] == "[usage-aggregator] job failed ingest"
    assert "the job ingest failed (exit 6): a line" in first[1]
    assert "What to do: mend it, then run: aggregator run ingest" in first[1]
    assert over[0] == "[usage-aggregator] over: job failed ingest"
    assert "the job ingest failed (exit 6): a line" in over[1]
    assert {mail.recipients for mail in mta.mails} == {(OPERATOR,)}
    world.fail(now="2026-10-06T12:00:00Z")
    assert len(mta.mails) == 3


def test_a_late_purge_is_loud(world: World, mta: RawServer) -> None:
    world.tiny.ingest([usage(user=ACCOUNT)])
    world.run("daily", now="2026-11-02T20:00:00Z")
    assert not [mail for mail in mta.mails if "PURGE" in read(mail)[0]]
    world.run("ingest", now="2026-11-03T03:00:00Z")
    subject, words = read(mta.mails[-1])
    assert subject.startswith("[usage-aggregator] PURGE LATE: 2026-10")
    assert "INCIDENT" in words
    assert "raw counters should be gone since 2026-11-03T00:00:00Z" in words
    assert ACCOUNT not in words
    found = [one for one in world.named("incident") if one["kind"] == "purge_late"]
    assert len(found) == 1
    assert found[0]["level"] == "warning"


@pytest.mark.parametrize("step", ["DATA", "RCPT", "END"])
def test_a_mail_that_nobody_took_is_tried_after_the_next_job(
    world: World, mta: RawServer, step: str
) -> None:
    mta.replies[step] = 451
    world.fail()
    assert mta.mails == []
    assert world.named("operator_not_told")
    assert world.runs.load("ingest") is not None
    mta.replies.clear()
    world.fail(now="2026-10-05T12:05:00Z")
    assert len(mta.mails) == 1


def test_a_dead_mail_server_changes_nothing_of_the_job(world: World, mta: RawServer) -> None:
    mta.replies["MAIL"] = Fault.CUT
    with pytest.raises(IntegrityError, match="a line"):
        world.run(error=IntegrityError("a line"))
    mta.stop()
    assert world.run(now="2026-10-05T12:05:00Z") == {"days": []}


def test_a_disk_that_takes_no_record_is_told_by_the_rare_jobs(
    world: World, mta: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    world.run()
    monkeypatch.setattr(RunStore, "save", full)
    monkeypatch.setattr(RunStore, "save_known", full)
    world.fail("ingest")
    assert mta.mails == []
    assert world.named("run_not_recorded")
    world.fail("month-end", words="the system refused")
    assert "month-end failed (exit 6): the system refused" in read(mta.mails[0])[1]


def test_each_job_has_a_check_of_its_own_where_the_url_names_it(world: World) -> None:
    with Pings() as pings:
        world.watch = WatchSettings(ping_url=pings.url + "/{job}?x=1")
        world.run()
        world.fail("daily")
    assert pings.paths == ["/secret-token/ingest?x=1", "/secret-token/daily/fail?x=1"]
    assert all(set(one) <= {"Accept-Encoding", "Host", "User-Agent", "Connection"}
               for one in pings.headers)  # fmt: skip


def test_one_url_speaks_for_all_jobs(world: World) -> None:
    """A success of one job must not hide the failure of another."""
    with Pings() as pings:
        world.watch = WatchSettings(ping_url=pings.url)
        world.run()
        world.fail("daily")
        world.run()
        world.run("daily")
    assert pings.paths == [
        "/secret-token", "/secret-token/fail", "/secret-token/fail", "/secret-token"
    ]  # fmt: skip


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_url_that_does_not_answer_is_told_without_its_secret(world: World, status: int) -> None:
    with Pings(status) as pings:
        world.watch = WatchSettings(ping_url=pings.url)
        assert world.run() == {"days": []}
    assert pings.paths == ["/secret-token"]
    (told,) = world.named("operator_not_told")
    assert told["problem"] == f"the ping URL answers {status}"
    with pytest.raises(DeliveryError) as caught:
        ping.ask(pings.url)
    assert "secret" not in str(caught.value)


def figures(content: str) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and its labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(content)
        for sample in family.samples
    }


def test_the_text_file_has_figures_and_nobody_in_them(world: World, tmp_path: Path) -> None:
    path = tmp_path / "exporter" / "aggregator.prom"
    path.parent.mkdir()
    world.watch = WatchSettings(metrics_file=str(path))
    world.tiny.ingest([usage(user=ACCOUNT, location="xx-planted")])
    old = os.umask(0o077)
    try:
        world.fail("daily")
        world.run("ingest", now="2026-11-03T06:00:00Z")
    finally:
        os.umask(old)
    content = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert "planted" not in content
    found = figures(content)
    began = parse_instant("2026-11-03T06:00:00Z")
    assert found["aggregator_job_last_success_timestamp_seconds", "ingest"] == began.timestamp()
    assert found["aggregator_job_failures", "daily"] == 1
    assert found["aggregator_job_last_run_exit_code", "daily"] == 6
    assert found["aggregator_purge_late_seconds",] == 6 * 3600
    assert found["aggregator_days", "due"] == 1
    age = (began - parse_instant("2026-10-05T00:00:00Z")).total_seconds()
    assert found["aggregator_oldest_raw_counter_seconds",] == age
    assert found["aggregator_incidents", "purge_late"] == 1
    assert found["aggregator_incidents", "little_disk"] == 0


def test_a_folder_that_is_not_there_is_told(world: World, tmp_path: Path) -> None:
    world.watch = WatchSettings(metrics_file=str(tmp_path / "absent" / "x.prom"))
    world.run()
    assert len(world.named("operator_not_told")) == 1
    assert not (tmp_path / "absent").exists()


def test_metrics_are_served_as_they_are_when_asked(world: World) -> None:
    world.run()
    house, told = world.tiny.read(NOW), list[str]()
    profile = world.tiny.root / "policy" / "profile.toml"

    def look() -> Any:
        house.home.load_profile()
        return watch.look(house)

    with metrics.served(("127.0.0.1", 0), look, told.append) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        first = figures(urllib.request.urlopen(url).read().decode())
        world.fail()
        second = figures(urllib.request.urlopen(url).read().decode())
        profile.write_text("no toml")
        third = figures(urllib.request.urlopen(url).read().decode())
    key = ("aggregator_job_failures", "ingest")
    assert (first[key], second[key]) == (0, 1)
    assert [one["aggregator_home_readable",] for one in (first, second, third)] == [1, 1, 0]
    assert len(told) == 1
    with contextlib.closing(urllib.request.socket.socket()) as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_a_damaged_home_is_no_reason_to_be_silent(world: World, mta: RawServer) -> None:
    """CL-2: a mistake in the profile stops every job, the purge too; somebody must know."""
    world.run()
    with Pings() as pings:
        world.watch = dataclasses.replace(world.watch, ping_url=pings.url)
        (world.tiny.root / "policy" / "profile.toml").write_text("no toml")
        world.fail("month-end")
    assert pings.paths == ["/secret-token/fail"]
    (mail,) = mta.mails
    title, words = read(mail)
    assert title.startswith("[usage-aggregator] job failed month-end")
    assert "the job month-end failed (exit 6): a line" in words
    assert "profile" in words
