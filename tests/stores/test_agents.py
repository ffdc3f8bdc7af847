"""The register of agents: what is kept, what is compared, and how fresh a look is."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from pathlib import Path

import pytest
from batches import FakeAgent
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.errors import IntegrityError
from aggregator.stores.agents import (
    Agent,
    AgentStore,
    Credential,
    KnownAgents,
    agent_of,
    new_token,
    token_digest,
)
from aggregator.stores.watched import Watched

NOW = dt.datetime(2026, 10, 5, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> AgentStore:
    return AgentStore(tmp_path / "agents")


def agent(*credentials: Credential, name: str = "us-nyc-01") -> Agent:
    return Agent(name, ("us-nyc", "de-fra"), NOW, None, credentials)


def credential(token: str = "ua1.us-nyc-01.x", until: dt.datetime | None = None) -> Credential:
    return Credential(token_digest(token), os.urandom(32), until)


def test_what_is_saved_is_loaded(store: AgentStore) -> None:
    for saved in (
        agent(),
        agent(credential(), credential(until=NOW + HOUR)),
        dataclasses.replace(agent(credential()), revoked_at=NOW),
    ):
        store.save(saved)
        assert store.load(saved.id) == saved
    store.save(agent(name="de-fra-01"))
    assert store.ids() == ["de-fra-01", "us-nyc-01"]


def test_who_was_never_enrolled_is_none(store: AgentStore) -> None:
    for name in ("us-nyc-02", "../config", "", "US", "a" * 99):
        assert store.load(name) is None
    with pytest.raises(IntegrityError):
        store.path("../config")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"agent": 1, "credentials": 3}']
)
def test_a_damaged_file_is_told_and_names_no_content(store: AgentStore, content: bytes) -> None:
    store.save(agent())
    store.path("us-nyc-01").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"agents/us-nyc-01\.agent\.json is damaged"):
        store.load("us-nyc-01")


def test_a_key_of_another_length_is_damage(store: AgentStore) -> None:
    store.save(agent(Credential("0" * 64, b"short", None)))
    with pytest.raises(IntegrityError):
        store.load("us-nyc-01")


def test_a_token_counts_until_its_end(store: AgentStore) -> None:
    found = agent(credential("old", NOW + HOUR), credential("new"))
    assert found.has_token("old", NOW)
    assert found.has_token("new", NOW)
    assert not found.has_token("old", NOW + HOUR)
    assert found.has_token("new", NOW + HOUR)
    assert not found.has_token("other", NOW)
    assert not found.has_token("", NOW)
    assert not agent().has_token("new", NOW)
    assert len(found.public_keys(NOW)) == 2
    assert found.public_keys(NOW + HOUR) == [found.credentials[1].public_key]


def test_a_token_names_its_agent_and_is_random() -> None:
    tokens = {new_token("us-nyc-01") for _ in range(20)}
    assert len(tokens) == 20
    assert {agent_of(token) for token in tokens} == {"us-nyc-01"}
    assert agent_of(FakeAgent.make("de-fra-02").token) == "de-fra-02"


@pytest.mark.parametrize(
    "token",
    [
        "", "ua1", "ua1..", f"ua1..{'s' * 43}", f"ua1.us-nyc-01.{'s' * 42}",
        f"ua1.us-nyc-01.{'s' * 44}", f"ua2.us-nyc-01.{'s' * 43}", f"ua1.US.{'s' * 43}",
        f"ua1.../../x.{'s' * 43}", f"ua1.us-nyc-01.{'s' * 43}\n", f"ua1.us-nyc-01.{'é' * 43}",
    ],
)  # fmt: skip
def test_what_is_not_written_like_a_token_names_nobody(token: str) -> None:
    assert agent_of(token) is None


def test_neither_token_nor_key_is_shown() -> None:
    one = credential("secret")
    assert one.token_sha256 not in repr(agent(one))
    assert repr(one.public_key) not in repr(agent(one))


def test_the_signing_key_stays_and_its_public_half_lies_beside(store: AgentStore) -> None:
    assert store.kept_public_key() is None
    key = store.signing_key()
    assert store.signing_key() == key
    public = Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    assert store.public_key() == public == store.kept_public_key()
    assert (store.folder / "signing.key").stat().st_mode & 0o077 == 0
    # One that does not belong to the key, as after a restore of one of the two, is replaced.
    (store.folder / "signing.pub").write_bytes(b"?" * 32)
    assert store.public_key() == public == store.kept_public_key()
    (store.folder / "signing.key").write_bytes(b"short")
    with pytest.raises(IntegrityError, match="agents trust no other"):
        store.public_key()


def test_the_announcement_is_what_was_announced_last(store: AgentStore) -> None:
    assert store.announcement() is None
    for content in (b"first", b"second"):
        store.announce(content)
        assert store.announcement() == content


def test_a_change_counts_from_the_next_look_on(
    store: AgentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownAgents(store)
    assert known.load("us-nyc-01") is None
    store.save(agent())
    assert known.load("us-nyc-01") == agent()
    store.save(dataclasses.replace(agent(), revoked_at=NOW))
    found = known.load("us-nyc-01")
    assert found is not None
    assert found.revoked_at == NOW
    # Nothing is read again while nothing changes.
    reads = []
    load = store.load
    monkeypatch.setattr(store, "load", lambda name: (reads.append(name), load(name))[1])
    assert known.load("us-nyc-01") is found
    assert reads == []
    store.path("us-nyc-01").write_bytes(b"{}")
    for _ in range(2):  # damage is not remembered as if it were somebody
        with pytest.raises(IntegrityError):
            known.load("us-nyc-01")
    store.path("us-nyc-01").unlink()
    assert known.load("us-nyc-01") is None


def test_made_up_ids_are_not_remembered(store: AgentStore) -> None:
    known = KnownAgents(store)
    for number in range(50):
        assert known.load(f"nobody-{number}") is None
    assert not known._known


def test_a_folder_is_loaded_again_when_something_is_added(tmp_path: Path) -> None:
    loads = []

    def names() -> list[str]:
        loads.append(1)
        return sorted(path.name for path in tmp_path.iterdir())

    watched = Watched(tmp_path, names)
    assert watched.get() == watched.get() == []
    assert len(loads) == 1
    (tmp_path / "one").touch()
    # Some kernels tell times only to a few milliseconds.
    os.utime(tmp_path, ns=(1, 1))
    assert watched.get() == ["one"]
    assert len(loads) == 2
