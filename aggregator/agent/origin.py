"""From an address to its country and provider, by databases in MaxMind's format (promise CS-1).

Any such database will do: GeoLite2, DB-IP, IPinfo. A newer file is taken up while the agent runs;
it must replace the old one by a rename, as `geoipupdate` does: a file that is overwritten in place
is mapped into memory meanwhile.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aggregator.agent.readings import UNKNOWN_ORIGIN, Origin
from aggregator.agent.settings import file_signature
from aggregator.errors import ConfigError
from aggregator.model.countries import COUNTRIES, UNKNOWN_COUNTRY

if TYPE_CHECKING:
    import maxminddb

_LOOK_AGAIN_SECONDS: Final = 60.0
_MAX_ASN: Final = 2**32 - 1
_ASN: Final = re.compile(r"(?:AS)?([0-9]{1,10})", re.IGNORECASE)
# How OpenVPN 2.7 begins an address, and how strongSwan ends one.
_PROTOCOL: Final = re.compile(r"(?:tcp|udp)[46]?(?:-server|-client)?:", re.IGNORECASE)
_BRACKETED_PORT: Final = re.compile(r"\[[0-9]{1,5}\]$")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Locator:
    """Tells the origin of addresses; is a `Locate`. Remembers no address."""

    def __init__(
        self,
        country_path: Path | None,
        asn_path: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the databases that are given; ConfigError if one of them cannot be.

        `clock` tells seconds, to look for newer files once a minute at most.
        """
        self._clock = clock
        self._looked_at = clock()
        self._country = None if country_path is None else _Database.open(country_path)
        self._asn = None if asn_path is None else _Database.open(asn_path)

    def __call__(self, text: str) -> Origin:
        """Return the origin of an address: with or without port, brackets, zone, protocol.

        What is no public address, or in no database, has the unknown origin.
        """
        address = _public_address(text)
        if address is None:
            return UNKNOWN_ORIGIN
        self._look_again()
        country = UNKNOWN_COUNTRY if self._country is None else _country(self._country.get(address))
        return Origin(country, 0 if self._asn is None else _asn(self._asn.get(address)))

    def faults(self) -> list[str]:
        """Return one line for every database that is not what its file is now, or is damaged."""
        found = (self._country, self._asn)
        return [database.fault for database in found if database is not None and database.fault]

    def close(self) -> None:
        """Let go of the files; every origin is unknown from now on."""
        for database in (self._country, self._asn):
            if database is not None:
                database.reader.close()
        self._country = self._asn = None

    def _look_again(self) -> None:
        now = self._clock()
        if now - self._looked_at < _LOOK_AGAIN_SECONDS:
            return
        self._looked_at = now
        for database in (self._country, self._asn):
            if database is not None:
                database.renew()


@dataclasses.dataclass(slots=True)
class _Database:
    """One file, open; `fault` says what is wrong with it at present, empty if nothing is."""

    path: Path
    signature: tuple[int, ...]
    reader: maxminddb.Reader
    fault: str = ""

    @classmethod
    def open(cls, path: Path) -> _Database:
        signature = file_signature(path)
        return cls(path, signature, _opened(path))

    def get(self, address: _Address) -> dict[str, Any]:
        """Return the record of `address`, empty if there is none."""
        from maxminddb import InvalidDatabaseError  # noqa: PLC0415 - only where origins are told

        try:
            record = self.reader.get(address)
        except InvalidDatabaseError:
            self.fault = f"{self.path}: is damaged; fetch it anew"
            return {}
        except ValueError:
            # An IPv6 address, and a database of IPv4 alone.
            return {}
        return record if isinstance(record, dict) else {}

    def renew(self) -> None:
        """Open the file anew if it changed; go on with the old one if that fails."""
        signature = file_signature(self.path)
        if signature == self.signature:
            return
        try:
            reader = _opened(self.path)
        except ConfigError as error:
            self.fault = f"{error}; the one before is still used"
            return
        self.reader.close()
        self.reader, self.signature, self.fault = reader, signature, ""


def _opened(path: Path) -> maxminddb.Reader:
    try:
        import maxminddb  # noqa: PLC0415 - needed only where origins are told
    except ImportError:
        raise ConfigError("[origin] needs the Python package maxminddb; install it") from None
    try:
        return maxminddb.open_database(path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"{path}: cannot be read: {why}; correct the path") from None
    except (maxminddb.InvalidDatabaseError, ValueError):
        raise ConfigError(f"{path}: is no database in MaxMind's format; fetch it anew") from None


def _public_address(text: str) -> _Address | None:
    """Return the address in `text`, None if there is none or it is not on the public Internet."""
    host = text.strip()
    if prefix := _PROTOCOL.match(host):
        host = host[prefix.end() :]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    else:
        host = _BRACKETED_PORT.sub("", host)
        if host.count(":") == 1:
            host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address if address.is_global else None


def _country(record: dict[str, Any]) -> str:
    """Return the country that a record names, in the shapes of MaxMind, DB-IP and IPinfo."""
    country = record.get("country")
    nested = country.get("iso_code") if isinstance(country, dict) else None
    # IPinfo has the name in `country` where `country_code` is beside it.
    for code in (nested, record.get("country_code"), country):
        if isinstance(code, str) and code.upper() in COUNTRIES:
            return code.upper()
    return UNKNOWN_COUNTRY


def _asn(record: dict[str, Any]) -> int:
    """Return the number of the provider's network that a record names, 0 if it names none."""
    for value in (record.get("autonomous_system_number"), record.get("asn")):
        found = _ASN.fullmatch(value) if isinstance(value, str) else None
        number = value if found is None else int(found[1])
        if type(number) is int and 0 <= number <= _MAX_ASN:
            return number
    return 0
