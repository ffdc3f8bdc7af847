"""A mail as bytes: headers that nothing can be smuggled into, parts that can be read back."""

from __future__ import annotations

import dataclasses
import email
import email.header
import email.policy
import email.utils
import traceback
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.errors import DeliveryError
from aggregator.mail.letter import (
    BadAddressError,
    Case,
    Letter,
    content,
    envelope_address,
    example,
    needs_utf8,
    reply_address,
    trial_letter,
)
from aggregator.mail.templates import Renderer
from aggregator.model.fairuse import RuleKind
from aggregator.model.notices import Audience
from aggregator.model.settings import MailSettings, Security

SETTINGS = MailSettings(
    host="localhost",
    port=25,
    security=Security.NONE,
    sender="Example VPN <fair-use@vpn.example>",
    desk=("desk@vpn.example",),
    reply_to="Support <support@vpn.example>",
    service_name="Example VPN",
)
RENDERER = Renderer(SETTINGS)
AT = "2026-10-22T03:00:00Z"
ADDRESS = "user@example.net"
MEAN = RuleKind.OUTWEIGHS_MEAN


def letter(
    *cases: Case,
    audience: Audience = Audience.DESK,
    to: tuple[str, ...] = ("desk@vpn.example",),
    language: str = "en",
    message_id: str = "20261022.1f2e3d@vpn.example",
) -> Letter:
    """Return a letter, about a made-up case unless told."""
    return Letter(audience, message_id, AT, to, language, cases or (example(MEAN),))


def written(made: Letter, mail: MailSettings = SETTINGS) -> bytes:
    """Return a letter as bytes, and hold it to what every server takes."""
    message = content(made, mail, RENDERER if mail is SETTINGS else Renderer(mail))
    assert message.endswith(b"\r\n")
    for line in message.split(b"\r\n"):
        assert len(line) <= 998
        assert b"\r" not in line
        assert b"\n" not in line
    body = message.partition(b"\r\n\r\n")[2]
    assert body.isascii()
    assert b"\x00" not in body
    return message


def parsed(message: bytes) -> EmailMessage:
    """Return a message as a reader's program takes it."""
    read = email.message_from_bytes(message, policy=email.policy.default)
    assert not read.defects
    assert all(not part.defects for part in read.walk())
    assert isinstance(read, EmailMessage)
    return read


def part(message: EmailMessage, kind: str) -> str:
    """Return the text of one part, with plain line ends."""
    found = message.get_body((kind,))
    assert found is not None
    return str(found.get_content()).replace("\r\n", "\n")


def test_headers_say_who_when_and_that_no_person_wrote_it() -> None:
    read = parsed(written(letter(audience=Audience.USER, to=(ADDRESS,), language="de-AT")))
    assert dict(read.items()) == {
        "From": "Example VPN <fair-use@vpn.example>",
        "To": ADDRESS,
        "Reply-To": "Support <support@vpn.example>",
        "Subject": "Information zu Ihrem Konto bei Example VPN",
        "Date": "Thu, 22 Oct 2026 03:00:00 +0000",
        "Message-ID": "<20261022.1f2e3d@vpn.example>",
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "Content-Language": "de",
        "MIME-Version": "1.0",
        "Content-Type": read["Content-Type"],
    }
    assert read.get_content_type() == "multipart/alternative"
    kinds = [one.get_content_type() for one in read.iter_parts()]
    assert kinds == ["text/plain", "text/html"]  # the last one is what a reader prefers


def test_without_a_reply_address_answers_go_to_the_sender() -> None:
    mail = dataclasses.replace(SETTINGS, reply_to=None)
    assert "Reply-To" not in parsed(written(letter(), mail))
    assert reply_address(mail) == "fair-use@vpn.example"
    assert reply_address(SETTINGS) == "support@vpn.example"


@pytest.mark.parametrize("language", ["en", "de", "fr", "es"])
@pytest.mark.parametrize("audience", Audience)
def test_what_was_written_is_what_is_read(audience: Audience, language: str) -> None:
    made = letter(audience=audience, language=language)
    read, told = parsed(written(made)), RENDERER.render(made)
    assert read["Subject"] == told.subject
    assert part(read, "plain") == told.text
    assert part(read, "html") == told.html


