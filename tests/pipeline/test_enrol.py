"""Enrolling agents: what the file says, what stays here, and what is refused."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from batches import FakeAgent, dropped
from closed import Run, Said
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import START, TinyHome, usage

from aggregator.agent.enrolment import load_enrolment, make_keys
from aggregator.model.days import parse_instant
from aggregator.pipeline import enrol
from aggregator.pipeline.drain import drain_inbox
from aggregator.stores.agents import Agent, token_digest

DOOR = "https://usage.example.net:8443"
LATER = "2026-10-01T12:00:00Z"
NEXT_DAY = "2026-10-02T12:00:00Z"


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


@pytest.fixture
def agent(home: TinyHome, run: Run, tmp_path: Path) -> Path:
    """Return the enrolment file of us-nyc-01."""
    out = tmp_path / "us-nyc-01.toml"
    assert enrolled(home, run, "--out", out).code == 0
    return out


def enrolled(home: TinyHome, run: Run, *words: str | Path, name: str = "us-nyc-01") -> Said:
    call = ("agent", "enrol", name, "--location", "us-nyc", "--door", DOOR, *words)
    return run(home.root, *call, now=START)


def known(home: TinyHome, name: str = "us-nyc-01") -> Agent:
    found = home.read(START).agents.load(name)
    assert found is not None
    return found


def test_the_agent_can_use_what_enrolment_wrote(home: TinyHome, agent: Path) -> None:
    """The two sides share nothing but the file."""
    found = load_enrolment(agent)
    assert (found.agent, found.locations, found.door) == ("us-nyc-01", {"us-nyc"}, DOOR)
    register = known(home)
    now = parse_instant(LATER)
    assert register.has_token(found.token, now)
    assert not register.has_token(found.token[:-1] + "!", now)
    public = Ed25519PrivateKey.from_private_bytes(found.signing_key).public_key()
    assert register.public_keys(now) == [public.public_bytes_raw()]
    assert found.door_key == home.read(START).agents.kept_public_key()


def test_its_batches_are_taken_in(home: TinyHome, agent: Path) -> None:
    found = load_enrolment(agent)
    with home.open(LATER) as house:
        keys = house.month_keys_for_writing("2026-10")
        sender = FakeAgent(found.agent, found.token, found.signing_key)
        dropped(home.root, sender.batch([usage("2026-10-01")], keys))
        assert drain_inbox(house).accepted == 1


def test_the_file_is_for_its_owner_and_nothing_secret_stays(home: TinyHome, agent: Path) -> None:
    """CS-7: who takes the aggregator's disk can speak for no agent."""
    assert stat.S_IMODE(agent.stat().st_mode) == 0o600
    values = tomllib.loads(agent.read_text())
    secret = values["token"].rpartition(".")[2].encode()
    key = base64.b64decode(values["signing_key"])
    for content in home.files().values():
        assert secret not in content
        assert key not in content
        assert values["signing_key"].encode() not in content


def test_each_step_leaves_an_entry_without_a_secret(home: TinyHome, agent: Path, run: Run) -> None:
    run(home.root, "agent", "rotate", "us-nyc-01", "--door", DOOR, now=LATER)
    run(home.root, "agent", "revoke", "us-nyc-01", now=LATER)
    run(home.root, "agent", "revoke", "us-nyc-01", now=LATER)
    expected = {"agent": "us-nyc-01", "locations": ["us-nyc"]}
    for kind in ("agent_enrolled", "agent_rotated", "agent_revoked"):
        assert home.audit(kind) == [expected]


