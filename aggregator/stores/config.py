"""config.toml: the settings of a deployment, read and checked.

What is wrong in a section that only tells people something ([mail], [directory]) is kept as that
section's problem: it must not stop a roll-up or a purge.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from aggregator.errors import ConfigError
from aggregator.model.settings import DirectorySettings, MailSettings, WatchSettings
from aggregator.stores import settings

_SECONDS_A_DAY: Final = 86_400

_DOOR: Final = frozenset(
    {"listen", "url", "certificate", "private_key", "client_ca", "min_free_mib"}
)
_KNOWN: Final = {
    "limits": {"link_rate_gbits"},
    "keys": {"accept_weak_destruction"},
    "door": _DOOR,
}
# Read apart: what is wrong in them must not stop a roll-up or a purge.
_APART: Final = frozenset({"mail", "directory"})
# Known of the home itself; they are in its config.toml, and may be in another settings file.
_OF_THE_HOME: Final = ("format", "rehearsal")
# A name or an IPv4 address, or an IPv6 address in brackets; then a port.
_LISTEN: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
_ANYWHERE: Final = "0.0.0.0:8443"
_MIN_FREE_MIB: Final = 1024
_MAX_FREE_MIB: Final = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class DoorConfig:
    """The settings in [door]: where it listens, what agents call it, its TLS, the room it leaves.

    `url`, `certificate`, `private_key` and `client_ca` are None where they are not set.
    """

    host: str
    port: int
    url: str | None
    certificate: Path | None
    private_key: Path | None
    client_ca: Path | None
    min_free_mib: int


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """The settings in config.toml.

    `mail_problem` says what is wrong with [mail] or [directory], which then are None: only what
    sends notices stops for it, by `check_mail`. `watch_problem` says the same of [schedule] and
    [watch], which then are as if they were not there; nothing stops for it.
    """

    rehearsal: bool
    link_rate_gbits: int
    accept_weak_destruction: bool
    door: DoorConfig
    mail: MailSettings | None = None
    directory: DirectorySettings | None = None
    mail_problem: str | None = None
    schedule: Mapping[str, str] = dataclasses.field(default_factory=dict)
    watch: WatchSettings = dataclasses.field(default_factory=WatchSettings)
    watch_problem: str | None = None

    def check_mail(self) -> None:
        """Raise ConfigError if [mail] or [directory] cannot be used."""
        if self.mail_problem is not None:
            raise ConfigError(self.mail_problem)

    @property
    def max_bytes(self) -> int:
        """The most bytes that a link can carry in a day, both directions added."""
        return self.link_rate_gbits * 10**9 // 8 * _SECONDS_A_DAY


def read(path: Path) -> dict[str, Any]:
    """Return what the settings file says; ConfigError if it is no TOML or has unknown settings.

    FileNotFoundError or NotADirectoryError if there is none.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    known = {"": {*_OF_THE_HOME, *_KNOWN, *_APART}, **_KNOWN}
    for section, names in known.items():
        table = data.get(section, {}) if section else data
        unknown = sorted(set(table) - names) if isinstance(table, dict) else []
        if unknown:
            raise ConfigError(f"{path} has an unknown setting: {unknown[0]!r}")
    return data


def check(data: dict[str, Any], root: Path, *, rehearsal: bool) -> Config:
    """Return the settings in `data` for the home `root`; ConfigError says what is wrong.

    Relative paths begin in `root`. `rehearsal` is the home's own word on what it is.
    """
    mail, directory, problem = _mail(data, root)
    return Config(
        rehearsal=rehearsal,
        link_rate_gbits=setting(data, "limits", "link_rate_gbits", int),
        accept_weak_destruction=setting(data, "keys", "accept_weak_destruction", bool),
        door=_door(data.get("door", {}), root),
        mail=mail,
        directory=directory,
        mail_problem=problem,
    )


def _mail(
    data: dict[str, Any], root: Path
) -> tuple[MailSettings | None, DirectorySettings | None, str | None]:
    """Return [mail] and [directory], or what is wrong with one of them."""
    try:
        mail = settings.mail(data.get("mail"), root)
        directory = settings.directory(data.get("directory"), root)
    except ConfigError as error:
        return None, None, str(error)
    if mail is not None and mail.to_user and directory is None:
        problem = "config.toml has mail.to_user, which needs [directory] for addresses"
        return None, None, problem
    return mail, directory, None


def setting(data: dict[str, Any], section: str, name: str, kind: type) -> Any:
    """Return one setting that must be there; ConfigError if it is not, or of another kind."""
    table = data.get(section, {}) if section else data
    value = table.get(name) if isinstance(table, dict) else None
    good = type(value) is kind and (kind is bool or 1 <= cast("int", value) <= 10_000)
    if not good:
        path = f"{section}.{name}" if section else name
        what = "true or false" if kind is bool else "a whole number, 1 to 10000"
        raise ConfigError(f"config.toml needs {path}, {what}; it is missing or is something else")
    return value


def _door(table: Any, root: Path) -> DoorConfig:
    """Return the settings of the door, each of which may be left out."""
    if not isinstance(table, dict):
        raise ConfigError("config.toml needs door as a table, begun by [door]")
    for name in _DOOR - {"min_free_mib"}:
        if not isinstance(table.get(name, "-"), str) or not table.get(name, "-"):
            raise ConfigError(f"config.toml needs door.{name} as a text that is not empty")
    free = table.get("min_free_mib", _MIN_FREE_MIB)
    if type(free) is not int or not 0 <= free <= _MAX_FREE_MIB:
        raise ConfigError(f"config.toml needs door.min_free_mib as int (0 to {_MAX_FREE_MIB})")
    listen = _LISTEN.fullmatch(table.get("listen", _ANYWHERE))
    if listen is None or int(listen[3]) > 65_535:
        raise ConfigError('config.toml needs door.listen like "0.0.0.0:8443" or "[::]:8443"')
    certificate, private_key, client_ca = (
        root / table[name] if name in table else None
        for name in ("certificate", "private_key", "client_ca")
    )
    host, port = listen[1] or listen[2], int(listen[3])
    return DoorConfig(host, port, table.get("url"), certificate, private_key, client_ca, free)
