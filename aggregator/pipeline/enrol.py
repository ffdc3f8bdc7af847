"""Enrol agents, give them new credentials, revoke them.

Nothing secret stays here: the enrolment file is handed over once, and the register keeps only what
tokens and signatures are checked by.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.agent.config import url_fault
from aggregator.agent.outgoing import is_location
from aggregator.errors import BadInputError, ConfigError, RefusedError, UsageError
from aggregator.pipeline.deployment import Deployment
from aggregator.stores.agents import Agent, Credential, new_token, token_digest
from aggregator.wire.batch import AGENT_ID

OWN_KEY_FILE: Final = "/etc/aggregator-agent/signing.key"
"""Where `aggregator-agent keys` puts a signing key that the agent made itself."""

_REMEMBERED: Final = dt.timedelta(days=35)
"""Longer than any month's batches may wait."""

_FOR_GOOD: Final = "{} is revoked for good; enrol the server under another id"

_HEAD: Final = """\
# The enrolment of one agent, and a secret: mode 0600, for nobody but the agent.
"""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Papers:
    """An agent as it goes into the register, and the enrolment file (TOML, a secret) for it."""

    agent: Agent
    enrolment: str


def new(
    house: Deployment,
    agent: str,
    locations: Sequence[str],
    door: str | None = None,
    public_key: bytes | None = None,
) -> Papers:
    """Return papers for an agent that is not enrolled yet; `register` makes them count.

    `door` is the URL that the agent is to report to, the configured one if None. `public_key` is
    the agent's raw Ed25519 key if it made its own. UsageError for an id or a location that cannot
    be, RefusedError for an id that there is.
    """
    if AGENT_ID.fullmatch(agent) is None:
        raise UsageError("write an agent's id like us-nyc-01: small letters, digits and hyphens")
    if house.agents.path(agent).exists():
        if _known(house, agent).revoked_at is not None:
            raise RefusedError(_FOR_GOOD.format(agent))
        raise RefusedError(
            f"{agent} is enrolled already; for new credentials run: aggregator agent rotate {agent}"
        )
    if not locations or not all(map(is_location, locations)):
        raise UsageError("write a location like us-nyc: small letters, digits and hyphens")
    names = tuple(dict.fromkeys(locations))
    return _papers(house, Agent(agent, names, house.now, None, ()), door, public_key)


def rotated(
    house: Deployment,
    agent: str,
    overlap: dt.timedelta,
    door: str | None = None,
    public_key: bytes | None = None,
) -> Papers:
    """Return papers with new credentials for an agent; the old ones end after `overlap`.

    Those that ended are remembered as long as a batch of theirs may wait in the inbox, but for an
    overlap of 0, which forgets them all. BadInputError if there is no such agent, RefusedError if
    it was revoked.
    """
    found = _known(house, agent)
    if found.revoked_at is not None:
        raise RefusedError(_FOR_GOOD.format(agent))
    ends = house.now + overlap
    old = tuple(
        dataclasses.replace(one, until=ends if one.until is None else min(one.until, ends))
        for one in found.credentials
    )
    kept = tuple(one for one in old if overlap and one.is_good(house.now - _REMEMBERED))
    return _papers(house, dataclasses.replace(found, credentials=kept), door, public_key)


def register(house: Deployment, papers: Papers) -> None:
    """Write papers into the register: from now on the door knows them."""
    agent = papers.agent
    is_new = not house.agents.path(agent.id).exists()
    house.agents.save(agent)
    kind = "agent_enrolled" if is_new else "agent_rotated"
    house.record(kind, {"agent": agent.id, "locations": list(agent.locations)})


def revoke(house: Deployment, agent: str) -> bool:
    """Refuse everything of an agent from now on; return whether it was not revoked before.

    BadInputError if there is no such agent.
    """
    found = _known(house, agent)
    if found.revoked_at is not None:
        return False
    house.agents.save(dataclasses.replace(found, revoked_at=house.now))
    house.record("agent_revoked", {"agent": agent, "locations": list(found.locations)})
    return True


def listed(house: Deployment) -> list[Agent]:
    """Return every agent ever enrolled, by id."""
    found = (house.agents.load(agent) for agent in house.agents.ids())
    return [agent for agent in found if agent is not None]


def _known(house: Deployment, agent: str) -> Agent:
    found = house.agents.load(agent)
    if found is None:
        raise BadInputError("there is no agent of this id; see: aggregator agent list")
    return found


def _papers(house: Deployment, agent: Agent, door: str | None, public_key: bytes | None) -> Papers:
    """Return papers with one credential more than `agent` has."""
    url = door or house.config.door.url
    if url is None:
        raise ConfigError("name the door with --door URL, or set url in [door] of config.toml")
    if (fault := url_fault(url)) is not None:
        raise UsageError(f"the door's URL {fault}")
    token = new_token(agent.id)
    signing = {"signing_key_file": OWN_KEY_FILE}
    if public_key is None:
        key = Ed25519PrivateKey.generate()
        public_key = key.public_key().public_bytes_raw()
        signing = {"signing_key": _text(key.private_bytes_raw())}
    fields = {
        "agent": agent.id,
        "locations": list(agent.locations),
        "door": url.rstrip("/"),
        "door_key": _text(house.agents.public_key()),
        "token": token,
        **signing,
    }
    credential = Credential(token_digest(token), public_key, None)
    whole = dataclasses.replace(agent, credentials=(*agent.credentials, credential))
    return Papers(whole, _toml(fields.items()))


def _toml(fields: Iterable[tuple[str, object]]) -> str:
    # What JSON writes of texts and lists of texts is TOML too.
    return _HEAD + "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields)


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
