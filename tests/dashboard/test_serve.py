"""The dashboard as its own process: its words, what it refuses to begin with, and its end."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from closed import NOW, Run

from .running import PASSWORD, PATIENCE, StandIn, opened, settings, wait_until, with_password

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(slots=True)
class Process:
    """A dashboard in a process of its own."""

    popen: subprocess.Popen[bytes]
    err: IO[str]
    port: int = 0

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

    def status(self, path: str) -> int:
        """Return how it answers."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(client):
            client.request("GET", path)
            return client.getresponse().status


@contextlib.contextmanager
def started(root: Path, *words: str) -> Iterator[Process]:
    """Run a dashboard on a home; nothing may ever be on its standard output."""
    command = [sys.executable, "-m", "aggregator", "--home", str(root), "--now", NOW,
               "serve", "--dashboard", *words]  # fmt: skip
    with (
        (root.parent / "out").open("w+") as out,
        (root.parent / "err").open("w+") as err,
        subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err) as popen,
    ):
        process = Process(popen, err)
        try:
            process.wait_for("the dashboard is open")
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.said())
            assert found is not None
            process.port = int(found[1])
            yield process
        finally:
            if popen.poll() is None:
                popen.kill()
            out.seek(0)
            assert out.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_whoever_is_connected(home: Path, number: signal.Signals) -> None:
    with_password(home)
    with started(home) as process:
        assert process.status("/login") == 200
        idle = http.client.HTTPConnection("127.0.0.1", process.port, timeout=PATIENCE)
        idle.connect()
        process.popen.send_signal(number)
        assert process.popen.wait(PATIENCE) == 0
        idle.close()
        assert process.said().splitlines() == [
            f"the dashboard is open: http://127.0.0.1:{process.port}/",
            "the dashboard is closed",
        ]


def test_its_words_are_events_where_they_are_asked_for_as_json(home: Path) -> None:
    with_password(home)
    with started(home, "--log", "json") as process:
        process.popen.terminate()
        assert process.popen.wait(PATIENCE) == 0
        events = [json.loads(line) for line in process.said().splitlines()]
    assert [one["level"] for one in events] == ["info", "info"]
    assert events[1]["words"] == "the dashboard is closed"


def test_at_a_terminal_a_code_is_shown_and_opens(home: Path) -> None:
    settings(home)
    above, below = pty.openpty()
    command = [sys.executable, "-m", "aggregator", "-q", "--home", str(home), "serve",
               "--dashboard", "--now", NOW]  # fmt: skip
    with (
        open(above, "rb", buffering=0) as screen,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=below) as popen,
    ):
        os.close(below)
        try:
            text = b""
            while not (found := re.search(rb":(\d+)/ with the code ([0-9A-Z-]{23}),", text)):
                text += screen.read(4096)
            port, code = int(found[1]), found[2].decode()
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            headers = {
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": f"http://127.0.0.1:{port}",
            }
            client.request("POST", "/login", f"key={code}", headers)
            assert client.getresponse().status == 303
            client.close()
        finally:
            popen.terminate()
            popen.wait(PATIENCE)
        assert popen.stdout is not None
        assert popen.stdout.read() == b""


def test_without_a_terminal_and_a_password_it_does_not_begin(home: Path, run: Run) -> None:
    settings(home)
    said = run(home, "serve", "--dashboard")
    assert (said.code, said.out) == (3, "")
    assert "set password_file in [dashboard]" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('listen = "0.0.0.0:8480"', "dashboard.listen"),
        ('listen = "example.net:8480"', "dashboard.listen"),
        ('listen = "localhost:8480"', "dashboard.listen"),
        ("listen = 8480", "dashboard.listen"),
        ('password = "marker"', "unknown setting: 'password'"),
        ('password_file = "marker"', "dashboard.password_file names a file that is not there"),
        ('password_env = "MARKER_NOT_SET"', "dashboard.password_env names a variable"),
        ('password_command = ["echo", "marker"]', "must have 8 to 1024 characters"),
        ('password_command = ["echo"]\npassword_env = "X"', "is given twice"),
    ],
)
def test_settings_that_cannot_be(home: Path, run: Run, text: str, expected: str) -> None:
    with (home / "config.toml").open("a") as file:
        file.write(f"\n[dashboard]\n{text}\n")
    said = run(home, "serve", "--dashboard")
    assert (said.code, said.out) == (3, "")
    assert expected in said.err
    assert "marker" not in said.err
    assert said.err.count("\n") == 1
    # It stops the dashboard and nothing else.
    assert run(home, "rollup", "--confirm-clock").code == 0


def test_every_way_to_give_a_password(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DASHBOARD_KEY", PASSWORD)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "dashboard.password").write_text(f"{PASSWORD}\n")
    before = (home / "config.toml").read_text()
    for way in (
        'password_env = "DASHBOARD_KEY"',
        'password_credential = "dashboard.password"',
        f'password_file = "{tmp_path}/dashboard.password"',
        f'password_command = ["cat", "{tmp_path}/dashboard.password"]',
    ):
        (home / "config.toml").write_text(before)
        settings(home, way)
        with opened(home) as board:
            board.log_in()


def test_a_port_that_is_taken(home: Path, run: Run) -> None:
    with_password(home)
    with opened(home) as board:
        text = (home / "config.toml").read_text()
        (home / "config.toml").write_text(text.replace(":0", f":{board.server.port}"))
        said = run(home, "serve", "--dashboard")
        assert (said.code, said.out) == (3, "")
        assert "the dashboard cannot listen" in said.err
        assert "Address already in use" in said.err


def test_plain_is_of_the_door(home: Path, run: Run) -> None:
    said = run(home, "serve", "--dashboard", "--plain")
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1


def test_a_clock_of_its_own_is_for_rehearsals(home: Path, run: Run) -> None:
    with_password(home)
    text = (home / "home.json").read_text()
    (home / "home.json").write_text(text.replace('"rehearsal": true', '"rehearsal": false'))
    assert (home / "home.json").read_text() != text
    assert run(home, "serve", "--dashboard").code == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused for being root")
def test_root_is_refused_in_the_home_of_another(home: Path, run: Run) -> None:
    with_password(home)
    os.chown(home, 65_534, 65_534)
    said = run(home, "serve", "--dashboard")
    assert (said.code, said.out) == (5, "")
    assert "runuser" in said.err


def test_it_writes_nothing_into_the_home(home: Path) -> None:
    with_password(home)

    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in home.rglob("*")}

    before = state()
    with opened(home) as board:
        cookie = board.log_in()
        for path in ("/", "/?from=7d", "/2026-10-01..2026-10-02/"):
            board.ask("GET", path, cookie=cookie)
    assert state() == before


def test_an_end_during_a_rendering_does_not_wait_for_it(home: Path) -> None:
    with_password(home)
    begun = []

    def endless(house: object, span: object) -> Iterator[StandIn]:
        begun.append(1)
        until = time.monotonic() + PATIENCE / 2
        while time.monotonic() < until:
            yield StandIn("index.html", b"")
        yield StandIn("index.html", b"it did wait for it")

    with opened(home, endless) as board:
        cookie = board.log_in()
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(board.ask("GET", "/", cookie=cookie).status)
        )
        asking.start()
        wait_until(lambda: bool(begun))
        board.server.end()
        asking.join(PATIENCE)
        assert answers == [503]
