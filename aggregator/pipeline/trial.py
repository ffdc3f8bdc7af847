"""Send one mail with made-up figures, to see whether and how mail arrives."""

from __future__ import annotations

from aggregator.mail.letter import content, trial_letter
from aggregator.mail.templates import Renderer
from aggregator.model.days import instant
from aggregator.pipeline import post
from aggregator.pipeline.deployment import Deployment


def send_trial(house: Deployment, address: str) -> None:
    """Send a mail with made-up figures to `address` now; nothing is queued or kept.

    DeliveryError if it was not accepted; ConfigError without mail settings, or if a secret or a
    template is not usable.
    """
    settings = post.settings_of(house)
    renderer = Renderer(settings)
    renderer.check()
    to = post.recipient(address, "--test")
    at, name = instant(house.now), post.message_id(settings)
    letter = trial_letter(address, name, at, settings.language)
    post.send(settings, [to], content(letter, settings, renderer), "the test notice")
