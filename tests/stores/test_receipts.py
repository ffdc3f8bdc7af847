"""Exactly one receipt a month (CV-5, CL-2)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aggregator.errors import IntegrityError
from aggregator.stores.receipts import ReceiptStore


def test_the_first_receipt_stays(tmp_path: Path) -> None:
    store = ReceiptStore(tmp_path)
    store.write_intent("2026-10", {"month": "2026-10"})
    assert (store.intents(), store.months()) == (["2026-10"], [])
    assert store.purged_through() == "2026-10"
    store.write("2026-10", {"n": 1})
    digest = store.digest("2026-10")
    store.write("2026-10", {"n": 2})
    assert store.read("2026-10") == {"n": 1}
    assert store.digest("2026-10") == digest
    assert (store.intents(), store.months()) == ([], ["2026-10"])
    assert store.read_intent("2026-10") is None


def test_a_killed_purge_leaves_receipt_and_intent_and_the_receipt_counts(tmp_path: Path) -> None:
    store = ReceiptStore(tmp_path)
    store.write("2026-10", {"n": 1})
    store.write_intent("2026-10", {"n": 0})
    store.write("2026-10", {"n": 2})
    assert store.read("2026-10") == {"n": 1}
    assert store.intents() == []


def test_the_watermark_is_the_last_month(tmp_path: Path) -> None:
    store = ReceiptStore(tmp_path)
    assert store.purged_through() == ""
    for month in ("2026-09", "2025-12", "2026-08"):
        store.write(month, {})
    assert store.purged_through() == "2026-09"
    assert store.months() == ["2025-12", "2026-08", "2026-09"]


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00" * 20, json.dumps("x")])
def test_a_damaged_receipt_is_told(tmp_path: Path, text: str) -> None:
    store = ReceiptStore(tmp_path)
    store.path("2026-10").write_text(text)
    with pytest.raises(IntegrityError, match="receipt-purge-2026-10"):
        store.read("2026-10")
