"""The SMTP client against real and unreal servers: each recipient has one true outcome (CS-10)."""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.errors import DeliveryError
from aggregator.mail import smtp
from aggregator.mail.smtp import Outcome, ServerError, Session
from aggregator.model.notices import Deferral
from aggregator.model.settings import Security

from .servers import (
    WORDS,
    Certificates,
    Fault,
    RawServer,
    RealServer,
    ServerProcess,
    Wait,
)

SENDER = "alerts@vpn.example"
DESK, USER, OTHER = "desk@vpn.example", "user@mail.example", "other@mail.example"
WIDE = "jürgen@bücher.example"
NAME, PASSWORD = "postmaster-name", "open-sesame-phrase"
# Where the answer is to be late; elsewhere the time-out is 20 s.
SHORT = 0.3
SERVERS = pytest.mark.parametrize("kind", [RealServer, RawServer])
# aiosmtpd takes no orders for DATA.
STEPS = pytest.mark.parametrize(
    ("kind", "step"),
    [
        *((RealServer, step) for step in ("MAIL", "RCPT", "END")),
        *((RawServer, step) for step in ("MAIL", "RCPT", "DATA", "END")),
    ],
)
ENCRYPTED = pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])

Server = RealServer | RawServer


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def raw() -> Iterator[RawServer]:
    with RawServer() as server:
        yield server


def letter(number: int = 1, text: str = "Good day.") -> bytes:
    head = f"From: {SENDER}\r\nTo: {DESK}\r\nMessage-ID: <{number}@vpn.example>\r\n"
    return f"{head}Subject: A notice\r\n\r\n{text}\r\n".encode()


def send(session: Session, *recipients: str, number: int = 1) -> Outcome:
    return session.send(SENDER, recipients or (DESK,), letter(number))


def parts(outcome: Outcome) -> tuple[tuple[str, ...], dict[str, int], dict[str, Deferral]]:
    return outcome.accepted, dict(outcome.refused), dict(outcome.deferred)


def deferred(outcome: Outcome) -> Deferral:
    """Return why all of a mail is deferred; fail unless it is."""
    assert (outcome.accepted, dict(outcome.refused)) == ((), {})
    (reason,) = set(outcome.deferred.values())
    return reason


def refusal(session: Session, *recipients: str) -> ServerError:
    """Return the error that sending raises, which tells nothing that is not ours to tell."""
    with pytest.raises(ServerError) as caught:
        send(session, *recipients)
    error = caught.value
    assert isinstance(error, DeliveryError)
    assert error.exit_code == 7
    said = "".join(traceback.format_exception(error)) + repr(error) + str(error)
    for secret in (WORDS, NAME, PASSWORD, SENDER, DESK, USER, "smtplib.SMTP"):
        assert secret not in said
    assert "\n" not in str(error)
    return error


# What is accepted


@SERVERS
def test_a_mail_arrives_as_it_is(kind: type[Server]) -> None:
    content = letter(1, ".\r\n..\r\n.a line with a dot\r\n\r\nand 1\u00a0000 more")
    with kind() as server, Session(server.settings()) as session:
        outcome = session.send(f"Alerts <{SENDER}>", [DESK, USER], content)
    assert parts(outcome) == ((DESK, USER), {}, {})
    (mail,) = server.mails
    assert (mail.sender, mail.recipients, mail.content) == (SENDER, (DESK, USER), content)
    assert mail.options == f"SIZE={len(content)} BODY=8BITMIME"


@SERVERS
def test_many_mails_take_one_connection(kind: type[Server]) -> None:
    with kind() as server, Session(server.settings()) as session:
        for number in range(50):
            assert send(session, number=number).accepted == (DESK,)
    assert server.message_ids() == [f"{number}@vpn.example" for number in range(50)]
    assert server.commands["EHLO"] == 1
    assert server.commands["QUIT"] == 1
    assert server.commands["RSET"] == 0


def test_it_greets_by_the_domain_of_the_sender(raw: RawServer) -> None:
    """The name of this machine may tell what its owner tells nobody."""
    senders = {
        "a@vpn.example": "vpn.example",
        "Müller <a@bücher.example>": "xn--bcher-kva.example",
        "a@localhost": "localhost",
        "a@" + "x" * 64 + ".example": "localhost",
    }
    for sender in senders:
        with Session(raw.settings(sender=sender)) as session:
            assert send(session).accepted
    assert raw.greeted_by == list(senders.values())


