"""From the daemons' counters to the aggregator's raw month: agent, door and ingest as processes.

Both users have both protocols, so that every total is a sum over two sources, and so two epochs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from . import openvpn, wireguard
from .deployment import (
    LOCATION,
    Agent,
    Aggregator,
    keep_away_from_midnight,
    spool_folder,
)
from .net import Star, reach, star, tcp, udp, wait_for

pytestmark = pytest.mark.integration
NEEDS = ("openvpn", "wireguard-go", "wg")

USERS: Final = ("acct-1", "acct-2")
SEEDS: Final = os.environ.get("INTEGRATION_SEEDS", "1,2").split(",")

_SOURCES: Final = """
[[source]]
kind = "wireguard"
location = "{location}"
interface = "{interface}"
accounts = "{accounts}"
[[source]]
kind = "openvpn"
location = "{location}"
management = "{management}"
hook_socket = "{hook}"
"""


@dataclasses.dataclass
class World:
    """A VPN server with two daemons and an agent, two users, and an aggregator."""

    net: Star
    wireguard: wireguard.Server
    openvpn: openvpn.Server
    aggregator: Aggregator
    agent: Agent

    def connect(self) -> None:
        """Connect both users by both protocols."""
        for name, user in zip(USERS, self.openvpn.users, strict=True):
            self.wireguard.connect(name)
            user.connect()
            for inside in (wireguard.INSIDE, openvpn.INSIDE):
                reach(user.client, self.net.server, inside)

    def send(self, count: int) -> None:
        """Send so many datagrams as each user by each protocol."""
        for client in self.net.clients[: len(USERS)]:
            for inside in (wireguard.INSIDE, openvpn.INSIDE):
                udp(client, self.net.server, inside, count=count, size=1000)

    def disconnect(self) -> None:
        """Disconnect all, and wait until the daemons have counted everything."""
        for user in self.openvpn.users:
            user.disconnect()
        for peer in self.wireguard.users.values():
            peer.stop()
        # It calls the hook, and only then forgets the session.
        wait_for(lambda: not self.openvpn.told().sessions, "the end of all sessions")

    def counted(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return what each daemon has counted so far, by user: WireGuard, OpenVPN."""
        peers = {name: peer.bytes for name, peer in self.wireguard.peers().items()}
        return peers, self.openvpn.told().by_name()

    def truth(self) -> Counter[str]:
        """Return what both daemons have counted so far, by user."""
        return _sum(*self.counted())


