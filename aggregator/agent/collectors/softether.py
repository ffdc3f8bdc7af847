"""SoftEther: users as `vpncmd /CSV` or the JSON-RPC API shows them, and live over that API.

The number is virtual Ethernet frames, 14 bytes more than IP each; unicast and broadcast, both
directions (broadcasts of other users are received as well). It is cumulative for a user of a hub,
over sessions and orderly restarts, and lags up to 10 seconds behind; a crash lets it fall back to
what was saved last (measured with 5.01.9674). The user `*`, in whose name the server counts
everybody that an outer directory knows, is nobody's account.

Captures of sessions show what each session moved; sessions have other keys than users, so that the
two cannot be mixed. Names of sessions are used again after a restart.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final

from aggregator.agent.collectors.json_text import json_values
from aggregator.agent.collectors.softether_csv import (
    BY_SESSION,
    BY_USER,
    Row,
    Session,
    User,
    rows,
    total,
)
from aggregator.agent.readings import (
    UNKNOWN_ORIGIN,
    Capture,
    Connection,
    Drop,
    Locate,
    Origin,
    Reading,
    account_drop,
    nowhere,
)
from aggregator.errors import BadInputError

_EVERYBODY: Final = "*"
_NO_CLIENT: Final = ("BridgeMode_bool", "LinkMode_bool", "SecureNATMode_bool", "Layer3Mode_bool")
_COUNTERS: Final = tuple(
    f"{way}.{cast}Bytes_u64" for way in ("Recv", "Send") for cast in ("Unicast", "Broadcast")
)
_BY_HUB: Final = "hub and user"
_BY_HUB_SESSION: Final = "hub, session and start"
_ERROR_CODE: Final = re.compile(r"-?[0-9]{1,9}")
_WRAPPERS: Final = ("result", "UserList", "SessionList")
# How deep rows may be wrapped in lists and objects.
_DEPTH: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """One virtual hub, and how its server is asked.

    The password is the hub's, or the server's if `hub_login` is off; the hub's has the least
    rights. `certificate_file` (PEM) pins the server's certificate, which is self-signed as a rule;
    without it only a server on this host may be asked, and its certificate is not looked at.
    Without `connections` the list of sessions, with the addresses of clients, is never asked for.
    """

    hub: str
    password_file: str
    url: str = "https://127.0.0.1:5555/api/"
    certificate_file: str = ""
    hub_login: bool = True
    connections: bool = True
    timeout_seconds: int = 10


def parse(text: str, locate: Locate = nowhere, /) -> Capture:
    """Return the users of a hub, or sessions, of which each is a connection as well.

    The text is an answer of EnumUser, GetUser or EnumSession (bare, in its JSON-RPC envelope, or
    its rows as JSON lines), or what `vpncmd /CSV` prints of UserList, UserGet, SessionList or
    SessionGet. BadInputError if it is empty, cut off, an error, or nothing in it can be read.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise BadInputError("is empty: the server told nothing")
    if text.lstrip()[0] in "{[":
        values = json_values(text)
        keyed_by = _BY_HUB_SESSION if '"SessionList"' in text else _BY_HUB
        return _capture(_of_json(values, None), keyed_by, locate)
    keyed_by, found = rows(text)
    return _capture(found, keyed_by, locate)


def _capture(found: Iterable[Row | None], expected: str, locate: Locate) -> Capture:
    dropped: Counter[Drop] = Counter()
    readings: dict[Hashable, Reading] = {}
    connections: dict[Hashable, Connection] = {}
    keyed_by: str | None = None
    for row in found:
        if row is None:
            dropped[Drop.UNREADABLE] += 1
            continue
        keyed_by = keyed_by or _keyed_by(row)
        reading = _reading(row) if _keyed_by(row) == keyed_by else Drop.UNREADABLE
        if isinstance(row, Session):
            connections[_key(row)] = _connection(row, locate)
        if isinstance(reading, Drop):
            dropped[reading] += 1
            continue
        known = readings.setdefault(reading.counter, reading)
        if known is not reading:
            dropped[Drop.REPEATED] += 1
            readings[reading.counter] = max(known, reading, key=lambda either: either.bytes)
    if set(dropped) == {Drop.UNREADABLE} and not (readings or connections):
        raise BadInputError("holds no user and no session that can be read")
    return Capture(
        tuple(readings.values()), dropped, keyed_by or expected, tuple(connections.values())
    )


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _User:
    """One counter of a user, to be recognised in the next capture: never printed, never sent."""

    hub: str | None
    name: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Session:
    """One session; where its start is not shown, one after a restart may look the same."""

    hub: str | None
    name: str
    began: str | None


def _keyed_by(row: Row) -> str:
    if isinstance(row, User):
        return BY_USER if row.hub is None else _BY_HUB
    return BY_SESSION if row.began is None else _BY_HUB_SESSION


