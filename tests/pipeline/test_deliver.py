"""Each notice is delivered at least once with one Message-ID, and once where nothing breaks."""

from __future__ import annotations

import email
import email.policy
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from mail.servers import Fault, RawServer, RealServer, ServerProcess, Taken
from support import usage

from aggregator.errors import ConfigError, DeliveryError
from aggregator.model.days import parse_instant
from aggregator.pipeline import deliver, notices

from .mailhome import CAP, DESK, NOW, MailHome, address

ROOT = Path(__file__).resolve().parents[2]
LATER = "2026-10-05T12:06:00Z"
MUCH_LATER = "2026-10-05T23:00:00Z"
AFTER_PURGE = "2026-11-03T06:00:00Z"
TO_USER = "to_user = true"


@pytest.fixture
def server() -> Iterator[RealServer]:
    with RealServer() as running:
        yield running


def parsed(taken: Taken) -> EmailMessage:
    message = email.message_from_bytes(taken.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def text_of(taken: Taken) -> str:
    body = parsed(taken).get_body(("plain",))
    assert body is not None
    text: str = body.get_content()
    return text


def recipients(mails: list[Taken]) -> Counter[str]:
    return Counter(one for mail in mails for one in mail.recipients)


def test_a_notice_reaches_the_desk_once(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1, 2])
    home.use([1])
    assert home.queue() == 1
    assert home.send()["sent"] == 1
    assert home.queue(LATER) == 0
    assert home.send(LATER) == {"sent": 0, "deferred": 0, "failed": 0, "withheld": 0, "waiting": 0}
    (taken,) = server.mails
    assert taken.recipients == (DESK,)
    assert "acct-1" in text_of(taken)
    assert home.states() == {"sent": 1}


def test_users_are_written_to_where_that_is_configured(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port, more=TO_USER)
    home.list_accounts([1, 2, 3])
    home.use([1, 2])
    home.queue()
    assert home.send()["sent"] == 4
    assert recipients(server.mails) == {DESK: 2, address(1): 1, address(2): 1}
    assert len(set(server.message_ids())) == 4
    for mail in server.mails:
        if DESK not in mail.recipients:
            assert parsed(mail)["To"].addresses[0].addr_spec == mail.recipients[0]


