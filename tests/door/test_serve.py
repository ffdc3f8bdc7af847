"""The door as its own process: signals, words, what it refuses to begin with, and kill -9."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from batches import FakeAgent
from closed import Run
from support import TinyHome, usage

from aggregator.cli.main import _COMMANDS
from aggregator.stores.keys import MonthKeys

from .running import NOW, OCTETS, PATIENCE, Certificates, Client, make_home, settings, wait_until

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(slots=True)
class Process:
    """A door in a process of its own."""

    root: Path
    agent: FakeAgent
    keys: MonthKeys
    popen: subprocess.Popen[str]
    port: int
    err: IO[str]

    def said(self) -> str:
        """Return what it said so far."""
        self.err.seek(0)
        return self.err.read()

    def wait_for(self, words: str) -> None:
        """Wait until it has said so."""
        end = time.monotonic() + PATIENCE
        while words not in self.said():
            assert self.popen.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; return the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(PATIENCE)

    def headers(self) -> dict[str, str]:
        """Return those of a batch."""
        return {"Authorization": f"Bearer {self.agent.token}", "Content-Type": OCTETS}


@contextlib.contextmanager
def started(
    root: Path,
    agent: FakeAgent,
    keys: MonthKeys,
    *words: str,
    program: tuple[str, ...] = ("-m", "aggregator"),
) -> Iterator[Process]:
    """Run a door on a home; nothing may ever be on its standard output."""
    command = [sys.executable, *program, "--home", str(root), "--now", NOW, "serve", *words]
    with (
        (root.parent / "out").open("w+") as out,
        (root.parent / "err").open("w+") as err,
        subprocess.Popen(command, cwd=ROOT, text=True, stdout=out, stderr=err) as popen,
    ):
        process = Process(root, agent, keys, popen, 0, err)
        try:
            process.wait_for("the door is open on port")
            found = re.search(r"on port (\d+)", process.said())
            assert found is not None
            process.port = int(found[1])
            yield process
        finally:
            if popen.poll() is None:
                popen.kill()
            out.seek(0)
            assert out.read() == ""


def is_refused(port: int) -> bool:
    """Say whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def made(tmp_path: Path, certificates: Certificates) -> tuple[Path, FakeAgent, MonthKeys]:
    """Return a home with a door's settings, its agent and its keys."""
    home, agent, keys = make_home(tmp_path / "home", settings(certificates))
    return home.root, agent, keys


def test_it_says_four_things_and_never_an_address_or_a_secret(
    made: tuple[Path, FakeAgent, MonthKeys], certificates: Certificates
) -> None:
    """CS-6: no log of the door tells who came from where."""
    with started(*made) as door:
        client = Client(door.port, certificates.trust())
        for content in (door.agent.batch([usage()], door.keys), b"nonsense", b"x" * (5 << 20)):
            client.ask("POST", "/v1/batches", content, door.headers())
            client.http.close()
        client.ask("GET", "/v1/keys", headers={"Authorization": f"Bearer {door.agent.token[:-1]}"})
        client.http.close()
        with socket.create_connection(("127.0.0.1", door.port)) as garbage:
            garbage.sendall(b"\x00" * 99)
        door.popen.send_signal(signal.SIGHUP)
        door.wait_for("certificates reloaded")
        client.ask("GET", "/healthz")
        assert door.end() == 0
        assert door.said().splitlines() == [
            f"the door is open on port {door.port}: HTTPS",
            "certificates reloaded",
            "the door is closed",
        ]
        client.http.close()


def test_its_words_are_events_where_they_are_asked_for_as_json(
    made: tuple[Path, FakeAgent, MonthKeys],
) -> None:
    with started(*made, "--log", "json") as door:
        assert door.end() == 0
        events = [json.loads(line) for line in door.said().splitlines()]
    assert [(one["event"], one["level"]) for one in events] == [("door", "info")] * 2
    assert events[1]["words"] == "the door is closed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_begun_is_answered_before_it_ends(
    made: tuple[Path, FakeAgent, MonthKeys], certificates: Certificates, number: signal.Signals
) -> None:
    with started(*made) as door:
        content = door.agent.batch([usage()], door.keys)
        plain = socket.create_connection(("127.0.0.1", door.port), timeout=PATIENCE)
        with certificates.trust().wrap_socket(plain, server_hostname="localhost") as connection:
            head = "".join(f"{name}: {value}\r\n" for name, value in door.headers().items())
            start = f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{head}"
            connection.sendall(f"{start}Content-Length: {len(content)}\r\n\r\n".encode())
            # Asked to go on, the door has begun with this request.
            assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
            connection.sendall(content[:100])
            door.popen.send_signal(number)
            wait_until(lambda: is_refused(door.port))
            connection.sendall(content[100:])
            assert connection.recv(65_536).startswith(b"HTTP/1.1 202 ")
        assert door.popen.wait(PATIENCE) == 0
        assert len(list((door.root / "inbox").glob("*.batch"))) == 1


