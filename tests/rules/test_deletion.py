"""A purge is a plan with reasons before it happens (CL-2, CV-5)."""

from __future__ import annotations

import pytest

from aggregator.rules.deletion import Item, Kind, expired, plan

ITEMS = [
    Item("raw/2026-10/b.seg", Kind.SEGMENT, "2026-10", 7),
    Item("tables/usage_daily/day=2026-10-05.parquet", Kind.TABLE, "2026-10", 9),
    Item("keys/2026-10.key", Kind.KEYS, "2026-10", 64),
    Item("raw/2026-10/a.seg", Kind.SEGMENT, "2026-10", 5),
    Item("outbox/2026-10/n", Kind.NOTICE, "2026-10", 3),
    Item("keys/2026-11.key", Kind.KEYS, "2026-11", 64),
    Item("raw/2026-09/a.seg", Kind.SEGMENT, "2026-09", 5),
]


def test_cl2_a_purge_takes_its_own_month_keys_first() -> None:
    steps = plan("2026-10", (item for item in ITEMS if item.kind is not Kind.TABLE))
    assert [(step.action, step.item.path) for step in steps] == [
        ("destroy", "keys/2026-10.key"),
        ("remove", "raw/2026-10/a.seg"),
        ("remove", "raw/2026-10/b.seg"),
        ("remove", "outbox/2026-10/n"),
    ]
    assert all("2026-10" in step.reason and "{" not in step.reason for step in steps)


def test_the_plan_is_the_same_whatever_the_order_of_the_files() -> None:
    assert plan("2026-10", ITEMS) == plan("2026-10", ITEMS[::-1])
    assert plan("2026-08", ITEMS) == []


@pytest.mark.parametrize(
    ("of", "purged", "kept", "goes"),
    [
        ("2026-10", "2026-10", 0, False),
        ("2020-01", "2026-10", 0, False),
        ("2026-10", "2026-10", 1, False),
        ("2026-10", "2026-11", 1, False),
        ("2026-10", "2026-12", 1, True),
        ("2025-10", "2026-10", 12, False),
        ("2025-09", "2026-10", 12, True),
        ("2025-12", "2026-01", 1, False),
        ("2025-11", "2026-01", 1, True),
    ],
)
def test_cv5_a_table_goes_when_its_retention_is_over(
    of: str, purged: str, kept: int, goes: bool
) -> None:
    item = Item(f"tables/usage_daily/{of}.parquet", Kind.TABLE, of, 1)
    other = Item(f"tables/apps_daily/{of}.parquet", Kind.TABLE, of, 1)
    keys = Item(f"keys/usage_daily/{of}", Kind.KEYS, of, 1)
    steps = expired([item, other, keys], purged, {"usage_daily": kept})
    assert [step.item for step in steps] == [item] * goes
    assert all(step.action == "remove" and f"{kept} months" in step.reason for step in steps)
