"""One mail about fair use as bytes: headers, plain text and HTML (CS-9, CS-10, CO-2).

The same letter gives the same bytes, so a retry is the same mail. Nothing in it is fetched from a
network, and no account stands in a subject: subjects end in the logs of servers.
"""

# ruff: noqa: PLC0415 - heavy libraries load only where a mail or a sentence is written

from __future__ import annotations

import dataclasses
import hashlib
import re
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from aggregator.errors import DeliveryError
from aggregator.model.days import parse_instant
from aggregator.model.fairuse import Excess, RuleKind
from aggregator.model.notices import Audience
from aggregator.model.settings import MailSettings

if TYPE_CHECKING:
    from aggregator.mail.templates import Renderer

# The whole of an address without angle brackets; no quoted local part, no literal.
_LOCAL: Final = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}")
_NAMED: Final = re.compile(r"([^<>]{0,128}?)\s*<([^<>]+)>")
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,128}@[A-Za-z0-9.-]{1,128}")
_LONGEST_LINE: Final = 998


class BadAddressError(DeliveryError):
    """A mail's recipient is no address that mail can go to."""

    def __init__(self) -> None:
        super().__init__("a recipient's address is none; correct the directory or mail.desk")


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Case:
    """One notice as a mail tells it; `account` and `plan` as the directory has them, or None."""

    excess: Excess
    account: str | None
    plan: str | None
    reference: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Letter:
    """One mail to write: to the desk about one or more users, or to one user.

    `message_id` is without angle brackets; `at` is the UTC instant of its Date, as text. A `test`
    says that its figures are made up.
    """

    audience: Audience
    message_id: str
    at: str
    to: tuple[str, ...]
    language: str
    cases: tuple[Case, ...]
    test: bool = False


def content(letter: Letter, settings: MailSettings, renderer: Renderer) -> bytes:
    """Return the whole message, in lines that end in CR LF and are short enough for any server.

    BadAddressError if a recipient's address is none, DeliveryError if the sender's is none,
    ConfigError if a template is broken, ValueError if a letter to a user is about two users, or
    the Message-ID or the instant is none.
    """
    _check(letter)
    mailboxes = _mailboxes(letter, settings)
    rendered = renderer.render(letter)
    wide = not all(box.addr_spec.isascii() for boxes in mailboxes.values() for box in boxes)
    message = EmailMessage(SMTPUTF8 if wide else SMTP)
    try:
        for name, boxes in mailboxes.items():
            message[name] = boxes
        message["Subject"] = rendered.subject
        message["Date"] = format_datetime(parse_instant(letter.at))
        message["Message-ID"] = f"<{letter.message_id}>"
        message["Auto-Submitted"] = "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"
        message.set_content(rendered.text, cte=_encoding(rendered.text))
        message.add_alternative(rendered.html, subtype="html", cte=_encoding(rendered.html))
        # Only now: headers of this name would have gone to the first part.
        message["Content-Language"] = rendered.language
        message.set_boundary(f"=_{hashlib.sha256(letter.message_id.encode()).hexdigest()[:40]}")
        return message.as_bytes()
    except (MessageError, UnicodeError):
        # Their words may hold the value.
        pass
    raise DeliveryError("a mail could not be written; correct mail.from and mail.service_name")


def envelope_address(address: str) -> str:
    """Return `address` as a server takes it, its domain in ASCII; BadAddressError if it is none.

    A local part beyond ASCII stays as it is; it needs a server that offers SMTPUTF8.
    """
    local, _, domain = address.rpartition("@")
    if not address.isprintable() or _LOCAL.fullmatch(local) is None:
        raise BadAddressError
    return f"{local}@{_ascii_domain(domain)}"


def needs_utf8(message: bytes) -> bool:
    """Say whether the headers of what `content` gave hold UTF-8, and so need SMTPUTF8."""
    return not message.partition(b"\r\n\r\n")[0].isascii()


def reply_address(settings: MailSettings) -> str:
    """Return the bare address that answers go to (CO-2)."""
    return _own(settings.reply_to or settings.sender).addr_spec