def test_many_users_are_one_digest_to_the_desk(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts(range(20))
    home.use(range(20))
    assert home.queue() == 20
    assert home.send()["sent"] == 1
    (taken,) = server.mails
    assert all(f"acct-{number}" in text_of(taken) for number in range(20))


def test_without_mail_settings_notices_wait_and_nothing_fails(tmp_path: Path) -> None:
    home = MailHome.make(tmp_path, 1)
    config = home.tiny.root / "config.toml"
    config.write_text(config.read_text().partition("\n[mail]\n")[0])
    home.use([1])
    assert home.queue() == 1
    assert home.send() == {"sent": 0, "deferred": 0, "failed": 0, "withheld": 0, "waiting": 1}
    assert home.states() == {"queued": 1}


@pytest.mark.parametrize(
    ("flag", "reason"),
    [("exempt", "exempt"), ("objects", "objects"), ("restricted", "restricted")],
)
def test_what_the_directory_protects_is_told_to_nobody(
    tmp_path: Path, server: RealServer, flag: str, reason: str
) -> None:
    home = MailHome.make(tmp_path, server.port, more=TO_USER)
    home.list_accounts([1], **{flag: "yes"})
    home.use([1])
    home.queue()
    assert home.send()["withheld"] == 2
    assert server.mails == []
    assert home.states() == {"withheld": 2}
    assert home.send(LATER, by_hand=True)["sent"] == 0


def test_a_rule_for_a_plan_tells_of_that_plan_only(tmp_path: Path, server: RealServer) -> None:
    rules = f"""
[[fair_use.rules]]
name = "business"
kind = "month_bytes"
threshold = {CAP}
plans = ["business"]
"""
    home = MailHome.make(tmp_path, server.port, rules=rules)
    home.directory.write_text(
        f"account,address,plan\nacct-1,{address(1)},business\nacct-2,{address(2)},personal\n"
    )
    home.use([1, 2, 3])
    assert home.queue() == 3
    counts = home.send()
    assert (counts["sent"], counts["withheld"]) == (1, 2)
    assert "acct-1" in text_of(server.mails[0])


def test_an_account_that_the_directory_does_not_know_is_told_to_the_desk_only(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port, more=TO_USER)
    home.list_accounts([2])
    home.use([1])
    home.queue()
    counts = home.send()
    assert (counts["sent"], counts["withheld"]) == (1, 1)
    assert recipients(server.mails) == {DESK: 1}
    assert "acct-1" not in text_of(server.mails[0])


@pytest.mark.parametrize("wrong", ["nonsense", "a@b@c", "x@mail.example\\r\\nBcc: y@z.example"])
def test_an_address_that_is_none_withholds_the_users_mail(
    tmp_path: Path, server: RealServer, wrong: str
) -> None:
    home = MailHome.make(tmp_path, server.port, more=TO_USER)
    home.directory.write_text(f"account,address\nacct-1,{wrong}\n")
    home.use([1])
    home.queue()
    counts = home.send()
    assert (counts["sent"], counts["withheld"], counts["failed"]) == (1, 1, 0)
    assert recipients(server.mails) == {DESK: 1}


@pytest.mark.parametrize("content", [None, "", "name,mail\n", "account,exempt\nacct-1,perhaps\n"])
def test_a_directory_that_does_not_answer_delays_the_notice(
    tmp_path: Path, server: RealServer, content: str | None
) -> None:
    home = MailHome.make(tmp_path, server.port)
    if content is not None:
        home.directory.write_text(content)
    home.use([1])
    home.queue()
    with pytest.raises(DeliveryError, match="directory of accounts") as raised:
        home.send()
    assert raised.value.exit_code == 7
    assert "acct-1" not in str(raised.value)
    assert home.states() == {"deferred": 1}
    home.list_accounts([1])
    assert home.send(LATER)["sent"] == 1
    assert len(server.mails) == 1


def test_a_slow_directory_is_given_up(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port)
    config = home.tiny.root / "config.toml"
    own = config.read_text().partition("\n[directory]\n")[0]
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    config.write_text(
        f'{own}\n[directory]\nkind = "command"\ncommand = {json.dumps(command)}\n'
        "timeout_seconds = 1\n"
    )
    home.use([1])
    home.queue()
    with pytest.raises(DeliveryError, match="timed out"):
        home.send()
    assert home.states() == {"deferred": 1}


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "END"])
def test_a_refusal_for_now_is_tried_again_later_as_the_same_mail(
    tmp_path: Path, server: RealServer, step: str
) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1])
    home.use([1])
    home.queue()
    server.replies[step] = 451
    with pytest.raises(DeliveryError):
        home.send()
    assert home.states() == {"deferred": 1}
    server.replies.clear()
    assert home.send()["waiting"] == 1  # too early
    assert server.mails == []
    assert home.send(LATER)["sent"] == 1
    assert len(server.mails) == 1
    assert home.send(MUCH_LATER, by_hand=True)["sent"] == 0


def test_a_person_may_try_again_at_once(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1])
    home.use([1])
    home.queue()
    server.replies["RCPT"] = 450
    with pytest.raises(DeliveryError):
        home.send()
    server.replies.clear()
    assert home.send(by_hand=True)["sent"] == 1


@pytest.mark.parametrize("step", ["RCPT", "END"])
def test_a_refusal_for_good_is_not_tried_again(
    tmp_path: Path, server: RealServer, step: str
) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1])
    home.use([1])
    home.queue()
    server.replies[step] = 552
    with pytest.raises(DeliveryError, match="refused for good"):
        home.send()
    assert home.states() == {"failed": 1}
    server.replies.clear()
    assert home.send(MUCH_LATER, by_hand=True)["sent"] == 0
    assert server.mails == []


