"""A home: the folder of one deployment, its configuration and its policy profile."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

from aggregator.errors import ConfigError, RefusedError
from aggregator.model.profile import DEFAULT_PROFILE, Profile, parse_profile
from aggregator.stores import atomic, config, custody
from aggregator.stores.config import Config

FORMAT: Final = 1
FOLDERS: Final = ("policy", "agents", "keys", "inbox", "raw", "tables", "outbox", "audit")
# Those that only this software writes to; others drop files into the inbox.
OWN_FOLDERS: Final = tuple(name for name in FOLDERS if name != "inbox")

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
        settings = _CONFIG.format(
            format=FORMAT, rehearsal=str(rehearsal).lower(), weak=str(accept_weak).lower()
        )
        atomic.write(self.config_path, settings.encode())

    def load_config(self) -> Config:
        """Return the settings; ConfigError says what is missing or wrong."""
        own = self._own_settings()
        # Only the home itself says that it is a rehearsal: else --now could reach real data.
        rehearsal = config.setting(own, "", "rehearsal", bool)
        if self.settings is None:
            return config.check(own, self.root, rehearsal=rehearsal)
        try:
            other = config.read(self.settings)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"there is no settings file {self.settings}") from None
        _check_format(self.settings, other)
        return config.check(other, self.root, rehearsal=rehearsal)

    def _own_settings(self) -> dict[str, Any]:
        path = self.config_path
        try:
            own = config.read(path)
        except (FileNotFoundError, NotADirectoryError):
            if self.profile_path.exists():
                raise ConfigError(f"{path} is missing; restore it") from None
            raise ConfigError(
                f"{self.root} is no home; make one with: aggregator init --home {self.root}"
            ) from None
        _check_format(path, own)
        return own

    def load_profile(self) -> Profile:
        """Return the active policy profile; ConfigError says what is missing or wrong."""
        try:
            return parse_profile(self.profile_path.read_text("utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{self.profile_path} is missing; restore it") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self.profile_path} is not UTF-8 text") from None


def _check_format(path: Path, data: dict[str, Any]) -> None:
    if data.get("format") != FORMAT:
        raise ConfigError(f"{path} has a format that this version does not know")
