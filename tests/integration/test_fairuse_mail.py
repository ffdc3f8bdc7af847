"""Notices through a real mail server, from counters to mailboxes: STARTTLS, a login, a stop."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline.mailhome import CAP, NOW, MailHome
from support import usage

from .mta import DOMAIN, LOGIN, PORT, Exim
from .net import Process, star, wait_for

pytestmark = pytest.mark.integration
NEEDS = ("exim4", "ss")

ROOT = Path(__file__).resolve().parents[2]
ACCOUNTS = 300


@pytest.fixture
def exim(tmp_path: Path) -> Iterator[Exim]:
    folder = Path(tempfile.mkdtemp(prefix="exim-"))  # which exim's own account can reach
    try:
        with star(0, tmp_path) as net:
            server = Exim(net.server, folder)
            server.start()
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def home(exim: Exim, tmp_path: Path) -> MailHome:
    """A home with heavy users, of which every second one has the same of two mailboxes."""
    made = MailHome.make(tmp_path, PORT)
    (tmp_path / "password").write_text(LOGIN[1])
    config = made.tiny.root / "config.toml"
    config.write_text(
        config.read_text()
        .replace('security = "none"', f'security = "starttls"\nca_file = "{exim.ca_file}"')
        .replace("alerts@vpn.example", f"alerts@{DOMAIN}")
        .replace("desk@vpn.example", f"desk@{DOMAIN}")
        .replace(
            "timeout_seconds = 20\n",
            f'timeout_seconds = 20\nusername = "{LOGIN[0]}"\nto_user = true\n'
            f'password_file = "{tmp_path / "password"}"\n',
            1,
        )
    )
    rows = [f"acct-{n},{'ann' if n % 2 else 'bo'}@{DOMAIN}" for n in range(ACCOUNTS)]
    made.directory.write_text("\n".join(["account,address", *rows, ""]))
    made.tiny.ingest(
        [usage("2026-10-01", f"acct-{n}", bytes=2 * CAP + n) for n in range(ACCOUNTS)], NOW
    )
    return made


def send(exim: Exim, home: MailHome) -> Process:
    words = [sys.executable, "-m", "aggregator", "--home", home.tiny.root, "--now", NOW]
    environment = ["env", f"PYTHONPATH={ROOT}", f"PATH={os.environ['PATH']}"]
    return exim.namespace.popen([*environment, *words, "fairuse", "send"], log="send.log")


def received(exim: Exim) -> Counter[tuple[str, str]]:
    """Return (mailbox, Message-ID) of all that was delivered."""
    return Counter(
        (user, mail["Message-ID"]) for user in ("desk", "ann", "bo") for mail in exim.mails(user)
    )


def test_notices_reach_the_mailboxes_once_over_tls(exim: Exim, home: MailHome) -> None:
    process = send(exim, home)
    wait_for(lambda: not process.alive, lambda: f"the run to end:\n{process.text()}", seconds=120)
    wait_for(exim.settled, lambda: f"exim to deliver:\n{exim.log()}", seconds=60)
    assert f"{ACCOUNTS + 1} sent" in process.text()
    found = received(exim)
    assert set(found.values()) == {1}
    assert Counter(user for user, _ in found) == {"desk": 1, "ann": 150, "bo": 150}
    (digest,) = exim.mails("desk")
    assert "with esmtpsa" in digest.get_all("Received")[0]
    body = digest.get_body(("plain",))
    assert body is not None
    assert all(f"acct-{n}" in body.get_content() for n in range(ACCOUNTS))


def test_a_server_that_is_stopped_on_the_way_loses_nothing(exim: Exim, home: MailHome) -> None:
    process = send(exim, home)
    wait_for(lambda: len(received(exim)) > 40, lambda: f"mails:\n{exim.log()}", seconds=120)
    exim.stop()
    wait_for(lambda: not process.alive, lambda: f"the run to end:\n{process.text()}", seconds=120)
    assert "error:" in process.text()
    exim.start()
    process = send(exim, home)
    wait_for(lambda: not process.alive, lambda: f"the run to end:\n{process.text()}", seconds=120)
    wait_for(exim.settled, lambda: f"exim to deliver:\n{exim.log()}", seconds=60)
    found = received(exim)
    assert len(found) == ACCOUNTS + 1
    assert found.total() <= ACCOUNTS + 4  # the mail that was under way, and those tried after it
    assert home.states() == {"sent": ACCOUNTS + 1}