def _key(row: Row) -> Hashable:
    if isinstance(row, User):
        return _User(row.hub, row.name)
    return _Session(row.hub, row.name, row.began)


def _reading(row: Row) -> Reading | Drop:
    if row.bytes is None:
        return Drop.UNREADABLE
    name = row.name if isinstance(row, User) else row.user
    if name == _EVERYBODY:
        return Drop.UNMAPPED
    return account_drop(name) or Reading(name, name, _key(row), row.bytes)


def _connection(row: Session, locate: Locate) -> Connection:
    """Return the connection of a session; its address ends here (promise CS-1)."""
    account = None if account_drop(row.user) else row.user
    return Connection(_key(row), row.user, account, _origin(row.host, locate), established=True)


def _origin(host: str, locate: Locate) -> Origin:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # The name of a host, where the server looks names up.
        return UNKNOWN_ORIGIN
    return locate(host)


# -- the API -----------------------------------------------------------------------------------


def _of_json(values: Iterable[Any], hub: str | None, depth: int = _DEPTH) -> Iterator[Row | None]:
    for value in values:
        if isinstance(value, list) and depth:
            yield from _of_json(value, hub, depth - 1)
        elif not isinstance(value, dict):
            yield None
        elif "error" in value:
            raise BadInputError(f"is an error of the server, code {_code(value['error'])}")
        elif "Name_str" in value:
            yield from _row(value, hub)
        else:
            named = value.get("HubName_str", hub)
            inner = [value[key] for key in _WRAPPERS if key in value] if depth else []
            if inner:
                yield from _of_json(inner, named if isinstance(named, str) else None, depth - 1)
            else:
                yield None


def _code(error: Any) -> str:
    """Return the number of an error; its text is localised, and may name what was asked for."""
    code = error.get("code") if isinstance(error, dict) else None
    known = isinstance(code, str) and _ERROR_CODE.fullmatch(code) is not None
    return str(code) if known else "unknown"


def _row(value: Mapping[str, Any], hub: str | None) -> Iterator[Row | None]:
    """Yield the user or the session of one object; nothing for a bridge, a cascade or a NAT."""
    words = {key: word for key, word in value.items() if isinstance(word, str)}
    hub = words.get("HubName_str", hub)
    if "Name_str" not in words:
        yield None
    elif "Username_str" not in words:
        yield User(words["Name_str"], hub, _traffic(value))
    elif not any(value.get(flag) is True for flag in _NO_CLIENT):
        yield Session(
            words["Username_str"],
            hub,
            total(words.get("PacketSize_u64", "")),
            words["Name_str"],
            words.get("CreatedTime_dt"),
            words.get("ClientIP_ip", ""),
        )


def _traffic(value: Mapping[str, Any]) -> int | None:
    """Return the bytes of a user; a list has `Ex.` before their names, a single user has not."""
    if value.get("IsTrafficFilled_bool") is False:
        # A member of a cluster that was not asked: its zeros are no numbers.
        return None
    counts = [value.get(f"Ex.{name}", value.get(name)) for name in _COUNTERS]
    return total(*(count if isinstance(count, str) else "" for count in counts))


class SoftEtherReader:
    """Asks one server for the users of a hub, and for its sessions if they are wanted."""

    def __init__(self, settings: Settings, locate: Locate) -> None:
        """Ask the server that `settings` names; ConfigError if it cannot be asked safely."""
        # TLS loads where it is needed only.
        from aggregator.agent.collectors.softether_api import Api  # noqa: PLC0415 - see above

        self._wants_connections = settings.connections
        self._locate = locate
        self._api = Api(
            settings.url,
            settings.hub,
            settings.password_file,
            settings.certificate_file,
            settings.hub_login,
            settings.timeout_seconds,
        )

    def read(self, _now: dt.datetime) -> Capture:
        """Return the users of the hub, and its sessions as connections.

        BadInputError if the server cannot be reached, shows another certificate, refuses the
        password, answers too late, or with anything but what was asked for.
        """
        users = parse(self._api.answer("EnumUser"))
        if users.keyed_by != _BY_HUB:
            raise BadInputError("the server answered with something else than users of a hub")
        if not self._wants_connections:
            return users
        sessions = parse(self._api.answer("EnumSession"), self._locate)
        # A session shows the name as the client typed it; the server takes it in any case.
        names = {reading.name.casefold(): reading.name for reading in users.readings}
        return dataclasses.replace(
            users,
            connections=tuple(_as_listed(each, names) for each in sessions.connections),
        )

    def close(self) -> None:
        """Nothing is held between two reads."""


def _as_listed(connection: Connection, names: Mapping[str, str]) -> Connection:
    name = names.get((connection.name or "").casefold())
    if name is None:
        return connection
    return dataclasses.replace(connection, name=name, account=name)


def connect(settings: Settings, locate: Locate) -> SoftEtherReader:
    """Return a reader of one hub; ConfigError if the settings are not safe to use."""
    return SoftEtherReader(settings, locate)
