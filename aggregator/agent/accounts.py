"""From the daemon's names to accounts: the operator's map, which stays on the VPN server."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping

from aggregator.agent.readings import Capture, Drop, Reading, account_drop
from aggregator.errors import BadInputError

AccountMap = Mapping[str, str | Drop]


def parse_accounts(text: str) -> AccountMap:
    """Read CSV of two columns, key and account; a first line `key,account` is a header.

    Several keys may share an account. An account that no record may carry is kept as its reason.
    BadInputError names the line of a row that has not two columns, or of a key that is there twice.
    """
    accounts: dict[str, str | Drop] = {}
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), skipinitialspace=True)
    try:
        for number, row in enumerate(rows):
            if not row or (number == 0 and row == ["key", "account"]):
                continue
            if len(row) != 2:
                raise BadInputError(f"line {rows.line_num} has not two columns, key and account")
            key, account = row[0].strip(), row[1].strip()
            if key in accounts:
                raise BadInputError(f"line {rows.line_num} names a key for the second time")
            accounts[key] = account_drop(account) or account
    except csv.Error:
        # The library's message may quote the line.
        raise BadInputError(f"line {rows.line_num} is not CSV") from None
    return accounts


def name_accounts(capture: Capture, accounts: AccountMap) -> Capture:
    """Return `capture` with every account taken from the map.

    A reading without a usable account is counted as dropped, but stays as a counter that is
    charged to nobody: if it left, a key that is mapped later would be charged its history.
    """
    dropped = Counter(capture.dropped)
    readings = []
    for reading in capture.readings:
        account = accounts.get(reading.name, Drop.UNMAPPED)
        if isinstance(account, Drop):
            dropped[account] += 1
        readings.append(_named(reading, None if isinstance(account, Drop) else account))
    connections = tuple(
        dataclasses.replace(connection, account=_account(accounts, connection.name))
        for connection in capture.connections
    )
    return dataclasses.replace(
        capture, readings=tuple(readings), dropped=dropped, connections=connections
    )


def _named(reading: Reading, account: str | None) -> Reading:
    return dataclasses.replace(reading, account=account)


def _account(accounts: AccountMap, name: str | None) -> str | None:
    found = None if name is None else accounts.get(name)
    return None if isinstance(found, Drop) else found
