"""The enrolment file: read strictly, kept secret, and never quoted (CS-7)."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from door_stub import AGENT, LOCATION, TOKEN, Aggregator, enrolment_text

from aggregator.agent.enrolment import load_enrolment, make_keys
from aggregator.errors import ConfigError

URL = "https://usage.example.net:8443"


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write an enrolment file."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_good_enrolment(tmp_path: Path) -> None:
    aggregator = Aggregator()
    found = load_enrolment(written(tmp_path / "e.toml", enrolment_text(aggregator, URL)))
    assert (found.agent, found.locations, found.door) == (AGENT, {LOCATION}, URL)
    assert found.token == TOKEN
    assert found.signing_key == aggregator.enrolment.signing_key
    for secret in (TOKEN[-43:], base64.b64encode(found.signing_key).decode(), "key"):
        assert secret not in repr(found)


def test_a_signing_key_of_its_own_in_another_file(tmp_path: Path) -> None:
    public = make_keys(tmp_path / "signing.key")
    text = enrolment_text(
        Aggregator(), URL, signing_key="", signing_key_file=f'"{tmp_path}/signing.key"'
    )
    found = load_enrolment(written(tmp_path / "e.toml", text))
    key = Ed25519PrivateKey.from_private_bytes(found.signing_key).public_key()
    assert base64.b64encode(key.public_bytes_raw()).decode() == public
    (tmp_path / "signing.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"signing\.key: holds a secret, but others may open it"):
        load_enrolment(tmp_path / "e.toml")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    file = written(tmp_path / "e.toml", enrolment_text(Aggregator(), URL), mode)
    with pytest.raises(ConfigError, match="run chmod 600 on it"):
        load_enrolment(file)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_its_owner_and_its_group_may_open_it(tmp_path: Path, mode: int) -> None:
    """As credentials of systemd are shown."""
    load_enrolment(written(tmp_path / "e.toml", enrolment_text(Aggregator(), URL), mode))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"agent": '"US"'}, "agent must be an id like us-nyc-01"),
        ({"agent": "3"}, "agent must be a text"),
        ({"agent": ""}, "agent is missing"),
        ({"locations": "[]"}, "locations must not be empty"),
        ({"locations": '"us-nyc"'}, "locations must be a list of texts"),
        ({"locations": '["other"]'}, "locations must be written like"),
        ({"locations": '["US NYC"]'}, "locations must be written like"),
        ({"door_key": '"c2hvcnQ="'}, "door_key must be 32 bytes in base64"),
        ({"door_key": '"not base64!"'}, "door_key must be 32 bytes in base64"),
        ({"signing_key": '"hunter2"'}, "signing_key must be 32 bytes in base64"),
        ({"token": '"ua1.us-nyc-01.hunter2"'}, "token is none of this agent"),
        ({"token": f'"ua1.de-fra-01.{"h" * 43}"'}, "token is none of this agent"),
        ({"signing_key_file": '"/x"'}, "signing_key and signing_key_file exclude each other"),
        ({"signing_key": "", "signing_key_file": '"/nowhere/x"'}, "/nowhere/x: cannot be read"),
        ({"extra": "1"}, "extra is no setting here; known are agent, door"),
        ({"hunter2": '"x"', "agent": '"us-nyc-01'}, "is not TOML; look at line 1"),
    ],
)
def test_mistakes_are_one_line_that_quotes_no_value(
    tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    file = written(tmp_path / "e.toml", enrolment_text(Aggregator(), URL, **changed))
    with pytest.raises(ConfigError) as caught:
        load_enrolment(file)
    said = str(caught.value)
    assert words in said
    assert "\n" not in said
    assert "hunter2" not in said
    assert said.startswith((str(file), "/nowhere/x"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"agent", b"[agent]\n", b"\x00"])
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "e.toml"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=r"e\.toml"):
        load_enrolment(file)
