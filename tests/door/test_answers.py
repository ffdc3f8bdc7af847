"""Every answer of the door, each asked for over TLS; `Client.ask` holds it to the OpenAPI text."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from batches import FakeAgent, flipped
from support import usage

from aggregator.door.limits import Limits
from aggregator.pipeline import enrol, publish
from aggregator.pipeline.drain import drain_inbox
from aggregator.pipeline.receive import Receiver
from aggregator.stores import atomic
from aggregator.stores.keys import MonthKeys
from aggregator.wire.batch import MAX_BATCH_BYTES, parse
from aggregator.wire.keys import read_announcement

from .running import NOW, OCTETS, Certificates, Running, opened, wait_until

LINES = (usage("2026-10-04"), usage("2026-10-05", "acct-2"))


def sealed(door: Running, agent: FakeAgent | None = None, **other: str) -> bytes:
    """Return a batch of the agent's, for another month or to another key if one is said."""
    keys = dataclasses.replace(door.keys, **other) if other else door.keys
    return (agent or door.agent).batch(LINES, keys)


def refused(door: Running, content: bytes, agent: FakeAgent | None = None) -> tuple[int, str]:
    """Send what is to be refused; return status and code word. Nothing of it may be kept."""
    before = door.waiting()
    answer = door.send(content, agent)
    assert door.waiting() == before
    return answer.status, answer.word


def test_a_batch_is_kept_as_it_came_before_it_is_answered(door: Running) -> None:
    content = sealed(door)
    answer = door.send(content)
    assert (answer.status, answer.json) == (202, {"schema_version": 1, "state": "accepted"})
    name = f"inbox/{parse(content).header.content}.batch"
    assert door.waiting() == {name: content}
    assert (door.home.root / name).stat().st_mode & 0o077 == 0


def test_a_replay_is_known_and_changes_nothing(door: Running) -> None:
    content = sealed(door)
    door.send(content)
    before = door.waiting()
    answer = door.send(content)
    assert (answer.status, answer.word) == (202, "known")
    assert door.waiting() == before


def test_what_the_door_kept_is_taken_in(door: Running) -> None:
    door.send(sealed(door))
    with door.home.open(NOW) as house:
        drained = drain_inbox(house)
    assert (drained.batches, drained.accepted, drained.rejected) == (1, 2, 0)
    assert door.waiting() == {}
    # Sent once more it is taken once more, and merges with itself.
    assert door.send(sealed(door)).word == "accepted"


def test_the_keys_are_those_announced_signed_by_the_aggregator(shared: Running) -> None:
    answer = shared.ask("GET", "/v1/keys", headers=shared.authorised())
    agents = shared.home.read(NOW).agents
    assert (answer.status, answer.body) == (200, agents.announcement())
    found = read_announcement(answer.body, agents.public_key())
    assert [(key.month, key.key_id) for key in found.keys] == [("2026-10", shared.keys.key_id)]
    for content in (shared.keys.batch, shared.keys.segment, shared.keys.pseudonym):
        assert content not in answer.body


def test_before_anything_is_announced(door: Running) -> None:
    (door.home.root / "agents" / "keys.json").unlink()
    answer = door.ask("GET", "/v1/keys", headers=door.authorised())
    assert (answer.status, answer.word) == (503, "nothing_announced")
    answer = door.ask("GET", "/healthz")
    assert (answer.status, answer.word) == (503, "nothing_announced")
    assert refused(door, sealed(door)) == (409, "unknown_key")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"hello", b"{}\n", b"x" * 5000, b"\x1f\x8b\x08", b"{}\n" + b"x" * 99]
)
def test_what_is_no_batch(shared: Running, content: bytes) -> None:
    assert refused(shared, content) == (400, "malformed")


