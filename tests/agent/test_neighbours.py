"""The agent at the doors of neighbouring releases: nothing that they answer loses what was sealed.

And what another release's agent left in the spool goes on, or goes with its month (CL-2).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_stub import TOKEN, Aggregator, Door, Reply, serving
from homes import RELEASES, exchanges, said, sealed

from aggregator.agent.client import DoorClient, Outcome
from aggregator.agent.config import DoorSettings
from aggregator.agent.enrolment import load_enrolment
from aggregator.agent.keyring import KeyRing
from aggregator.agent.outbox import Outbox
from aggregator.agent.spool import Spool

OUTCOMES = {
    "keys": Outcome.DONE, "accepted": Outcome.DONE, "known": Outcome.DONE,
    "newer_version": Outcome.MALFORMED, "malformed": Outcome.MALFORMED,
    "month_over": Outcome.MONTH_OVER, "unknown_key": Outcome.KEY_UNKNOWN,
    "bad_signature": Outcome.FORBIDDEN, "wrong_type": Outcome.MALFORMED,
    "unknown_token": Outcome.UNAUTHORISED, "not_found": Outcome.NO_ANSWER,
}  # fmt: skip


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Return each release that is a neighbour."""
    return str(request.param)


@pytest.fixture
def door() -> Iterator[Door]:
    """Return a door that answers what it is told to, in plain HTTP."""
    with serving(Door(Aggregator())) as running:
        yield running


@contextlib.contextmanager
def talking(door: Door) -> Iterator[DoorClient]:
    """Yield a client that is closed afterwards."""
    client = DoorClient(door.url, TOKEN, DoorSettings(None, None, None, None, 30))
    try:
        yield client
    finally:
        client.close()


def test_every_recorded_answer_is_understood(door: Door, release: str) -> None:
    recorded = exchanges(release)
    assert set(OUTCOMES) == recorded.keys() - {"healthz"}
    with talking(door) as client:
        for name, outcome in OUTCOMES.items():
            one = recorded[name]
            headers = {k: v for k, v in one["headers"].items() if k != "content-length"}
            door.replies = [Reply(one["status"], headers, one["body"].encode())]
            asks = client.keys if one["method"] == "GET" else lambda: client.send(b"batch")
            answer = asks()
            assert answer.outcome is outcome, name
            # Nothing of what the door wrote is told.
            assert json.loads(one["body"]).get("message", "-") not in answer.words


def test_the_announcement_and_the_enrolment_are_taken(
    door: Door, release: str, tmp_path: Path
) -> None:
    path = tmp_path / "enrolment.toml"
    path.write_text(said(release)["enrolment"])
    path.chmod(0o600)
    keys = KeyRing(load_enrolment(path).door_key)
    door.replies = [Reply(200, {}, exchanges(release)["keys"]["body"].encode())]
    with talking(door) as client:
        keys.take(client.keys().body)
    month = said(release)["month"]
    found = keys.key(month["month"])
    assert found is not None
    assert found.key_id == month["key_id"]


@pytest.mark.parametrize("word", ["unknown_version", "malformed"])
def test_a_door_of_another_version_is_told_from_one_that_finds_it_malformed(
    door: Door, word: str
) -> None:
    body = {"schema_version": 1, "error": word, "message": "of the door", "more": [1]}
    door.replies = [Reply(400, {}, json.dumps(body).encode())]
    with talking(door) as client:
        answer = client.send(b"batch")
    assert answer.outcome is Outcome.MALFORMED
    assert ("upgrade the older" in answer.words) == (word == "unknown_version")
    assert "of the door" not in answer.words


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"null", b'"unknown_version"', b"[" * 100_000, b"\xff",
             b'{"error": ["unknown_version"]}', b'{"error": {"unknown_version": 1}}']
)  # fmt: skip
def test_whatever_a_refusal_holds_the_status_decides(door: Door, body: bytes) -> None:
    door.replies = [Reply(400, {}, body)]
    with talking(door) as client:
        answer = client.send(b"batch")
    assert answer.outcome is Outcome.MALFORMED
    assert "upgrade the older" not in answer.words


def test_unknown_fields_and_words_of_good_answers_are_ignored(door: Door) -> None:
    body = json.dumps({"schema_version": 2, "state": "filed", "more": {"x": 1}}).encode()
    door.replies = [Reply(202, {"X-More": "1"}, body), Reply(202, {}, b"no JSON at all")]
    with talking(door) as client:
        assert client.send(b"batch").outcome is Outcome.DONE
        assert client.send(b"batch").outcome is Outcome.DONE


@pytest.mark.parametrize("status", [200, 201, 204, 301, 404, 405, 418, 422, 426, 500, 501, 505])
def test_an_answer_that_it_does_not_know_means_later(door: Door, status: int) -> None:
    """Only 202 lets go of a batch; a status that a later door may give keeps it."""
    door.replies = [Reply(status, {"Location": "http://127.0.0.1:1/"}, b"")]
    with talking(door) as client:
        assert client.send(b"batch").outcome is Outcome.NO_ANSWER


def test_what_another_releases_agent_left_in_the_spool_goes_on(
    release: str, tmp_path: Path
) -> None:
    """An upgrade and a way back: an earlier release's batch, and one of a version not known."""
    newer = json.dumps({"v": 2, "month": "2026-09", "more": 1}).encode() + b"\nsealed"
    for number, content in enumerate((sealed(release), newer)):
        (tmp_path / f"{number:032x}.batch").write_bytes(content)
    spool = Spool(tmp_path)
    assert len(spool.leftovers()) == 2
    outbox = Outbox(spool, frozenset({"us-nyc"}), lambda *_: b"")
    assert outbox.kept_months() == {"2026-09"}
    first = outbox.next(0.0, set())
    assert first is not None
    second = outbox.next(0.0, {first})
    assert second is not None
    assert {outbox.content(first), outbox.content(second)} == {sealed(release), newer}
    # With its month it goes, whatever its version (CL-2).
    outbox.drop_month("2026-09")
    assert (outbox.pending_batches, spool.leftovers()) == (0, [])
