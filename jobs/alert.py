"""The mail that tells the operator of troubles: plain text, a few lines, no person in it."""

from __future__ import annotations

import datetime as dt
import secrets
import socket
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

from aggregator.errors import DeliveryError
from aggregator.mail.letter import envelope_address, needs_utf8
from aggregator.mail.smtp import Session
from aggregator.model.days import instant
from aggregator.model.runs import Incident, Known, Trouble
from aggregator.model.settings import MailSettings
from aggregator.rules.incidents import Telling
from aggregator.stores import secret


def subject(telling: Telling) -> str:
    """Return one line that says the worst first."""
    if not telling.lasting:
        return "[usage-aggregator] over: " + ", ".join(_name(key) for key in telling.over)
    first = telling.lasting[0]
    if first.trouble is Trouble.PURGE_LATE:
        words = f"PURGE LATE: {first.key.partition(':')[2]}"
    else:
        words = _name(first.key)
    more = len(telling.lasting) - 1
    return f"[usage-aggregator] {words}" + (f", and {more} more" if more else "")


def text(telling: Telling, known: Mapping[str, Known], home: Path, now: dt.datetime) -> str:
    """Return what the mail says: each trouble with its remedy, then what is over."""
    parts = [f"The home {home} on {socket.gethostname()}, at {instant(now)}:"]
    parts += [_paragraph(incident) for incident in telling.lasting]
    parts += [f"OVER  {_name(key)}\n  It was: {known[key].what}" for key in telling.over]
    parts.append("See: aggregator status, aggregator doctor.")
    return "\n\n".join(parts) + "\n"


def send(
    settings: MailSettings, to: tuple[str, ...], title: str, words: str, now: dt.datetime
) -> None:
    """Send it to every address in `to`; DeliveryError if nobody took it."""
    message = EmailMessage(SMTP.clone(utf8=True) if not words.isascii() else SMTP)
    recipients = [envelope_address(one) for one in to]
    domain = settings.sender.rpartition("@")[2].rstrip(">")
    ascii_domain = envelope_address(f"x@{domain}").partition("@")[2]
    message["From"], message["To"] = settings.sender, ", ".join(recipients)
    message["Subject"] = title
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{secrets.token_hex(12)}@{ascii_domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(words)
    written = message.as_bytes()
    password = secret.read(settings.password, "mail.password")
    with Session(settings, password) as session:
        outcome = session.send(settings.sender, recipients, written, needs_utf8(written))
    if not outcome.accepted:
        raise DeliveryError("the mail server took the alert for no address of watch.alert")


def _paragraph(incident: Incident) -> str:
    label = "INCIDENT" if incident.trouble is Trouble.PURGE_LATE else "TROUBLE"
    return (
        f"{label}  {_name(incident.key)}, since {instant(incident.since)}\n"
        f"  {incident.what}\n  What to do: {incident.remedy}"
    )


def _name(key: str) -> str:
    kind, _, about = key.partition(":")
    words = kind.replace("_", " ")
    return f"{words} {about}" if about and kind != Trouble.SETTINGS else words