def test_no_bit_of_a_batch_may_flip(shared: Running) -> None:
    client, before = shared.client(), shared.waiting()
    words = set()
    for content in flipped(sealed(shared)):
        answer = client.ask("POST", "/v1/batches", content, shared.authorised())
        words.add((answer.status, answer.word))
    assert words <= {
        (400, "malformed"), (403, "other_agent"), (403, "bad_signature"), (409, "unknown_key"),
        (410, "month_over"),
    }  # fmt: skip
    assert (403, "bad_signature") in words
    assert shared.waiting() == before
    client.http.close()


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer ua1", "Bearer ua1.nobody.{secret}",
        "Bearer ua1.us-nyc-01.{other}", "Bearer ua1.us-nyc-01.{secret}x", "{token}",
        "Bearer ua1.us-nyc-01.", "Bearer ua1.../../../etc/passwd.{secret}", "Bearer {token} x",
    ],
)  # fmt: skip
def test_who_shows_no_token_of_an_agent(shared: Running, header: str | None) -> None:
    token = shared.agent.token
    headers = {"Content-Type": OCTETS}
    if header is not None:
        values = {"token": token, "secret": token.rpartition(".")[2], "other": "o" * 43}
        headers["Authorization"] = header.format(**values)
    for method, path in (("POST", "/v1/batches"), ("GET", "/v1/keys")):
        answer = shared.ask(method, path, sealed(shared) if method == "POST" else None, headers)
        assert (answer.status, answer.word) == (401, "unknown_token")
    assert shared.waiting() == {}


def test_the_scheme_may_be_written_in_any_case(shared: Running) -> None:
    headers = {"authorization": f"bEARER {shared.agent.token}"}
    assert shared.ask("GET", "/v1/keys", headers=headers).status == 200


def test_revoked_counts_at_once(door: Running) -> None:
    client = door.client()
    assert client.ask("POST", "/v1/batches", sealed(door), door.authorised()).status == 202
    with door.home.open(NOW) as house:
        enrol.revoke(house, door.agent.id)
    # Over the very connection on which it was somebody a moment ago.
    answer = client.ask("POST", "/v1/batches", sealed(door), door.authorised())
    assert (answer.status, answer.word) == (403, "revoked")
    answer = door.ask("GET", "/v1/keys", headers=door.authorised())
    assert (answer.status, answer.word) == (403, "revoked")
    client.http.close()


def test_a_forged_signature(shared: Running) -> None:
    forger = FakeAgent(shared.agent.id, shared.agent.token, FakeAgent.make().signing_key)
    assert refused(shared, sealed(shared, forger)) == (403, "bad_signature")


def test_nobody_sends_as_somebody_else(door: Running) -> None:
    other = FakeAgent.make("de-fra-01")
    with door.home.open(NOW) as house:
        other.enrol(house, "de-fra")
    assert refused(door, sealed(door, other)) == (403, "other_agent")
    assert refused(door, sealed(door), other) == (403, "other_agent")
    assert door.send(sealed(door, other), other).status == 202


def test_rotated_with_an_overlap_and_after_it(door: Running) -> None:
    with door.home.open(NOW) as house:
        overlap = dt.timedelta(hours=2)
        papers = enrol.rotated(house, door.agent.id, overlap, "https://usage.example.net")
        enrol.register(house, papers)
    values = tomllib.loads(papers.enrolment)
    new = FakeAgent(door.agent.id, values["token"], base64.b64decode(values["signing_key"]))
    mixed = FakeAgent(new.id, new.token, door.agent.signing_key)
    for agent in (door.agent, new, mixed):
        assert door.send(sealed(door, agent), agent).status == 202
    door.set_clock("2026-10-05T14:00:00Z")
    assert refused(door, sealed(door)) == (401, "unknown_token")
    assert refused(door, sealed(door, mixed), mixed) == (403, "bad_signature")
    assert door.send(sealed(door, new), new).status == 202


def test_a_key_that_is_not_announced_for_that_month(shared: Running) -> None:
    assert refused(shared, sealed(shared, key_id="0" * 16)) == (409, "unknown_key")
    assert refused(shared, sealed(shared, month="2026-11")) == (409, "unknown_key")
    assert refused(shared, sealed(shared, month="9999-12")) == (409, "unknown_key")
    assert refused(shared, sealed(shared, month="2026-09")) == (410, "month_over")


@pytest.mark.parametrize(
    ("now", "expected"),
    [("2026-11-02T23:59:59Z", (202, "accepted")), ("2026-11-03T00:00:00Z", (410, "month_over"))],
)
def test_the_clock_alone_ends_a_month(door: Running, now: str, expected: tuple[int, str]) -> None:
    """CL-2, CV-5: from its purge instant on nothing is taken, though no purge has run."""
    door.set_clock(now)
    answer = door.send(sealed(door))
    assert (answer.status, answer.word) == expected


def test_a_month_that_was_purged_is_over_whatever_the_clock_says(door: Running) -> None:
    content = sealed(door)
    assert door.send(content).status == 202
    door.home.purge()
    assert refused(door, content) == (410, "month_over")
    assert refused(door, sealed(door, month="2026-08")) == (410, "month_over")


