"""The agent's configuration: one TOML file, checked whole before anything is opened."""

from __future__ import annotations

import dataclasses
import ipaddress
import types
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from aggregator.agent.collectors import SOURCES
from aggregator.agent.enrolment import Enrolment
from aggregator.agent.outgoing import is_location
from aggregator.agent.settings import Table, check_secret, read_toml
from aggregator.errors import ConfigError

DEFAULT_INTERVAL_SECONDS: Final = 300
_MAX_INTERVAL_SECONDS: Final = 3600
_MAX_TIMEOUT_SECONDS: Final = 300
_SECRET_WORDS: Final = ("secret", "password", "private", "token")


@dataclasses.dataclass(frozen=True, slots=True)
class DoorSettings:
    """How the door is reached; `url` is the enrolment's if None, `ca_file` the system's store."""

    url: str | None
    ca_file: Path | None
    client_certificate: Path | None
    client_key: Path | None
    timeout_seconds: int


@dataclasses.dataclass(frozen=True, slots=True)
class AccountsSettings:
    """Where a map from the daemon's names to accounts comes from: a file, or a command."""

    file: Path | None
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class SourceSettings:
    """One source: `settings` is of the class that its kind's row in `SOURCES` names."""

    number: int
    kind: str
    location: str
    accounts: AccountsSettings | None
    settings: Hashable = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """Everything that `aggregator-agent run` is told, besides its enrolment."""

    file: Path
    enrolment: Path
    interval_seconds: int
    spool: Path | None
    status: Path | None
    door: DoorSettings
    country_database: Path | None
    asn_database: Path | None
    sources: tuple[SourceSettings, ...]


def load_config(path: Path) -> Config:
    """Return the configuration in the file `path`; ConfigError says what is wrong, and where."""
    top = read_toml(path)
    door = top.table("door")
    origin = top.table("origin")
    config = Config(
        path,
        top.path("enrolment", "/etc/aggregator-agent/enrolment.toml"),
        top.integer("interval_seconds", DEFAULT_INTERVAL_SECONDS, 1, _MAX_INTERVAL_SECONDS),
        top.optional_path("spool", "/run/aggregator-agent/spool"),
        top.optional_path("status", "/run/aggregator-agent/status.json"),
        _door(door),
        _readable(origin, "country", "/var/lib/GeoIP/GeoLite2-Country.mmdb"),
        _readable(origin, "asn", "/var/lib/GeoIP/GeoLite2-ASN.mmdb"),
        tuple(_source(number, table) for number, table in enumerate(top.tables("source"), start=1)),
    )
    for table in (door, origin, top):
        table.close()
    _check_twins(config)
    return config


def check_enrolled(config: Config, enrolment: Enrolment) -> None:
    """Raise ConfigError if a source's location is none that the agent may report, or the URL."""
    for source in config.sources:
        if source.location not in enrolment.locations:
            raise ConfigError(
                f"{config.file}: [[source]] {source.number}: location is none of the enrolment's; "
                "correct it, or enrol the agent for it"
            )
    fault = url_fault(config.door.url or enrolment.door)
    if fault is not None:
        raise ConfigError(f"{config.enrolment}: door {fault}")


def url_fault(url: str) -> str | None:
    """Return what is wrong with the URL of a door, or None.

    Without TLS only the machine itself is a door: the token would be read on the way.
    """
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        return "is no URL; write it like https://usage.example.net:8443"
    if parts.scheme not in ("https", "http") or not parts.hostname or _has_more(parts):
        return "must be a scheme, a host and perhaps a port, like https://usage.example.net:8443"
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        return "must begin with https://; http:// is for this machine itself only"
    return None


def _has_more(parts: SplitResult) -> bool:
    return bool(parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _door(table: Table) -> DoorSettings:
    url = table.optional("url", "https://usage.example.net:8443")
    if url is not None and (fault := url_fault(url)) is not None:
        table.refuse("url", fault)
    certificate = _readable(table, "client_certificate", "/etc/aggregator-agent/client.pem")
    key = _readable(table, "client_key", "/etc/aggregator-agent/client.key")
    if key is not None and certificate is None:
        table.refuse("client_certificate", "is missing; client_key alone is of no use")
    if key is not None:
        check_secret(key)
    ca_file = _readable(table, "ca_file", "/etc/aggregator-agent/ca.pem")
    timeout = table.integer("timeout_seconds", 30, 1, _MAX_TIMEOUT_SECONDS)
    return DoorSettings(url, ca_file, certificate, key, timeout)


def _readable(table: Table, name: str, example: str) -> Path | None:
    path = table.optional_path(name, example)
    if path is not None and not path.is_file():
        table.refuse(name, "names no file that is there; correct the path")
    return path


def _source(number: int, table: Table) -> SourceSettings:
    kind = table.text("kind", "wireguard")
    if kind not in SOURCES:
        table.refuse("kind", f"is no source; known are {', '.join(sorted(SOURCES))}")
    location = table.text("location", "us-nyc")
    if not is_location(location):
        table.refuse("location", "must be written like us-nyc")
    accounts = _accounts(table)
    if accounts is None and not SOURCES[kind].names_accounts:
        table.refuse("accounts", f"is missing; what {kind} calls its users is never sent")
    settings = _own_settings(table, SOURCES[kind].settings)
    table.close()
    return SourceSettings(number, kind, location, accounts, settings)


def _accounts(table: Table) -> AccountsSettings | None:
    file = _readable(table, "accounts", "/etc/aggregator-agent/accounts.csv")
    command = table.texts("accounts_command", '["/usr/local/bin/accounts", "--csv"]', ())
    if file is None and not command:
        return None
    if file is not None and command:
        table.refuse("accounts", "and accounts_command exclude each other; take one out")
    if file is not None:
        check_secret(file)
    return AccountsSettings(file, command)


def _own_settings(table: Table, kind: type[Any]) -> Hashable:
    """Return the settings that a source of this kind has of its own, as its dataclass names them.

    A mistake that only the collector knows is told by its dataclass as ConfigError.
    """
    hints = typing.get_type_hints(kind)
    values = {
        field.name: _own_setting(table, field, hints[field.name])
        for field in dataclasses.fields(kind)
    }
    settings: Hashable = kind(**values)
    return settings


def _own_setting(table: Table, field: dataclasses.Field[Any], kind: Any) -> Any:
    default = None if field.default is dataclasses.MISSING else field.default
    if kind is bool:
        return table.flag(field.name, default)
    if kind is int:
        return table.integer(field.name, default, 0, 2**31 - 1)
    if typing.get_origin(kind) is tuple:
        return table.texts(field.name, '["…"]', default)
    if isinstance(kind, types.UnionType) or default == "":
        # A text that may be left out, as None or as an empty text.
        value = table.optional(field.name, "…") or default
    else:
        value = table.text(field.name, "…", default)
    if value and field.name.endswith("_file") and any(word in field.name for word in _SECRET_WORDS):
        check_secret(Path(value))
    return value


def _check_twins(config: Config) -> None:
    """Raise ConfigError if two sources read the same: every byte would count twice."""
    seen: dict[Hashable, int] = {}
    for source in config.sources:
        first = seen.setdefault((source.kind, source.settings), source.number)
        if first != source.number:
            raise ConfigError(
                f"{config.file}: [[source]] {source.number}: reads the same as [[source]] {first}; "
                "take one out, or every byte counts twice"
            )
