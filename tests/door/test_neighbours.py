"""Agents of neighbouring releases at the door.

An earlier one's are served as they were there; what a later one's send is refused so that they
keep it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from homes import RELEASES, exchanges, said, sealed, unpacked

from aggregator.door.answers import Fault
from aggregator.door.journal import Journal
from aggregator.door.limits import Limits
from aggregator.door.serve import prepared
from aggregator.model.days import parse_instant
from aggregator.pipeline.receive import Refusal
from aggregator.stores.home import Home

from .running import OCTETS, PATIENCE, Answer, Client, Running, wait_until

NOW = parse_instant("2026-09-09T12:00:00Z")


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Return each release that is a neighbour."""
    return str(request.param)


@pytest.fixture
def old(release: str, tmp_path: Path) -> Path:
    """Return the home of that release, its inbox empty and its door at any free port."""
    home = unpacked(release, tmp_path)
    config = home / "config.toml"
    text = config.read_text()
    listen = next(line for line in text.splitlines() if line.startswith("listen"))
    config.write_text(text.replace(listen, 'listen = "127.0.0.1:0"'))
    for path in (home / "inbox").glob("*.batch"):
        path.unlink()
    return home


@pytest.fixture
def client(old: Path) -> Iterator[Client]:
    """Return a connection to a door that this release opens on that home."""

    def clock() -> dt.datetime:
        return NOW

    with prepared(Home(old), None, clock, Limits(), Journal(say=print), plain=True) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_until(lambda: server.started)
            made = Client(server.port, None)
            with contextlib.closing(made.http):
                yield made
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def asked(client: Client, release: str, method: str, path: str, body: bytes | None) -> Answer:
    """Ask as the enrolled agent of that release."""
    token = tomllib.loads(said(release)["enrolment"])["token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": OCTETS}
    return client.ask(method, path, body, headers)


def holds_all(answer: Answer, recorded: dict[str, Any]) -> bool:
    """Say whether an agent of the earlier release finds all that it found there."""
    before, now = json.loads(recorded["body"]), answer.json
    same = all(now.get(name) == value for name, value in before.items() if name != "message")
    return same and answer.status == recorded["status"]


def test_an_agent_of_an_earlier_release_is_served_as_it_was(
    client: Client, old: Path, release: str
) -> None:
    recorded = exchanges(release)
    line, rest = sealed(release).split(b"\n", 1)

    def changed(**fields: object) -> bytes:
        header = {**json.loads(line), **fields}
        return json.dumps(header, separators=(",", ":")).encode() + b"\n" + rest

    asks = (
        ("keys", "GET", "/v1/keys", None),
        ("accepted", "POST", "/v1/batches", sealed(release)),
        ("known", "POST", "/v1/batches", sealed(release)),
        ("malformed", "POST", "/v1/batches", b"{}\n"),
        ("month_over", "POST", "/v1/batches", changed(month="2026-08")),
        ("unknown_key", "POST", "/v1/batches", changed(key="0" * 16)),
        ("healthz", "GET", "/healthz", None),
    )
    for name, method, path, body in asks:
        answer = asked(client, release, method, path, body)
        assert holds_all(answer, recorded[name]), name
    (kept,) = (old / "inbox").glob("*.batch")
    assert kept.read_bytes() == sealed(release)


def test_a_batch_of_a_later_version_is_refused_so_that_it_is_kept(
    client: Client, old: Path, release: str
) -> None:
    """With the status that agents of every release so far keep a batch for."""
    line, rest = sealed(release).split(b"\n", 1)
    for fields in ({"v": 2}, {"v": 3, "seal": "other"}):
        content = json.dumps({**json.loads(line), **fields}).encode() + b"\n" + rest
        answer = asked(client, release, "POST", "/v1/batches", content)
        assert (answer.status, answer.word) == (400, "unknown_version")
        assert answer.status == exchanges(release)["newer_version"]["status"]
    assert list((old / "inbox").glob("*.batch")) == []
    # The connection is of use all the same.
    assert asked(client, release, "POST", "/v1/batches", sealed(release)).status == 202


def test_only_an_agent_is_told_which_versions_are_taken(client: Client, release: str) -> None:
    headers = {"Authorization": "Bearer ua1.us-nyc-01." + "x" * 43, "Content-Type": OCTETS}
    answer = client.ask("POST", "/v1/batches", b'{"v":2,"month":"2026-10"}\n', headers)
    assert (answer.status, answer.word) == (401, "unknown_token")


def test_it_is_counted_as_what_it_is(shared: Running) -> None:
    content = b'{"v":2,"month":"2026-10"}\nx'
    assert shared.send(content).word == "unknown_version"
    metrics = shared.ask("GET", "/metrics").body.decode()
    assert 'refused_total{error="unknown_version"} ' in metrics


def test_no_word_is_both_a_fault_and_a_refusal() -> None:
    assert not {word.value for word in Fault} & {word.value for word in Refusal}