def test_another_grace_counts_at_once(door: Running) -> None:
    door.set_clock("2026-11-01T00:00:00Z")
    assert door.send(sealed(door)).status == 202
    profile = door.home.root / "policy" / "profile.toml"
    text = profile.read_text()
    assert "purge_hours = 48" in text
    profile.write_text(text.replace("purge_hours = 48", "purge_hours = 0"))
    assert refused(door, sealed(door)) == (410, "month_over")


def test_a_body_that_says_it_is_too_large(shared: Running) -> None:
    answer = shared.send(b"x" * (MAX_BATCH_BYTES + 1))
    assert (answer.status, answer.word) == (413, "too_large")
    assert answer.headers["connection"] == "close"
    # Exactly as much is read, and then it is no batch.
    assert shared.send(b"x" * MAX_BATCH_BYTES).word == "malformed"


def test_a_body_that_turns_out_too_large(shared: Running) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(MAX_BATCH_BYTES // 65_536 + 1):
            yield b"x" * 65_536

    client = shared.client()
    answer = client.ask("POST", "/v1/batches", parts(), shared.authorised(), chunked=True)
    assert (answer.status, answer.word) == (413, "too_large")
    assert answer.headers["connection"] == "close"
    client.http.close()


def test_a_batch_may_come_in_chunks(door: Running) -> None:
    content = sealed(door)
    client = door.client()
    parts = (content[at : at + 100] for at in range(0, len(content), 100))
    answer = client.ask("POST", "/v1/batches", parts, door.authorised(), chunked=True)
    assert (answer.status, answer.word) == (202, "accepted")
    client.http.close()


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "identity", "x"])
def test_no_content_encoding_at_all(shared: Running, encoding: str) -> None:
    headers = shared.authorised(Content_Encoding=encoding)
    answer = shared.ask("POST", "/v1/batches", sealed(shared), headers)
    assert (answer.status, answer.word) == (415, "encoded")
    assert shared.waiting() == {}


@pytest.mark.parametrize("kind", ["", "application/json", "text/plain", "multipart/form-data"])
def test_no_other_type(shared: Running, kind: str) -> None:
    headers = shared.authorised(Content_Type=kind)
    answer = shared.ask("POST", "/v1/batches", sealed(shared), headers)
    assert (answer.status, answer.word) == (415, "wrong_type")


def test_an_agent_that_asks_too_often_waits(tmp_path: Path, certificates: Certificates) -> None:
    limits = Limits(burst=3, requests_a_second=0.01)
    with opened(tmp_path / "home", certificates, limits) as door:
        answers = [door.send(sealed(door)) for _ in range(4)]
        assert [answer.status for answer in answers] == [202, 202, 202, 429]
        assert answers[-1].word == "too_many_requests"
        assert 90 <= int(answers[-1].headers["retry-after"]) <= 100
        # Another agent does not wait for it, and without a token nobody is counted.
        other = FakeAgent.make("de-fra-01")
        with door.home.open(NOW) as house:
            other.enrol(house)
        assert door.send(sealed(door, other), other).status == 202
        assert door.ask("GET", "/v1/keys", headers={}).status == 401


def test_a_disk_that_is_nearly_full(door: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [(1 << 20) - 1]
    usage_of = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage_of(path)._replace(free=free[0]))
    for _ in range(2):
        assert refused(door, sealed(door)) == (503, "disk_low")
    answer = door.ask("GET", "/healthz")
    assert (answer.status, answer.word) == (503, "disk_low")
    # A month that is over is dropped, room or not.
    assert refused(door, sealed(door, month="2026-08")) == (410, "month_over")
    free[0] = 1 << 20
    assert door.send(sealed(door)).status == 202
    assert [words for words in door.said if "disk" in words] == [
        "warning: the disk is nearly full: no batch is taken until there is room",
        "there is room on the disk again: batches are taken",
    ]


@pytest.mark.parametrize(
    ("number", "expected"), [(28, (503, "disk_low")), (5, (500, "unexpected"))]
)
def test_a_disk_that_refuses(
    door: Running, monkeypatch: pytest.MonkeyPatch, number: int, expected: tuple[int, str]
) -> None:
    def refuse(*_words: object) -> None:
        raise OSError(number, "planted-words", "/planted/path")

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "replace", refuse)
        assert refused(door, sealed(door)) == expected
    if expected[0] == 500:
        wait_until(lambda: any("unexpected OSError" in words for words in door.said))
    assert "planted" not in "".join(door.said)
    assert door.send(sealed(door)).status == 202


