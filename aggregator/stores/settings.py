"""The sections [mail] and [directory] of config.toml, checked before anything is done with them."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import idna

from aggregator.errors import ConfigError
from aggregator.model.settings import (
    DirectoryKind,
    DirectorySettings,
    MailSettings,
    Secret,
    Security,
)

MAIL: Final = frozenset(
    {
        "host", "port", "security", "from", "desk", "reply_to", "to_user", "username",
        "password_file", "password_env", "ca_file", "timeout_seconds", "per_minute",
        "digest_over", "language", "service_name", "templates",
    }
)  # fmt: skip
DIRECTORY: Final = frozenset(
    {
        "kind", "path", "url", "url_file", "url_env", "query", "token_file", "token_env",
        "ca_file", "command", "timeout_seconds",
    }
)  # fmt: skip

_PORTS: Final = {Security.STARTTLS: 587, Security.TLS: 465, Security.NONE: 25}
# What may stand between the angle brackets or alone: a local part, and a domain with a dot or none.
_ADDRESS: Final = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[^\s@<>,;:\"()\[\]\\]{1,253}")
_NAMED: Final = re.compile(r"(?:([^<>\"\r\n]{0,128}?)\s*<([^<>]+)>|([^<>]+))")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
# What each kind of directory needs, and may have besides `kind` and `timeout_seconds`.
_NEEDS: Final[Mapping[DirectoryKind, tuple[str, ...]]] = {
    DirectoryKind.CSV: ("path",),
    DirectoryKind.SQL: ("url", "query"),
    DirectoryKind.HTTP: ("url",),
    DirectoryKind.COMMAND: ("command",),
}
_MAY: Final[Mapping[DirectoryKind, frozenset[str]]] = {
    DirectoryKind.CSV: frozenset({"path"}),
    DirectoryKind.SQL: frozenset({"url", "url_file", "url_env", "query"}),
    DirectoryKind.HTTP: frozenset(
        {"url", "url_file", "url_env", "token_file", "token_env", "ca_file"}
    ),
    DirectoryKind.COMMAND: frozenset({"command"}),
}

Member = TypeVar("Member", bound=enum.StrEnum)


def mail(table: Any, root: Path) -> MailSettings | None:
    """Return the settings in [mail], None without the section; ConfigError names what is wrong."""
    if table is None:
        return None
    section = _Section("mail", table, root)
    _refuse_unknown("mail", section.table, MAIL)
    security = section.choice("security", Security, Security.STARTTLS)
    host = section.text("host")
    if security is Security.NONE and not is_loopback(host):
        raise ConfigError(
            'config.toml has mail.security = "none" for a server that is not on this machine:'
            ' mail would travel readable; use "starttls" or "tls"'
        )
    username = section.optional("username")
    password = section.secret("password")
    if (username is None) != (password is None):
        raise ConfigError(
            "config.toml needs mail.username together with mail.password_file or mail.password_env"
        )
    return MailSettings(
        host=host,
        port=section.integer("port", _PORTS[security], 1, 65_535),
        security=security,
        sender=section.mailbox("from") or section.text("from"),
        desk=section.addresses("desk"),
        reply_to=section.mailbox("reply_to"),
        to_user=section.flag("to_user"),
        username=username,
        password=password,
        ca_file=section.path("ca_file"),
        timeout_seconds=section.integer("timeout_seconds", 30, 1, 600),
        per_minute=section.integer("per_minute", 0, 0, 1_000_000),
        digest_over=section.integer("digest_over", 3, 0, 1_000_000),
        language=section.language("language") or "en",
        service_name=section.optional("service_name") or "the VPN service",
        templates=section.path("templates"),
    )


def directory(table: Any, root: Path) -> DirectorySettings | None:
    """Return the settings in [directory], None without it; ConfigError names what is wrong."""
    if table is None:
        return None
    section = _Section("directory", table, root)
    _refuse_unknown("directory", section.table, DIRECTORY)
    kind = section.choice("kind", DirectoryKind, None)
    strange = sorted(set(table) - _MAY[kind] - {"kind", "timeout_seconds"})
    if strange:
        raise ConfigError(f"config.toml's directory of kind {kind} does not take {strange[0]}")
    url = section.secret("url") or section.optional("url")
    if "url" in table and isinstance(url, Secret):
        raise ConfigError("config.toml names directory.url twice; give it in one way")
    for name in _NEEDS[kind]:
        if name not in table and not (name == "url" and url):
            raise ConfigError(f"config.toml's directory of kind {kind} needs {name}")
    return DirectorySettings(
        kind=kind,
        path=section.path("path"),
        url=url,
        query=section.optional("query"),
        token=section.secret("token"),
        ca_file=section.path("ca_file"),
        command=section.words("command"),
        timeout_seconds=section.integer("timeout_seconds", 300, 1, 86_400),
    )


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine itself, so that nothing travels."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_unknown(name: str, table: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(f"config.toml has an unknown setting in [{name}]: {unknown[0]!a}")


class _Section:
    """One section under reading: each setting by its type, wrong ones named and never repeated."""

    def __init__(self, name: str, table: Any, root: Path) -> None:
        if not isinstance(table, dict):
            raise ConfigError(f"config.toml needs {name} as a table, begun by [{name}]")
        self.name = name
        self.table: Mapping[str, Any] = table
        self.root = root

    def wrong(self, name: str, what: str) -> ConfigError:
        return ConfigError(f"config.toml needs {self.name}.{name} as {what}")

    def optional(self, name: str) -> str | None:
        value = self.table.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.wrong(name, "a text that is not empty")
        return value

    def text(self, name: str) -> str:
        value = self.optional(name)
        if value is None:
            raise self.wrong(name, "a text that is not empty")
        return value

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        value = self.table.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, f"int ({least} to {most})")
        return value

    def flag(self, name: str) -> bool:
        value = self.table.get(name, False)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def choice(self, name: str, kinds: type[Member], default: Member | None) -> Member:
        value = self.table.get(name)
        if value is None and default is not None:
            return default
        found = {member.value: member for member in kinds}
        if not isinstance(value, str) or value not in found:
            raise self.wrong(name, f"one of {', '.join(found)}")
        return found[value]

    def path(self, name: str) -> str | None:
        value = self.optional(name)
        return None if value is None else str(self.root / value)

    def secret(self, name: str) -> Secret | None:
        file, variable = self.path(f"{name}_file"), self.optional(f"{name}_env")
        if file and variable:
            raise ConfigError(f"config.toml names {self.name}.{name} twice; give it in one way")
        return Secret(file, variable) if file or variable else None

    def words(self, name: str) -> tuple[str, ...]:
        value = self.table.get(name, [])
        good = isinstance(value, list) and all(isinstance(word, str) and word for word in value)
        if not good or (name in self.table and not value):
            raise self.wrong(name, "a list of words, the program first")
        return tuple(value)

    def addresses(self, name: str) -> tuple[str, ...]:
        value = self.table.get(name)
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list) or not several:
            raise self.wrong(name, "an address, or a list of addresses")
        if not all(isinstance(one, str) and _is_address(one) for one in several):
            raise self.wrong(name, "an address, or a list of addresses")
        return tuple(dict.fromkeys(several))

    def mailbox(self, name: str) -> str | None:
        value = self.optional(name)
        if value is not None and not _is_mailbox(value):
            raise self.wrong(name, "an address, alone or as: Name <address>")
        return value

    def language(self, name: str) -> str | None:
        value = self.optional(name)
        if value is not None and _LANGUAGE.fullmatch(value) is None:
            raise self.wrong(name, "a language tag, such as en")
        return value


def _is_address(text: str) -> bool:
    """Say whether mail can go to `text`: its domain is one by IDNA, as mail is sent by it."""
    if not text.isprintable() or _ADDRESS.fullmatch(text) is None:
        return False
    try:
        idna.encode(text.rpartition("@")[2], uts46=True)
    except (idna.IDNAError, UnicodeError):
        return False
    return True


def _is_mailbox(text: str) -> bool:
    """Say whether `text` is an address, alone or in angle brackets after a name."""
    found = _NAMED.fullmatch(text)
    return found is not None and text.isprintable() and _is_address(found[2] or found[3])
