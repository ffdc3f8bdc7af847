"""Loads a real door: many agents over TLS, each reporting its users; then takes everything in.

    python -m tests.benchmarks.door_load --agents 3000 --users 500 --seconds 60

Every agent keeps one connection, as a real one does, and posts `--rounds` batches of its users'
running totals, spread evenly over `--seconds` a round (0: as fast as they are taken). Said at the
end: requests a second, latencies, what was not accepted, memory and CPU of the door, and whether
every total is in the aggregator afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime as dt
import json
import os
import secrets
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregator import app
from aggregator.pipeline import publish
from aggregator.stores.agents import Agent, Credential, token_digest
from aggregator.stores.home import Home
from aggregator.stores.keys import MonthKeys
from aggregator.wire import batch

LOCATIONS = 120
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclasses.dataclass(slots=True)
class LoadAgent:
    """One agent of the load: who it is, and what it posts in each round."""

    id: str
    token: str
    signing_key: bytes
    location: str
    batches: list[bytes]


def main() -> None:
    """Run the load and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, default=3000)
    parser.add_argument("--users", type=int, default=500, help="users of each agent")
    parser.add_argument("--rounds", type=int, default=1, help="batches of each agent")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a round")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), asked)


def run(folder: Path, asked: argparse.Namespace) -> None:
    """Make a home with its agents, load its door, ingest."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    home = Home(folder / "home")
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    app.create(home, now, rehearsal=False, accept_weak=True)
    port = free_port()
    with home.config_path.open("a") as file:
        file.write(f'\n[door]\nlisten = "127.0.0.1:{port}"\n')
        file.write(f'certificate = "{folder}/cert.pem"\nprivate_key = "{folder}/key.pem"\n')
    agents = enrol(home, now, asked)
    print(f"{len(agents):,} agents enrolled, {asked.rounds} rounds of batches sealed", flush=True)
    sizes = [len(one) for agent in agents for one in agent.batches]
    print(f"a batch of {asked.users} records has {statistics.mean(sizes):,.0f} bytes")
    door = subprocess.Popen(command(home, "serve"))
    try:
        wait_for(port, door)
        outcome = asyncio.run(load(agents, port, trust, asked.seconds))
        tell(outcome, door.pid)
    finally:
        door.send_signal(signal.SIGTERM)
        door.wait(60)
    started = time.monotonic()
    done = subprocess.run(command(home, "ingest", "--json"), capture_output=True, check=True)
    said = json.loads(done.stdout)
    wanted = asked.agents * asked.users * asked.rounds
    print(
        f"ingest: {said['accepted']:,} of {wanted:,} records accepted,"
        f" {said['rejected']} rejected, {time.monotonic() - started:.1f} s"
    )


def command(home: Home, *words: str) -> list[str]:
    """Return a command line on `home`."""
    return [sys.executable, "-m", "aggregator", "-q", "--home", str(home.root), *words]


def free_port() -> int:
    """Return a port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def enrol(home: Home, now: dt.datetime, asked: argparse.Namespace) -> list[LoadAgent]:
    """Write the agents into the register, announce keys, and seal every batch beforehand."""
    with app.open_to_write(home, None, now) as house:
        publish.publish(house)
        keys = house.keys.load(f"{now:%Y-%m}")
        assert keys is not None
        agents = []
        for number in range(asked.agents):
            name = f"agent-{number}"
            key = Ed25519PrivateKey.generate()
            agent = LoadAgent(
                name,
                f"ua1.{name}.{secrets.token_urlsafe(32)}",
                key.private_bytes_raw(),
                f"lo-{number % LOCATIONS:03d}",
                [],
            )
            credential = Credential(
                token_digest(agent.token), key.public_key().public_bytes_raw(), None
            )
            house.agents.save(Agent(name, (agent.location,), now, None, (credential,)))
            agent.batches.extend(sealed(agent, keys, number, now, asked))
            agents.append(agent)
    return agents


