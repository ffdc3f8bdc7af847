"""What is known of the agents: when the door heard each, and what of theirs was taken in last."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from aggregator.errors import IntegrityError
from aggregator.pipeline.deployment import Deployment
from aggregator.rules import health_agents
from aggregator.rules.health_agents import Contact, Fleet
from aggregator.stores.agents import Agent
from aggregator.stores.contacts import Contacts, TakenIn, TakenInFile


def noted(house: Deployment) -> TakenIn | None:
    """Return what the drains noted, None if nothing."""
    return TakenInFile(house.home.folder("runs")).load()


def fleet(house: Deployment) -> Fleet:
    """Return every agent that is enrolled and not revoked, with what is known of it.

    One whose file in the register is damaged is left out: the doctor tells of it.
    """
    contacts = Contacts(house.inbox.folder)
    ids = house.agents.ids()
    return _fleet(house, ids, contacts.heard(), contacts.since(), noted(house))


def heard(house: Deployment) -> dict[str, dt.datetime]:
    """Return when each agent was heard last, to the hour; not those that never were."""
    rehearsal = house.config.rehearsal
    moments = Contacts(house.inbox.folder).heard().items()
    believed = {
        agent: health_agents.believed(at, house.now, rehearsal=rehearsal) for agent, at in moments
    }
    return {agent: at for agent, at in believed.items() if at is not None}


def silent(house: Deployment) -> list[Contact]:
    """Return the agents that were heard at the door, but not for long.

    Of those heard lately nothing is read but the time of one file: this is asked after each job.
    """
    contacts = Contacts(house.inbox.folder)
    since = contacts.since()
    if since is None:
        return []
    at = contacts.heard()
    late = [agent for agent, one in at.items() if house.now - one > health_agents.SILENT_AFTER]
    return health_agents.silent(_fleet(house, sorted(late), at, since, None), house.now)


def _fleet(
    house: Deployment,
    ids: list[str],
    heard_at: Mapping[str, dt.datetime],
    since: dt.datetime | None,
    taken: TakenIn | None,
) -> Fleet:
    found = (_enrolled(house, agent) for agent in ids)
    known = [agent for agent in found if agent is not None and agent.revoked_at is None]
    return Fleet(
        tuple(_contact(house, agent, heard_at.get(agent.id), taken) for agent in known),
        since,
        None if taken is None else taken.since,
    )


def _enrolled(house: Deployment, agent: str) -> Agent | None:
    try:
        return house.agents.load(agent)
    except IntegrityError:
        return None


def _contact(
    house: Deployment, agent: Agent, heard_at: dt.datetime | None, taken: TakenIn | None
) -> Contact:
    rehearsal = house.config.rehearsal
    last = taken.agents.get(agent.id) if taken else None
    return Contact(
        agent.id,
        agent.locations,
        agent.enrolled_at,
        health_agents.believed(heard_at, house.now, rehearsal=rehearsal),
        health_agents.believed(last.at, house.now, rehearsal=rehearsal) if last else None,
        last.day if last else None,
    )