def trial_letter(address: str, message_id: str, at: str, language: str) -> Letter:
    """Return a mail with made-up figures to `address`."""
    made_up = (example(RuleKind.OUTWEIGHS_MEAN),)
    return Letter(Audience.DESK, message_id, at, (address,), language, made_up, test=True)


def example(kind: RuleKind, percent: int = 100) -> Case:
    """Return a case with made-up figures of a rule of `kind`, for tests and for checks."""
    threshold, moved = _EXAMPLES[kind]
    excess = Excess(
        rule=f"example-{kind.value.replace('_', '-')}",
        kind=kind,
        threshold=threshold,
        percent=percent,
        plans=(),
        month="2026-10",
        through="2026-10-21",
        pseudonym=0,
        bytes=moved,
        month_bytes=4_812_345_678_901,
        projected_bytes=7_104_000_000_000,
        users=299_999,
        others_bytes=1_157_230_000_000_000,
        median_bytes=1_930_000_000,
        outweighs_mean=1247.5,
        outweighs_lightest=298_113,
        times_median=2493.4,
    )
    if kind in (RuleKind.DAY_BYTES, RuleKind.LOCATION_SHARE):
        excess = dataclasses.replace(excess, day="2026-10-17")
    if kind is RuleKind.LOCATION_SHARE:
        excess = dataclasses.replace(
            excess, location="us-nyc", location_bytes=1_003_456_000_000, location_users=412
        )
    return Case(excess, "acct-example", None, "n-0000000000")


_EXAMPLES: Final = {
    RuleKind.OUTWEIGHS_MEAN: (1000, 4_812_345_678_901),
    RuleKind.OUTWEIGHS_LIGHTEST: (250_000, 4_812_345_678_901),
    RuleKind.MONTH_BYTES: (4_000_000_000_000, 4_812_345_678_901),
    RuleKind.DAY_BYTES: (500_000_000_000, 634_120_000_000),
    RuleKind.TIMES_MEDIAN: (2000, 4_812_345_678_901),
    RuleKind.LOCATION_SHARE: (50, 634_120_000_000),
}


def _check(letter: Letter) -> None:
    if not letter.cases:
        raise ValueError("a mail about nothing")
    if letter.audience is Audience.USER:
        # The one mistake that nothing could make good: a user told of another one.
        if len({case.excess.pseudonym for case in letter.cases}) != 1 or len(letter.to) != 1:
            raise ValueError("a mail to a user is about one user, to one address")
    elif not letter.to:
        raise BadAddressError
    if _MESSAGE_ID.fullmatch(letter.message_id) is None:
        raise ValueError("the Message-ID is none")


def _mailboxes(letter: Letter, settings: MailSettings) -> dict[str, tuple[Address, ...]]:
    found = {
        "From": (_own(settings.sender),),
        "To": tuple(_bare(one) for one in letter.to),
    }
    if settings.reply_to:
        found["Reply-To"] = (_own(settings.reply_to),)
    return found


def _own(text: str) -> Address:
    """Return the operator's own mailbox, an address alone or after a name."""
    named = _NAMED.fullmatch(text)
    name, address = (named[1].strip(), named[2]) if named else ("", text)
    if text.isprintable():
        try:
            return _bare(address.strip(), name)
        except BadAddressError:
            pass
    raise DeliveryError("mail.from or mail.reply_to is no address; correct config.toml")


def _bare(address: str, name: str = "") -> Address:
    local, _, domain = envelope_address(address).rpartition("@")
    return Address(name, local, domain)


def _ascii_domain(domain: str) -> str:
    """Return a domain in ASCII, as IDNA 2008 has it: by the older rules ß would be another one."""
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        pass
    raise BadAddressError


def _encoding(text: str) -> str:
    """Return 7bit where it does; else quoted-printable, which any server passes on unchanged."""
    short = all(len(line) <= _LONGEST_LINE for line in text.splitlines())
    return "7bit" if short and text.isascii() else "quoted-printable"
