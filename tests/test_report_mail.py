"""`report … --mail`: a mail that a real server takes, with the report's numbers in every part."""

from __future__ import annotations

import csv
import email
import email.policy
import io
from email.message import EmailMessage
from pathlib import Path

import pytest
from closed import Run
from mail.servers import RealServer

TO = "ops@provider.example"


def configure(home: Path, port: int) -> None:
    with (home / "config.toml").open("a") as config:
        config.write(
            f'\n[mail]\nhost = "localhost"\nport = {port}\nsecurity = "none"\n'
            'from = "Usage <usage@provider.example>"\nreply_to = "noc@provider.example"\n'
            'desk = ["desk@provider.example"]\n'
        )


def parts(content: bytes) -> tuple[EmailMessage, dict[str, EmailMessage]]:
    message = email.message_from_bytes(content, policy=email.policy.default)
    return message, {part.get_content_type(): part for part in message.walk()}


def test_a_report_arrives_with_its_numbers(home: Path, run: Run) -> None:
    words = ("report", "usage", "--by", "location", "--from", "2026-10-01")
    rows = run(home, *words, "--json").json
    with RealServer() as server:
        configure(home, server.port)
        said = run(home, *words, "--mail", TO, "--mail", "second@provider.example")
        taken = list(server.mails)
    assert (said.code, said.out) == (0, "")
    assert "took it for 2 addresses" in said.err
    (mail,) = taken
    assert mail.recipients == (TO, "second@provider.example")
    message, found = parts(mail.content)
    assert message["Subject"] == ("[usage-aggregator] usage by location, 2026-10-01 to 2026-10-03")
    assert message["Reply-To"] == "noc@provider.example"
    assert message["Auto-Submitted"] == "auto-generated"
    text, html = (found[kind].get_content() for kind in ("text/plain", "text/html"))
    assert max(map(len, text.splitlines()[:8])) <= 78
    for row in rows:
        users = f"{row['user_days']:,}"
        assert any(row["location"] in line and users in line for line in text.splitlines())
        assert f">{row['location']}<" in html
        assert f">{users}<" in html
    assert "To get it no more, answer to noc@provider.example" in text  # CO-2
    assert "http" not in html.replace("http-equiv", "")  # nothing is fetched (CS-10)
    assert found["image/png"].get_content().startswith(b"\x89PNG")
    assert f"cid:{found['image/png']['Content-ID'].strip('<>')}" in html
    table = found["text/csv"].get_content()
    assert [int(row["bytes"]) for row in csv.DictReader(io.StringIO(table))] == [
        row["bytes"] for row in rows
    ]


def test_a_server_that_refuses_is_told_without_its_words(home: Path, run: Run) -> None:
    with RealServer() as server:
        server.recipients[TO] = 550
        configure(home, server.port)
        said = run(home, "report", "usage", "--mail", TO)
    assert said.code == 7
    assert "refuses the report for good (code 550)" in said.err
    assert TO not in said.err
    assert "moonstone" not in said.err


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("--mail", TO), 3, "has no [mail]"),
        (("--mail", TO, "--json"), 2, "leave --format"),
        (("--mail", TO, "--format", "csv"), 2, "leave --format"),
    ],
)
def test_what_cannot_be_mailed_is_said(
    closed_home: Path, run: Run, words: tuple[str, ...], code: int, hint: str
) -> None:
    said = run(closed_home, "report", "usage", *words)
    assert (said.code, said.out) == (code, "")
    assert hint in said.err


def test_what_is_no_address_is_not_repeated(home: Path, run: Run) -> None:
    configure(home, 9)
    said = run(home, "report", "usage", "--mail", "planted nonsense")
    assert said.code == 2
    assert "planted" not in said.err


def test_capacity_and_health_go_by_mail_too(home: Path, run: Run) -> None:
    with RealServer() as server:
        configure(home, server.port)
        for report in ("capacity", "health"):
            said = run(home, "report", report, "--mail", TO)
            assert (said.code, said.out) == (0, ""), said.err
        taken = list(server.mails)
    capacity, health = (parts(mail.content)[1] for mail in taken)
    rows = run(home, "report", "capacity", "--json").json
    csv_rows = list(csv.DictReader(io.StringIO(capacity["text/csv"].get_content())))
    assert [row["location"] for row in csv_rows] == [row["location"] for row in rows]
    findings = run(home, "report", "health", "--json").json
    assert findings
    text = health["text/plain"].get_content()
    assert text.startswith("health: no agent is enrolled; ")
    table = list(csv.DictReader(io.StringIO(health["text/csv"].get_content())))
    assert [(row["check"], row["what"]) for row in table] == [
        (row["check"], row["what"]) for row in findings
    ]
    assert findings[0]["check"].replace("_", " ") in text or findings[0]["check"] in text
    assert "image/png" not in health
