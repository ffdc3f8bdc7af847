"""The enrolment file: who this agent is, what it may report, and the secrets that show it.

It is written by `aggregator agent enrol`, and nobody but the agent may read it. The private half
of the signing key is in it, or in a file of its own that `aggregator-agent keys` made.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.agent.outgoing import is_location
from aggregator.agent.settings import Table, check_secret, read_file, read_toml
from aggregator.errors import ConfigError
from aggregator.wire.batch import AGENT_ID

KEY_BYTES: Final = 32
_TOKEN: Final = re.compile(rf"ua1\.({AGENT_ID.pattern})\.[A-Za-z0-9_-]{{43}}")


@dataclasses.dataclass(frozen=True, slots=True)
class Enrolment:
    """One agent's enrolment; keys are raw bytes, and no secret is ever shown."""

    agent: str
    locations: frozenset[str]
    door: str
    door_key: bytes = dataclasses.field(repr=False)
    token: str = dataclasses.field(repr=False)
    signing_key: bytes = dataclasses.field(repr=False)


def load_enrolment(path: Path) -> Enrolment:
    """Return the enrolment in the file `path`; ConfigError says what is wrong, and where."""
    table = read_toml(path)
    check_secret(path)
    agent = table.text("agent", "us-nyc-01")
    if AGENT_ID.fullmatch(agent) is None:
        table.refuse("agent", "must be an id like us-nyc-01")
    locations = table.texts("locations", '["us-nyc"]', None)
    if not all(map(is_location, locations)):
        table.refuse("locations", 'must be written like ["us-nyc"]')
    door = table.text("door", "https://usage.example.net:8443")
    door_key = table.key("door_key", KEY_BYTES)
    token = table.text("token", "ua1.us-nyc-01.…")
    found = _TOKEN.fullmatch(token)
    if found is None or found[1] != agent:
        table.refuse("token", "is none of this agent; enrol the agent again")
    signing_key = _signing_key(table)
    table.close()
    return Enrolment(agent, frozenset(locations), door, door_key, token, signing_key)


def _signing_key(table: Table) -> bytes:
    file = table.optional_path("signing_key_file", "/etc/aggregator-agent/signing.key")
    if file is None:
        return table.key("signing_key", KEY_BYTES)
    if "signing_key" in table:
        table.refuse("signing_key", "and signing_key_file exclude each other; take one out")
    check_secret(file)
    text = read_file(file).decode("ascii", errors="replace").strip()
    return table.decoded("signing_key_file", text, KEY_BYTES)


def make_keys(out: Path) -> str:
    """Write a new private Ed25519 key to `out`, for its owner only; return its public half, base64.

    The private half never leaves this machine. ConfigError if `out` is there already, or cannot be
    written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        out.touch(mode=0o600, exist_ok=False)
        out.write_bytes(base64.b64encode(key.private_bytes_raw()) + b"\n")
    except FileExistsError:
        raise ConfigError(f"{out}: is there already; no key is ever overwritten") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"{out}: cannot be written: {why}") from None
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()