def test_of_two_desks_only_the_one_that_was_put_off_is_asked_again(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port)
    config = home.tiny.root / "config.toml"
    config.write_text(
        config.read_text().replace(f'["{DESK}"]', f'["{DESK}", "b@vpn.example", "c@vpn.example"]')
    )
    home.list_accounts([1])
    home.use([1])
    home.queue()
    server.recipients = {"b@vpn.example": 450, "c@vpn.example": 550}
    with pytest.raises(DeliveryError):
        home.send()
    assert recipients(server.mails) == {DESK: 1}
    server.recipients = {}
    assert home.send(LATER)["sent"] == 1
    assert recipients(server.mails) == {DESK: 1, "b@vpn.example": 1}
    assert len(set(server.message_ids())) == 1
    assert server.mails[0].content == server.mails[1].content
    assert home.states() == {"sent": 1}


def test_a_cut_after_the_content_sends_the_same_mail_again(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1])
    home.use([1])
    home.queue()
    server.replies["END"] = Fault.TAKEN_CUT
    with pytest.raises(DeliveryError):
        home.send()
    server.replies.clear()
    home.send(LATER)
    first, second = server.mails
    assert first.content == second.content
    assert home.states() == {"sent": 1}


def test_a_dead_server_defers_everything_at_once(tmp_path: Path) -> None:
    with RealServer() as server:
        home = MailHome.make(tmp_path, server.port, more=TO_USER)
        home.list_accounts(range(50))
        home.use(range(50))
        home.queue()
        server.stop()
        with pytest.raises(DeliveryError, match="refuses connections") as raised:
            home.send()
        assert "acct" not in str(raised.value)
        assert home.states() == {"deferred": 51}
        server.start()
        assert home.send(LATER)["sent"] == 51
        assert len(set(server.message_ids())) == len(server.mails) == 51


def test_a_server_that_stops_answering_ends_the_run(tmp_path: Path) -> None:
    with RawServer() as server:
        home = MailHome.make(tmp_path, server.port, more=TO_USER)
        home.list_accounts(range(30))
        home.use(range(30))
        home.queue()
        server.replies["END"] = Fault.CUT
        with pytest.raises(DeliveryError):
            home.send()
        assert server.commands["END"] == 3
        assert home.states() == {"deferred": 31}


def test_a_server_that_refuses_everybody_ends_the_run(tmp_path: Path) -> None:
    with RawServer() as server:
        home = MailHome.make(tmp_path, server.port, more=TO_USER)
        home.list_accounts(range(50))
        home.use(range(50))
        home.queue()
        server.replies["RCPT"] = 554
        with pytest.raises(DeliveryError, match="relay"):
            home.send()
        assert home.states() == {"failed": 20, "deferred": 31}
        server.replies.clear()
        assert home.send(LATER)["sent"] == 31