def test_new_certificates_without_a_restart_and_bad_ones_change_nothing(
    made: tuple[Path, FakeAgent, MonthKeys], tmp_path: Path
) -> None:
    root, agent, keys = made
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Certificates.make(tmp_path / "old"), Certificates.make(tmp_path / "new")
    config = root / "config.toml"
    text = re.sub(r'(certificate|private_key) = "[^"]*/door', rf'\1 = "{old.folder}/door',
                  config.read_text())  # fmt: skip
    config.write_text(text)
    with started(root, agent, keys) as door:
        kept = Client(door.port, old.trust())
        assert kept.ask("GET", "/v1/keys", headers=door.headers()).status == 200
        for name in ("door.pem", "door.key"):
            (new.folder / name).replace(old.folder / name)
        door.popen.send_signal(signal.SIGHUP)
        door.wait_for("certificates reloaded")
        fresh = Client(door.port, new.trust())
        assert fresh.ask("GET", "/healthz").status == 200
        fresh.http.close()
        # Who is connected stays so.
        assert kept.ask("GET", "/healthz").status == 200
        kept.http.close()
        (old.folder / "door.key").write_text("no key")
        door.popen.send_signal(signal.SIGHUP)
        door.wait_for("warning: the certificates stay as they were: certificate or private_key")
        again = Client(door.port, new.trust())
        assert again.ask("GET", "/healthz").status == 200
        again.http.close()


def test_killed_in_the_middle_of_a_batch_nothing_half_is_there(
    made: tuple[Path, FakeAgent, MonthKeys], certificates: Certificates
) -> None:
    root, agent, keys = made
    lines = [usage(user=f"acct-{number}") for number in range(3000)]
    acknowledged = {}
    with started(*made) as door:
        plain = socket.create_connection(("127.0.0.1", door.port), timeout=PATIENCE)
        with certificates.trust().wrap_socket(plain, server_hostname="localhost") as half:
            head = "".join(f"{name}: {value}\r\n" for name, value in door.headers().items())
            half.sendall(f"POST /v1/batches HTTP/1.1\r\nHost: x\r\n{head}".encode())
            half.sendall(b"Content-Length: 20000\r\n\r\n" + agent.batch(lines, keys)[:9000])
            client = Client(door.port, certificates.trust())
            for _ in range(3):
                content = agent.batch(lines, keys)
                assert client.ask("POST", "/v1/batches", content, door.headers()).status == 202
                acknowledged[content] = 1
            assert door.end(signal.SIGKILL) == -signal.SIGKILL
            client.http.close()
    inbox = root / "inbox"
    # What is hidden is the door's own: its lock, and when it heard whom.
    kept = [path for path in inbox.iterdir() if not path.name.startswith(".")]
    assert {path.read_bytes() for path in kept} == {*acknowledged}
    # What a kill in the middle of a write leaves goes at the next start; others' files stay.
    mine, others = inbox / f"{'0' * 64}.batch.part", inbox / "server-7.batch.part"
    mine.write_bytes(b"half")
    others.write_bytes(b"half")
    with started(*made) as door:
        assert not mine.exists()
        assert others.exists()
        client = Client(door.port, certificates.trust())
        for content in acknowledged:  # the agent never heard of it, and sends it again
            assert client.ask("POST", "/v1/batches", content, door.headers()).word == "known"
        client.http.close()
        assert door.end() == 0


