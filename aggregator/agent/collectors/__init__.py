"""The daemons whose counters can be read: one source, one file, one row of `SOURCES`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from aggregator.agent.collectors import openvpn, wireguard
from aggregator.agent.readings import Capture
from aggregator.agent.resets import ResetRule, from_zero


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """How one daemon is read and how its counters behave.

    `parse` turns captured text into a capture, or raises BadInputError. `reset` says what a
    smaller number means. `counters_return`: a counter that vanished may come back under its key,
    so its last value must be remembered. `names_accounts`: the daemon's own names are accounts;
    otherwise the operator's map is needed before anything can be sent.
    """

    parse: Callable[[str], Capture]
    reset: ResetRule
    counters_return: bool
    names_accounts: bool


SOURCES: Final[Mapping[str, Source]] = MappingProxyType(
    {
        "wireguard": Source(wireguard.parse, from_zero, counters_return=True, names_accounts=False),
        "openvpn": Source(openvpn.parse, from_zero, counters_return=False, names_accounts=True),
    }
)