def test_the_same_letter_is_the_same_bytes() -> None:
    """A retry is the same mail."""
    first = written(letter())
    assert first == content(letter(), SETTINGS, Renderer(SETTINGS))
    other = written(letter(message_id="20261022.aaaaaa@vpn.example"))
    boundaries = {parsed(one).get_boundary() for one in (first, other)}
    assert len(boundaries) == 2


def test_headers_name_no_account() -> None:
    named = Case(example(MEAN).excess, "acct-81723", "personal", "n-3f9a0c12bd")
    head = written(letter(named)).partition(b"\r\n\r\n")[0]
    assert b"acct" not in head
    assert b"n-3f9a0c12bd" in head


def test_a_large_digest_stays_one_mail() -> None:
    cases = [
        Case(
            dataclasses.replace(example(MEAN).excess, pseudonym=number),
            f"acct-{number}", "personal", f"n-{number:010x}",
        )
        for number in range(1000)
    ]  # fmt: skip
    message = written(letter(*cases))
    assert len(message) < 1_000_000
    text = part(parsed(message), "plain")
    assert all(f"n-{number:010x}" in text for number in range(1000))


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec=None), min_size=1, max_size=128))
def test_no_account_breaks_a_mail(account: str) -> None:
    made = letter(Case(example(MEAN).excess, account, account, "n-3f9a0c12bd"))
    read, told = parsed(written(made)), RENDERER.render(made)
    assert part(read, "plain") == told.text
    assert part(read, "html") == told.html


@pytest.mark.parametrize(
    "account",
    [
        "<script>alert(1)</script>",
        "\"quoted\" & 'quoted'",
        "\u05d3\u05d5\u05d2\u05de\u05d4 \u0645\u062b\u0627\u0644",
        "\U0001f98a\U0001f680",
        "x" * 128,
        "\u4f60" * 128,
        "{{7*7}}",
        "{% raw %}",
        "a\r\nBcc: everybody@example.net\r\n\r\n",
        ".\r\n.",
        "From here",
    ],
)
def test_hostile_accounts_are_inert(account: str) -> None:
    read = parsed(written(letter(Case(example(MEAN).excess, account, None, "n-3f9a0c12bd"))))
    assert "Bcc" not in read
    text = part(read, "plain")
    assert account in text or not account.isprintable()
    assert "<script>" not in part(read, "html")
    assert "everybody" not in str(read["Subject"])
    assert " 49 " not in text


