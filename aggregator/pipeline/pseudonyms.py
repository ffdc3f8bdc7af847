"""Accounts become pseudonyms in memory, before any step that can fail (CV-3, CT-3).

A pseudonym is the keyed BLAKE2b of the account's UTF-8 bytes, 64 bits long. Its key is random,
of one month, and destroyed with it: then nothing leads from one to the other.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa

from aggregator.stores.keys import MonthKeys


def pseudonym(account: bytes, keys: MonthKeys) -> int:
    """Return the pseudonym of one account."""
    return int.from_bytes(blake2b(account, digest_size=8, key=keys.pseudonym).digest(), "little")


def pseudonyms(accounts: pa.ChunkedArray, keys: MonthKeys) -> pa.Array:
    """Return the pseudonyms of a binary column of accounts, as uint64."""
    encoded = accounts.combine_chunks().dictionary_encode()
    key = keys.pseudonym
    digests = b"".join(
        [
            blake2b(account, digest_size=8, key=key).digest()
            for account in encoded.dictionary.to_pylist()
        ]
    )
    numbers = np.frombuffer(digests, dtype="<u8")
    return pa.array(numbers[encoded.indices.to_numpy()], pa.uint64())
