"""The doctor at the door: a certificate that ends, a key that others may read."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from pathlib import Path

import pytest
import trustme
from support import TinyHome

from aggregator.model.days import parse_instant
from aggregator.pipeline import doctor_door
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.findings import State

NOW = parse_instant("2026-10-05T12:00:00Z")
DAY = dt.timedelta(days=1)


@pytest.fixture
def house(tmp_path: Path) -> Deployment:
    home = TinyHome.make(tmp_path / "home")
    config = home.root / "config.toml"
    text = '[door]\ncertificate = "door.pem"\nprivate_key = "door.key"\n'
    config.write_text(config.read_text() + text)
    made = trustme.CA().issue_cert("localhost", not_after=NOW + 30 * DAY)
    made.private_key_pem.write_to_path(str(home.root / "door.key"))
    made.cert_chain_pems[0].write_to_path(str(home.root / "door.pem"))
    os.chmod(home.root / "door.key", 0o640)
    return dataclasses.replace(home.read("2026-10-05T12:00:00Z"))


def states(house: Deployment, now: dt.datetime = NOW) -> list[tuple[State, str]]:
    check = dict(doctor_door.CHECKS)["door"]
    found = list(check(dataclasses.replace(house, now=now)))
    assert all(remedy for state, _, remedy in found if state is not State.OK)
    return [(state, what) for state, what, _ in found]


@pytest.mark.parametrize(
    ("days", "state"),
    [(0, State.OK), (8, State.OK), (10, State.WARN), (22, State.WARN), (24, State.FAIL),
     (31, State.FAIL)],
)  # fmt: skip
def test_the_end_of_a_certificate_is_told_in_time(
    house: Deployment, days: int, state: State
) -> None:
    ((found, what),) = states(house, NOW + days * DAY)
    assert found is state
    assert ("ended" in what) == (days > 30)


def test_a_key_that_everybody_may_read_is_told(house: Deployment) -> None:
    os.chmod(house.home.root / "door.key", 0o644)
    assert states(house) == [(State.FAIL, "the file of door.private_key is open to everybody")]


@pytest.mark.parametrize("content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nx"])
def test_a_file_that_is_no_certificate_is_told_and_not_shown(
    house: Deployment, content: bytes
) -> None:
    (house.home.root / "door.pem").write_bytes(content)
    assert states(house) == [(State.FAIL, "the file of door.certificate cannot be read as PEM")]


def test_a_file_that_is_missing_is_told(house: Deployment) -> None:
    for name in ("door.pem", "door.key"):
        (house.home.root / name).unlink()
    assert [state for state, _ in states(house)] == [State.WARN, State.FAIL]


def test_a_home_without_a_door_is_sound(tmp_path: Path) -> None:
    (found,) = states(TinyHome.make(tmp_path / "home").read("2026-10-05T12:00:00Z"))
    assert found[0] is State.OK
