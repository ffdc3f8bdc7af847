"""What the settings of a directory name: texts that must be there, and secrets where they are."""

from __future__ import annotations

from aggregator import secret as source
from aggregator.directory.errors import BrokenError, Trouble
from aggregator.errors import ConfigError
from aggregator.model.settings import Secret


def needed(value: str | None, setting: str) -> str:
    """Return a setting that a kind of directory cannot do without; ConfigError without it."""
    if not value:
        raise ConfigError(f"config.toml's directory needs {setting}")
    return value


def read(secret: Secret | str | None, setting: str) -> str:
    """Return the text itself, or what its file, variable, credential or command holds.

    BrokenError, which names the setting and nothing else, if that is empty or cannot be read.
    """
    if secret is None or isinstance(secret, str):
        return needed(secret, setting)
    try:
        return source.read(secret)
    except source.SecretError as error:
        raise BrokenError(Trouble.NO_SECRET, f"directory.{setting}{error.way}") from None
