"""Both ends together: what the agent's own client makes of each answer of the real door."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import FakeAgent
from support import usage

from aggregator.agent.client import DoorClient, Outcome
from aggregator.agent.config import DoorSettings
from aggregator.agent.keyring import KeyRing
from aggregator.door.limits import Limits
from aggregator.model.days import parse_instant
from aggregator.pipeline import enrol
from aggregator.wire.batch import MAX_BATCH_BYTES

from .running import NOW, Certificates, Running, opened


def client(door: Running, agent: FakeAgent | None = None) -> DoorClient:
    """Return the client of an agent."""
    ca_file = door.certificates.folder / "ca.pem"
    settings = DoorSettings(None, ca_file, None, None, 30)
    return DoorClient(f"https://localhost:{door.port}", (agent or door.agent).token, settings)


@pytest.fixture
def ours(door: Running) -> Iterator[DoorClient]:
    """Return the client of the door's agent."""
    made = client(door)
    yield made
    made.close()


def test_keys_are_fetched_and_batches_sealed_to_them_are_kept(
    door: Running, ours: DoorClient
) -> None:
    answer = ours.keys()
    assert answer.outcome is Outcome.DONE
    public_key = door.home.read(NOW).agents.kept_public_key()
    assert public_key is not None
    ring = KeyRing(public_key)
    ring.take(answer.body)
    key = ring.key("2026-10")
    assert key is not None
    assert key.purge_at == parse_instant("2026-11-03T00:00:00Z")
    content = door.agent.batch([usage()], door.keys)
    assert [ours.send(content).outcome for _ in range(3)] == [Outcome.DONE] * 3
    assert list(door.waiting().values()) == [content]


def test_each_refusal_is_understood(door: Running, ours: DoorClient) -> None:
    good = door.agent.batch([usage()], door.keys)
    other_key = dataclasses.replace(door.keys, key_id="0" * 16)
    forger = FakeAgent(door.agent.id, door.agent.token, FakeAgent.make().signing_key)
    outcomes = {
        Outcome.MALFORMED: b"nonsense",
        Outcome.KEY_UNKNOWN: door.agent.batch([usage()], other_key),
        Outcome.MONTH_OVER: door.agent.batch([usage()], door.keys, "2026-08"),
        Outcome.FORBIDDEN: forger.batch([usage()], door.keys),
        Outcome.DONE: good,
        Outcome.TOO_LARGE: b"x" * (MAX_BATCH_BYTES + 1),
    }
    for outcome, content in outcomes.items():
        assert ours.send(content).outcome is outcome
    nobody = client(door, FakeAgent("us-nyc-01", f"ua1.us-nyc-01.{'o' * 43}", b""))
    assert nobody.send(good).outcome is Outcome.UNAUTHORISED
    assert nobody.keys().outcome is Outcome.UNAUTHORISED
    nobody.close()
    with door.home.open(NOW) as house:
        enrol.revoke(house, door.agent.id)
    assert ours.send(good).outcome is Outcome.FORBIDDEN
    assert ours.keys().outcome is Outcome.FORBIDDEN


def test_the_wait_that_is_asked_for_is_heard(tmp_path: Path, certificates: Certificates) -> None:
    limits = Limits(burst=1, requests_a_second=0.01)
    with opened(tmp_path / "home", certificates, limits) as door:
        ours = client(door)
        assert ours.keys().outcome is Outcome.DONE
        answer = ours.send(door.agent.batch([usage()], door.keys))
        assert answer.outcome is Outcome.BUSY
        assert answer.retry_after is not None
        assert 90 <= answer.retry_after <= 100
        ours.close()


def test_a_connection_that_the_door_let_go_is_made_anew(
    tmp_path: Path, certificates: Certificates
) -> None:
    # So few connections that none is kept.
    limits = Limits(connections=1, idle_seconds=0.05)
    with opened(tmp_path / "home", certificates, limits) as door:
        ours = client(door)
        for _ in range(3):
            content = door.agent.batch([usage()], door.keys)
            assert ours.send(content).outcome is Outcome.DONE
            door.wait_for_nobody()
        ours.close()
        assert len(door.waiting()) == 3
