"""A home: the folder of one deployment, its configuration and its policy profile."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any, Final, cast

from aggregator.errors import ConfigError, RefusedError
from aggregator.model.profile import DEFAULT_PROFILE, Profile, parse_profile
from aggregator.model.settings import DirectorySettings, MailSettings
from aggregator.stores import atomic, custody, settings

FORMAT: Final = 1
FOLDERS: Final = ("policy", "agents", "keys", "inbox", "raw", "tables", "outbox", "audit")
# Those that only this software writes to; others drop files into the inbox.
OWN_FOLDERS: Final = tuple(name for name in FOLDERS if name != "inbox")
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
# A name or an IPv4 address, or an IPv6 address in brackets; then a port.
_LISTEN: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
_ANYWHERE: Final = "0.0.0.0:8443"
_MIN_FREE_MIB: Final = 1024
_MAX_FREE_MIB: Final = 1 << 30
_CONFIG: Final = """\
# Settings of this deployment; what is kept, and for how long, is in policy/profile.toml.
format = {format}
rehearsal = {rehearsal}  # true: --now may set the clock; never for real data

[limits]
link_rate_gbits = 10  # a day's counter above this rate is implausible

[keys]
# The file system must destroy what is overwritten in place; true takes one that may not.
accept_weak_destruction = {weak}

# What `aggregator serve` needs; a path is absolute, or begins in this folder.
# [door]
# listen = "0.0.0.0:8443"
# url = "https://usage.example.net:8443"  # what `aggregator agent enrol` tells agents
# certificate = "/etc/aggregator/door.pem"
# private_key = "/etc/aggregator/door.key"
# client_ca = "/etc/aggregator/agents-ca.pem"  # agents must show a certificate of it as well
# min_free_mib = 1024  # with less room on the disk no batch is taken

# Fair-use notices are sent where there is a mail server; without it they wait for their month.
# [mail]
# host = "mail.example.net"
# security = "starttls"    # or "tls"; "none" only on this machine
# from = "Fair use <fair-use@example.net>"
# desk = ["support@example.net"]
# to_user = false          # true: users are written to as well
# username = "aggregator"
# password_file = "/etc/aggregator/mail.password"

# Who an account is, asked when a notice is sent and never stored: a CSV file here; or sql, http,
# command. Columns: account, address, language, plan, exempt, objects, restricted.
# [directory]
# kind = "csv"
# path = "/etc/aggregator/accounts.csv"
"""


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
    sends notices stops for it, by `check_mail`.
    """

    rehearsal: bool
    link_rate_gbits: int
    accept_weak_destruction: bool
    door: DoorConfig
    mail: MailSettings | None = None
    directory: DirectorySettings | None = None
    mail_problem: str | None = None

    def check_mail(self) -> None:
        """Raise ConfigError if [mail] or [directory] cannot be used."""
        if self.mail_problem is not None:
            raise ConfigError(self.mail_problem)

    @property
    def max_bytes(self) -> int:
        """The most bytes that a link can carry in a day, both directions added."""
        return self.link_rate_gbits * 10**9 // 8 * _SECONDS_A_DAY


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """The folder of one deployment; paths only, nothing is opened.

    `settings` names a file whose settings are used in place of the home's own; whether this is a
    rehearsal stays the home's own word.
    """

    root: Path
    settings: Path | None = None

    def folder(self, name: str) -> Path:
        """Return one of the home's own folders."""
        return self.root / name

    @property
    def lock_path(self) -> Path:
        """The file on which a writing run holds its lock."""
        return self.root / ".lock"

    @property
    def config_path(self) -> Path:
        """The settings file; a home without it is none."""
        return self.root / "config.toml"

    @property
    def profile_path(self) -> Path:
        """The active policy profile."""
        return self.root / "policy" / "profile.toml"

    def create(self, *, rehearsal: bool, accept_weak: bool, profile: str | None = None) -> None:
        """Lay the folders and files of a new home; config.toml last, so that it marks a whole one.

        RefusedError if there is a home already, or if `root` has other files in it.
        """
        if self.config_path.exists():
            raise RefusedError(f"there is a home already in {self.root}")
        if any(any(self.folder(name).glob("*")) for name in ("keys", "raw", "audit")):
            raise RefusedError(f"{self.root} holds a home's data but no config.toml; restore it")
        allowed = {*FOLDERS, self.lock_path.name, self.config_path.name + ".part"}
        found = {path.name for path in self.root.iterdir()} if self.root.exists() else set()
        # A killed run may have left its probe of the file system; the next run sweeps it.
        if any(not name.startswith(custody.PROBE_PREFIX) for name in found - allowed):
            raise RefusedError(f"{self.root} is not empty; a home needs a folder of its own")
        text = DEFAULT_PROFILE if profile is None else profile
        parse_profile(text)
        for name in FOLDERS:
            atomic.make_folder(self.folder(name))
        atomic.write(self.profile_path, text.encode())
        config = _CONFIG.format(
            format=FORMAT, rehearsal=str(rehearsal).lower(), weak=str(accept_weak).lower()
        )
        atomic.write(self.config_path, config.encode())

    def load_config(self) -> Config:
        """Return the settings; ConfigError says what is missing or wrong."""
        own = self._parse(self.config_path)
        data = own if self.settings is None else self._parse(self.settings)
        mail, directory, problem = self._mail(data)
        return Config(
            # Only the home itself says that it is a rehearsal: else --now could reach real data.
            rehearsal=_setting(own, "", "rehearsal", bool),
            link_rate_gbits=_setting(data, "limits", "link_rate_gbits", int),
            accept_weak_destruction=_setting(data, "keys", "accept_weak_destruction", bool),
            door=_door(data.get("door", {}), self.root),
            mail=mail,
            directory=directory,
            mail_problem=problem,
        )

    def _mail(
        self, data: dict[str, Any]
    ) -> tuple[MailSettings | None, DirectorySettings | None, str | None]:
        """Return [mail] and [directory], or what is wrong with one of them."""
        try:
            mail = settings.mail(data.get("mail"), self.root)
            directory = settings.directory(data.get("directory"), self.root)
        except ConfigError as error:
            return None, None, str(error)
        if mail is not None and mail.to_user and directory is None:
            problem = "config.toml has mail.to_user, which needs [directory] for addresses"
            return None, None, problem
        return mail, directory, None

    def _parse(self, path: Path) -> dict[str, Any]:
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            if path != self.config_path:
                raise ConfigError(f"there is no settings file {path}") from None
            if self.profile_path.exists():
                raise ConfigError(f"{path} is missing; restore it") from None
            raise ConfigError(
                f"{self.root} is no home; make one with: aggregator init --home {self.root}"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None
        if data.get("format") != FORMAT:
            raise ConfigError(f"{path} has a format that this version does not know")
        known = {"": {"format", "rehearsal", *_KNOWN, *_APART}, **_KNOWN}
        for section, names in known.items():
            table = data.get(section, {}) if section else data
            unknown = sorted(set(table) - names) if isinstance(table, dict) else []
            if unknown:
                raise ConfigError(f"{path} has an unknown setting: {unknown[0]!r}")
        return data

    def load_profile(self) -> Profile:
        """Return the active policy profile; ConfigError says what is missing or wrong."""
        try:
            return parse_profile(self.profile_path.read_text("utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{self.profile_path} is missing; restore it") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self.profile_path} is not UTF-8 text") from None


def _setting(data: dict[str, Any], section: str, name: str, kind: type) -> Any:
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
