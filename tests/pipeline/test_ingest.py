"""Ingest: what order, number and cut of files do not change; which months have keys; refusals."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from support import ALL_CLOSED, ALL_IN, ALL_PURGED, TinyHome, crowd, flags, month, usage

from aggregator.errors import IntegrityError
from aggregator.pipeline import intake as module
from aggregator.pipeline.pseudonyms import pseudonym


@pytest.fixture
def home(tmp_path: Path) -> TinyHome:
    return TinyHome.make(tmp_path / "home")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the tables of a home that got every line once, in one file."""
    home = TinyHome.make(tmp_path_factory.mktemp("once") / "home")
    home.ingest(month(days=(1, 2)))
    home.rollup()
    return home.tables()


@pytest.mark.parametrize("how", ["shuffled", "twice", "files", "runs", "sealed often"])
def test_order_repetition_and_cut_change_no_byte_of_a_table(
    home: TinyHome, expected: dict[str, bytes], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = month(days=(1, 2))
    random.Random(how).shuffle(lines)
    match how:
        case "twice":
            lines *= 2
        case "sealed often":
            monkeypatch.setattr(module, "BUFFERED_ROWS", 50)
            monkeypatch.setattr("aggregator.stores.source.CHUNK_BYTES", 4000)
    if how == "runs":
        for part in range(12):
            home.ingest(lines[part::12])
    else:
        home.ingest(lines, parts=9 if how == "files" else 1)
    home.rollup()
    assert home.tables() == expected


def test_each_month_in_a_file_goes_into_its_own(home: TinyHome) -> None:
    lines = [
        *crowd("2026-09-30", range(20)), *crowd("2026-10-01", range(20)),
        flags("2026-09-30"), flags("2026-10-01"),
    ]  # fmt: skip
    random.Random(1).shuffle(lines)
    home.ingest(lines, "2026-10-02T00:00:00Z")
    house = home.read(ALL_IN)
    assert house.keys.months() == house.segments.months() == ["2026-09", "2026-10"]
    assert house.segments.days("2026-09") == ["2026-09-30"]
    home.rollup("2026-10-02T12:00:00Z")
    home.purge("2026-10-03T00:00:00Z")
    assert home.read(ALL_IN).keys.months() == ["2026-10"]
    home.rollup("2026-10-03T00:00:00Z")
    total = sum(1000 + number for number in range(20))
    assert home.usage() == {
        ("2026-09-30", "us-nyc"): (20, total),
        ("2026-10-01", "us-nyc"): (20, total),
    }


def test_keys_are_made_when_first_needed(home: TinyHome) -> None:
    house = home.read(ALL_IN)
    assert house.keys.months() == []
    home.ingest(["not json", usage("2026-12-24")])
    assert house.keys.months() == []
    home.ingest([usage()])
    made = house.keys.load("2026-10")
    home.ingest([usage("2026-10-06")])
    assert house.keys.months() == ["2026-10"]
    assert house.keys.load("2026-10") == made


@pytest.mark.parametrize("left", [b"", b"half", bytes(4096)])
def test_keys_half_made_by_a_killed_run_stop_nothing(home: TinyHome, left: bytes) -> None:
    (home.root / "keys" / "2026-10.new").write_bytes(left)
    assert home.ingest([usage()]).accepted == 1


def test_lost_keys_are_told_with_what_to_do(home: TinyHome) -> None:
    home.ingest([usage()])
    (home.root / "keys" / "2026-10.key").unlink()
    with pytest.raises(IntegrityError, match=r"restore keys/2026-10\.key, or remove raw/2026-10"):
        home.ingest([usage()])
    assert home.read(ALL_IN).keys.months() == []


def test_damaged_keys_are_never_replaced_in_silence(home: TinyHome) -> None:
    home.ingest([usage()])
    path = home.root / "keys" / "2026-10.key"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="2026-10 is damaged"):
        home.ingest([usage()])


def test_late_after_close_is_taken_and_no_closed_table_changes(home: TinyHome) -> None:
    home.ingest(crowd("2026-10-05", range(20)))
    home.rollup()
    before = home.tables()
    assert home.ingest(crowd("2026-10-05", range(30), size=5000), ALL_CLOSED).accepted == 30
    assert home.rollup().days == ()
    assert home.tables() == before


def test_days_of_a_purged_month_are_refused_by_clock_and_by_watermark(home: TinyHome) -> None:
    """CV-5: from the purge instant on, whether or not the purge has run."""
    home.ingest([usage()])
    refused = home.ingest([usage()], "2026-11-03T00:00:00Z")
    assert (refused.accepted, refused.reasons) == (0, {"day_purged": 1})
    home.purge(ALL_PURGED)
    refused = home.ingest([usage()], ALL_PURGED)
    assert (refused.accepted, refused.reasons) == (0, {"day_purged": 1})
    # A clock set back does not reopen it.
    refused = home.ingest([usage()], ALL_IN)
    assert (refused.accepted, refused.reasons) == (0, {"day_purged": 1})
    assert home.files("raw") == home.files("keys") == {}