def test_nothing_is_done_before_the_first_mail(raw: RawServer) -> None:
    raw.stop()
    with Session(raw.settings()) as session:
        raw.start()
        assert parts(session.send(SENDER, [], letter())) == ((), {}, {})
        assert raw.commands["GREETING"] == 0
        assert send(session).accepted == (DESK,)


def test_a_recipient_named_twice_is_told_once(raw: RawServer) -> None:
    with Session(raw.settings()) as session:
        assert parts(send(session, DESK, USER, DESK)) == ((DESK, USER), {}, {})
    assert raw.mails[0].recipients == (DESK, USER)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"x", b"\xe9"])))
def test_any_content_arrives_with_proper_ends_of_lines(raw: RawServer, body: list[bytes]) -> None:
    """A lone CR or LF around a dot would end the mail, for some servers."""
    content = letter() + b"".join(body)
    with Session(raw.settings()) as session:
        assert session.send(SENDER, [DESK], content).accepted
    expected = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    expected += b"" if expected.endswith(b"\r\n") else b"\r\n"
    assert raw.mails[-1].content == expected


def test_nothing_is_printed(raw: RawServer, capfd: pytest.CaptureFixture[str]) -> None:
    with Session(raw.settings()) as session:
        send(session)
        raw.replies["MAIL"] = 550
        refusal(session)
    assert capfd.readouterr() == ("", "")


# What is refused, or not yet taken


@STEPS
@pytest.mark.parametrize("code", [450, 452, 523, 552])
def test_4xx_is_for_now_and_5xx_for_good(kind: type[Server], step: str, code: int) -> None:
    with kind() as server, Session(server.settings()) as session:
        server.replies[step] = code
        outcome = send(session, DESK, USER)
        both = (DESK, USER)
        if code < 500:
            assert parts(outcome) == ((), {}, dict.fromkeys(both, Deferral.REFUSED_FOR_NOW))
        else:
            assert parts(outcome) == ((), dict.fromkeys(both, code), {})
        assert server.mails == []
        # What was begun is taken back, and the connection is as good as new.
        del server.replies[step]
        assert send(session, OTHER).accepted == (OTHER,)
    assert [mail.recipients for mail in server.mails] == [(OTHER,)]
    assert server.commands["EHLO"] == 1


@SERVERS
def test_the_mail_goes_to_those_who_are_not_refused(kind: type[Server]) -> None:
    with kind() as server, Session(server.settings()) as session:
        server.recipients |= {USER: 550, OTHER: 451}
        outcome = send(session, USER, DESK, OTHER)
        assert parts(outcome) == ((DESK,), {USER: 550}, {OTHER: Deferral.REFUSED_FOR_NOW})
        assert [mail.recipients for mail in server.mails] == [(DESK,)]
        server.replies["END"] = 451
        outcome = send(session, USER, DESK)
        assert parts(outcome) == ((), {USER: 550}, {DESK: Deferral.REFUSED_FOR_NOW})


def test_without_recipients_nothing_is_sent(raw: RawServer) -> None:
    raw.recipients |= {DESK: 450, USER: 550}
    with Session(raw.settings()) as session:
        outcome = send(session, DESK, USER)
    assert parts(outcome) == ((), {USER: 550}, {DESK: Deferral.REFUSED_FOR_NOW})
    assert raw.commands["DATA"] == 0


@SERVERS
@pytest.mark.parametrize("code", [501, 503, 550, 553, 554, 555])
def test_a_refused_sender_is_no_mails_fault(kind: type[Server], code: int) -> None:
    """It is the same for all mails: none of them may count as refused for good."""
    with kind() as server, Session(server.settings()) as session:
        server.replies["MAIL"] = code
        error = refusal(session)
        assert error.reason is Deferral.SETTINGS
        assert f"(code {code}); check mail.from" in str(error)
        server.replies.clear()
        assert send(session).accepted


