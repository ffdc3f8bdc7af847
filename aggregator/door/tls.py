"""The door's TLS: 1.2 or newer, its own certificate, and agents' certificates if they are asked."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from aggregator.errors import ConfigError
from aggregator.stores.config import DoorConfig

# For TLS 1.2; 1.3 has only such.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(config: DoorConfig) -> ssl.SSLContext:
    """Return the context of a door with these settings; ConfigError says what is wrong."""
    if config.certificate is None or config.private_key is None:
        raise ConfigError(
            "set certificate and private_key in [door] of config.toml, or let a proxy on this"
            " machine end TLS and run: aggregator serve --plain"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would skip the look at the client's certificate, after a reload too.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    try:
        # A key with a passphrase must fail, and not ask for it on a terminal.
        context.load_cert_chain(config.certificate, config.private_key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise _unusable("certificate or private_key", error) from None
    if config.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, config.client_ca)
    return context


def _trust(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except (OSError, ValueError) as error:
        raise _unusable("client_ca", error) from None


def _unusable(what: str, error: Exception) -> ConfigError:
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "TLS failed"
    else:
        reason = getattr(error, "strerror", None) or type(error).__name__
    return ConfigError(
        f"{what} in [door] cannot be used: {reason}; they must be PEM, belong together, and have"
        " no passphrase"
    )