def test_a_rejections_location_is_kept_only_where_an_accepted_record_named_it(
    home: TinyHome,
) -> None:
    """CT-3: else a name that looks like a location would be kept."""
    bad = '{"record":"usage_counter.1","day":"2026-10-05","location":"%s","ip":"x"}'
    outcome = home.ingest([bad % "john-doe", bad % "us-nyc", bad % "de-fra", usage()])
    assert outcome.rejected == 3
    rows = {row["location"]: row["records"] for row in home.rows("rejections_daily")}
    assert rows == {"us-nyc": 1, "unknown": 2}
    assert not [name for name, data in home.files().items() if b"john-doe" in data]


def test_made_up_locations_do_not_fill_the_memory(
    home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANY_REJECTIONS", 50)
    monkeypatch.setattr("aggregator.stores.source.CHUNK_BYTES", 2000)
    held: list[int] = []
    count = module.Intake._count

    def counted(run: module.Intake, checked: module.Checked, build: str) -> None:
        count(run, checked, build)
        held.append(len(run.uncounted))

    monkeypatch.setattr(module.Intake, "_count", counted)
    bad = '{"record":"usage_counter.1","day":"2026-10-05","location":"made-%04d","ip":"x"}'
    outcome = home.ingest([usage(), *(bad % number for number in range(3000))])
    assert outcome.rejected == 3000
    assert len(held) > 50
    assert max(held) < 120


def test_rejections_add_up_by_arrival_day(home: TinyHome) -> None:
    home.ingest(["{", "{", usage(user="")], "2026-10-05T10:00:00Z")
    home.ingest(["{"], "2026-10-05T23:59:00Z")
    home.ingest(["{"], "2026-10-06T00:00:00Z")
    counts = {
        (str(row["day"]), row["reason"]): row["records"] for row in home.rows("rejections_daily")
    }
    assert counts.pop(("2026-10-05", "not_json")) == 3
    assert counts.pop(("2026-10-06", "not_json")) == 1
    assert sum(counts.values()) == 1


def test_good_records_of_a_bad_file_and_of_its_neighbours_are_in(
    home: TinyHome, tmp_path: Path
) -> None:
    good, cut = tmp_path / "good", tmp_path / "cut"
    good.write_text(usage() + "\n")
    cut.write_bytes(gzip.compress((usage(user="b") + "\n").encode() * 9) + b"\x1f\x8b\x08")
    outcome = home.ingest_files([tmp_path / "absent", cut, tmp_path, good])
    assert outcome.accepted >= 1
    assert len(outcome.unreadable) == 3
    assert home.audit("ingest")[-1]["unreadable"] == 3


def test_no_name_reaches_the_disk(home: TinyHome) -> None:
    """CT-3, CV-3: not the account, nor in the clear its pseudonym."""
    name = "planted.person@example.org"
    home.ingest([*crowd("2026-10-05", range(20)), usage(user=name)])
    keys = home.read(ALL_IN).keys.load("2026-10")
    assert keys is not None
    number = pseudonym(name.encode(), keys)
    home.rollup()
    forms = [name.encode(), b"planted", number.to_bytes(8, "little"), str(number).encode()]
    hits = [path for path, data in home.files().items() if any(form in data for form in forms)]
    assert hits == []


def test_the_same_account_has_one_pseudonym_a_month_and_another_the_next(home: TinyHome) -> None:
    home.ingest([usage("2026-09-30"), usage("2026-10-01")], "2026-10-02T00:00:00Z")
    house = home.read(ALL_IN)
    september, october = house.keys.load("2026-09"), house.keys.load("2026-10")
    assert september is not None
    assert october is not None
    assert pseudonym(b"acct-1", october) == pseudonym(b"acct-1", october)
    assert pseudonym(b"acct-1", october) != pseudonym(b"acct-1", september)
    assert pseudonym(b"acct-1", october) != pseudonym(b"acct-2", october)


def test_a_rejection_holds_only_words_from_closed_lists(home: TinyHome) -> None:
    outcome = home.ingest(['{"record":"usage_counter.1","jane roe":"10.0.0.1"}'])
    assert outcome.reasons == {"unknown_field": 1}
    (row,) = home.rows("rejections_daily")
    assert (row["field"], row["location"], row["json_type"]) == ("unknown", "unknown", "none")