def test_a_mail_beyond_ascii_may_be_refused_for_that(raw: RawServer) -> None:
    """It holds up none of the others."""
    raw.replies["MAIL"] = 555
    with Session(raw.settings()) as session:
        assert parts(send(session, WIDE)) == ((), {WIDE: 555}, {})
        assert refusal(session).reason is Deferral.SETTINGS


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
def test_a_login_that_is_asked_for_is_no_mails_fault(raw: RawServer, step: str) -> None:
    raw.replies[step] = 530
    with Session(raw.settings()) as session:
        assert refusal(session).reason is Deferral.LOGIN


@SERVERS
def test_a_mail_that_is_too_large_is_refused(kind: type[Server]) -> None:
    server = RealServer(size=1000) if kind is RealServer else RawServer()
    if kind is RawServer:
        server.replies["MAIL"] = 552
    with server, Session(server.settings()) as session:
        outcome = session.send(SENDER, [DESK], letter(text="x" * 900 + "\r\n" + "x" * 900))
    assert parts(outcome) == ((), {DESK: 552}, {})


# Cuts


@STEPS
def test_a_cut_defers_and_the_next_mail_is_clean(kind: type[Server], step: str) -> None:
    with kind() as server, Session(server.settings()) as session:
        server.replies[step] = Fault.CUT
        assert deferred(send(session, DESK, USER)) is Deferral.CUT
        server.replies.clear()
        assert send(session, OTHER).accepted == (OTHER,)
    assert [mail.recipients for mail in server.mails] == [(OTHER,)]


@SERVERS
def test_what_was_refused_before_a_cut_stays_refused(kind: type[Server]) -> None:
    with kind() as server, Session(server.settings()) as session:
        server.recipients |= {USER: 550, OTHER: 450}
        server.replies["END"] = Fault.CUT
        outcome = send(session, USER, DESK, OTHER)
    waiting = {DESK: Deferral.CUT, OTHER: Deferral.REFUSED_FOR_NOW}
    assert parts(outcome) == ((), {USER: 550}, waiting)


@SERVERS
def test_a_cut_after_the_mail_was_taken_makes_it_come_twice_as_one_mail(kind: type[Server]) -> None:
    """Nobody can know: it is sent again, and its Message-ID tells that it is the same."""
    with kind() as server, Session(server.settings()) as session:
        server.replies["END"] = Fault.TAKEN_CUT
        assert deferred(send(session)) is Deferral.CUT
        server.replies.clear()
        assert send(session).accepted == (DESK,)
    assert server.message_ids() == ["1@vpn.example"] * 2
    assert server.mails[0] == server.mails[1]


@SERVERS
def test_a_server_that_cuts_every_third_gets_all_in_the_end(kind: type[Server]) -> None:
    with kind() as server, Session(server.settings()) as session:
        server.replies["END"], server.every = Fault.CUT, 3
        waiting = list(range(20))
        for _ in range(10):
            waiting = [n for n in waiting if not send(session, number=n).accepted]
    assert waiting == []
    assert sorted(server.message_ids()) == sorted(f"{n}@vpn.example" for n in range(20))


@pytest.mark.parametrize("order", [Fault.NOISE, Fault.TRUNCATED, 199, 354, 650])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "END"])
def test_what_is_no_reply_accepts_nothing(raw: RawServer, step: str, order: Fault | int) -> None:
    if (step, order) == ("DATA", 354):
        order = 250
    with Session(raw.settings()) as session:
        raw.replies[step] = order
        assert deferred(send(session)) is Deferral.CUT
        raw.replies.clear()
        assert send(session).accepted
    assert raw.commands["EHLO"] == 2


@SERVERS
def test_an_idle_connection_that_was_closed_costs_nothing(kind: type[Server]) -> None:
    """Nothing of the mail had been sent: it is begun again at once, on a new connection."""
    with kind() as server, Session(server.settings()) as session:
        assert send(session, number=1).accepted
        server.stop()
        server.start()
        assert send(session, number=2).accepted
        server.stop()
        assert refusal(session).reason is Deferral.UNREACHABLE
        server.start()
        assert send(session, number=3).accepted
    assert server.message_ids() == [f"{number}@vpn.example" for number in (1, 2, 3)]


