"""The bytes of neighbouring releases: what an earlier one wrote is taken, a later one's is kept."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from homes import RELEASES, said, sealed, unpacked
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.enrolment import load_enrolment
from aggregator.errors import BadInputError
from aggregator.stores.agents import AgentStore
from aggregator.wire import batch
from aggregator.wire.batch import UnknownVersionError
from aggregator.wire.keys import announce, read_announcement

CONTEXT = b"usage-aggregator keys 1\n"


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Return each release that is a neighbour."""
    return str(request.param)


def enrolled(release: str, folder: Path) -> Path:
    """Return the enrolment file that the release wrote."""
    path = folder / "enrolment.toml"
    path.write_text(said(release)["enrolment"])
    path.chmod(0o600)
    return path


def test_the_batch_of_an_earlier_agent_opens(release: str, tmp_path: Path) -> None:
    found = batch.parse(sealed(release))
    mine = load_enrolment(enrolled(release, tmp_path))
    month = said(release)["month"]
    assert (found.header.agent, found.header.month) == (mine.agent, month["month"])
    assert found.header.key_id == month["key_id"]
    public = Ed25519PrivateKey.from_private_bytes(mine.signing_key).public_key()
    assert found.is_signed_by(public.public_bytes_raw())
    records = found.open(base64.b64decode(month["private"]))
    assert records.decode().splitlines() == said(release)["records"]


def test_what_an_agent_sends_now_is_what_earlier_doors_take(release: str, tmp_path: Path) -> None:
    """Held to the recorded bytes: the same header fields in the same order, the same lengths."""
    mine = load_enrolment(enrolled(release, tmp_path))
    (key,) = read_announcement(said(release)["announcement"].encode(), mine.door_key).keys
    records = "".join(f"{line}\n" for line in said(release)["records"]).encode()
    content = batch.seal(
        records, key.month, mine.agent, key.key_id, key.public_key, mine.signing_key
    )
    line, old = content.split(b"\n", 1)[0], sealed(release).split(b"\n", 1)[0]
    fields, known = json.loads(line), json.loads(old)
    assert list(fields) == list(known)
    same = set(fields) - {"content", "build"}
    assert {name: fields[name] for name in same} == {name: known[name] for name in same}
    assert line.count(b" ") == old.count(b" ") == 0
    assert len(content) == len(sealed(release)) + len(line) - len(old)


def test_the_announcement_of_an_earlier_aggregator_is_taken(release: str, tmp_path: Path) -> None:
    mine = load_enrolment(enrolled(release, tmp_path))
    found = read_announcement(said(release)["announcement"].encode(), mine.door_key)
    assert [(key.month, key.key_id) for key in found.keys] == [
        (said(release)["month"]["month"], said(release)["month"]["key_id"])
    ]


def test_what_is_announced_now_has_all_that_earlier_agents_read(
    release: str, tmp_path: Path
) -> None:
    mine = load_enrolment(enrolled(release, tmp_path))
    home = unpacked(release, tmp_path)
    before = json.loads(said(release)["announcement"])
    known = read_announcement(said(release)["announcement"].encode(), mine.door_key)
    key = AgentStore(home / "agents").signing_key()
    made = json.loads(announce(known.keys, known.made_at, key))
    assert made == before  # Ed25519 signatures are the same for the same bytes


def test_fields_that_a_later_aggregator_adds_to_its_announcement_are_ignored() -> None:
    """Signed ones and others, in the announcement and in its rows."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    row = {
        "month": "2026-10", "key_id": "0" * 16, "purge_at": "2026-11-03T00:00:00Z",
        "public_key": base64.b64encode(bytes(32)).decode(),
        "batch_versions": [1, 2], "more": {"x": None},
    }  # fmt: skip
    signed = json.dumps(
        {"schema_version": 1, "made_at": "2026-10-25T03:04:05Z", "rows": [row], "next": "x"}
    )
    signature = base64.b64encode(key.sign(CONTEXT + signed.encode())).decode()
    outer = {"signed": signed, "signature": signature, "also": [1]}
    found = read_announcement(json.dumps(outer).encode(), key.public_key().public_bytes_raw())
    assert [(one.month, one.key_id) for one in found.keys] == [("2026-10", "0" * 16)]


def other_version(version: object = 2, **fields: object) -> bytes:
    """Return a batch as a later release may write it: `v` and `month`, and what it likes."""
    header = {"v": version, "month": "2026-10", "seal": "new", **fields}
    return json.dumps(header).encode() + b"\n" + b"\x00sealed\xff"


@pytest.mark.parametrize("version", [2, 3, 9999])
def test_a_batch_of_an_unknown_version_is_told_from_a_damaged_one(version: int) -> None:
    content = other_version(version)
    with pytest.raises(UnknownVersionError):
        batch.parse(content)
    header = batch.read_header(content)
    assert (header.is_known, header.version, header.month) == (False, version, "2026-10")
    assert (header.agent, header.key_id, header.content, header.build) == ("", "", "", "")


@pytest.mark.parametrize(
    "content",
    [
        other_version(0), other_version(-1), other_version(10**4), other_version(True),
        other_version("2"), other_version(2.0), other_version(None), other_version(1),
        other_version(month="2026-13"), other_version(month=7), other_version(month=None),
        other_version(pad="x" * 2000), b'{"v":2}\n', b'[{"v":2,"month":"2026-10"}]\n', b"2\n",
        b'{"v":2,"month":"2026-10"}',
    ],
)  # fmt: skip
def test_what_says_no_version_is_no_batch_at_all(content: bytes) -> None:
    with pytest.raises(BadInputError) as caught:
        batch.parse(content)
    assert not isinstance(caught.value, UnknownVersionError)
    with pytest.raises(BadInputError):
        batch.read_header(content)


def test_the_current_version_is_among_those_taken() -> None:
    """And the one before it, once there is one: doors are a release ahead or behind."""
    assert max(batch.VERSIONS) == batch.VERSION
    assert {max(1, batch.VERSION - 1), batch.VERSION} <= set(batch.VERSIONS)


@given(st.binary(max_size=300) | st.dictionaries(st.text(), st.integers()).map(
    lambda fields: json.dumps({"v": 2, "month": "2026-10", **fields}).encode() + b"\n"
))  # fmt: skip
def test_no_bytes_are_more_than_bad_input(content: bytes) -> None:
    with contextlib.suppress(BadInputError):
        batch.read_header(content)
    with pytest.raises(BadInputError):
        batch.parse(content)
