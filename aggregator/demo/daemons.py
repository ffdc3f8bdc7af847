"""What captures of real daemons say, and what is kept of it.

The captures were taken from WireGuard (wireguard-go 0.0.20220316) and OpenVPN 2.6.14 on a test
network; they hold no private key, and their addresses lead nowhere.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.resources
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from aggregator.agent.accounts import name_accounts, parse_accounts
from aggregator.agent.collectors import SOURCES
from aggregator.agent.readings import Capture
from aggregator.agent.totals import RunningTotals
from aggregator.model.records import UsageCounter

# The epochs of two agents; a real agent draws one at every start.
_WIREGUARD_EPOCH: Final = "00000000000000a1"
_OPENVPN_EPOCH: Final = "00000000000000a2"

_WIREGUARD: Final = ("01-handshake", "04-tcp", "07-reconnected", "14-after-restart")
_OPENVPN: Final = ("01-connected", "03-tcp", "07-reconnected", "10b-server-usr1-clients-back")
MOMENTS: Final = ("first", "after traffic", "reconnected", "after restart")
"""When each of a daemon's four captures was taken."""

_DROPPED: Final = "dropped"
_FATES: Final = {
    "Common Name": "kept: the account",
    "Bytes Received": "kept: added up",
    "Bytes Sent": "kept: added up",
    "Connected Since (time_t)": "local: tells sessions apart",
    "Client ID": "local: tells sessions apart",
}


@dataclasses.dataclass(frozen=True, slots=True)
class ClientField:
    """One field of a client in a status file, and what becomes of it."""

    name: str
    value: str
    fate: str


@dataclasses.dataclass(frozen=True, slots=True)
class SourceRead:
    """What one daemon's captures say, one at each of `MOMENTS`.

    `shown` has the (sessions, bytes) of each account in each, None where it is absent; `records`
    are the running totals that an agent sends.
    """

    source: str
    location: str
    shown: Mapping[str, Sequence[tuple[int, int] | None]]
    dropped: Mapping[str, int]
    records: Sequence[UsageCounter]


@dataclasses.dataclass(frozen=True, slots=True)
class DaemonsRead:
    """All captures read: one client field by field, and both daemons' accounts."""

    client: Sequence[ClientField]
    sources: Sequence[SourceRead]

    @property
    def records(self) -> list[UsageCounter]:
        """What the agents of both daemons send."""
        return [record for source in self.sources for record in source.records]


def read_daemons(day: dt.date) -> DaemonsRead:
    """Read the shipped captures as if they were taken on `day`."""
    accounts = parse_accounts(_text("accounts.csv"))
    captures = [SOURCES["wireguard"].parse(_text(f"wireguard-{one}.txt")) for one in _WIREGUARD]
    named = [name_accounts(capture, accounts) for capture in captures]
    wireguard = _source("wireguard", "is-rey", _WIREGUARD_EPOCH, named, day)
    captures = [SOURCES["openvpn"].parse(_text(f"openvpn-{one}.txt")) for one in _OPENVPN]
    openvpn = _source("openvpn", "mt-mla", _OPENVPN_EPOCH, captures, day)
    return DaemonsRead(_client(_text(f"openvpn-{_OPENVPN[0]}.txt")), (wireguard, openvpn))


def _text(name: str) -> str:
    folder = importlib.resources.files("aggregator.demo") / "captures"
    return (folder / name).read_text("utf-8")


def _source(
    source: str, location: str, epoch: str, captures: Sequence[Capture], day: dt.date
) -> SourceRead:
    totals = RunningTotals(SOURCES[source])
    dropped: Counter[str] = Counter()
    for capture in captures:
        totals = totals.after(capture, day)
        dropped.update({reason.value: count for reason, count in capture.dropped.items()})
    names = sorted({one.account for capture in captures for one in capture.readings if one.account})
    shown = {name: [_account(capture, name) for capture in captures] for name in names}
    return SourceRead(source, location, shown, dropped, totals.records(location, epoch))


def _account(capture: Capture, name: str) -> tuple[int, int] | None:
    counts = [one.bytes for one in capture.readings if one.account == name]
    return (len(counts), sum(counts)) if counts else None


def _client(status: str) -> list[ClientField]:
    """Return the fields of the first client in an OpenVPN status file of version 2."""
    lines = [line.split(",") for line in status.splitlines()]
    names = next(line[2:] for line in lines if line[:2] == ["HEADER", "CLIENT_LIST"])
    values = next(line[1:] for line in lines if line[0] == "CLIENT_LIST")
    return [
        ClientField(name, value, _FATES.get(name, _DROPPED))
        for name, value in zip(names, values, strict=True)
    ]
