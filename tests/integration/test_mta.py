"""A real mail server: what the client calls accepted is delivered once, and came by TLS."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from pathlib import Path
from typing import Any

import pytest

from aggregator.mail.smtp import Outcome, ServerError, Session
from aggregator.model.notices import Deferral
from aggregator.model.settings import MailSettings, Security

from .mta import DOMAIN, LOGIN, MAILS_A_CONNECTION, PORT, USERS, Exim
from .net import star, wait_for

pytestmark = pytest.mark.integration
NEEDS = ("exim4", "ss")

SENDER = f"alerts@{DOMAIN}"
DESK, ANN, BO, WIDE = (f"{user}@{DOMAIN}" for user in USERS)
NOBODY = f"nobody@{DOMAIN}"
TEXT = "Grüße.\n.\n..\n.A line with a dot, and one with many words" + " and words" * 20 + "\n"


@pytest.fixture
def exim(tmp_path: Path) -> Iterator[Exim]:
    # Not below tmp_path, which is root's alone: exim delivers as its own account.
    folder = Path(tempfile.mkdtemp(prefix="exim-"))
    try:
        with star(0, tmp_path) as net:
            server = Exim(net.server, folder)
            server.start()
            yield server
    finally:
        shutil.rmtree(folder)


class Sender:
    """A session that lives where the server does, and knows what it was told."""

    def __init__(self, exim: Exim, password: str = LOGIN[1], **changes: Any) -> None:
        settings = MailSettings(
            "localhost",
            PORT,
            Security.STARTTLS,
            f"Alerts <{SENDER}>",
            (DESK,),
            username=LOGIN[0],
            ca_file=exim.ca_file,
        )
        self.session = Session(dataclasses.replace(settings, **changes), password)
        self._exim = exim

    def send(self, number: int, *recipients: str) -> Outcome:
        """Send letter `number` to `recipients`."""
        utf8 = not "".join(recipients).isascii()
        content = letter(number, recipients).as_bytes(policy=SMTPUTF8 if utf8 else SMTP)
        call = self._exim.namespace.call
        return call(self.session.send, f"Alerts <{SENDER}>", recipients, content, utf8)

    def refusal(self) -> Deferral:
        """Return why nothing can be sent at all."""
        with pytest.raises(ServerError) as caught:
            self.send(1, DESK)
        return caught.value.reason


@pytest.fixture
def sender(exim: Exim) -> Iterator[Sender]:
    sender = Sender(exim)
    yield sender
    sender.session.close()


def letter(number: int, recipients: tuple[str, ...]) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = f"Alerts <{SENDER}>"
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = "Mehr Verkehr als tausend übrige zusammen"
    mail["Message-ID"] = message_id(number)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(TEXT, cte="quoted-printable")
    mail.add_alternative(f"<html><p>{TEXT}</p></html>", subtype="html", cte="quoted-printable")
    return mail


def message_id(number: int) -> str:
    return f"<notice.{number}@{DOMAIN}>"


def delivered(exim: Exim, user: str) -> Counter[str]:
    """Return how often each Message-ID was delivered to a user, once exim has no more to do."""
    wait_for(exim.settled, lambda: f"exim to deliver:\n{exim.log()}")
    return Counter(mail["Message-ID"] for mail in exim.mails(user))


def test_a_mail_is_delivered_once_and_as_it_was(exim: Exim, sender: Sender) -> None:
    outcome = sender.send(1, DESK, NOBODY, ANN)
    assert outcome.accepted == (DESK, ANN)
    assert dict(outcome.refused) == {NOBODY: 550}
    assert dict(outcome.deferred) == {}
    assert delivered(exim, "desk") == delivered(exim, "ann") == {message_id(1): 1}
    assert delivered(exim, "bo") == {}
    (mail,) = exim.mails("desk")
    (received,) = mail.get_all("Received")
    # esmtpsa: ESMTP with TLS and a login.
    assert "(helo=vpn.example)" in received
    assert "with esmtpsa" in received
    assert "(TLS1.3)" in received
    sent = letter(1, (DESK, NOBODY, ANN))
    assert mail["Subject"] == sent["Subject"]
    for kind in ("plain", "html"):
        part, original = mail.get_body([kind]), sent.get_body([kind])
        assert part is not None
        assert original is not None
        assert part.get_content() == original.get_content()


def test_a_stopped_server_gets_it_when_it_is_back(exim: Exim, sender: Sender) -> None:
    assert sender.send(1, DESK).accepted == (DESK,)
    assert delivered(exim, "desk") == {message_id(1): 1}
    exim.stop()
    assert sender.refusal() is Deferral.UNREACHABLE
    exim.start()
    assert sender.send(2, DESK).accepted == (DESK,)
    assert delivered(exim, "desk") == {message_id(1): 1, message_id(2): 1}
    # The connection that was open is found cut, and costs nothing.
    exim.stop()
    exim.start()
    assert sender.send(3, DESK).accepted == (DESK,)
    assert delivered(exim, "desk") == {message_id(number): 1 for number in (1, 2, 3)}


def test_a_recipient_refused_for_now_gets_it_later(exim: Exim, sender: Sender) -> None:
    exim.greylist("bo")
    outcome = sender.send(1, ANN, BO)
    assert outcome.accepted == (ANN,)
    assert dict(outcome.deferred) == {BO: Deferral.REFUSED_FOR_NOW}
    assert dict(sender.send(1, BO).deferred) == {BO: Deferral.REFUSED_FOR_NOW}
    exim.greylist()
    # A later run connects anew; until then exim goes by what it has read.
    sender.session.close()
    assert sender.send(1, BO).accepted == (BO,)
    assert delivered(exim, "ann") == delivered(exim, "bo") == {message_id(1): 1}


def test_more_mails_than_it_takes_on_one_connection(exim: Exim, sender: Sender) -> None:
    """It closes the connection by 421, and nothing is deferred for that."""
    count = 2 * MAILS_A_CONNECTION + 5
    assert all(sender.send(number, DESK).accepted for number in range(count))
    assert delivered(exim, "desk") == {message_id(number): 1 for number in range(count)}


def test_an_address_beyond_ascii(exim: Exim, sender: Sender) -> None:
    assert sender.send(1, WIDE, DESK).accepted == (WIDE, DESK)
    assert delivered(exim, "jörg") == {message_id(1): 1}
    assert WIDE in str(exim.mails("jörg")[0]["To"])


def test_what_is_wrong_is_told_apart(exim: Exim, tmp_path: Path) -> None:
    wrong = {
        Deferral.LOGIN: Sender(exim, "another password"),
        Deferral.TLS: Sender(exim, security=Security.TLS),
        Deferral.SETTINGS: Sender(exim, ca_file=str(tmp_path / "nothing")),
        Deferral.UNREACHABLE: Sender(exim, port=PORT + 1),
    }
    assert {reason: sender.refusal() for reason, sender in wrong.items()} == {
        reason: reason for reason in wrong
    }
    assert Sender(exim, ca_file=None).refusal() is Deferral.TLS
    assert Sender(exim, username=None).refusal() is Deferral.LOGIN
    assert delivered(exim, "desk") == {}
