"""Queueing: a decision and its place in the queue are one commit; the month takes them along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import usage
from test_schemas import validator

from aggregator.cli.main import main
from aggregator.errors import IntegrityError, UsageError
from aggregator.pipeline import audit, doctor, notices
from aggregator.pipeline.pseudonyms import pseudonym
from aggregator.pipeline.search import Needles, What, Where, search_home
from aggregator.rules.notices import replay
from aggregator.stores.home import Home

from .faults import DeadError, Faults
from .mailhome import CAP, NOW, MailHome

LATER = "2026-10-05T13:00:00Z"
AFTER_PURGE = "2026-11-03T06:00:00Z"


@pytest.fixture
def home(tmp_path: Path) -> MailHome:
    made = MailHome.make(tmp_path, 1)
    made.list_accounts(range(9))
    made.use(range(9))
    return made


def book(home: MailHome, now: str = NOW) -> Any:
    house = home.tiny.read(now)
    return replay(house.outbox.read(house.month_keys("2026-10")))


def test_queueing_again_queues_nothing_and_says_nothing(home: MailHome) -> None:
    assert home.queue() == 9
    entries = len(home.tiny.audit())
    assert home.queue(LATER) == 0
    assert home.tiny.audit("notices") == [{"month": "2026-10", "queued": 9}]
    assert len(home.tiny.audit()) == entries


def test_nobody_to_tell_of_leaves_no_file(tmp_path: Path) -> None:
    made = MailHome.make(tmp_path, 1)
    made.use([1], size=1)
    assert made.queue() == 0
    assert list((made.tiny.root / "outbox").iterdir()) == []
    assert made.tiny.rows("notices_monthly") == []


def test_death_at_any_step_leaves_each_notice_once(home: MailHome, tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(home.tiny.root, before)
    step, done = 1, False
    while not done:
        shutil.rmtree(home.tiny.root)
        shutil.copytree(before, home.tiny.root)
        try:
            with Faults(step):
                home.queue()
            done = True
        except DeadError:
            pass
        home.queue(LATER)
        told = book(home)
        assert len(told.notices) == 9
        assert len({told.key(one) for one in told.notices}) == 9
        assert sum(len(one.message.references) for one in told.messages.values()) == 9
        (row,) = home.tiny.rows("notices_monthly")
        assert row["notices"] == 9
        step += 1
    assert step > 6


def test_a_damaged_month_does_not_stop_another(home: MailHome) -> None:
    november = "2026-11-02T12:00:00Z"
    assert home.queue() == 9
    home.tiny.ingest([usage("2026-11-01", "acct-1", bytes=2 * CAP)], november)
    path = home.tiny.root / "outbox" / "2026-10.notices"
    path.write_bytes(b"\1" * 40)
    with pytest.raises(IntegrityError, match="outbox of 2026-10"):
        home.queue(november)
    assert (home.tiny.root / "outbox" / "2026-11.notices").exists()


def test_rows_and_figures_are_as_their_schema_says(home: MailHome) -> None:
    home.queue()
    check = validator("notices_monthly.table")
    for row in home.tiny.rows("notices_monthly"):
        assert check.is_valid(row), row
    assert home.tiny.rows("notices_monthly")[0]["notices"] == 9


def test_a_reference_that_is_unknown_is_refused(home: MailHome) -> None:
    home.queue()
    with home.tiny.open(NOW) as house:
        with pytest.raises(UsageError):
            notices.acknowledge(house, "n-0000000000")
        with pytest.raises(UsageError):
            notices.snooze(house, "n-0000000000", "2026-10-20")


def test_the_purge_takes_the_notices_and_says_so(home: MailHome) -> None:
    home.queue()
    (receipt,) = home.tiny.purge(AFTER_PURGE)
    assert receipt["verified"]
    assert receipt["destroyed"]["notices"] == 1
    assert "notices_monthly" in {row["table"] for row in receipt["tables"]}
    assert [row["expired"] for row in home.tiny.rows("notices_monthly")] == [9]
    assert audit.verify(home.tiny.read(AFTER_PURGE)).problems == ()


def test_a_damaged_outbox_holds_no_purge_up(home: MailHome) -> None:
    home.queue()
    (home.tiny.root / "outbox" / "2026-10.notices").write_bytes(b"\1" * 40)
    (receipt,) = home.tiny.purge(AFTER_PURGE)
    assert not receipt["verified"]
    assert any("outbox" in problem for problem in receipt["problems"])
    assert receipt["destroyed"]["key_sets"] == 1
    assert not list((home.tiny.root / "outbox").glob("2026*"))
    assert home.tiny.rows("usage_monthly")


def test_notices_that_were_restored_after_the_purge_go_again(home: MailHome) -> None:
    home.queue()
    path = home.tiny.root / "outbox" / "2026-10.notices"
    kept = path.read_bytes()
    home.tiny.purge(AFTER_PURGE)
    path.write_bytes(kept)
    home.tiny.purge("2026-11-03T07:00:00Z")
    assert not path.exists()


def test_a_search_finds_whom_a_notice_is_about_until_the_purge(home: MailHome) -> None:
    home.queue()
    house = home.tiny.read(NOW)
    number = pseudonym(b"acct-1", house.month_keys("2026-10"))
    found = search_home(house, Needles(names=("acct-1",)))
    assert "outbox/2026-10.notices" in found.files_with(What.PSEUDONYM, Where.NOTICES)
    assert found.names == 0
    home.tiny.purge(AFTER_PURGE)
    after = search_home(
        home.tiny.read(AFTER_PURGE), Needles(names=("acct-1",), pseudonyms=frozenset({number}))
    )
    assert after.is_clean
    assert after.sealed == 0


def test_the_doctor_tells_of_mail_directory_and_notices(home: MailHome) -> None:
    home.queue()
    root = Home(home.tiny.root)

    def states() -> dict[str, str]:
        found = doctor.examine(root, lambda: home.tiny.read(NOW))
        return {one.check: one.state.value for one in found}

    good = states()
    assert (good["mail"], good["directory"], good["notices"]) == ("ok", "warn", "ok")
    home.list_accounts([1], exempt="", objects="", restricted="")
    assert states()["directory"] == "ok"
    home.directory.unlink()
    (home.tiny.root / "outbox" / "2026-10.notices").write_bytes(b"\1" * 40)
    bad = states()
    assert (bad["directory"], bad["notices"]) == ("fail", "fail")


def said(home: MailHome, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["--home", str(home.tiny.root), "--now", NOW, *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_line_queues_lists_and_lets_go(
    home: MailHome, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _out, err = said(home, capsys, "fairuse", "send")
    assert code == 7  # nobody listens on port 1
    assert "refuses connections" in err
    code, out, _err = said(home, capsys, "fairuse", "list", "--json")
    rows = json.loads(out)["rows"]
    assert (code, len(rows)) == (0, 9)
    assert {(row["state"], row["reason"], row["audience"]) for row in rows} == {
        ("deferred", "unreachable", "desk")
    }
    reference = rows[0]["reference"]
    assert said(home, capsys, "fairuse", "snooze", reference, "--until", "2026-10-20")[0] == 0
    assert said(home, capsys, "fairuse", "acknowledge", reference)[0] == 0
    code, out, _err = said(home, capsys, "fairuse", "list", "--state", "withheld", "--json")
    assert [row["reference"] for row in json.loads(out)["rows"]] == [reference]
    assert said(home, capsys, "fairuse", "acknowledge", "n-1")[0] == 2
    for until in ("soon", "2026-10-05"):
        assert said(home, capsys, "fairuse", "snooze", reference, "--until", until)[0] == 2
    code, out, err = said(home, capsys, "fairuse", "list")
    assert (code, "acct" in out + err) == (0, False)
    code, out, _err = said(home, capsys, "report", "fair-use", "--format", "json")
    (row,) = json.loads(out)
    assert (row["notices"], row["delayed"], row["withheld"]) == (9, 8, 1)
    code, out, _err = said(home, capsys, "report", "fair-use", "--by", "month", "--format", "csv")
    assert out.splitlines()[1].startswith("2026-10,9,")


def test_the_daily_job_queues_and_sends_and_closes_whatever_mail_does(
    home: MailHome, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _out, err = said(home, capsys, "run", "daily")
    assert code == 7
    assert err.count("error:") == 1
    assert home.tiny.rows("closings_daily")
    assert len(book(home).notices) == 9
    code, _out, _err = said(home, capsys, "run", "mail")
    assert code == 0  # nothing is due yet


def test_status_tells_of_what_waits(home: MailHome, capsys: pytest.CaptureFixture[str]) -> None:
    home.queue()
    _code, out, _err = said(home, capsys, "status")
    assert "1 queued" in out
    _code, out, _err = said(home, capsys, "status", "--json")
    told = json.loads(out)
    assert (told["messages_queued"], told["messages_failed"], told["mail_configured"]) == (
        1,
        0,
        True,
    )