def test_what_nobody_thought_of_is_told_by_place_and_type_only(
    door: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CT-3: the words of an exception may hold anything."""

    def stumble(*_words: object) -> None:
        raise ValueError("planted 203.0.113.7 jane.roe@example.org")

    monkeypatch.setattr(Receiver, "take", stumble)
    answer = door.send(sealed(door))
    assert (answer.status, answer.word) == (500, "unexpected")
    wait_until(lambda: len(door.said) > 1)
    said = "".join(door.said)
    assert "unexpected ValueError at " in said
    for planted in ("planted", "203.0", "jane", door.agent.token, "127.0.0.1"):
        assert planted not in said
        assert planted.encode() not in answer.body


def test_files_that_need_the_operator(door: Running) -> None:
    path = door.home.root / "agents" / f"{door.agent.id}.agent.json"
    kept = path.read_bytes()
    path.write_bytes(b"{}")
    answer = door.send(sealed(door))
    assert (answer.status, answer.word) == (503, "not_ready")
    path.write_bytes(kept)
    (door.home.root / "policy" / "profile.toml").write_text("nonsense")
    answer = door.send(sealed(door))
    assert (answer.status, answer.word) == (503, "not_ready")
    announced = door.home.root / "agents" / "keys.json"
    announced.write_bytes(b"{}")
    answer = door.ask("GET", "/healthz")
    assert (answer.status, answer.word) == (503, "not_ready")
    (door.home.root / "agents" / "signing.pub").unlink()
    announced.write_bytes(b"{} ")
    assert door.ask("GET", "/healthz").word == "not_ready"
    assert any("us-nyc-01.agent.json is damaged" in words for words in door.said)
    assert any("keys publish" in words for words in door.said)


def test_other_paths_and_methods(shared: Running) -> None:
    for path in ("/", "/v1", "/v1/keys/", "/v1/batches/x", "/docs", "/%00", "/v2/batches"):
        answer = shared.ask("GET", path)
        assert (answer.status, answer.word) == (404, "not_found")
    for method, path in (("GET", "/v1/batches"), ("POST", "/v1/keys"), ("PUT", "/healthz")):
        answer = shared.ask(method, path)
        assert (answer.status, answer.word) == (405, "wrong_method")


def test_a_connection_is_kept(door: Running) -> None:
    client = door.client()
    client.ask("GET", "/healthz")
    first = client.http.sock
    for _ in range(5):
        assert client.ask("POST", "/v1/batches", sealed(door), door.authorised()).status == 202
        # An answer after the whole body was read keeps the connection, also a refusal.
        assert client.ask("POST", "/v1/batches", b"x", door.authorised()).status == 400
        assert client.http.sock is first
    client.http.close()


def test_many_agents_at_once_and_the_same_batch_from_many_threads(door: Running) -> None:
    agents = [FakeAgent.make(f"us-nyc-{number:02d}") for number in range(10, 16)]
    with door.home.open(NOW) as house:
        for agent in agents:
            agent.enrol(house)
    batches = [[sealed(door, agent) for _ in range(6)] for agent in agents]

    def send(agent: FakeAgent, contents: list[bytes]) -> Counter[str]:
        client, words = door.client(), Counter[str]()
        for content in contents:
            answer = client.ask("POST", "/v1/batches", content, door.authorised(agent))
            words[answer.word] += 1
        client.http.close()
        return words

    with ThreadPoolExecutor(18) as pool:
        calls = [pool.submit(send, *work) for work in [*zip(agents, batches, strict=True)] * 3]
        words = sum((call.result() for call in calls), Counter[str]())
    assert words == {"accepted": 36, "known": 72}
    kept = {content for contents in batches for content in contents}
    assert set(door.waiting().values()) == kept
    assert all(name.endswith(".batch") for name in door.waiting())


def test_agents_are_served_while_runs_hold_the_lock(door: Running) -> None:
    with door.home.open(NOW) as house:
        assert door.send(sealed(door)).status == 202
        assert house.inbox.paths()


def test_other_months_keys_may_be_announced_beside(door: Running) -> None:
    door.set_clock("2026-10-31T12:00:00Z")
    with door.home.open("2026-10-31T12:00:00Z") as house:
        publish.publish(house)
        november: MonthKeys = house.month_keys_for_writing("2026-11")
    assert door.send(door.agent.batch(LINES, november)).status == 202
    assert door.send(sealed(door)).status == 202
