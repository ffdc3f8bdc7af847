"""Read a secret of the settings; it is never written, told or kept."""

from __future__ import annotations

from aggregator import secret as source
from aggregator.errors import ConfigError
from aggregator.model.settings import Secret


def read(secret: Secret | None, setting: str) -> str | None:
    """Return the secret, None where none is named; ConfigError names the `setting`, never more."""
    if secret is None:
        return None
    try:
        return source.read(secret)
    except source.SecretError as error:
        raise ConfigError(
            f"{setting}{error.way} {error.fault}; see: aggregator config check"
        ) from None