def test_421_after_many_mails_costs_nothing(raw: RawServer) -> None:
    """Some servers take so many mails on a connection, and no more."""

    class Limit(dict[str, Any]):
        def get(self, step: str, default: Any = None) -> Any:
            spent = raw.commands["MAIL"] in (4, 8)
            return 421 if step == "MAIL" and spent else default

    raw.replies = Limit()
    with Session(raw.settings()) as session:
        for number in range(9):
            assert send(session, number=number).accepted
    assert raw.message_ids() == [f"{number}@vpn.example" for number in range(9)]
    assert raw.commands["GREETING"] == 3


@STEPS
def test_421_defers_and_the_next_mail_connects_anew(kind: type[Server], step: str) -> None:
    with kind() as server, Session(server.settings()) as session:
        server.recipients[USER] = 550
        server.replies[step] = 421
        outcome = send(session, USER, DESK, OTHER)
        waiting = dict.fromkeys((DESK, OTHER), Deferral.REFUSED_FOR_NOW)
        if step == "MAIL":
            assert parts(outcome) == ((), {}, {USER: Deferral.REFUSED_FOR_NOW, **waiting})
        else:
            assert parts(outcome) == ((), {USER: 550}, waiting)
        server.replies.clear()
        assert send(session).accepted
    assert server.commands["EHLO"] == 2


@pytest.mark.parametrize("order", [Fault.CUT, Fault.HANG, 421, 550, Fault.NOISE])
def test_a_reset_that_fails_ends_the_connection_only(raw: RawServer, order: Fault | int) -> None:
    with Session(raw.settings(timeout_seconds=1)) as session:
        raw.replies |= {"RSET": order, "RCPT": 550}
        assert parts(send(session)) == ((), {DESK: 550}, {})
        raw.replies.clear()
        assert send(session).accepted
    assert raw.commands["EHLO"] == 2


@pytest.mark.parametrize("order", [Fault.CUT, Fault.HANG, Fault.DRIP, 421, 550])
def test_a_failing_farewell_is_no_failure(raw: RawServer, order: Fault | int) -> None:
    raw.replies["QUIT"] = order
    with Session(raw.settings(timeout_seconds=1)) as session:
        assert send(session).accepted
    session.close()
    assert raw.commands["QUIT"] == 1


def test_an_interrupted_mail_leaves_no_connection_behind(
    raw: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(connection: Any, content: bytes) -> int:
        raise KeyboardInterrupt

    with Session(raw.settings()) as session:
        with monkeypatch.context() as patch:
            patch.setattr(smtp.Connection, "hand_over", interrupt)
            with pytest.raises(KeyboardInterrupt):
                send(session, USER)
        assert send(session).accepted
    assert [mail.recipients for mail in raw.mails] == [(DESK,)]


def test_a_killed_server_has_what_it_acknowledged(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "taken") as server, Session(server.settings()) as session:
        for number in range(3):
            assert send(session, number=number).accepted
        server.kill()
        assert refusal(session).reason is Deferral.UNREACHABLE
        assert server.message_ids() == [f"{number}@vpn.example" for number in range(3)]
        server.replies["END"], server.every = Fault.TAKEN_CUT, 2
        server.start()
        assert send(session, number=3).accepted
        assert deferred(send(session, number=4)) is Deferral.CUT
        assert send(session, number=4).accepted
    assert server.message_ids() == [f"{number}@vpn.example" for number in (0, 1, 2, 3, 4, 4)]


# Slow servers

LATE = pytest.mark.parametrize("order", [Fault.HANG, Fault.DRIP, Fault.DRIP_LINES])


@LATE
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "END"])
def test_a_slow_reply_defers(raw: RawServer, step: str, order: Fault) -> None:
    raw.recipients[USER] = 550
    raw.replies[step] = order
    with Session(raw.settings(timeout_seconds=SHORT)) as session:
        outcome = send(session, USER, DESK)
    if step == "MAIL":
        assert parts(outcome) == ((), {}, dict.fromkeys((USER, DESK), Deferral.SLOW))
    else:
        assert parts(outcome) == ((), {USER: 550}, {DESK: Deferral.SLOW})


@LATE
@pytest.mark.parametrize("step", ["GREETING", "EHLO"])
def test_a_slow_greeting_is_the_servers_fault(raw: RawServer, step: str, order: Fault) -> None:
    raw.replies[step] = order
    with Session(raw.settings(timeout_seconds=SHORT)) as session:
        assert refusal(session).reason is Deferral.SLOW


