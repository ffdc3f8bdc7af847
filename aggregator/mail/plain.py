"""A mail that is no notice: a report in words, as a table, with files beside it (CO-2).

No person is in it, and nothing in it is fetched from a network: a picture comes with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from typing import TYPE_CHECKING

from aggregator.errors import DeliveryError
from aggregator.mail.letter import envelope_address
from aggregator.model.days import parse_instant
from aggregator.model.settings import MailSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

PICTURE = "chart"
"""The name under which the HTML shows the picture: src="cid:chart"."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attachment:
    """A file that comes with a mail; `type` is such as text/csv."""

    name: str
    type: str
    content: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Post:
    """One mail: its words as plain text and as HTML, and the files with it.

    `picture`, a PNG, stands where the HTML says so.
    """

    subject: str
    text: str
    html: str
    attachments: Sequence[Attachment] = ()
    picture: bytes | None = None


def written(
    post: Post, settings: MailSettings, to: Sequence[str], at: str, message_id: str
) -> bytes:
    """Return the whole message; DeliveryError if it cannot be written for these addresses."""
    recipients = [envelope_address(one) for one in to]
    wide = not all(address.isascii() for address in recipients)
    message = EmailMessage(SMTPUTF8 if wide else SMTP)
    try:
        for name, value in _headers(post, settings, recipients, at, message_id).items():
            message[name] = value
        message.set_content(post.text)
        message.add_alternative(post.html, subtype="html")
        if post.picture is not None:
            parts = message.get_payload()
            assert isinstance(parts, list)
            html = parts[1]
            assert isinstance(html, EmailMessage)
            html.add_related(
                post.picture, "image", "png", cid=f"<{PICTURE}>", filename="chart.png",
                disposition="inline",
            )  # fmt: skip
        for one in post.attachments:
            main, _, sub = one.type.partition("/")
            message.add_attachment(one.content, main, sub, filename=one.name)
        return message.as_bytes()
    except (MessageError, UnicodeError):
        # Their words may hold the value.
        pass
    raise DeliveryError("a mail could not be written; correct mail.from")


def _headers(
    post: Post, settings: MailSettings, recipients: Sequence[str], at: str, message_id: str
) -> Mapping[str, str]:
    headers = {"From": settings.sender, "To": ", ".join(recipients)}
    if settings.reply_to:
        headers["Reply-To"] = settings.reply_to
    return {
        **headers,
        "Subject": post.subject,
        "Date": format_datetime(parse_instant(at)),
        "Message-ID": f"<{message_id}>",
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
    }
