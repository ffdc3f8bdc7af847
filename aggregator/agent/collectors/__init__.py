"""The daemons whose counters can be read: one source, one file, one row of `SOURCES`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from aggregator.agent.collectors import (
    openvpn,
    radius_detail,
    radius_receiver,
    softether,
    strongswan,
    wireguard,
)
from aggregator.agent.readings import Capture, Locate, Reader, nowhere
from aggregator.agent.resets import ResetRule, from_saved, from_zero


class Parse(Protocol):
    """Turns captured text into a capture, or raises BadInputError."""

    def __call__(self, text: str, locate: Locate = nowhere, /) -> Capture:
        """Return what `text` says; an address in it is seen by `locate` and by nothing else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """How one daemon is read and how its counters behave.

    `parse` is for captures given as text. `reset` says what a smaller
    number means. `counters_return`: a counter that vanished may come back under its key, so its
    last value must be remembered. `names_accounts`: the daemon's own names are accounts; otherwise
    the operator's map is needed before anything can be sent. `settings` is the frozen dataclass of
    the source's own settings in the agent's configuration, and `connect` opens a reader with them.
    """

    parse: Parse
    reset: ResetRule
    counters_return: bool
    names_accounts: bool
    settings: type[Any]
    connect: Callable[[Any, Locate], Reader]


SOURCES: Final[Mapping[str, Source]] = MappingProxyType(
    {
        "wireguard": Source(
            wireguard.parse,
            from_zero,
            counters_return=True,
            names_accounts=False,
            settings=wireguard.Settings,
            connect=wireguard.connect,
        ),
        "openvpn": Source(
            openvpn.parse,
            from_zero,
            counters_return=False,
            names_accounts=True,
            settings=openvpn.Settings,
            connect=openvpn.connect,
        ),
        "radius": Source(
            radius_receiver.parse,
            from_zero,
            counters_return=False,
            names_accounts=True,
            settings=radius_receiver.Settings,
            connect=radius_receiver.connect,
        ),
        "radius-detail": Source(
            radius_detail.parse,
            from_zero,
            counters_return=False,
            names_accounts=True,
            settings=radius_detail.Settings,
            connect=radius_detail.connect,
        ),
        "strongswan": Source(
            strongswan.parse,
            from_zero,
            counters_return=False,
            names_accounts=True,
            settings=strongswan.Settings,
            connect=strongswan.connect,
        ),
        "softether": Source(
            softether.parse,
            from_saved,
            counters_return=True,
            names_accounts=True,
            settings=softether.Settings,
            connect=softether.connect,
        ),
    }
)
