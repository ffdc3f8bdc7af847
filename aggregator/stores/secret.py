"""Read a secret from where the settings say it is; it is never written, told or kept."""

from __future__ import annotations

import os
from pathlib import Path

from aggregator.errors import ConfigError
from aggregator.model.settings import Secret


def read(secret: Secret | None, setting: str) -> str | None:
    """Return the secret, None where none is named; ConfigError names the `setting`, never more.

    One newline at its end is not part of it.
    """
    if secret is None:
        return None
    if secret.file is not None:
        try:
            text = Path(secret.file).read_text("utf-8")
        except FileNotFoundError:
            raise ConfigError(f"the file that {setting}_file names is not there") from None
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"the file that {setting}_file names cannot be read") from None
    else:
        text = os.environ.get(secret.variable or "", "")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        way = "file" if secret.file is not None else "env"
        raise ConfigError(f"what {setting}_{way} names is empty or not set")
    return text