def _sum(*parts: Mapping[str, int]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a world in which nobody is connected, so that all counters are at 0.

    The agent has read its sources for the first time, and has the key of the month.
    """
    keep_away_from_midnight()
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(star(len(USERS) + 1, tmp_path))
        spool = stack.enter_context(spool_folder())
        vpn = openvpn.Server(net, tmp_path, USERS)
        vpn.start()
        peers = stack.enter_context(wireguard.wireguard(net, *USERS))
        aggregator = Aggregator(net.clients[-1], tmp_path)
        aggregator.open_door()
        accounts = tmp_path / "accounts.csv"
        accounts.write_text(peers.accounts)
        accounts.chmod(0o600)
        sources = _SOURCES.format(
            location=LOCATION,
            interface=peers.device,
            accounts=accounts,
            management=vpn.management,
            hook=vpn.hook,
        )
        agent = Agent(net.server, aggregator, spool, sources)
        agent.start()
        agent.wait_until(lambda: agent.status()["last_outcome"] == "done", "the month's key")
        yield World(net, peers, vpn, aggregator, agent)


def test_totals_arrive_to_the_byte(world: World) -> None:
    """Traffic and a reconnect: what the daemons counted is in the raw month, and no one else."""
    world.connect()
    world.send(300)
    tcp(world.net.clients[0], world.net.server, wireguard.INSIDE, up=500_000, down=300_000)
    world.openvpn.users[0].reconnect()
    reach(world.net.clients[0], world.net.server, openvpn.INSIDE)
    world.send(200)
    world.disconnect()
    _arrived(world)
    assert world.truth()["acct-1"] > 2 * 500 * 1052 + 800_000


def _arrived(world: World, lost: Mapping[str, int] = Counter()) -> None:
    """End the agent in good order, ingest, and compare with what the daemons counted.

    A daemon may have had a last word while the agent read: then either number is right.
    """
    before = world.truth()
    world.agent.stop()
    after = world.truth()
    assert world.agent.waiting() == 0, world.agent.process.text()
    world.aggregator.ingest()
    totals = world.aggregator.totals(USERS)
    assert world.aggregator.ingest()["accepted"] == 0
    for name in USERS:
        assert before[name] - lost.get(name, 0) <= totals[name] <= after[name]


def test_logs_name_nobody(world: World, tmp_path: Path) -> None:
    """What agent and door say, and the agent's status, holds no user, no key and no address."""
    world.connect()
    world.send(50)
    world.agent.wait_until_read()
    world.aggregator.kill_door()
    world.openvpn.restart_softly()
    world.agent.wait_until(lambda: world.agent.status()["pending_records"] > 0, "what waits")
    world.agent.wait_until_read()
    status = world.agent.status_file.read_text()
    world.agent.stop()
    said = [path.read_text() for path in (*tmp_path.glob("agent-*"), *tmp_path.glob("door-*"))]
    everything = "\n".join([status, *said])
    assert "the door is open" in everything
    assert "refuses connections" in everything
    names = [*USERS, *(user.public for user in world.wireguard.users.values())]
    users = [user.client for user in world.openvpn.users]
    addresses = [address for each in users for address in (each.address4, each.address6)]
    secret = (tmp_path / "enrolment.toml").read_text().partition("token = ")[2].split('"')[1]
    for word in (*names, *addresses, secret, "10.98.0.", "10.99.0."):
        assert word not in everything


def test_what_was_read_survives_a_kill(world: World) -> None:
    """The door is away, and the agent is killed after a reading: nothing that it read is lost."""
    world.connect()
    lost: Counter[str] = Counter()
    world.aggregator.kill_door()
    for _ in range(2):
        world.send(100)
        before = world.truth()
        world.agent.wait_until_read()
        world.agent.kill()
        assert world.agent.waiting() > 0
        world.agent.start()
        lost += world.truth() - before
    # The daemons' own words to each other.
    assert lost.total() < 2000
    world.aggregator.open_door()
    _arrived(world, lost)


class _Losses:
    """What kills of the agent may have cost: what was counted after its last sure reading.

    Samples are numbers of the daemons, each with how many readings in a row were done a moment
    later. A reading may be going on at a sample; the one after it begins after the sample.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._samples = [((0, 0), world.counted())]
        self.allowed: Counter[str] = Counter()

    def sample(self) -> None:
        """Take a sample of a running agent."""
        counted = self._world.counted()
        if rows := self._world.agent.rows():
            self._samples.append(((rows[0]["intervals"], rows[1]["intervals"]), counted))

    def kill(self, meanwhile: Callable[[], None]) -> None:
        """Kill the agent, and start it after `meanwhile`."""
        agent = self._world.agent
        agent.kill()
        rows = agent.rows()
        sure = []
        for source in (0, 1):
            done = rows[source]["intervals"] if rows else 0
            known = [c[source] for intervals, c in self._samples if intervals[source] <= done - 2]
            sure.append(known[-1] if known else self._samples[0][1][source])
        self._samples = [((0, 0), self._world.counted())]
        meanwhile()
        agent.start()
        self.sample()
        self.allowed += self._world.truth() - _sum(*sure)


@pytest.mark.parametrize("seed", SEEDS)
def test_kills_and_cuts_never_count_too_much(world: World, seed: str) -> None:
    """The agent and the door are killed, the network is cut, at random moments and at once.

    The total is never over the truth, and under it by what no reading can have told.
    """
    chance = random.Random(seed)
    world.connect()
    # Two thirds of the traffic pass before and after it all, so that much can never be lost.
    world.send(300)
    world.agent.wait_until_read()
    losses = _Losses(world)
    door_is_open = link_is_up = True
    events = ["agent"] * 3 + ["door"] * 2 + ["link"] * 2 + ["ingest", "reconnect"]
    chance.shuffle(events)
    for event in events:
        for _ in range(3):
            world.send(chance.randint(1, 20))
            losses.sample()
            time.sleep(chance.uniform(0, 0.8))
        if event == "agent":
            losses.kill(lambda: world.send(chance.randint(1, 20)))
        elif event == "door":
            door_is_open = not door_is_open
            (world.aggregator.open_door if door_is_open else world.aggregator.kill_door)()
        elif event == "link":
            link_is_up = not link_is_up
            machine = world.aggregator.machine
            (machine.mend if link_is_up else machine.cut)()
        elif event == "ingest":
            world.aggregator.ingest()
        else:
            user = chance.choice(world.openvpn.users)
            user.reconnect()
            reach(user.client, world.net.server, openvpn.INSIDE)
    assert door_is_open
    assert link_is_up
    world.send(300)
    _arrived(world, losses.allowed)
    assert losses.allowed.total() < world.truth().total() / 2