WATCHED = """
import os, sys
seen = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(event, args):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], (str, os.PathLike)):
        os.write(seen, os.fsencode(args[0]) + b"\\n")
sys.addaudithook(note)
from aggregator.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def test_it_looks_at_nothing_that_could_open_a_batch(
    made: tuple[Path, FakeAgent, MonthKeys], certificates: Certificates, tmp_path: Path
) -> None:
    """CL-4, CV-3: whoever takes the door over still reads no batch."""
    root, agent, keys = made
    seen = tmp_path / "seen"
    with started(root, agent, keys, program=("-c", WATCHED, str(seen))) as door:
        client = Client(door.port, certificates.trust())
        content = agent.batch([usage()], keys)
        assert client.ask("POST", "/v1/batches", content, door.headers()).status == 202
        for path in ("/v1/keys", "/healthz", "/metrics"):
            assert client.ask("GET", path, headers=door.headers()).status == 200
        client.http.close()
        assert door.end() == 0
    opened = {Path(line) for line in seen.read_text().splitlines() if line.startswith(str(root))}
    names = {path.relative_to(root).as_posix() for path in opened}
    assert "agents/us-nyc-01.agent.json" in names
    inside = {name for name in names if not name.startswith("inbox")}
    assert inside == {
        "config.toml", "policy/profile.toml", "agents/keys.json", "agents/signing.pub",
        "agents/us-nyc-01.agent.json", "audit", "home.json",
    }  # fmt: skip


def test_a_home_has_one_door(made: tuple[Path, FakeAgent, MonthKeys], run: Run) -> None:
    with started(*made) as door:
        said = run(door.root, "serve", now=NOW)
        assert (said.code, said.out) == (75, "")
        assert said.err == "error: another door serves this home; stop that one first\n"
        # The lock of runs is free all the while.
        assert run(door.root, "rollup", now=NOW).code == 0


def test_plain_for_a_proxy_on_this_machine(
    tmp_path: Path, certificates: Certificates, run: Run
) -> None:
    home, agent, keys = make_home(tmp_path / "home", 'listen = "127.0.0.1:0"\nmin_free_mib = 1')
    with started(home.root, agent, keys, "--plain") as door:
        client = Client(door.port, None)
        content = agent.batch([usage()], keys)
        assert client.ask("POST", "/v1/batches", content, door.headers()).status == 202
        # The proxy is on this machine, and whoever is behind it is not.
        for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
            assert client.ask("GET", "/metrics", headers={name: "x"}).status == 404
        assert client.ask("GET", "/metrics").status == 200
        client.http.close()
        assert door.end() == 0
        assert "HTTP, for a proxy on this machine" in door.said()


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ('listen = "0.0.0.0:0"', ("--plain",), "loopback"),
        ('listen = "[::]:0"', ("--plain",), "loopback"),
        ("", ("--plain",), "loopback"),
        ('listen = "127.0.0.1:0"', (), "certificate and private_key"),
        ('listen = "127.0.0.1:0"\ncertificate = "door.pem"', (), "certificate and private_key"),
        ('listen = "127.0.0.1:0"\ncertificate = "a.pem"\nprivate_key = "b"', (), "cannot be used"),
        ('listen = "no.such.host.invalid:0"', ("--plain",), "loopback"),
        ('listen = "8443"', (), "door.listen"),
        ('listen = "127.0.0.1:99999"', (), "door.listen"),
        ("listen = 8443", (), "door.listen"),
        ('certificate = ""', (), "door.certificate"),
        ("min_free_mib = -1", (), "door.min_free_mib"),
        ("min_free_mib = true", (), "door.min_free_mib"),
        ("nonsense = 1", (), "unknown setting: 'nonsense'"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, run: Run, text: str, words: tuple[str, ...], expected: str
) -> None:
    home = TinyHome.make(tmp_path / "home", NOW)
    with (home.root / "config.toml").open("a") as file:
        file.write(f"\n[door]\n{text}\n")
    said = run(home.root, "serve", *words, now=NOW)
    assert (said.code, said.out) == (3, "")
    assert expected in said.err
    assert said.err.count("\n") == 1


def test_a_certificate_that_cannot_be_used(
    tmp_path: Path, certificates: Certificates, run: Run
) -> None:
    (tmp_path / "strange").mkdir()
    strange = Certificates.make(tmp_path / "strange")
    pairs = [
        (certificates.folder / "door.pem", strange.folder / "door.key", ""),
        (certificates.folder / "door.key", certificates.folder / "door.key", ""),
        (certificates.folder / "door.pem", certificates.folder / "door.key", "door.key"),
    ]
    for number, (certificate, key, authority) in enumerate(pairs):
        home = TinyHome.make(tmp_path / f"home-{number}", NOW)
        with (home.root / "config.toml").open("a") as file:
            file.write(f'\n[door]\nlisten = "127.0.0.1:0"\ncertificate = "{certificate}"\n')
            file.write(f'private_key = "{key}"\n')
            if authority:
                file.write(f'client_ca = "{certificates.folder}/{authority}"\n')
        said = run(home.root, "serve", now=NOW)
        assert (said.code, said.out) == (3, "")
        assert "cannot be used" in said.err


def test_a_port_that_is_taken(tmp_path: Path, certificates: Certificates, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        home, _, _ = make_home(tmp_path / "home", settings(certificates, port=port))
        said = run(home.root, "serve", now=NOW)
    assert said.code == 3
    assert "Address already in use" in said.err


def test_the_clock_of_a_live_home_is_the_machines(tmp_path: Path, run: Run) -> None:
    root = tmp_path / "live"
    assert run(root, "init", "--accept-weak-destruction", now=None).code == 0
    said = run(root, "serve", now=NOW)
    assert said.code == 5
    assert "rehearsal" in said.err


@pytest.mark.parametrize("words", [("serve",), ("agent",), ("agent", "enrol"), ("keys", "publish")])
def test_help_has_an_example_and_loads_no_server(words: tuple[str, ...]) -> None:
    assert words[0] in _COMMANDS
    heavy = "{'starlette', 'uvicorn', 'h11', 'anyio', 'cryptography', 'pyarrow', 'duckdb'}"
    script = (
        "import sys\nfrom aggregator.cli.main import main\n"
        f"code = main([*{words!r}, '--help'])\n"
        f"print(code, sorted({heavy} & {{name.split('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("0 []\n")
    assert "Examples:" in done.stdout
    assert "aggregator" in done.stdout.partition("Examples:")[2]
