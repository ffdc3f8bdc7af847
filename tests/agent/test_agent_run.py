"""`aggregator-agent run` as a process of its own: a real door, real signals, a file to read."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_stub import (
    LOCATION,
    Aggregator,
    Certificates,
    Door,
    Reply,
    enrolment_text,
    free_port,
    serving,
    wait_until,
)

from aggregator.model.days import month_of

ROOT = Path(__file__).parents[2]
_HEADER = (
    "HEADER,CLIENT_LIST,Common Name,Real Address,Virtual Address,Virtual IPv6 Address,"
    "Bytes Received,Bytes Sent,Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,"
    "Data Channel Cipher"
)
PRIVATE = ("alice", "bob", "203.0.113.9", "10.8.0.2", "ua1.")


class Host:
    """A VPN server: its files in a folder on tmpfs, and the door that it reports to."""

    def __init__(self, folder: Path) -> None:
        """Write the agent's files."""
        self.folder = folder
        today = dt.datetime.now(dt.UTC).date()
        months = {month_of(today + dt.timedelta(days=days)) for days in range(9)}
        self.aggregator = Aggregator(*sorted(months))
        self.certificates = Certificates(folder)
        self.spool = folder / "spool"
        self.status = folder / "status.json"
        self.log = folder / "log"
        self.connect({"alice": 1000, "bob": 5000})

    def configure(self, url: str, timeout: int = 20) -> Path:
        """Write the configuration for a door."""
        enrolment = self.folder / "enrolment.toml"
        enrolment.touch(mode=0o600)
        enrolment.write_text(enrolment_text(self.aggregator, url), encoding="utf-8")
        file = self.folder / "agent.toml"
        file.write_text(
            f"""
            enrolment = "{enrolment}"
            interval_seconds = 1
            spool = "{self.spool}"
            status = "{self.status}"
            [door]
            ca_file = "{self.certificates.ca_file}"
            timeout_seconds = {timeout}
            [[source]]
            kind = "openvpn"
            location = "{LOCATION}"
            status = "{self.folder}/openvpn.status"
            """,
            encoding="utf-8",
        )
        return file

    def connect(self, counters: dict[str, int]) -> None:
        """Have OpenVPN write its status."""
        now = int(time.time())
        rows = [
            f"CLIENT_LIST,{name},203.0.113.9:1194,10.8.0.2,,{count},0,"
            f"2026-10-05 09:11:12,1795325072,UNDEF,{number},{number},AES-256-GCM"
            for number, (name, count) in enumerate(counters.items())
        ]
        lines = ["TITLE,OpenVPN 2.6.14", f"TIME,2026-10-05 09:11:12,{now}", _HEADER, *rows]
        part = self.folder / "openvpn.part"
        part.write_text("".join(f"{line}\n" for line in [*lines, "END"]), encoding="ascii")
        part.rename(self.folder / "openvpn.status")

    @contextlib.contextmanager
    def agent(self, config: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the agent; what it says goes to the log."""
        known = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        with (
            self.log.open("ab") as log,
            subprocess.Popen(
                [sys.executable, "-m", "aggregator.agent.cli", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=known | environ,
            ) as process,
        ):
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def said(self) -> str:
        """Return the log so far; it never tells of anybody."""
        text = self.log.read_text(encoding="utf-8")
        assert not any(word in text for word in PRIVATE), text
        assert "Traceback" not in text, text
        return text

    def health(self) -> dict[str, object]:
        """Return the status file, empty while there is none."""
        try:
            found: dict[str, object] = json.loads(self.status.read_bytes())
        except FileNotFoundError:
            return {}
        return found


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Host(Path(folder))


@pytest.fixture
def door(host: Host) -> Iterator[Door]:
    with serving(Door(host.aggregator, host.certificates.server())) as running:
        yield running


def read_once(host: Host) -> bool:
    """Say whether the baseline was read."""
    return "is read" in host.log.read_text(encoding="utf-8")


def test_it_reports_what_grew_and_ends_in_good_order(host: Host, door: Door) -> None:
    with host.agent(host.configure(door.url)) as process:
        wait_until(lambda: read_once(host))
        host.connect({"alice": 1500, "bob": 5000, "carol": 70})
        wait_until(lambda: host.aggregator.by_user() == {"alice": 500, "carol": 70})
        wait_until(lambda: host.health().get("pending_records") == 0)
        # What comes between the last interval and the end is told by the end.
        host.connect({"alice": 1600, "bob": 5001, "carol": 70})
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert host.aggregator.by_user() == {"alice": 600, "bob": 1, "carol": 70}
    assert len({r["epoch"] for r in host.aggregator.received}) == 1
    assert [*host.spool.glob("*.batch")] == []
    assert host.said() == f"source 1 (openvpn, {LOCATION}): is read\n"
    flags = [r for r in host.aggregator.received if r["record"] == "connection_flags.1"]
    assert {(r["country"], r["asn"]) for r in flags} <= {("ZZ", 0)}


def test_a_killed_agents_batches_are_sent_by_the_next_one(host: Host, door: Door) -> None:
    """SIGKILL while the door is away: nothing read is lost, nothing counts twice (CL-4)."""
    with host.agent(host.configure(door.url)) as process:
        wait_until(lambda: read_once(host) and host.health().get("last_outcome") == "done")
        wait_until(lambda: host.health()["pending_records"] == 0)
        door.replies = [Reply(503)] * 10_000
        host.connect({"alice": 1500, "bob": 5000})
        wait_until(lambda: host.health()["pending_records"] != 0)
        assert [*host.spool.glob("*.batch")]
        process.kill()
        process.wait(60)
    assert host.aggregator.by_user() == {}
    door.replies = []
    with host.agent(host.configure(door.url)) as process:
        wait_until(lambda: host.aggregator.by_user() == {"alice": 500})
        wait_until(lambda: not [*host.spool.glob("*.batch")])
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert host.aggregator.by_user() == {"alice": 500}
    host.said()


def test_ended_while_the_door_is_silent_it_leaves_what_it_read(host: Host, door: Door) -> None:
    """SIGTERM in the middle of a request does not wait for its end."""
    with host.agent(host.configure(door.url, timeout=3)) as process:
        wait_until(lambda: read_once(host) and host.health().get("last_outcome") == "done")
        wait_until(lambda: host.health()["pending_records"] == 0)
        door.replies = [Reply(silent=True)] * 100
        seen = len(door.seen)
        host.connect({"alice": 1500, "bob": 5000})
        wait_until(lambda: len(door.seen) > seen)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert len([*host.spool.glob("*.batch")]) == 1
    assert re.search(r"ended; \d+ records were not sent and wait in the spool", host.said())


def test_a_second_signal_ends_it_at_once(host: Host, door: Door) -> None:
    with host.agent(host.configure(door.url)) as process:
        wait_until(lambda: read_once(host) and host.health().get("last_outcome") == "done")
        wait_until(lambda: host.health()["pending_records"] == 0)
        door.replies = [Reply(silent=True)] * 100
        host.connect({"alice": 1500, "bob": 5000})
        seen = len(door.seen)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(door.seen) > seen)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


def test_hangup_takes_a_new_door_and_keeps_the_old_on_mistakes(host: Host, door: Door) -> None:
    nobody = f"https://127.0.0.1:{free_port()}"
    with host.agent(host.configure(nobody)) as process:
        wait_until(lambda: "refuses connections" in host.said())
        host.configure(nobody).write_text("enrolment = 3\n", encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "what was read before stays in use" in host.said())
        host.configure(door.url)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "took maps, certificates and the enrolment anew" in host.said())
        host.connect({"alice": 1500, "bob": 5000})
        wait_until(lambda: host.aggregator.by_user() == {"alice": 500})
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_second_agent_is_refused(host: Host, door: Door) -> None:
    """Both would count every byte."""
    config = host.configure(door.url)
    with host.agent(config) as first:
        wait_until(lambda: read_once(host))
        with host.agent(config) as second:
            assert second.wait(60) == 75
        assert "another agent runs with it" in host.said()
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
    with host.agent(config) as third:
        wait_until(lambda: host.said().count("is read") == 2)
        third.send_signal(signal.SIGTERM)
        assert third.wait(60) == 0


def test_systemd_is_told_when_it_is_ready_and_when_it_ends(host: Host, door: Door) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(host.folder / "notify"))
        listening.settimeout(60)
        environ = {"NOTIFY_SOCKET": str(host.folder / "notify"), "INVOCATION_ID": "x"}
        with host.agent(host.configure(door.url), **environ) as process:
            told = [listening.recv(200)]
            while told[-1] != b"READY=1":
                told.append(listening.recv(200))
            limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
            process.send_signal(signal.SIGTERM)
            while told[-1] != b"STOPPING=1":
                told.append(listening.recv(200))
            assert process.wait(60) == 0
    assert b"WATCHDOG=1" in told
    words = rb"STATUS=1 of 1 sources are read; \d records wait"
    assert any(re.fullmatch(words, each) for each in told)
    assert re.search(r"Max core file size +0 +0 ", limits), "CL-4: no core dump"
    assert host.said().startswith("<6>source 1")


def test_check_opens_nothing(host: Host, door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    from aggregator.agent.cli import main

    config = host.configure(door.url)
    assert main(["run", "--check", "--config", str(config)]) == 0
    assert capfd.readouterr() == ("", f"{config}: good, 1 source\n")
    assert not host.spool.exists()
    assert door.seen == []
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(str(host.spool), f"{ROOT}/spool"), encoding="utf-8")
    assert main(["run", "--check", "--config", str(config)]) == 3
    assert "which is persistent" in capfd.readouterr().err
    assert not (ROOT / "spool").exists()


def test_a_source_that_cannot_be_opened_as_configured_is_exit_3(host: Host, door: Door) -> None:
    config = host.configure(door.url)
    both = 'management = "/run/m.sock"\n'
    config.write_text(config.read_text(encoding="utf-8") + both, encoding="utf-8")
    with host.agent(config) as process:
        assert process.wait(60) == 3
    assert host.said().startswith(f"aggregator-agent: source 1 (openvpn, {LOCATION}): ")
