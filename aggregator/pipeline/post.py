"""Send one mail now, by the server of [mail]; nothing of it is queued or kept."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from aggregator.errors import ConfigError, DeliveryError, UsageError
from aggregator.mail.letter import BadAddressError, envelope_address, needs_utf8
from aggregator.mail.plain import Post, written
from aggregator.mail.smtp import Session
from aggregator.model.days import instant
from aggregator.model.settings import MailSettings
from aggregator.pipeline.deployment import Deployment
from aggregator.stores import secret


def send_report(house: Deployment, to: Sequence[str], post: Post) -> None:
    """Send a report to addresses that the operator names.

    UsageError if one is none, ConfigError without mail settings, DeliveryError if the server did
    not take it for all of them.
    """
    settings = settings_of(house)
    recipients = [recipient(one, "--mail") for one in to]
    at, name = instant(house.now), message_id(settings)
    send(settings, recipients, written(post, settings, recipients, at, name), "the report")


def settings_of(house: Deployment) -> MailSettings:
    """Return the settings of [mail]; ConfigError if there are none, or they are wrong."""
    house.config.check_mail()
    if house.config.mail is None:
        raise ConfigError("config.toml has no [mail]; its comments show what it may have")
    return house.config.mail


def recipient(address: str, option: str) -> str:
    """Return an address as a server takes it; UsageError names the option that it is from."""
    try:
        return envelope_address(address)
    except BadAddressError:
        raise UsageError(f"{option} takes an address that mail can go to") from None


def message_id(settings: MailSettings) -> str:
    """Return a Message-ID of the sender's domain, without angle brackets."""
    domain = settings.sender.rpartition("@")[2].rstrip(">")
    return f"{secrets.token_hex(12)}@{envelope_address(f'x@{domain}').partition('@')[2]}"


def send(settings: MailSettings, to: Sequence[str], message: bytes, what: str) -> None:
    """Hand over a whole message; DeliveryError says `what` was not taken for everybody."""
    password = secret.read(settings.password, "mail.password")
    with Session(settings, password) as session:
        outcome = session.send(settings.sender, list(to), message, needs_utf8(message))
    if outcome.refused:
        code = next(iter(outcome.refused.values()))
        raise DeliveryError(f"the mail server refuses {what} for good (code {code})")
    if outcome.deferred:
        reason = next(iter(outcome.deferred.values())).value.replace("_", " ")
        raise DeliveryError(f"the mail server has not taken {what}: {reason}")