def test_no_file_is_ever_overwritten_and_then_nobody_is_enrolled(
    home: TinyHome, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "thesis"
    out.write_text("mine")
    before = home.files("agents")
    said = enrolled(home, run, "--out", out)
    assert said.code == 5
    assert "never overwritten" in said.err or "ever overwritten" in said.err
    assert out.read_text() == "mine"
    said = enrolled(home, run, "--out", tmp_path / "absent" / "file")
    assert said.code == 2
    assert {*home.files("agents")} - {*before} <= {"agents/signing.key", "agents/signing.pub"}


def test_a_register_that_cannot_be_written_takes_the_file_back(
    home: TinyHome, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(enrol, "register", full)
    out = tmp_path / "out.toml"
    assert enrolled(home, run, "--out", out).code == 1
    assert not out.exists()


def test_without_out_the_file_goes_to_standard_output(home: TinyHome, run: Run) -> None:
    said = enrolled(home, run)
    assert said.code == 0
    assert tomllib.loads(said.out)["agent"] == "us-nyc-01"
    token = tomllib.loads(said.out)["token"]
    assert token not in said.err
    assert known(home).has_token(token, parse_instant(START))
    said = enrolled(home, run, "--json", name="us-nyc-02")
    assert tomllib.loads(said.json["enrolment"])["agent"] == "us-nyc-02"
    assert said.json["schema_version"] == 1


def test_the_door_is_the_configured_one_unless_named(home: TinyHome, run: Run) -> None:
    words = ("agent", "enrol", "--location", "us-nyc")
    said = run(home.root, *words, "us-nyc-01", now=START)
    assert said.code == 3
    assert "--door" in said.err
    with (home.root / "config.toml").open("a") as file:
        file.write('\n[door]\nurl = "https://configured.example.net/"\n')
    said = run(home.root, *words, "us-nyc-01", now=START)
    assert tomllib.loads(said.out)["door"] == "https://configured.example.net"
    said = run(home.root, *words, "us-nyc-02", "--door", DOOR, now=START)
    assert tomllib.loads(said.out)["door"] == DOOR


def test_an_agent_with_its_own_key_keeps_it(
    home: TinyHome, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CS-7: the private half never left the VPN server."""
    public = make_keys(tmp_path / "own.key")
    (tmp_path / "own.pub").write_text(public + "\n")
    reading, writing = os.pipe()
    os.write(writing, public.encode() + b"\n")
    os.close(writing)
    for number, way in enumerate((public, str(tmp_path / "own.pub"), "-")):
        name = f"own-{number}"
        with os.fdopen(os.dup(reading)) as given:
            monkeypatch.setattr("sys.stdin", given)
            said = enrolled(home, run, "--public-key", way, name=name)
        assert said.code == 0, said.err
        values = tomllib.loads(said.out)
        assert values["signing_key_file"] == "/etc/aggregator-agent/signing.key"
        assert "signing_key" not in values
        (key,) = known(home, name).public_keys(parse_instant(START))
        assert base64.b64encode(key).decode() == public
    os.close(reading)


@pytest.mark.parametrize("key", ["", "c2hvcnQ=", "no/such/file", "x" * 44])
def test_what_is_no_key_is_refused(home: TinyHome, run: Run, key: str) -> None:
    said = enrolled(home, run, "--public-key", key)
    assert (said.code, said.out) == (4, "")
    assert "x" * 44 not in said.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("US-NYC", "--location", "us-nyc"), 2),
        (("../../etc", "--location", "us-nyc"), 2),
        (("a", "--location", "us-nyc"), 2),
        (("us-nyc-01",), 2),
        (("us-nyc-01", "--location", "NYC"), 2),
        (("us-nyc-01", "--location", "other"), 2),
        (("us-nyc-01", "--location", "canary"), 2),
        (("us-nyc-01", "--location", "us-nyc", "--location", "198-51-100-7"), 2),
        (("us-nyc-01", "--location", "us-nyc", "--door", "http://usage.example.net"), 2),
        (("us-nyc-01", "--location", "us-nyc", "--door", "https://a:b@usage.example.net"), 2),
        (("us-nyc-01", "--location", "us-nyc", "--door", "usage.example.net"), 2),
    ],
)
def test_wrong_words_enrol_nobody(
    home: TinyHome, run: Run, words: tuple[str, ...], code: int
) -> None:
    before = home.files("agents")
    said = run(home.root, "agent", "enrol", "--door", DOOR, *words, now=START)
    assert (said.code, said.out) == (code, "")
    assert home.files("agents") == before


def test_an_id_is_enrolled_once(home: TinyHome, agent: Path, run: Run) -> None:
    before = home.files()
    said = enrolled(home, run)
    assert (said.code, said.out) == (5, "")
    assert "agent rotate us-nyc-01" in said.err
    assert home.files() == before


def test_a_location_said_twice_counts_once(home: TinyHome, run: Run) -> None:
    said = enrolled(home, run, "--location", "us-nyc", "--location", "de-fra")
    assert tomllib.loads(said.out)["locations"] == ["us-nyc", "de-fra"]


@pytest.mark.parametrize("step", ["rotate", "revoke"])
@pytest.mark.parametrize("name", ["nobody", "NO/BODY"])
def test_who_is_not_enrolled_can_be_neither(home: TinyHome, run: Run, step: str, name: str) -> None:
    said = run(home.root, "agent", step, name, now=START)
    assert (said.code, said.out) == (4, "")
    assert "agent list" in said.err


def test_old_credentials_end_with_the_overlap(home: TinyHome, agent: Path, run: Run) -> None:
    old = load_enrolment(agent)
    out = agent.with_name("new.toml")
    words = ("rotate", "us-nyc-01", "--door", DOOR, "--out", out, "--overlap")
    assert run(home.root, "agent", *words, "2h", now=LATER).code == 0
    new = load_enrolment(out)
    assert (new.token, new.signing_key) != (old.token, old.signing_key)
    assert new.door_key == old.door_key
    found, at = known(home), parse_instant(LATER)
    for moment, good in (
        (at + dt.timedelta(hours=2, seconds=-1), True),
        (at + dt.timedelta(hours=2), False),
    ):
        assert found.has_token(old.token, moment) is good
        assert found.has_token(new.token, moment)
        assert len(found.public_keys(moment)) == 1 + good
    # Rotated again, what had its end keeps it, and what has ended is gone.
    out.unlink()
    run(home.root, "agent", *words, "24h", now="2026-10-01T13:00:00Z")
    digests = {one.token_sha256: one.until for one in known(home).credentials}
    assert digests[token_digest(old.token)] == parse_instant("2026-10-01T14:00:00Z")
    assert digests[token_digest(new.token)] == parse_instant("2026-10-02T13:00:00Z")
    out.unlink()
    run(home.root, "agent", *words, "0", now="2026-10-02T12:00:00Z")
    assert [one.until for one in known(home).credentials] == [None]


def test_an_ended_credential_is_remembered_while_its_batches_may_wait(
    home: TinyHome, agent: Path, run: Run
) -> None:
    """Two rotations in a row must not lose what the door took in between."""
    old = load_enrolment(agent)
    words = ("agent", "rotate", "us-nyc-01", "--door", DOOR)
    assert run(home.root, *words, now=LATER).code == 0
    assert run(home.root, *words, now="2026-10-04T12:00:00Z").code == 0
    register = known(home)
    assert len(register.credentials) == 3
    assert not register.has_token(old.token, parse_instant("2026-10-04T12:00:00Z"))
    assert register.has_token(old.token, parse_instant(NEXT_DAY) - dt.timedelta(minutes=1))
    assert run(home.root, *words, "--overlap", "0", now="2026-10-05T12:00:00Z").code == 0
    assert len(known(home).credentials) == 1


@pytest.mark.parametrize("overlap", ["soon", "-1h", "24", "32d", "1w", ""])
def test_an_overlap_has_its_form(home: TinyHome, agent: Path, run: Run, overlap: str) -> None:
    before = known(home)
    said = run(home.root, "agent", "rotate", "us-nyc-01", "--overlap", overlap, now=LATER)
    assert said.code == 2
    assert known(home) == before


def test_a_revoked_id_is_not_enrolled_again(home: TinyHome, agent: Path, run: Run) -> None:
    """Nor is its operator sent in a circle."""
    assert run(home.root, "agent", "revoke", "us-nyc-01", now=LATER).code == 0
    again = enrolled(home, run)
    assert again.code == 5
    assert "another id" in again.err
    assert "rotate" not in again.err


def test_revoked_is_for_good(home: TinyHome, agent: Path, run: Run) -> None:
    assert run(home.root, "agent", "revoke", "us-nyc-01", now=LATER).code == 0
    assert known(home).revoked_at == parse_instant(LATER)
    said = run(home.root, "agent", "revoke", "us-nyc-01", "--json", now=NEXT_DAY)
    assert (said.code, said.json["revoked"]) == (0, False)
    assert known(home).revoked_at == parse_instant(LATER)
    for step in ("rotate", "enrol"):
        words = ("agent", step, "us-nyc-01", "--door", DOOR)
        more = ("--location", "us-nyc") if step == "enrol" else ()
        assert run(home.root, *words, *more, now=NEXT_DAY).code == 5
    # What is still under way is refused as well.
    found = load_enrolment(agent)
    with home.open(NEXT_DAY) as house:
        keys = house.month_keys_for_writing("2026-10")
        sender = FakeAgent(found.agent, found.token, found.signing_key)
        dropped(home.root, sender.batch([usage("2026-10-01")], keys))
        assert drain_inbox(house).refused == {"revoked": 1}


def test_the_list_tells_no_secret(home: TinyHome, agent: Path, run: Run) -> None:
    run(home.root, "agent", "rotate", "us-nyc-01", "--door", DOOR, now=LATER)
    enrolled(home, run, name="de-fra-01")
    run(home.root, "agent", "revoke", "de-fra-01", now=LATER)
    said = run(home.root, "agent", "list", "--json", now=LATER)
    rows: list[dict[str, Any]] = said.json["rows"]
    assert rows == [
        {
            "agent": "de-fra-01", "locations": ["us-nyc"], "state": "revoked",
            "enrolled_day": "2026-10-01", "heard_at": None, "credentials_until": [],
        },
        {
            "agent": "us-nyc-01", "locations": ["us-nyc"], "state": "enrolled",
            "enrolled_day": "2026-10-01", "heard_at": None,
            "credentials_until": ["2026-10-02T12:00:00Z", None],
        },
    ]  # fmt: skip
    table = run(home.root, "agent", "list", now=LATER)
    for shown in (said.out, table.out):
        for one in (*known(home).credentials, *known(home, "de-fra-01").credentials):
            assert one.token_sha256 not in shown
            assert base64.b64encode(one.public_key).decode() not in shown
    assert "no end" in table.out
    # Credentials that have ended are not listed.
    after = run(home.root, "agent", "list", "--json", now="2026-10-03T12:00:00Z").json["rows"][1]
    assert after["credentials_until"] == [None]


def test_an_empty_list_says_how_to_begin(home: TinyHome, run: Run) -> None:
    said = run(home.root, "agent", "list", now=START)
    assert (said.code, said.out) == (0, "")
    assert "agent enrol" in said.err
    assert run(home.root, "agent", "list", "--json", now=START).json["rows"] == []


def test_papers_are_not_shown_by_accident(home: TinyHome) -> None:
    with home.open(START) as house:
        papers = enrol.new(house, "us-nyc-01", ["us-nyc"], DOOR)
    values = tomllib.loads(papers.enrolment)
    assert values["token"] not in repr(papers)
    assert values["signing_key"] not in repr(papers)
    assert json.loads(json.dumps(values)) == values
