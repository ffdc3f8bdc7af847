"""Health of real homes: who is heard, which counters froze, what waits; what the drain notes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from batches import FakeAgent, dropped
from click.testing import CliRunner
from closed import Run, Said
from support import ALL_CLOSED, START, TinyHome, crowd, flags, usage

from aggregator.agent.keyring import KeyRing
from aggregator.agent.timetable import Timetable
from aggregator.cli.report_health import health_command
from aggregator.model.days import parse_instant
from aggregator.model.runs import Run as JobRun
from aggregator.model.runs import Trouble
from aggregator.pipeline import contacts, health
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.drain import drain_inbox
from aggregator.pipeline.ingest import Ingested
from aggregator.pipeline.receive import Receiver, Refusal
from aggregator.rules.health import Check, Finding, State
from aggregator.rules.health_agents import SILENT_AFTER
from aggregator.stores.contacts import Contacts, TakenInFile
from aggregator.stores.home import Home
from aggregator.stores.runs import RunStore
from jobs import watch

NOW = "2026-10-05T12:00:00Z"
AT = parse_instant(NOW)
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
PLACES = ("us-nyc", "de-fra")


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


@pytest.fixture
def agents(home: TinyHome) -> dict[str, FakeAgent]:
    """Return two agents, enrolled on the first day, each of its own location."""
    made = {place: FakeAgent.make(f"{place}-01") for place in PLACES}
    with home.open("2026-10-01T00:00:00Z") as house:
        for place, agent in made.items():
            agent.enrol(house, place)
    with home.open("2026-10-05T11:00:00Z") as house:
        house.record("checkpoint", {})  # runs that went on meanwhile: the clock is in no doubt
    return made


def hear(home: TinyHome, agent: FakeAgent, now: dt.datetime) -> Any:
    return Receiver(Home(home.root)).sender(agent.token, now)


def drain(home: TinyHome, now: str = NOW) -> Ingested:
    with home.open(now) as house:
        return drain_inbox(house)


def send(home: TinyHome, agent: FakeAgent, *lines: str, now: str = NOW) -> None:
    """Have an agent's batch taken in at `now`."""
    with home.open(now) as house:
        content = agent.batch(lines, house.month_keys_for_writing("2026-10"))
    dropped(home.root, content, f"{agent.id}-{len(lines)}")
    drain(home, now)


def found(home: TinyHome, now: str = NOW) -> list[Finding]:
    return health.gather(home.read(now))


def of(findings: list[Finding], check: Check) -> list[tuple[str, State]]:
    return [(one.subject, one.state) for one in findings if one.check == check]


def asked(home: Path, *words: str, now: str = NOW) -> Said:
    """Run the report as the command line does."""
    result = CliRunner().invoke(health_command, ["--home", str(home), "--now", now, *words])
    return Said(result.exit_code, result.stdout, result.stderr)


