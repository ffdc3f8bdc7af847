"""The sections of config.toml, checked before anything is done with them, and made into records.

All mistakes are found at once, and none of them repeats a value.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aggregator.errors import ConfigError
from aggregator.model.config_table import (
    BY_SECTION,
    DIRECTORY_NEEDS,
    OF_THE_HOME,
    SECRETS,
    SECTIONS,
    Mistake,
    of_directory,
    ways,
)
from aggregator.model.settings import (
    OFF,
    DashboardSettings,
    DirectoryKind,
    DirectorySettings,
    MailSettings,
    Secret,
    Security,
    WatchSettings,
)
from aggregator.stores.values import fault, host_and_port, is_loopback, shown

__all__ = [
    "PORTS", "DoorConfig", "dashboard", "directory", "door", "first_of", "is_loopback", "mail",
    "mistakes", "raise_first", "schedule", "watch",
]  # fmt: skip

Table = Mapping[str, Any]

PORTS: Final = {Security.STARTTLS: 587, Security.TLS: 465, Security.NONE: 25}


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


def mistakes(data: Table) -> list[Mistake]:
    """Return everything that is wrong with the settings in `data`, section by section."""
    known = [section.name for section in SECTIONS]
    found = [_unknown(name, known) for name in data if name not in (*known, *OF_THE_HOME)]
    for name in known:
        found += _of_section(name, data.get(name))
    return found + list(_between(data))


def raise_first(found: Iterable[Mistake]) -> None:
    """Raise ConfigError of one line if there is a mistake; it says how many more there are."""
    line = first_of(found)
    if line is not None:
        raise ConfigError(line)


def first_of(found: Iterable[Mistake]) -> str | None:
    """Return one line about the first mistake, None if there is none."""
    every = list(found)
    if not every:
        return None
    more = f" ({len(every) - 1} more: aggregator config check)" if len(every) > 1 else ""
    return f"{every[0]}{more}"


def _of_section(name: str, table: Any) -> list[Mistake]:
    """Return what is wrong in one section; None is a section that is not there."""
    settings = BY_SECTION[name]
    if table is None and any(section.name == name and section.apart for section in SECTIONS):
        return []
    if table is not None and not isinstance(table, dict):
        return [Mistake(name, f"{name} must be a table", f"begin it by a line [{name}]")]
    table = table or {}
    found = [_unknown(key, settings, name) for key in table if key not in settings]
    for setting in settings.values():
        if setting.name in table:
            what = fault(setting, table[setting.name])
            remedy = f"write it like {setting.name} = {shown(setting.example)}"
            if what is not None:
                found.append(Mistake(setting.path, f"{setting.path} {what}", remedy))
        elif setting.needed:
            remedy = f"add {setting.name} = {shown(setting.example)} to [{name}]"
            found.append(Mistake(setting.path, f"{setting.path} is missing", remedy))
    wrong = {mistake.setting for mistake in found}
    return found + [one for one in _RULES.get(name, _nothing)(table) if one.setting not in wrong]


def _unknown(key: str, known: Iterable[str], section: str = "") -> Mistake:
    """Return that `key` is no setting, with the known name that it looks like."""
    told = ascii(key) if len(key) <= 40 else "one with a long name"
    near = difflib.get_close_matches(key, list(known), 1)
    where = f" in [{section}]" if section else ""
    remedy = f"did you mean {near[0]}?" if near else "take it out, or see: aggregator config schema"
    path = f"{section}.{key}" if section else key
    return Mistake(path, f"unknown setting: {told}{where}", remedy)


def _nothing(_table: Table) -> Iterator[Mistake]:
    return iter(())


def _given(table: Table, path: str) -> list[str]:
    """Return the settings in `table` that give what has this full name."""
    return [name for name in ways(path) if name in table]


def _twice(table: Table, section: str) -> Iterator[Mistake]:
    for secret in SECRETS:
        given = _given(table, secret) if secret.startswith(section + ".") else []
        if len(given) > 1:
            what = f"{secret} is given twice: {' and '.join(given)}"
            yield Mistake(f"{section}.{given[1]}", what, "leave one of them")


def _mail_rules(table: Table) -> Iterator[Mistake]:
    host = table.get("host")
    if table.get("security") == Security.NONE and isinstance(host, str) and not is_loopback(host):
        yield Mistake(
            "mail.security",
            'mail.security = "none" is for a server on this machine: mail would travel readable',
            'use "starttls" or "tls"',
        )
    password = _given(table, "mail.password")
    if ("username" in table) != bool(password):
        at = "mail.username" if "username" in table else f"mail.{password[0]}"
        what = "mail.username and mail.password_… belong together"
        yield Mistake(at, what, "set both, or neither")
    yield from _twice(table, "mail")


def _directory_rules(table: Table) -> Iterator[Mistake]:
    kind = table.get("kind")
    if isinstance(kind, str) and kind in set(DirectoryKind):
        allowed = of_directory(DirectoryKind(kind))
        for name in BY_SECTION["directory"]:
            if name in table and name not in allowed:
                what = f"directory.{name} is not of a directory of kind {kind}"
                yield Mistake(f"directory.{name}", what, "take it out, or correct kind")
        for name in DIRECTORY_NEEDS[DirectoryKind(kind)]:
            if not _given(table, f"directory.{name}"):
                what = f"a directory of kind {kind} needs directory.{name}"
                yield Mistake("directory.kind", what, f"add {name} to [directory]")
    yield from _twice(table, "directory")


_RULES: Final[Mapping[str, Callable[[Table], Iterator[Mistake]]]] = {
    "mail": _mail_rules,
    "directory": _directory_rules,
    "watch": functools.partial(_twice, section="watch"),
    "dashboard": functools.partial(_twice, section="dashboard"),
}


def _between(data: Table) -> Iterator[Mistake]:
    """Yield what is wrong with settings that need another section."""
    for setting, section, why in (
        ("mail.to_user", "directory", "for the addresses of users"),
        ("watch.alert", "mail", "for the server that sends it"),
    ):
        name, _, key = setting.partition(".")
        table = data.get(name)
        if isinstance(table, dict) and table.get(key) and section not in data:
            yield Mistake(setting, f"{setting} needs [{section}] {why}", f"add [{section}]")


def mail(table: Any, root: Path) -> MailSettings | None:
    """Return the settings in [mail], None without the section; ConfigError names what is wrong."""
    found = _checked("mail", table, root)
    if found is None:
        return None
    security = found.choice(Security, "security")
    return MailSettings(
        host=found["host"],
        port=found.get("port") or PORTS[security],
        security=security,
        sender=found["from"],
        desk=found.several("desk"),
        reply_to=found.get("reply_to"),
        to_user=found["to_user"],
        username=found.get("username"),
        password=found.secret("password"),
        ca_file=found.path("ca_file"),
        timeout_seconds=found["timeout_seconds"],
        per_minute=found["per_minute"],
        digest_over=found["digest_over"],
        language=found["language"],
        service_name=found["service_name"],
        templates=found.path("templates"),
    )


def directory(table: Any, root: Path) -> DirectorySettings | None:
    """Return the settings in [directory], None without it; ConfigError names what is wrong."""
    found = _checked("directory", table, root)
    if found is None:
        return None
    return DirectorySettings(
        kind=DirectoryKind(found["kind"]),
        path=found.path("path"),
        url=found.get("url") or found.secret("url"),
        query=found.get("query"),
        token=found.secret("token"),
        ca_file=found.path("ca_file"),
        command=tuple(found.get("command") or ()),
        timeout_seconds=found["timeout_seconds"],
    )


def watch(table: Any, root: Path) -> WatchSettings:
    """Return the settings in [watch], which may be missing; ConfigError names what is wrong."""
    found = _checked("watch", {} if table is None else table, root)
    assert found is not None
    listen = found.get("metrics_listen")
    return WatchSettings(
        alert=found.several("alert"),
        repeat_hours=found["repeat_hours"],
        ping_url=found.get("ping_url") or found.secret("ping_url"),
        metrics_file=found.path("metrics_file"),
        metrics_listen=None if listen is None else host_and_port(listen),
    )


def schedule(table: Any) -> Mapping[str, str]:
    """Return the times that [schedule] gives; ConfigError names what is wrong.

    Of each job: five fields of cron with single spaces, in lower case, or "off".
    """
    found = {} if table is None else table
    raise_first(_of_section("schedule", found))
    # A way of writing that every reader of cron takes.
    return {
        name: OFF if one == OFF else " ".join(one.lower().split()) for name, one in found.items()
    }


def door(table: Any, root: Path) -> DoorConfig:
    """Return the settings in [door], which may be missing; ConfigError names what is wrong."""
    found = _checked("door", {} if table is None else table, root)
    assert found is not None
    host, port = host_and_port(found["listen"])
    certificate, private_key, client_ca = (
        root / found[name] if name in found.table else None
        for name in ("certificate", "private_key", "client_ca")
    )
    free = found["min_free_mib"]
    return DoorConfig(host, port, found.get("url"), certificate, private_key, client_ca, free)


def dashboard(table: Any, root: Path) -> DashboardSettings:
    """Return the settings in [dashboard], which may be missing; ConfigError names what is wrong."""
    found = _checked("dashboard", {} if table is None else table, root)
    assert found is not None
    return DashboardSettings(host_and_port(found["listen"]), found.secret("password"))


def _checked(name: str, table: Any, root: Path) -> _Section | None:
    if table is None:
        return None
    raise_first(_of_section(name, table))
    return _Section(name, table, root)


@dataclasses.dataclass(frozen=True, slots=True)
class _Section:
    """One section that was checked: each setting's value, or its default."""

    name: str
    table: Table
    root: Path

    def get(self, name: str) -> Any:
        return self.table.get(name, BY_SECTION[self.name][name].default)

    def __getitem__(self, name: str) -> Any:
        value = self.get(name)
        assert value is not None
        return value

    def choice(self, kinds: type[Security], name: str) -> Security:
        return kinds(self[name])

    def path(self, name: str) -> str | None:
        value = self.table.get(name)
        return None if value is None else str(self.root / value)

    def several(self, name: str) -> tuple[str, ...]:
        value = self.table.get(name, ())
        return tuple(dict.fromkeys([value] if isinstance(value, str) else value))

    def secret(self, name: str) -> Secret | None:
        file, command = self.path(f"{name}_file"), tuple(self.table.get(f"{name}_command", ()))
        variable = self.table.get(f"{name}_env")
        credential = self.table.get(f"{name}_credential")
        if not (file or variable or credential or command):
            return None
        return Secret(file, variable, credential, command)