def sealed(
    agent: LoadAgent, keys: MonthKeys, number: int, now: dt.datetime, asked: argparse.Namespace
) -> Iterator[bytes]:
    """Yield one batch a round, of totals that grow."""
    public = X25519PrivateKey.from_private_bytes(keys.batch).public_key().public_bytes_raw()
    epoch = secrets.token_hex(8)
    for each in range(asked.rounds):
        lines = [
            f'{{"record":"usage_counter.1","day":"{now:%Y-%m-%d}","user":"acct-{number}-{user}",'
            f'"location":"{agent.location}","epoch":"{epoch}",'
            f'"bytes":{(user + 1) * 7_654_321 * (each + 1)}}}\n'
            for user in range(asked.users)
        ]
        records = "".join(lines).encode()
        yield batch.seal(records, keys.month, agent.id, keys.key_id, public, agent.signing_key)


def wait_for(port: int, door: subprocess.Popen[bytes]) -> None:
    """Wait until the door listens."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and door.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the door did not open")


@dataclasses.dataclass(slots=True)
class Outcome:
    """What the load came to: answers by status, and seconds from request to answer."""

    answers: Counter[str]
    latencies: list[float]
    seconds: float


async def load(
    agents: list[LoadAgent], port: int, trust: ssl.SSLContext, seconds: float
) -> Outcome:
    """Let every agent post its batches, spread over `seconds` a round."""
    outcome = Outcome(Counter(), [], 0.0)
    started = time.monotonic()
    await asyncio.gather(
        *(
            one_agent(agent, port, trust, outcome, seconds, seconds * number / len(agents))
            for number, agent in enumerate(agents)
        )
    )
    outcome.seconds = time.monotonic() - started
    return outcome


async def one_agent(
    agent: LoadAgent, port: int, trust: ssl.SSLContext, outcome: Outcome, seconds: float,
    offset: float,
) -> None:  # fmt: skip
    """Post an agent's batches over one connection; open another where the door closed it."""
    await asyncio.sleep(offset)
    streams: Streams | None = None
    for number, content in enumerate(agent.batches):
        if number and seconds:
            await asyncio.sleep(seconds)
        for _attempt in range(2):
            started = time.monotonic()
            try:
                streams = streams or await asyncio.open_connection(
                    "127.0.0.1", port, ssl=trust, server_hostname="localhost",
                    ssl_handshake_timeout=120,
                )  # fmt: skip
                status = await post(agent, content, streams)
            except (OSError, asyncio.IncompleteReadError) as error:
                status, streams = type(error).__name__, None
            else:
                outcome.latencies.append(time.monotonic() - started)
                break
        outcome.answers[status] += 1
    if streams is not None:
        streams[1].close()


async def post(agent: LoadAgent, content: bytes, streams: Streams) -> str:
    """Post one batch; return the status of the answer."""
    reader, writer = streams
    head = (
        "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {agent.token}\r\n"
        "Content-Type: application/octet-stream\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    return await answer(reader)


async def answer(reader: asyncio.StreamReader) -> str:
    """Read one answer; return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    await reader.readexactly(length)
    return head.split(b" ", 2)[1].decode()


def tell(outcome: Outcome, door: int) -> None:
    """Print what the load came to, and what the door took for it."""
    count = len(outcome.latencies)
    ranked = sorted(outcome.latencies)
    print(f"{count:,} requests in {outcome.seconds:.1f} s: {count / outcome.seconds:,.0f} a second")
    print(f"answers: {dict(outcome.answers)}")
    for percent in (50, 99, 100):
        place = min(count - 1, count * percent // 100)
        print(f"p{percent}: {ranked[place] * 1000:,.1f} ms")
    status = Path(f"/proc/{door}/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    ticks = Path(f"/proc/{door}/stat").read_text().rsplit(")", 1)[1].split()
    cpu = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    print(f"door: {int(peak) / 1024:,.0f} MiB at the most, {cpu:.1f} CPU seconds")


if __name__ == "__main__":
    main()
