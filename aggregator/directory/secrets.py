"""What the settings of a directory name: texts that must be there, and secrets where they are."""

from __future__ import annotations

import os
from pathlib import Path

from aggregator.directory.errors import BrokenError, Trouble
from aggregator.errors import ConfigError
from aggregator.model.settings import Secret


def needed(value: str | None, setting: str) -> str:
    """Return a setting that a kind of directory cannot do without; ConfigError without it."""
    if not value:
        raise ConfigError(f"config.toml's directory needs {setting}")
    return value


def read(secret: Secret | str | None, setting: str) -> str:
    """Return the text itself, or what its file or variable holds, without one newline at its end.

    BrokenError, which names the setting and nothing else, if that is empty or cannot be read.
    """
    if secret is None or isinstance(secret, str):
        return needed(secret, setting)
    way = f"directory.{setting}_{'env' if secret.file is None else 'file'}"
    try:
        if secret.file is None:
            text = os.environ.get(secret.variable or "", "")
        else:
            text = Path(secret.file).read_text("utf-8")
    except (OSError, ValueError):
        raise BrokenError(Trouble.NO_SECRET, way) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise BrokenError(Trouble.NO_SECRET, way)
    return text
