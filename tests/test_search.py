"""The search must find what is there, in every spelling, before its finding nothing counts."""

from __future__ import annotations

import base64
import gzip
import random
import secrets
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aggregator import app
from aggregator.model.days import parse_instant
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.ingest import ingest
from aggregator.pipeline.pseudonyms import pseudonym
from aggregator.pipeline.search import (
    WINDOW,
    Found,
    Needles,
    What,
    Where,
    search_folder,
    search_home,
)
from aggregator.stores.home import Home

NAME = "planted-account-7"
NOW = parse_instant("2026-10-06T00:20:00Z")
RECORD = (
    '{"record":"usage_counter.1","day":"2026-10-05","user":"%s","location":"us-nyc",'
    '"epoch":"9f3c2b7a11d04e55","bytes":1000}\n'
)


def searched(folder: Path, content: bytes, needles: Needles | None = None) -> Found:
    (folder / "file").write_bytes(content)
    return search_folder(folder, needles or Needles(names=(NAME,)))


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz", "/"])
@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode().hex().encode(),
        lambda text: text.encode().hex().upper().encode(),
        lambda text: base64.b64encode(text.encode()),
        lambda text: base64.urlsafe_b64encode(text.encode()).rstrip(b"="),
        lambda text: gzip.compress(text.encode()),
        lambda text: bytes(pa.compress(text.encode(), "zstd", asbytes=True)),
    ],
    ids=["utf-8", "utf-16-le", "utf-16-be", "hex", "HEX", "base64", "url", "gzip", "zstd"],
)
def test_finds_a_name_in_every_spelling(tmp_path, spell, before):
    found = searched(tmp_path, spell(f"{before}{NAME}, and more"))
    assert found.names == 1
    assert found.files_with(What.NAME) == ["file"]
    assert not found.is_clean


def test_finds_a_name_at_every_place_in_longer_base64_and_hex(tmp_path):
    for shift in range(6):
        whole = secrets.token_bytes(shift) + NAME.encode() + secrets.token_bytes(20)
        assert searched(tmp_path, b"key=" + base64.b64encode(whole) + b";").names == 1
        assert searched(tmp_path, b"a" + whole.hex().encode()).names == 1


def test_finds_nothing_where_nothing_is(tmp_path):
    found = searched(tmp_path, secrets.token_bytes(200_000) + b" planted account 7")
    assert found.is_clean
    assert (found.files, found.bytes, found.names) == (1, 200_018, 0)


def test_finds_a_name_in_parquet_that_its_bytes_hide(tmp_path):
    values = [f"{NAME[:8]}-{number}" for number in range(3000)] + [NAME] + ["zz"] * 3
    table = pa.table({"day": list(range(len(values))), "rows": [[{"who": one}] for one in values]})
    path = tmp_path / "table.parquet"
    pq.write_table(table, path, compression="zstd", write_statistics=False)
    assert NAME.encode() not in path.read_bytes()
    found = search_folder(tmp_path, Needles(names=(NAME,)))
    assert found.files_with(What.NAME, Where.BYTES) == []
    assert found.files_with(What.NAME, Where.DECODED) == ["table.parquet"]
    assert found.decoded == 1


def test_finds_a_number_in_parquet(tmp_path):
    number = 2**63 + 12345678901
    table = pa.table({"member": pa.array([*range(1000), number], pa.uint64())})
    pq.write_table(table, tmp_path / "table.parquet", compression="zstd")
    needles = Needles(pseudonyms=frozenset({number, 77_777_777_777}))
    assert search_folder(tmp_path, needles).pseudonyms == 1


@pytest.mark.parametrize("spell", [bytes, lambda part: part.hex().encode(), base64.b64encode])
def test_any_window_of_a_secret_counts(tmp_path, spell):
    # Neither what stands around a part here nor what joins readings, so that no byte beside a
    # part that is too short happens to be the next one of the secret.
    secret = bytes(random.Random(1).choices(range(0x20, 0xFF), k=257))
    needles = Needles(secrets=(secrets.token_bytes(64), secret))
    for start in (0, 1, 7, 8, 100, len(secret) - WINDOW):
        part = spell(secret[start : start + WINDOW])
        assert searched(tmp_path, b"\x00" * start + part + b"\x01", needles).secrets == 1
        short = spell(secret[start : start + WINDOW - 1])
        assert searched(tmp_path, b"\x00" * start + short + b"\xff", needles).secrets == 0


def test_a_name_in_a_file_name_is_found_and_not_told(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / f"{NAME}.txt").write_bytes(b"nothing")
    found = search_folder(tmp_path, Needles(names=(NAME,)))
    assert found.names == 1
    assert [one.where for one in found.sightings] == [Where.FILE_NAME]
    assert NAME not in repr(found)


def test_what_cannot_be_decoded_is_named_not_passed_over(tmp_path):
    found = searched(tmp_path, b"PAR1 this is no table PAR1")
    assert found.unread == ("file",)
    assert not found.is_clean


def test_needles_do_not_print():
    assert NAME not in repr(Needles(names=(NAME,), secrets=(b"secret",)))


@pytest.fixture
def house(tmp_path: Path) -> Deployment:
    home = Home(tmp_path / "home")
    app.create(home, parse_instant("2026-10-05T00:00:00Z"), rehearsal=True, accept_weak=True)
    (tmp_path / "in.ndjson").write_text("".join(RECORD % user for user in (NAME, "acct-2")))
    with app.open_to_write(home, NOW, NOW) as opened:
        assert ingest(opened, [str(tmp_path / "in.ndjson")]).accepted == 2
    return app.open_to_read(home, NOW, NOW)


def test_an_account_is_found_by_pseudonym_only_where_its_key_is(house):
    keys = house.month_keys("2026-10")
    block = house.keys.path("2026-10").read_bytes().partition(b"\n")[2]
    number = pseudonym(NAME.encode(), keys)
    needles = Needles((NAME, "acct-absent"), secrets=(block,))
    found = search_home(house, needles)
    assert (found.names, found.pseudonyms, found.secrets) == (0, 1, 1)
    (sealed,) = found.files_with(What.PSEUDONYM, Where.SEGMENT)
    assert sealed.startswith("raw/2026-10/2026-10-05/usage.")
    assert found.files_with(What.SECRET) == ["keys/2026-10.key"]
    assert (found.opened, found.sealed) == (1, 0)

    house.keys.destroy("2026-10")
    later = search_home(house, Needles((NAME,), frozenset({number}), (block,)))
    assert (later.names, later.pseudonyms, later.secrets) == (0, 0, 0)
    assert (later.opened, later.sealed) == (0, 1)


def test_a_damaged_segment_is_named(house):
    (path,) = house.segments.files("2026-10")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    found = search_home(house, Needles(names=(NAME,)))
    assert found.pseudonyms == 0
    assert found.unread == ("raw/2026-10/2026-10-05 (usage)",)
