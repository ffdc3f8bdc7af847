"""Send one mail with made-up figures, to see whether and how mail arrives."""

from __future__ import annotations

import secrets

from aggregator.errors import ConfigError, DeliveryError, UsageError
from aggregator.mail.letter import (
    BadAddressError,
    content,
    envelope_address,
    needs_utf8,
    trial_letter,
)
from aggregator.mail.smtp import Session
from aggregator.mail.templates import Renderer
from aggregator.model.days import instant
from aggregator.pipeline.deployment import Deployment
from aggregator.stores import secret


def send_trial(house: Deployment, address: str) -> None:
    """Send a mail with made-up figures to `address` now; nothing is queued or kept.

    DeliveryError if it was not accepted; ConfigError without mail settings, or if a secret or a
    template is not usable.
    """
    house.config.check_mail()
    settings = house.config.mail
    if settings is None:
        raise ConfigError("config.toml has no [mail]; its comments show what it may have")
    renderer = Renderer(settings)
    renderer.check()
    try:
        to = envelope_address(address)
    except BadAddressError:
        raise UsageError("--test takes an address that mail can go to") from None
    domain = settings.sender.rpartition("@")[2].rstrip(">")
    message_id = f"{secrets.token_hex(12)}@{envelope_address(f'x@{domain}').partition('@')[2]}"
    letter = trial_letter(address, message_id, instant(house.now), settings.language)
    written = content(letter, settings, renderer)
    password = secret.read(settings.password, "mail.password")
    with Session(settings, password) as session:
        outcome = session.send(settings.sender, [to], written, needs_utf8(written))
    if outcome.refused:
        code = next(iter(outcome.refused.values()))
        raise DeliveryError(f"the mail server refuses the test notice for good (code {code})")
    if outcome.deferred:
        reason = next(iter(outcome.deferred.values())).value.replace("_", " ")
        raise DeliveryError(f"the mail server has not taken the test notice: {reason}")
