"""The same records in any order, twice, in any number of files: the same bytes of every table."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from .cli import Home
from .conftest import ALL_CLOSED, ALL_IN, ALL_PURGED, Deployment, deploy
from .variants import VARIANTS, Variant, records_of, write


def test_a_second_rollup_changes_nothing(closed: Deployment) -> None:
    """CL-2: closing is idempotent; a closed day is frozen."""
    before = closed.home.digests("tables/")
    closed.home.rollup(ALL_CLOSED)
    assert closed.home.digests("tables/") == before


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_any_spelling_gives_the_same_tables(
    closed: Deployment, variant: Variant, tmp_path: Path
) -> None:
    """CS-2: duplicates, order, files, packing and escapes make no difference to any byte."""
    again = deploy(tmp_path, closed.month, variant)
    assert again.home.table_digests() == closed.home.table_digests()


def test_everything_twice_and_file_by_file(closed: Deployment, tmp_path: Path) -> None:
    """CS-2: a replay of whole files, one call a file, changes nothing."""
    records = records_of(closed.month)
    files = write(records, Variant("again", files=3, shuffled=True), tmp_path / "files")
    home = Home(tmp_path / "home").init()
    for path in (*files, *files[::-1]):
        home.ingest([path], ALL_IN)
    home.rollup(ALL_CLOSED)
    assert home.table_digests() == closed.home.table_digests()


def test_day_by_day_is_as_all_at_once(closed: Deployment, tmp_path: Path) -> None:
    """CS-2, CL-2: a host that works every day has the tables of one that catches up at the end."""
    home = Home(tmp_path / "home").init()
    records = records_of(closed.month)
    for day in sorted({record["day"] for record in records}):
        part = [record for record in records if record["day"] == day]
        now = dt.datetime.fromisoformat(f"{day}T01:00:00+00:00") + dt.timedelta(days=1)
        home.ingest(write(part, Variant(day, files=2), tmp_path / day), f"{now:%FT%TZ}")
        home.rollup(f"{now:%FT%TZ}")
    home.rollup(ALL_CLOSED)
    assert home.table_digests() == closed.home.table_digests()


def test_a_purge_that_has_to_close_gives_the_same_month(closed: Deployment, tmp_path: Path) -> None:
    """CL-2: after an outage the purge closes what is due by itself."""
    slow = deploy(tmp_path / "slow", closed.month, close=False)
    prompt = deploy(tmp_path / "prompt", closed.month)
    for done in (slow, prompt):
        done.home.purge(ALL_PURGED).expect(0)
    assert slow.home.table_digests() == prompt.home.table_digests()