def test_the_door_notes_whom_it_hears_and_no_one_else(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    stranger, gone = FakeAgent.make("nobody-01"), FakeAgent.make("gone-01")
    with home.open(NOW) as house:
        gone.enrol(house, "us-nyc", revoked_at=AT)
    assert hear(home, stranger, AT) is Refusal.UNKNOWN_TOKEN
    assert hear(home, gone, AT) is Refusal.REVOKED
    wrong = FakeAgent("us-nyc-01", f"ua1.us-nyc-01.{'w' * 43}", b"")
    assert hear(home, wrong, AT) is Refusal.UNKNOWN_TOKEN
    assert contacts.heard(home.read(NOW)) == {}
    assert hear(home, agents["us-nyc"], AT).id == "us-nyc-01"
    assert contacts.heard(home.read(NOW)) == {"us-nyc-01": AT}


def test_a_door_whose_folder_takes_nothing_answers_all_the_same(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    (home.root / "inbox" / ".heard").write_bytes(b"")
    assert hear(home, agents["us-nyc"], AT).id == "us-nyc-01"
    assert contacts.heard(home.read(NOW)) == {}


def test_silent_agents_are_found_and_told_of_once_for_all(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    hear(home, agents["us-nyc"], AT - 2 * DAY)
    hear(home, agents["de-fra"], AT - HOUR)
    findings = found(home)
    assert of(findings, Check.SILENT) == [("us-nyc-01", State.PROBLEM)]
    assert of(findings, Check.HEARD) == [("de-fra-01", State.OK)]
    assert findings[0].check == Check.SILENT
    assert health.summary(findings).startswith("1 agent heard within 27 h, 1 silent; 1 problem")
    _, facts, troubles = watch.look(home.read(NOW))
    assert facts.silent_since == (AT - 2 * DAY,)
    (told,) = (one for one in troubles if one.trouble is Trouble.AGENTS_SILENT)
    assert told.what == "1 agent was not heard for 27 h"
    with home.open(NOW) as house:
        house.agents.save(
            dataclasses.replace(house.agents.load("us-nyc-01") or _none(), revoked_at=AT)
        )
    assert watch.look(home.read(NOW))[1].silent_since == ()
    assert of(found(home), Check.SILENT) == []


def _none() -> Any:
    raise AssertionError("the agent is not enrolled")


def test_a_clock_in_doubt_makes_nobody_silent_to_the_jobs(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    with home.open(NOW) as house:
        house.record("checkpoint", {})
    hear(home, agents["us-nyc"], AT)
    _, facts, _ = watch.look(home.read("2026-10-09T12:00:00Z"))
    assert facts.clock_doubt_since is not None
    assert facts.silent_since == ()


def test_a_home_without_a_door_alarms_nobody(home: TinyHome, agents: dict[str, FakeAgent]) -> None:
    """Files that rsync drops have no contact: their records tell."""
    assert of(found(home), Check.DOOR) == [("", State.WARNING)]
    assert watch.look(home.read(NOW))[1].silent_since == ()
    send(home, agents["us-nyc"], *crowd("2026-10-05", range(20)))
    findings = found(home)
    assert of(findings, Check.HEARD) == [("us-nyc-01", State.OK)]
    assert of(findings, Check.DOOR) == []
    later = found(home, "2026-10-08T12:00:00Z")
    assert of(later, Check.SILENT) == [("us-nyc-01", State.PROBLEM)]
    assert watch.look(home.read("2026-10-06T12:00:00Z"))[1].silent_since == ()


def test_an_idle_agent_is_heard_like_any_other() -> None:
    """With nothing to send it asks for keys all the same, whatever its interval and its chance."""
    for seed, interval in enumerate((300.0, 3600.0, 3600.0, 3600.0)):
        gaps = _gaps(Timetable.start(interval, 300.0, random.Random(seed), 0.0, AT), KeyRing(b""))
        assert len(gaps) >= 40
        assert min(gaps) >= HOUR
        assert max(gaps) < 3.5 * HOUR
        # A contact is noted to the hour.
        assert max(gaps) + HOUR < SILENT_AFTER


def _gaps(timetable: Timetable, ring: KeyRing) -> list[dt.timedelta]:
    """Return the time between the contacts of an agent that has nothing to send, in six days."""
    at, asked_at = dt.timedelta(0), []
    while at < 6 * DAY:
        due = timetable.due(at.total_seconds(), AT + at)
        if due.send:
            if ring.is_stale(at.total_seconds()):
                asked_at.append(at)
                ring.fetched(at.total_seconds())
            timetable.sent()
        wait = 0.0 if due.read or due.send else timetable.wait(at.total_seconds(), AT + at)
        at += dt.timedelta(seconds=max(wait, 0.01))
    return [later - earlier for earlier, later in itertools.pairwise(asked_at)]


def test_an_agent_that_sends_nothing_while_others_do_is_told(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    for place in PLACES:
        send(
            home, agents[place], *crowd("2026-10-02", range(20), place), now="2026-10-02T12:00:00Z"
        )
        hear(home, agents[place], AT)
    send(home, agents["us-nyc"], *crowd("2026-10-05", range(21)))
    findings = found(home)
    assert of(findings, Check.NO_RECORDS) == [("de-fra-01", State.WARNING)]
    assert of(findings, Check.HEARD) == [("us-nyc-01", State.OK)]
    (told,) = (one for one in findings if one.check == Check.NO_RECORDS)
    assert told.since == "2026-10-02"


def test_the_note_has_agents_and_days_and_nothing_of_a_record(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    """CS-6, CT-3: neither an account nor a number, nor a day that was refused."""
    lines = [usage("2026-10-04", "acct-planted"), usage("2026-10-05", "acct-planted")]
    send(home, agents["us-nyc"], *lines, usage("2026-12-24", "acct-planted"))
    send(home, agents["de-fra"], usage("2026-12-24", location="de-fra"), "junk")
    note = TakenInFile(home.root / "runs").path.read_bytes()
    assert json.loads(note) == {
        "schema_version": 1,
        "since": NOW,
        "agents": {"us-nyc-01": {"taken_at": NOW, "day": "2026-10-04"}},
        "refused": {},
        "waiting": {},
    }


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["add", "remove"])
def test_a_drain_killed_around_its_note_makes_it_when_run_again(
    home: TinyHome, agents: dict[str, FakeAgent], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Between the seal and the note, and between the note and the removal of the batch."""

    def killed(*_words: object) -> None:
        raise KilledError

    lines = crowd("2026-10-05", range(30))
    with monkeypatch.context() as patch:
        patch.setattr(*{
            "add": (TakenInFile, "add", killed),
            "remove": (type(home.read(NOW).inbox), "remove", killed),
        }[step])  # fmt: skip
        with pytest.raises(KilledError):
            send(home, agents["us-nyc"], *lines)
    assert home.files("raw")
    noted = TakenInFile(home.root / "runs").load()
    assert (noted is None) == (step == "add")
    assert drain(home).accepted == 30
    noted = TakenInFile(home.root / "runs").load()
    assert noted is not None
    assert (noted.agents["us-nyc-01"].at, noted.agents["us-nyc-01"].day) == (AT, "2026-10-05")
    assert list((home.root / "inbox").glob("*.batch")) == []
    home.rollup()
    assert home.usage()["2026-10-05", "us-nyc"] == (30, sum(1000 + n for n in range(30)))


def test_a_note_that_cannot_be_written_keeps_no_batch(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    (home.root / "runs" / "agents.json").mkdir()
    send(home, agents["us-nyc"], *crowd("2026-10-05", range(30)))
    assert list((home.root / "inbox").glob("*.batch")) == []


def test_what_waits_and_what_was_refused_is_told_by_the_reason(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    with home.open(NOW) as house:
        keys = house.month_keys_for_writing("2026-10")
    other = dataclasses.replace(keys, key_id="0" * 16)
    dropped(home.root, agents["us-nyc"].batch([usage()], other), "1")
    dropped(home.root, FakeAgent.make("late-01").batch([usage()], keys), "2")
    dropped(home.root, b"no batch", "3")
    drain(home)
    dropped(home.root, agents["us-nyc"].batch([usage()], keys), "4")
    findings = found(home)
    assert of(findings, Check.WAITING) == [
        ("no_key", State.PROBLEM), ("unknown_agent", State.WARNING), ("", State.OK)
    ]  # fmt: skip
    assert of(findings, Check.REFUSED) == [("malformed", State.WARNING)]


def closed_days(home: TinyHome, *, last: list[str], now: str = ALL_CLOSED) -> None:
    """Close 3 and 4 October: on the first every place counts, on the second what `last` has."""
    every = [*crowd("2026-10-03", range(40)), *crowd("2026-10-03", range(40), "de-fra")]
    connected = [
        flags(day, place, users=30, attempts=40, successes=35)
        for day in ("2026-10-03", "2026-10-04")
        for place in PLACES
    ]
    home.ingest([*every, *connected, *last], "2026-10-05T00:00:00Z")
    home.rollup(now, through="2026-10-04")


def test_counters_that_froze_are_found_while_connections_succeed(home: TinyHome) -> None:
    closed_days(home, last=crowd("2026-10-04", range(40)))
    findings = found(home, "2026-10-06T12:00:00Z")
    assert of(findings, Check.FROZEN) == [("de-fra", State.PROBLEM)]
    (told,) = (one for one in findings if one.check == Check.FROZEN)
    assert told.since == "2026-10-03"


def test_counters_of_few_users_move_too(home: TinyHome) -> None:
    """A location that is folded, and a day that is withheld whole, have counters all the same."""
    small = [*crowd("2026-10-04", range(40)), *crowd("2026-10-04", range(2), "de-fra")]
    closed_days(home, last=small)
    assert of(found(home, "2026-10-06T12:00:00Z"), Check.FROZEN) == [("", State.OK)]


def test_counters_of_a_withheld_day_are_looked_at_themselves(home: TinyHome) -> None:
    closed_days(home, last=crowd("2026-10-04", range(3)))
    findings = found(home, "2026-10-06T12:00:00Z")
    assert of(findings, Check.WITHHELD) == [("usage_daily", State.WARNING)]
    assert of(findings, Check.FROZEN) == [("de-fra", State.PROBLEM)]


def test_counters_that_came_late_are_not_frozen(home: TinyHome) -> None:
    closed_days(home, last=crowd("2026-10-04", range(40)))
    home.ingest(crowd("2026-10-04", range(12), "de-fra"), "2026-11-02T01:00:00Z")
    assert of(found(home, "2026-11-02T02:00:00Z"), Check.FROZEN) == [("", State.OK)]


def test_a_location_of_few_connections_is_never_told(home: TinyHome) -> None:
    """A verdict says of nobody whether he was there: k connections at the least (CS-4)."""
    few = [flags(day, "is-rkv", users=1, attempts=9, successes=9)
           for day in ("2026-10-03", "2026-10-04")]  # fmt: skip
    closed_days(home, last=[*crowd("2026-10-04", range(40)),
                            *crowd("2026-10-04", range(40), "de-fra"), *few,
                            usage("2026-10-03", "acct-9", "is-rkv")])  # fmt: skip
    assert of(found(home, "2026-10-06T12:00:00Z"), Check.FROZEN) == [("", State.OK)]


def test_after_a_purge_the_published_days_say_what_counted_before(home: TinyHome) -> None:
    """On the first days of a month the counters of those before are destroyed (CL-2)."""
    connected = [flags(day, place, users=30, attempts=40, successes=35)
                 for day in ("2026-10-31", "2026-11-01") for place in PLACES]  # fmt: skip
    lines = [line for place in PLACES for line in crowd("2026-10-31", range(40), place)]
    home.ingest([*lines, *connected, *crowd("2026-11-01", range(40))], "2026-11-02T12:00:00Z")
    home.purge("2026-11-03T00:30:00Z")
    home.rollup("2026-11-03T01:00:00Z")
    assert not (home.root / "raw" / "2026-10").exists()
    findings = found(home, "2026-11-03T02:00:00Z")
    assert of(findings, Check.FROZEN) == [("de-fra", State.PROBLEM)]


def test_a_segment_that_does_not_open_is_a_finding(home: TinyHome) -> None:
    closed_days(home, last=[])
    (path,) = (home.root / "raw" / "2026-10" / "2026-10-04").glob("flags-closed.*.seg")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    findings = found(home, "2026-10-06T12:00:00Z")
    assert (findings[0].check, findings[0].state) == (Check.FROZEN, State.PROBLEM)
    assert of(findings, Check.LAG)


def test_what_may_not_be_read_is_a_finding(home: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(RunStore, "runs", refuse)
    (told,) = (one for one in found(home) if one.check == Check.JOB)
    assert (told.state, told.what) == (
        State.WARNING, "could not be looked at: Permission denied"
    )  # fmt: skip


def test_days_that_are_late_and_days_that_are_missing(home: TinyHome) -> None:
    home.ingest(crowd("2026-10-02", range(40)), "2026-10-02T12:00:00Z")
    late = found(home, "2026-10-07T12:00:00Z")
    assert of(late, Check.LAG) == [("", State.PROBLEM)]
    home.rollup("2026-10-07T12:00:00Z")
    missing = found(home, "2026-10-07T13:00:00Z")
    assert of(missing, Check.LAG) == [("", State.OK)]
    assert of(missing, Check.CLOSED) == [("", State.WARNING)]
    # A job that runs once a day closes the 2nd by the end of the 4th.
    assert of(found(home, "2026-10-04T23:00:00Z"), Check.CLOSED) == [("", State.OK)]


def test_late_bytes_of_the_last_months_are_told(home: TinyHome) -> None:
    home.ingest(crowd("2026-10-05", range(40)))
    home.rollup("2026-10-31T23:30:00Z")
    home.ingest(crowd("2026-10-05", range(40), size=5000), "2026-11-01T00:00:00Z")
    home.purge()
    findings = found(home, "2026-11-03T01:00:00Z")
    assert of(findings, Check.LATE) == [("us-nyc", State.WARNING)]


def test_a_job_that_is_switched_off_is_not_told(home: TinyHome) -> None:
    runs = RunStore(home.root / "runs")
    for job in ("mail", "ingest"):
        runs.save(JobRun(job, AT, 1.0, 7, "no"))
    assert of(found(home), Check.JOB) == [("ingest", State.PROBLEM), ("mail", State.PROBLEM)]
    with (home.root / "config.toml").open("a") as file:
        file.write('\n[schedule]\nmail = "off"\n')
    assert of(found(home), Check.JOB) == [("ingest", State.PROBLEM)]


def test_the_report_is_in_order_and_says_how_many_are_heard(
    home: TinyHome, agents: dict[str, FakeAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    hear(home, agents["us-nyc"], AT - 3 * DAY)
    hear(home, agents["de-fra"], AT)
    said = asked(home.root)
    assert (said.code, said.out.count("PROBLEM")) == (0, 1)
    assert said.out.splitlines()[2].startswith("PROBLEM  silent agent  us-nyc-01  2026-10-02  not ")
    assert said.err == "1 agent heard within 27 h, 1 silent; 1 problem\n"
    rows = json.loads(asked(home.root, "--json").out)
    assert [list(row) for row in rows] == [["state", "check", "subject", "since", "what", "remedy"]]
    assert (rows[0]["check"], rows[0]["subject"]) == ("silent_agent", "us-nyc-01")
    everything = json.loads(asked(home.root, "--all", "--format", "json").out)
    assert {row["state"] for row in everything} == {"problem", "ok"}
    assert asked(home.root, "--format", "csv").out.splitlines()[0] == ",".join(rows[0])
    assert asked(home.root, "--format", "md").out.startswith("| state | check |")
    out = home.root.parent / "health.txt"
    assert asked(home.root, "--out", str(out)).out == ""
    assert out.read_text() == said.out
    assert asked(home.root, "--json", "--format", "csv").code != 0


def test_nothing_wrong_is_said_in_one_line(home: TinyHome) -> None:
    said = asked(home.root, now=START)
    assert (said.code, said.out) == (0, "")
    assert said.err == "no agent is enrolled; nothing is wrong\n"
    assert asked(home.root, "-q", now=START).err == ""
    assert json.loads(asked(home.root, "--json", now=START).out) == []


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_the_table_fits_its_terminal(
    home: TinyHome, agents: dict[str, FakeAgent], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    hear(home, agents["us-nyc"], AT - 3 * DAY)
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in ((), ("--all",)):
        lines = asked(home.root, *words).out.splitlines()
        assert max(map(len, lines)) <= columns
        text = " ".join(" ".join(lines).split())
        assert ("since" in lines[0]) == (columns > 60)
        assert "PROBLEM" in text
        assert "us-nyc-01 " in text


def test_of_many_alike_the_first_are_shown(home: TinyHome) -> None:
    many = [FakeAgent.make(f"a-{n:02d}") for n in range(30)]
    with home.open("2026-10-01T00:00:00Z") as house:
        for agent in many:
            agent.enrol(house, "us-nyc")
    with home.open(NOW) as house:
        house.record("checkpoint", {})
    for agent in many[1:]:
        hear(home, agent, AT - 3 * DAY)
    hear(home, many[0], AT)
    short, every = asked(home.root), asked(home.root, "--all")
    assert short.out.count("silent agent") == 9
    assert "and 21 more: --all" in short.out
    assert every.out.count("silent agent") == 29
    assert short.err == every.err == "1 agent heard within 27 h, 29 silent; 29 problems\n"


def test_troubles_of_the_jobs_are_in_the_report(home: TinyHome) -> None:
    home.ingest([usage("2026-10-01")], "2026-10-02T00:00:00Z")
    rows = json.loads(asked(home.root, "--json", now="2026-12-01T00:00:00Z").out)
    late = [row for row in rows if row["check"] == "purge_late"]
    assert (late[0]["subject"], late[0]["since"]) == ("2026-10", "2026-11-03")
    assert rows[0]["state"] == "problem"


def test_the_list_of_agents_has_when_each_was_heard(
    home: TinyHome, agents: dict[str, FakeAgent], run: Run
) -> None:
    hear(home, agents["us-nyc"], AT + 59 * HOUR / 60)
    rows = run(home.root, "agent", "list", "--json", now="2026-10-05T13:00:00Z").json["rows"]
    assert [(row["agent"], row["heard_at"]) for row in rows] == [
        ("de-fra-01", None), ("us-nyc-01", NOW)
    ]  # fmt: skip
    table = run(home.root, "agent", "list", now="2026-10-05T13:00:00Z").out
    assert "heard" in table
    assert NOW in table
    assert "never" in table


def test_the_folder_of_contacts_is_no_batch_and_no_stranger(
    home: TinyHome, agents: dict[str, FakeAgent]
) -> None:
    hear(home, agents["us-nyc"], AT)
    house: Deployment = home.read(NOW)
    assert (house.inbox.paths(), house.inbox.others()) == ([], 0)
    assert os.listdir(house.inbox.folder) == [".heard"]
    assert Contacts(house.inbox.folder).heard() == {"us-nyc-01": AT}