def test_after_a_slow_mail_the_next_one_is_clean() -> None:
    with RealServer() as server, Session(server.settings(timeout_seconds=1)) as session:
        server.replies["RCPT"] = Fault.HANG
        assert deferred(send(session)) is Deferral.SLOW
        server.replies.clear()
        assert send(session, OTHER).accepted
    assert [mail.recipients for mail in server.mails] == [(OTHER,)]


@SERVERS
def test_there_is_more_time_for_the_last_reply(kind: type[Server]) -> None:
    """Who gives up there sends the mail twice."""
    with kind() as server, Session(server.settings(timeout_seconds=1)) as session:
        server.replies["END"] = Wait(1.2)
        assert send(session).accepted == (DESK,)


def test_an_acceptance_counts_in_the_last_moment(
    raw: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is up while the last reply is read."""
    read = smtplib.SMTP.getreply

    def late(connection: Any) -> tuple[int, bytes]:
        reply = read(connection)
        if raw.mails:
            connection.until = 0.0
        return reply

    monkeypatch.setattr(smtplib.SMTP, "getreply", late)
    with Session(raw.settings()) as session:
        assert send(session).accepted == (DESK,)


def test_many_replies_in_time_may_be_too_slow_together(raw: RawServer) -> None:
    """One deadline for a mail: a server can hold it up by replies, but not for hours."""
    raw.replies["RCPT"] = Wait(SHORT / 3)
    crowd = [f"user{number}@mail.example" for number in range(100)]
    raw.recipients[crowd[0]] = 550
    with Session(raw.settings(timeout_seconds=SHORT)) as session:
        outcome = send(session, *crowd)
    assert parts(outcome) == ((), {crowd[0]: 550}, dict.fromkeys(crowd[1:], Deferral.SLOW))
    assert raw.commands["RCPT"] < 20


def test_a_server_that_reads_nothing_ends_as_well(raw: RawServer) -> None:
    raw.replies["DATA"] = Fault.DEAF
    with Session(raw.settings(timeout_seconds=SHORT)) as session:
        outcome = session.send(SENDER, [DESK], letter(text="x" * 70 + "\r\n") * 300_000)
    assert deferred(outcome) is Deferral.SLOW


def test_no_reply_is_read_without_end(raw: RawServer) -> None:
    raw.features = tuple(f"X-FEATURE-{number}" for number in range(10_000))
    with Session(raw.settings()) as session:
        assert refusal(session).reason is Deferral.UNREACHABLE


# Servers that cannot be reached


def test_nobody_listens(raw: RawServer) -> None:
    raw.stop()
    with Session(raw.settings()) as session:
        error = refusal(session)
    assert error.reason is Deferral.UNREACHABLE
    assert str(error) == "the mail server refuses connections; is it running?"


@pytest.mark.parametrize("host", ["nobody.invalid", "x" * 70, "a..b"])
def test_no_such_name(raw: RawServer, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    look_up = socket.getaddrinfo

    def offline(name: Any, *rest: Any, **more: Any) -> Any:
        if name == "nobody.invalid":
            raise socket.gaierror(socket.EAI_NONAME, f"no {name}, says {WORDS}")
        return look_up(name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    with Session(raw.settings(host=host)) as session:
        error = refusal(session)
    assert error.reason is Deferral.UNREACHABLE
    assert "is not found by its name" in str(error)


@pytest.mark.parametrize("order", [421, 554, Fault.CUT, Fault.NOISE, Fault.TRUNCATED])
def test_turned_away_at_the_door(raw: RawServer, order: Fault | int) -> None:
    raw.replies["GREETING"] = order
    with Session(raw.settings()) as session:
        error = refusal(session)
        assert error.reason is Deferral.UNREACHABLE
        if isinstance(order, int):
            assert f"(code {order})" in str(error)
        raw.replies.clear()
        assert send(session).accepted


@pytest.mark.parametrize("order", [421, 554, Fault.CUT, Fault.NOISE, Fault.TRUNCATED])
def test_turned_away_after_the_greeting(raw: RawServer, order: Fault | int) -> None:
    raw.replies["EHLO"] = order
    with Session(raw.settings()) as session:
        assert refusal(session).reason is Deferral.UNREACHABLE
        assert raw.commands["MAIL"] == 0


def test_brackets_around_an_address_are_not_part_of_it(raw: RawServer) -> None:
    with Session(raw.settings(host="[127.0.0.1]")) as session:
        assert send(session).accepted


# Encryption


def encrypted(
    kind: type[Server], security: Security, context: ssl.SSLContext, **more: Any
) -> Server:
    name = "starttls" if security is Security.STARTTLS else "tls"
    return kind(**{name: context}, **more)


def ways(server: Server, security: Security, certificates: Certificates, **more: Any) -> Any:
    return server.settings(security=security, ca_file=certificates.ca_file, **more)


@SERVERS
@ENCRYPTED
def test_mail_travels_encrypted(
    kind: type[Server], security: Security, certificates: Certificates
) -> None:
    with encrypted(kind, security, certificates.good()) as server:
        with Session(ways(server, security, certificates)) as session:
            assert send(session, number=1).accepted
            assert send(session, number=2).accepted
        assert [mail.tls for mail in server.mails] == [True, True]


def test_an_address_may_be_what_the_certificate_names(certificates: Certificates) -> None:
    with RawServer(starttls=certificates.good()) as server:
        settings = ways(server, Security.STARTTLS, certificates, host="127.0.0.1")
        with Session(settings) as session:
            assert send(session).accepted


@pytest.mark.parametrize("order", [None, 454, 502])
def test_nothing_is_sent_in_the_clear(
    raw: RawServer, certificates: Certificates, order: int | None
) -> None:
    if order is not None:
        raw.starttls = certificates.good()
        raw.replies["STARTTLS"] = order
    raw.login = (NAME, PASSWORD)
    settings = ways(raw, Security.STARTTLS, certificates, username=NAME)
    with Session(settings, PASSWORD) as session:
        assert refusal(session).reason is Deferral.TLS
    assert set(raw.commands) <= {"GREETING", "EHLO", "STARTTLS"}


@ENCRYPTED
@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("wrong", "has a certificate for another host"),
        ("expired", "has a certificate that has expired"),
        ("unknown", "has a certificate of an unknown CA"),
        ("old", "agree on no TLS"),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_a_certificate_must_be_right(
    security: Security, which: str, words: str, certificates: Certificates, tmp_path: Path
) -> None:
    contexts = {
        "wrong": certificates.wrong,
        "expired": certificates.expired,
        "unknown": Certificates(tmp_path).good,
        "old": certificates.good,
    }
    context = contexts[which]()
    if which == "old":
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    with encrypted(RawServer, security, context) as server:
        with Session(ways(server, security, certificates)) as session:
            error = refusal(session)
        assert error.reason is Deferral.TLS
        assert words in str(error)
        assert server.commands["MAIL"] == 0


def test_certificates_are_verified_by_tls_1_2_at_least(
    raw: RawServer, certificates: Certificates
) -> None:
    for ca_file in (None, certificates.ca_file):
        context = Session(raw.settings(ca_file=ca_file))._tls()
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_without_ca_file_the_systems_cas_count(certificates: Certificates) -> None:
    server = RawServer(tls=certificates.good())
    with server, Session(server.settings(security=Security.TLS)) as session:
        assert refusal(session).reason is Deferral.TLS


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_useless_ca_file_is_the_settings_fault(
    raw: RawServer, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    settings = raw.settings(security=Security.TLS, ca_file=str(file))
    with Session(settings) as session:
        error = refusal(session)
    assert error.reason is Deferral.SETTINGS
    assert "mail.ca_file" in str(error)


def test_tls_where_there_is_none(raw: RawServer, certificates: Certificates) -> None:
    with Session(ways(raw, Security.TLS, certificates)) as session:
        assert refusal(session).reason is Deferral.TLS


def test_starttls_where_tls_is_spoken_at_once(certificates: Certificates) -> None:
    """Both wait for the other to begin."""
    with RawServer(tls=certificates.good()) as server:
        settings = ways(server, Security.STARTTLS, certificates, timeout_seconds=SHORT)
        with Session(settings) as session:
            error = refusal(session)
    assert error.reason is Deferral.SLOW
    assert "mail.port and mail.security" in str(error)


@pytest.mark.parametrize("order", [Fault.CUT, Fault.HANG, Fault.DEAF])
def test_a_handshake_that_never_ends(
    raw: RawServer, certificates: Certificates, order: Fault
) -> None:
    raw.starttls = certificates.good()
    raw.replies["STARTTLS"] = order
    with Session(ways(raw, Security.STARTTLS, certificates, timeout_seconds=SHORT)) as session:
        reason = refusal(session).reason
    assert reason is (Deferral.UNREACHABLE if order is Fault.CUT else Deferral.SLOW)


def test_what_was_said_before_the_encryption_is_forgotten(
    raw: RawServer, certificates: Certificates
) -> None:
    """Else an intruder's reply would stand for the server's, and each later one for the next."""
    raw.starttls = certificates.good()
    raw.replies["STARTTLS"] = Fault.INJECTED
    raw.recipients[USER] = 550
    with Session(ways(raw, Security.STARTTLS, certificates)) as session:
        assert parts(send(session, USER, DESK)) == ((DESK,), {USER: 550}, {})


def test_none_is_for_this_machine_only(raw: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp.Connection, "is_local", lambda connection: False)
    raw.login = (NAME, PASSWORD)
    with Session(raw.settings(username=NAME), PASSWORD) as session:
        assert refusal(session).reason is Deferral.TLS
    assert set(raw.commands) == {"GREETING", "EHLO"}


# Login


def test_a_login(certificates: Certificates) -> None:
    with RealServer(starttls=certificates.good(), login=(NAME, PASSWORD)) as server:
        settings = ways(server, Security.STARTTLS, certificates, username=NAME)
        with Session(settings, PASSWORD) as session:
            assert send(session).accepted
        assert server.mails[0].login == NAME
        with Session(settings, "another word") as session:
            error = refusal(session)
        assert error.reason is Deferral.LOGIN
        assert "refuses the login" in str(error)
        assert "(code 535)" in str(error)


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN", "CRAM-MD5 LOGIN", "plain login"])
@pytest.mark.parametrize("password", [PASSWORD, "schlüssel 鍵 ≥ 8"])
def test_ways_to_log_in(raw: RawServer, mechanisms: str, password: str) -> None:
    raw.login, raw.mechanisms = (NAME, password), mechanisms
    with Session(raw.settings(username=NAME), password) as session:
        assert send(session).accepted
    assert raw.mails[0].login == NAME


@pytest.mark.parametrize(
    ("mechanisms", "password", "reason"),
    [
        ("PLAIN", "wrong", Deferral.LOGIN),
        ("LOGIN", "wrong", Deferral.LOGIN),
        ("CRAM-MD5", PASSWORD, Deferral.LOGIN),
        ("", PASSWORD, Deferral.LOGIN),
        ("PLAIN", None, Deferral.SETTINGS),
        ("PLAIN", "", Deferral.SETTINGS),
    ],
)
def test_a_login_that_fails(
    raw: RawServer, mechanisms: str, password: str | None, reason: Deferral
) -> None:
    raw.login, raw.mechanisms = (NAME, PASSWORD), mechanisms
    with Session(raw.settings(username=NAME), password) as session:
        assert refusal(session).reason is reason
    assert raw.commands["MAIL"] == 0


def test_a_server_without_logins(raw: RawServer) -> None:
    with Session(raw.settings(username=NAME), PASSWORD) as session:
        assert refusal(session).reason is Deferral.LOGIN


@pytest.mark.parametrize("order", [454, Fault.CUT, Fault.HANG])
def test_a_login_that_is_not_answered_well(raw: RawServer, order: Fault | int) -> None:
    raw.login, raw.replies["AUTH"] = (NAME, PASSWORD), order
    reasons = {454: Deferral.LOGIN, Fault.CUT: Deferral.UNREACHABLE, Fault.HANG: Deferral.SLOW}
    with Session(raw.settings(username=NAME, timeout_seconds=1), PASSWORD) as session:
        assert refusal(session).reason is reasons[order]


def test_a_login_that_is_demanded_and_not_given(certificates: Certificates) -> None:
    server = RealServer(starttls=certificates.good(), login=(NAME, PASSWORD))
    with server, Session(ways(server, Security.STARTTLS, certificates)) as session:
        assert refusal(session).reason is Deferral.LOGIN


# Addresses


@SERVERS
def test_an_address_beyond_ascii(kind: type[Server]) -> None:
    with kind() as server, Session(server.settings()) as session:
        assert send(session, WIDE, DESK).accepted == (WIDE, DESK)
        assert send(session, DESK).accepted == (DESK,)
        assert session.send("ä@vpn.example", [DESK], letter()).accepted == (DESK,)
        assert session.send(SENDER, [DESK], letter(), utf8=True).accepted == (DESK,)
    assert server.mails[0].recipients == (WIDE, DESK)
    assert ["SMTPUTF8 BODY=8BITMIME" in mail.options for mail in server.mails] == [
        True,
        False,
        True,
        True,
    ]


@SERVERS
def test_a_server_without_smtputf8_gets_the_others(kind: type[Server]) -> None:
    server = RealServer(utf8=False) if kind is RealServer else RawServer(features=())
    with server, Session(server.settings()) as session:
        assert parts(send(session, WIDE, DESK)) == ((DESK,), {WIDE: 553}, {})
        assert parts(send(session, WIDE)) == ((), {WIDE: 553}, {})
        assert send(session, USER).accepted == (USER,)
        with pytest.raises(ServerError) as caught:
            session.send("ä@vpn.example", [DESK], letter())
    assert caught.value.reason is Deferral.SETTINGS
    assert [mail.recipients for mail in server.mails] == [(DESK,), (USER,)]


BAD = (
    "", "nobody", "@", "a@", "@b", "a b@c.example", "a@b@c.example", "<a@b.example>", "a,b@c",
    "(x)a@b.example", '"a"@b.example', "a@b.example>\r\nRCPT TO:<c@d.example", "a\n@b.example",
    "a\0@b.example", "a@b.example SIZE=1", "a@[127.0.0.1]", "\ud800@b.example", "a\u2028@b.example",
    f"{'a' * 65}@b.example", f"a@{'b' * 254}",
)  # fmt: skip


def test_what_is_no_address_never_reaches_a_server(raw: RawServer) -> None:
    with Session(raw.settings()) as session:
        assert parts(send(session, *BAD)) == ((), dict.fromkeys(BAD, 553), {})
        assert raw.commands["GREETING"] == 0
        assert send(session, *BAD, DESK).accepted == (DESK,)
    assert raw.mails[0].recipients == (DESK,)


@pytest.mark.parametrize("sender", ["", "nobody", "a b@c.example", "x <a@b.example\r\nDATA>"])
def test_what_is_no_sender_is_the_settings_fault(raw: RawServer, sender: str) -> None:
    with Session(raw.settings()) as session, pytest.raises(ServerError) as caught:
        session.send(sender, [DESK], letter())
    assert caught.value.reason is Deferral.SETTINGS
    assert raw.commands["MAIL"] == 0


CODES = st.sampled_from([250, 251, 252, 421, 450, 452, 550, 553, Fault.CUT, 354])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    crowd=st.dictionaries(
        st.one_of(st.emails(), st.text(max_size=20), st.sampled_from(BAD)), CODES, max_size=6
    ),
    steps=st.dictionaries(st.sampled_from(["MAIL", "DATA", "END", "RSET"]), CODES, max_size=2),
)
def test_every_recipient_has_one_outcome(
    raw: RawServer, crowd: dict[str, Any], steps: dict[str, Any]
) -> None:
    """Accepted are exactly those whom the server took; whatever else, the next mail arrives."""
    raw.mails.clear()
    raw.recipients, raw.replies = crowd, steps
    with Session(raw.settings()) as session:
        outcome = None
        with contextlib.suppress(ServerError):
            outcome = session.send(SENDER, crowd, letter())
        told = [] if outcome is None else [
            *outcome.accepted, *outcome.refused, *outcome.deferred
        ]  # fmt: skip
        if outcome is not None:
            assert sorted(told) == sorted(crowd)
            assert all(500 <= code < 600 for code in outcome.refused.values())
        took = [one for mail in raw.mails for one in mail.recipients]
        assert sorted(took) == sorted(outcome.accepted if outcome else ())
        raw.recipients, raw.replies = {}, {}
        assert send(session, DESK).accepted == (DESK,)


def test_an_outcome_does_not_show_whom_it_is_about(raw: RawServer) -> None:
    with Session(raw.settings(), PASSWORD) as session:
        outcome = send(session)
    assert DESK not in repr(outcome)
    assert PASSWORD not in repr(session)