@pytest.mark.parametrize(
    "address",
    [
        "",
        "user",
        "user@",
        "@example.net",
        "user@exa mple.net",
        "user@example.net\r\nBcc: everybody@example.net",
        "user@example.net\nX: y",
        "us\x00er@example.net",
        "us\u202eer@example.net",
        "user@example.net, everybody@example.net",
        "User <user@example.net>",
        '"us er"@example.net',
        "user@[192.0.2.1]",
        "user@@example.net",
        "user@example..net",
        "user@-example.net",
        "user@" + "x" * 64 + ".net",
        "x" * 65 + "@example.net",
        "user@xn--\u00fc.net",
        "user(comment)@example.net",
        "user@example.net;",
        "us\ud800er@example.net",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(address: str) -> None:
    for made in (
        letter(audience=Audience.USER, to=(address,)),
        letter(to=("desk@vpn.example", address)),
    ):
        with pytest.raises(BadAddressError) as caught:
            content(made, SETTINGS, RENDERER)
        told = "".join(traceback.format_exception(caught.value, chain=True))
        assert "everybody" not in told.partition("BadAddressError")[2]
        assert str(caught.value) == (
            "a recipient's address is none; correct the directory or mail.desk"
        )
    assert issubclass(BadAddressError, DeliveryError)


@pytest.mark.parametrize(
    "sender",
    [
        "Example VPN",
        "Example\r\nBcc: everybody@example.net <fair-use@vpn.example>",
        "Example <fair-use@vpn.example>\r\nBcc: everybody@example.net",
        "Example <fair-use@vpn.example> <x@y.example>",
        "\u202eExample <fair-use@vpn.example>",
        f"{'x' * 200} <fair-use@vpn.example>",
    ],
)
@pytest.mark.parametrize("field", ["sender", "reply_to"])
def test_a_sender_that_is_no_address_is_refused(sender: str, field: str) -> None:
    mail = dataclasses.replace(SETTINGS, **{field: sender})
    with pytest.raises(DeliveryError) as caught:
        content(letter(), mail, RENDERER)
    assert str(caught.value) == "mail.from or mail.reply_to is no address; correct config.toml"
    assert not isinstance(caught.value, BadAddressError)


@pytest.mark.parametrize(
    "name",
    [
        "Beispiel für VPN",
        'Example, "VPN" (Support)',
        "Ex@mple; VPN",
        "\U0001f98a",
        "\u4f60" * 60,
        "x" * 128,
        "=?utf-8?q?x?=",
    ],
)
def test_names_of_senders_are_kept(name: str) -> None:
    mail = dataclasses.replace(SETTINGS, sender=f"{name} <fair-use@vpn.example>")
    message = written(letter(), mail)
    assert not needs_utf8(message)
    read = parsed(message)
    assert [box.addr_spec for box in read["From"].addresses] == ["fair-use@vpn.example"]
    # The address parser of Python 3.11 puts spaces between encoded words: this one does not.
    old = email.message_from_bytes(message)["From"]
    shown = email.utils.parseaddr(str(email.header.make_header(email.header.decode_header(old))))
    assert shown[0] == ("x" if name.startswith("=?") else name)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("user@b\u00fccher.example", "user@xn--bcher-kva.example"),
        ("user@B\u00dcCHER.example", "user@xn--bcher-kva.example"),
        # Another domain by the rules of 2003, and perhaps another's.
        ("user@stra\u00dfe.example", "user@xn--strae-oqa.example"),
        ("user@EXAMPLE.net", "user@example.net"),
        ("user+tag@localhost", "user+tag@localhost"),
        ("o'neil@example.net", "o'neil@example.net"),
        ("fran\u00e7ois@example.net", "fran\u00e7ois@example.net"),
    ],
)
def test_domains_travel_in_ascii(address: str, found: str) -> None:
    assert envelope_address(address) == found
    assert envelope_address(found) == found
    message = written(letter(audience=Audience.USER, to=(address,)))
    assert needs_utf8(message) == (not found.isascii())
    assert f"To: {found}\r\n".encode() in message


def test_a_letter_to_a_user_is_about_one_user_and_to_one_address() -> None:
    other = example(MEAN)
    other = dataclasses.replace(other, excess=dataclasses.replace(other.excess, pseudonym=1))
    user = Audience.USER
    for made in (
        letter(example(MEAN), other, audience=user, to=(ADDRESS,)),
        letter(audience=user, to=(ADDRESS, "other@example.net")),
        dataclasses.replace(letter(), cases=()),
        letter(message_id="no id"),
        letter(message_id="a@b>\r\nX: y"),
        dataclasses.replace(letter(), at="yesterday"),
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            content(made, SETTINGS, RENDERER)
        assert ADDRESS not in str(caught.value)
    with pytest.raises(BadAddressError):
        content(letter(to=()), SETTINGS, RENDERER)


def test_a_test_says_that_it_is_one() -> None:
    read = parsed(written(trial_letter(ADDRESS, "1@vpn.example", AT, "en")))
    assert read["To"] == ADDRESS
    assert read["Subject"] == "Test of the fair-use mails"
    assert "made up" in part(read, "plain")


def test_nothing_of_a_letter_is_printed_by_accident() -> None:
    named = Case(example(MEAN).excess, "acct-81723", "personal", "n-3f9a0c12bd")
    made = letter(named, to=(ADDRESS,))
    shown = repr(made) + repr(named) + repr(RENDERER.render(made))
    assert "acct-81723" not in shown
    assert ADDRESS not in shown