def test_on_a_full_disk_nothing_is_sent(
    tmp_path: Path, server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing could remember it, and so it would be sent again by every run."""
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1])
    home.use([1])
    home.queue()

    def full(*_words: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            home.send()
    assert server.mails == []
    assert home.send()["sent"] == 1


def test_the_rate_is_limited_by_waiting(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port, more=f"{TO_USER}\nper_minute = 120")
    home.list_accounts(range(5))
    home.use(range(5))
    home.queue()
    waited: list[float] = []
    with deliver_house(home) as house:
        assert deliver.deliver(house, pause=waited.append).sent == 6
    assert waited == [0.5] * 5


def deliver_house(home: MailHome) -> Any:
    from aggregator import app
    from aggregator.stores.home import Home

    moment = parse_instant(NOW)
    return app.open_to_send(Home(home.tiny.root), moment, moment)


def test_a_higher_step_is_told_once_more_and_a_new_month_starts_clean(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1])
    home.use([1], size=9 * CAP // 10)
    assert home.queue() == 1
    home.send()
    home.use([1], size=3 * CAP)
    assert home.queue(LATER) == 1
    home.send(LATER)
    home.use([1], size=5 * CAP)
    assert home.queue(MUCH_LATER) == 0
    assert [mail.recipients for mail in server.mails] == [(DESK,), (DESK,)]
    november = "2026-11-02T12:00:00Z"
    home.tiny.ingest([usage("2026-11-01", "acct-1", bytes=2 * CAP)], november)
    assert home.queue(november) == 1


def test_a_purge_takes_what_was_not_sent_and_sends_nothing_more(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.use([1])
    home.queue()
    with pytest.raises(DeliveryError):
        home.send()  # the directory is not there
    home.list_accounts([1])
    home.tiny.purge(AFTER_PURGE)
    assert home.send(AFTER_PURGE, by_hand=True)["sent"] == 0
    assert server.mails == []
    (row,) = home.tiny.rows("notices_monthly")
    assert (row["notices"], row["sent"], row["delayed"], row["expired"]) == (1, 0, 1, 1)
    names = {path.name for path in (home.tiny.root / "outbox").iterdir()}
    assert names <= {".lock"}


def test_a_purge_in_the_middle_of_a_run_ends_it(
    tmp_path: Path, server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = MailHome.make(tmp_path, server.port, more=f"{TO_USER}\nper_minute = 1000")
    home.list_accounts(range(5))
    home.use(range(5))
    home.queue()

    def purge(_seconds: float) -> None:
        home.tiny.purge(AFTER_PURGE)

    with deliver_house(home) as house:
        assert deliver.deliver(house, pause=purge).sent == 1
    assert len(server.mails) == 1
    assert not list((home.tiny.root / "outbox").glob("2026*"))


def test_a_template_that_is_broken_stops_the_mail_and_loses_nothing(
    tmp_path: Path, server: RealServer
) -> None:
    folder = tmp_path / "templates"
    home = MailHome.make(tmp_path, server.port, more=f'templates = "{folder}"')
    home.list_accounts([1])
    home.use([1])
    home.queue()
    folder.mkdir()
    (folder / "desk.txt.j2").write_text("{{ never.there }}{% if %}")
    with pytest.raises(ConfigError, match=r"desk\.txt\.j2"):
        home.send()
    assert home.states() == {"queued": 1}
    (folder / "desk.txt.j2").unlink()
    assert home.send()["sent"] == 1


def test_nothing_of_a_user_is_in_the_home(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port, more=TO_USER)
    home.list_accounts([1, 2])
    home.use([1, 2])
    home.queue()
    server.recipients[address(2)] = 550
    with pytest.raises(DeliveryError):
        home.send()
    everything = b"".join(home.tiny.files().values())
    for name in (b"acct-1", b"acct-2", b"user-1", b"user-2"):
        assert name not in everything
    assert home.tiny.audit("mail")[-1]["failed"] == 1


def test_what_was_refused_for_good_can_be_sent_again(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1])
    home.use([1])
    home.queue()
    server.replies["RCPT"] = 554
    with pytest.raises(DeliveryError, match="--again"):
        home.send()
    server.replies.clear()
    assert home.send(by_hand=True)["sent"] == 0
    assert home.send(by_hand=True, again=True)["sent"] == 1
    assert home.states() == {"sent": 1}
    assert home.send(by_hand=True, again=True)["sent"] == 0


def test_recipients_whose_server_is_slow_do_not_keep_the_others_waiting(tmp_path: Path) -> None:
    with RawServer() as server:
        home = MailHome.make(tmp_path, server.port, more=TO_USER)
        home.list_accounts(range(8))
        home.use(range(8))
        home.queue()
        server.recipients = {address(n): Fault.CUT for n in (0, 1, 2)}
        for now in (NOW, LATER, MUCH_LATER):
            with pytest.raises(DeliveryError):
                home.send(now, by_hand=True)
        got = recipients(server.mails)
        assert got == {DESK: 1, **{address(n): 1 for n in range(3, 8)}}


def test_wrong_mail_settings_stop_mail_and_nothing_else(tmp_path: Path) -> None:
    home = MailHome.make(tmp_path, 1, more='username = "name without a password"')
    home.use([1])
    home.tiny.rollup("2026-10-05T13:00:00Z")
    for refused in (home.queue, home.send):
        with pytest.raises(ConfigError, match=r"mail\.username"):
            refused()
    (receipt,) = home.tiny.purge(AFTER_PURGE)
    assert receipt["verified"]


def test_what_is_said_during_a_long_run_is_heeded(tmp_path: Path, server: RealServer) -> None:
    """A part is ten messages here: an objection and an acknowledgement come after the first."""
    home = MailHome.make(tmp_path, server.port, more=f"{TO_USER}\nper_minute = 1")
    home.list_accounts(range(30))
    # Who moved most comes first: the order of the accounts.
    sizes = [usage("2026-10-01", f"acct-{n}", bytes=3 * CAP - n) for n in range(30)]
    home.tiny.ingest(sizes, NOW)
    assert home.queue() == 30
    with home.tiny.open(NOW) as house:
        rows = [row for row in notices.listed(house) if row["audience"] == "user"]
    said: list[float] = []

    def say(seconds: float) -> None:
        said.append(seconds)
        if len(said) == 1:
            home.list_accounts(range(29))
            with home.directory.open("a") as file:
                file.write(f"acct-29,{address(29)},yes\n")
            text = home.directory.read_text().replace("account,address", "account,address,objects")
            lines = text.splitlines()
            fixed = [line if line.count(",") == 2 else line + "," for line in lines]
            home.directory.write_text("\n".join([*fixed, ""]))
            with home.tiny.open(LATER) as house:
                notices.acknowledge(house, rows[28]["reference"])

    with deliver_house(home) as house:
        counts = deliver.deliver(house, pause=say).counts()
    assert (counts["sent"], counts["withheld"]) == (29, 1)
    told = recipients(server.mails)
    assert set(told) == {DESK, *map(address, range(28))}


def test_a_run_that_lasts_into_the_purge_ends_there(tmp_path: Path, server: RealServer) -> None:
    home = MailHome.make(tmp_path, server.port, more=f"{TO_USER}\nper_minute = 1")
    home.list_accounts(range(30))
    home.use(range(30))
    home.queue()
    hours = iter([0.0] * 60 + [40 * 86_400.0] * 1000)
    with deliver_house(home) as house:
        deliver.deliver(house, pause=lambda _seconds: None, elapsed=lambda: next(hours))
    assert 0 < len(server.mails) < 31


def test_users_who_are_not_written_to_any_more_get_nothing(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port, more=TO_USER)
    home.list_accounts([1])
    home.use([1])
    home.queue()
    home.configure(server.port)
    assert home.send()["sent"] == 1
    assert recipients(server.mails) == {DESK: 1}


def test_a_snoozed_user_is_left_out_of_a_digest_and_told_later(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts(range(9))
    home.use(range(9))
    home.queue()
    with home.tiny.open(NOW) as house:
        reference = notices.listed(house)[0]["reference"]
        notices.snooze(house, reference, "2026-10-08")
    home.send()
    assert reference not in text_of(server.mails[0])
    assert home.send("2026-10-07T12:00:00Z", by_hand=True)["sent"] == 0
    assert home.send("2026-10-08T12:00:00Z")["sent"] == 1
    assert reference in text_of(server.mails[1])
    (row,) = home.tiny.rows("notices_monthly")
    assert (row["notices"], row["sent"], row["withheld"]) == (9, 9, 0)


def test_a_directory_without_a_needed_column_delays_the_notice(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port, more=TO_USER)
    home.directory.write_text("account,email\nacct-1,user-1@mail.example\n")
    home.use([1])
    home.queue()
    with pytest.raises(DeliveryError, match='no column "address"'):
        home.send()
    assert home.states() == {"deferred": 2}
    home.list_accounts([1])
    assert home.send(LATER)["sent"] == 2


def test_a_clock_that_was_ahead_for_one_run_delays_nothing(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.use([1])
    home.queue()
    with pytest.raises(DeliveryError):
        home.send("2026-10-25T12:00:00Z")
    home.list_accounts([1])
    assert home.send(LATER)["sent"] == 1


def test_an_objection_after_a_first_try_ends_the_waiting(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port)
    home.list_accounts([1])
    home.use([1])
    home.queue()
    server.replies["RCPT"] = 450
    with pytest.raises(DeliveryError):
        home.send()
    home.list_accounts([1], objects="yes")
    assert home.send(LATER)["withheld"] == 1
    assert home.states() == {"withheld": 1}


def test_a_desk_that_is_no_desk_any_more_leaves_the_message_sent(
    tmp_path: Path, server: RealServer
) -> None:
    home = MailHome.make(tmp_path, server.port)
    config = home.tiny.root / "config.toml"
    one, two = f'["{DESK}"]', f'["{DESK}", "b@vpn.example"]'
    config.write_text(config.read_text().replace(one, two))
    home.list_accounts([1])
    home.use([1])
    home.queue()
    server.recipients = {"b@vpn.example": 450}
    with pytest.raises(DeliveryError):
        home.send()
    config.write_text(config.read_text().replace(two, one))
    home.send(LATER)
    assert home.states() == {"sent": 1}
    assert recipients(server.mails) == {DESK: 1}
    (row,) = home.tiny.rows("notices_monthly")
    assert (row["sent"], row["withheld"], row["delayed"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("count", "trouble"),
    [
        pytest.param(1_000, {}, id="nothing breaks"),
        pytest.param(1_000, {"END": "cut"}, id="cut before it was taken"),
        pytest.param(1_000, {"END": 452}, id="refused for now after the content"),
        pytest.param(1_000, {"RCPT": 451}, id="refused for now"),
        pytest.param(10_000, {"RCPT": 451, "END": "taken_cut"}, id="cut after it was taken"),
    ],
)
def test_thousands_of_notices(tmp_path: Path, count: int, trouble: dict[str, Any]) -> None:
    """Every 97th mail meets trouble; then there is none."""
    digests = -(-count // 1000)  # of 1,000 users, for the desk
    with RawServer() as server:
        home = MailHome.make(tmp_path, server.port, more=TO_USER)
        home.list_accounts(range(count))
        home.use(range(count))
        assert home.queue() == count
        server.every = 97
        for step, reply in trouble.items():
            if step == "RCPT":
                server.recipients = {address(n): 451 for n in range(0, count, 97)}
            else:
                server.replies[step] = reply if isinstance(reply, int) else Fault(reply)
        if trouble:
            with pytest.raises(DeliveryError):
                home.send()
        else:
            home.send()
        server.replies.clear()
        server.recipients.clear()
        home.send(LATER, by_hand=bool(trouble))
        assert home.states() == {"sent": count + digests}
        by_id = Counter(server.message_ids())
        assert len(by_id) == count + digests
        assert set(recipients(server.mails)) == {DESK, *map(address, range(count))}
        again = sum(by_id.values()) - len(by_id)
        if trouble.get("END") == "taken_cut":
            assert 1 < again <= count // 97 + 1
        else:
            assert again == 0


@pytest.mark.parametrize("victim", ["server", "sender"])
def test_killed_again_and_again_every_notice_arrives(tmp_path: Path, victim: str) -> None:
    """SIGKILL of the server, or of the run: nothing lost, at most one mail twice a kill."""
    count, kills = 300, 5
    with ServerProcess(tmp_path / "taken") as server:
        home = MailHome.make(tmp_path, server.port, more=TO_USER)
        home.list_accounts(range(count))
        home.use(range(count))
        home.queue()
        for number in range(1, kills + 1):
            process = _sending(home)
            _until_taken(server, process, number * count // (kills + 2))
            if victim == "server":
                server.kill()
                process.wait(60)
                server.start()
            else:
                process.send_signal(signal.SIGKILL)
                process.wait(60)
        home.send(MUCH_LATER, by_hand=True)
        by_id = Counter(server.message_ids())
        assert set(recipients(server.mails)) == {DESK, *map(address, range(count))}
        assert len(by_id) == count + 1
        assert sum(by_id.values()) - len(by_id) <= kills
        assert home.states() == {"sent": count + 1}


def _sending(home: MailHome) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "aggregator", "--home", str(home.tiny.root), "--now", NOW]
    return subprocess.Popen(
        [*words, "fairuse", "send"],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _until_taken(server: ServerProcess, process: subprocess.Popen[bytes], least: int) -> None:
    """Wait until the server has so many mails, or the run is over."""
    until = time.monotonic() + 60
    while len(server.mails) < least and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.005)
