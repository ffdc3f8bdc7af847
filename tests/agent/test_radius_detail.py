"""FreeRADIUS detail: captured files in, the known truth out; followed through rotations (CL-4)."""

from __future__ import annotations

import datetime as dt
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from captures import golden, goldens, said, text_of
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors.radius_detail import (
    RadiusDetailReader,
    Settings,
    connect,
    parse,
)
from aggregator.agent.readings import Capture, Drop, Origin, SilentSourceError, nowhere
from aggregator.errors import BadInputError

NOW = dt.datetime(2026, 11, 22, 7, 0, tzinfo=dt.UTC)
SECONDS = int(NOW.timestamp())
PRIVATE = re.compile(
    r"10\.\d+\.\d+|198\.51|203\.0\.113|fd\d\d:|2001:db8|0001|v6-1|alice|bob@|carol|179532\d{4}|\d:\d\d"
)


def truth() -> dict[tuple[str, str], int]:
    """Return the bytes of every session of the captures, as GROUND-TRUTH.txt has them."""
    found = {}
    for line in text_of("radius/GROUND-TRUTH.txt").splitlines()[1:]:
        user, session, *rest = re.split(r"\s{2,}|\s(?=[0-9])", line)
        numbers = re.findall(r"(?<![*^0-9+])[0-9]{3,}(?=\s|$)", " ".join(rest))
        found[user, session] = sum(map(int, numbers[:2]))
    return found


def stanza(
    status: str,
    at: int,
    received: int | None = None,
    *,
    user: str = "alice",
    session: str = "0001",
    nas: str = "nas-a",
    more: str = "",
) -> str:
    """Return a stanza as FreeRADIUS writes it."""
    lines = [
        f'\tNAS-Identifier = "{nas}"' if nas else "",
        f"\tAcct-Status-Type = {status}",
        f'\tUser-Name = "{user}"',
        f'\tAcct-Session-Id = "{session}"',
        "" if received is None else f"\tAcct-Input-Octets = {received}",
        more,
        f"\tTimestamp = {at}",
    ]
    return "Sun Nov 22 06:02:12 2026\n" + "".join(f"{line}\n" for line in lines if line) + "\n"


def counts(capture: Capture) -> list[int]:
    """Return the bytes of every session, smallest first."""
    return sorted(reading.bytes for reading in capture.readings)


def test_the_truth_is_read_as_it_is_written() -> None:
    assert truth() == {
        ("alice", "0001"): 4_344_968_000 + 9_294_967_296,
        ("alice", "0003"): 3_000,
        ("bob@example.org", "0002"): 65_000_000,
        ("bob@example.org", "0002'"): 6_000,
        ("carol", "v6-1"): 579,
        ("dave", "0009"): 1_665,
    }


@pytest.mark.parametrize("name", ["detail-nas4.txt", "detail-min.txt"])
def test_the_captures_hold_the_truth_to_the_byte(name: str) -> None:
    capture = parse(text_of(f"radius/{name}"))
    users = {user for user, _session in truth()}
    found = sorted((r.name, r.bytes) for r in capture.readings if r.name in users)
    assert found == sorted((user, count) for (user, _session), count in truth().items())


@pytest.mark.parametrize("name", goldens("radius"))
def test_captures_of_a_real_daemon(name: str) -> None:
    if name.endswith(".txt"):
        assert said(parse(text_of(name))) == golden(name)


def test_strings_are_unescaped_as_freeradius_escapes_them() -> None:
    lines = [line + "\n" for line in text_of("radius/odd-user-names.detail").splitlines()]
    names = []
    for line in lines:
        text = stanza("Stop", 1, 5).replace('\tUser-Name = "alice"\n', line)
        names += [reading.name for reading in parse(text + stanza("Stop", 1, 7)).readings[:-1]]
    assert names == ['ev"il', "zoë", " lead", "back\\slash"]
    assert sum("\\n" in line or "\\t" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (r'"zo\303\253"', "zoë"),
        (r'"it\'s"', "it's"),
        ("0x616c696365", "alice"),
        (r'"\\303"', r"\303"),
        ('"a\\\\"', "a\\"),
    ],
)
def test_other_spellings_of_a_string(value: str, name: str) -> None:
    (reading,) = parse(stanza("Stop", 1, 5).replace('"alice"', value)).readings
    assert reading.name == name


@pytest.mark.parametrize(
    "value", ['"a', "alice", r'"\x41"', r'"\400"', r'"\8"', '"a"b"', "0x6", "0xzz", r'"\"', ""]
)
def test_what_is_no_string_makes_a_stanza_unreadable(value: str) -> None:
    capture = parse(stanza("Stop", 1, 5).replace('"alice"', value) + stanza("Stop", 1, 7))
    assert counts(capture) == [7]
    assert capture.dropped == {Drop.UNREADABLE: 1}


def test_a_name_cannot_choose_its_bytes() -> None:
    capture = parse(stanza("Stop", 1, 5, user=r"a\n\tAcct-Input-Octets = 999\n\n"))
    assert counts(capture) == []
    assert capture.dropped == {Drop.BAD_FORMAT: 1}


@pytest.mark.parametrize("header", ["", "1795327332\n", "%{odd}: \t=\n", "a\nb\n", "\n"])
def test_the_header_may_be_anything(header: str) -> None:
    text = (stanza("Start", 1) + stanza("Stop", 1, 5)).replace("Sun Nov 22 06:02:12 2026\n", header)
    assert counts(parse(text)) == [5]
    assert not parse(text).dropped


def test_statuses_may_be_numbers_and_older_words() -> None:
    assert counts(parse(stanza("3", 1, 5) + stanza("Alive", 2, 7))) == [7]


def test_windows_line_ends_are_read() -> None:
    assert counts(parse(stanza("Stop", 1, 5).replace("\n", "\r\n"))) == [5]


def test_a_stanza_that_is_cut_off_is_unfinished() -> None:
    text = stanza("Stop", 1, 5) + stanza("Stop", 2, 7, session="0002").removesuffix("\n")
    capture = parse(text)
    assert counts(capture) == [5]
    assert capture.dropped == {Drop.UNFINISHED: 1}


def test_freeradius_pr_5835_one_bad_record_does_not_stop_the_queue() -> None:
    text = stanza("Stop", 1, 5)
    bad = [
        "rubbish\n\n",
        stanza("Bogus", 1, 9),
        stanza("Stop", 1, 2**32),
        stanza("Stop", 1, 9).replace("Input-Octets = 9", "Input-Octets = -9"),
        stanza("Stop", 1, 9).replace("\tUser-Name =", "\tUser-Name"),
        stanza("Stop", 1, 9, session=""),
        stanza("Stop", 1, 9, more='\tUser-Name = "mallory"'),
        stanza("Stop", 1, 9, more="\tAcct-Input-Octets = 10"),
    ]
    capture = parse("".join(bad) + text + "".join(bad))
    assert counts(capture) == [5]
    assert capture.dropped == {Drop.UNREADABLE: 2 * len(bad)}


def test_a_stanza_whose_writer_was_interrupted_gives_no_bytes_to_another() -> None:
    """FreeRADIUS was killed in the middle of it; what came next was written right behind."""
    whole = stanza("Stop", 1, 9, user="bob")
    for cut in range(1, len(whole) - 1):
        capture = parse(whole[:cut] + stanza("Stop", 2, 5) + stanza("Stop", 3, 7, user="carol"))
        found = {reading.name: reading.bytes for reading in capture.readings}
        assert found.get("alice", 5) == 5
        assert found.get("bob", 9) == 9
        assert found["carol"] == 7
        assert capture.dropped == ({Drop.UNREADABLE: 1} if cut > whole.index("\t") else {})


def test_of_several_calling_stations_the_first_is_the_origin() -> None:
    station = '\tCalling-Station-Id = "198.51.100.{}"'
    text = stanza("Start", 1, more="\n".join(station.format(n) for n in (7, 8)))
    asked = []

    def locate(address: str) -> Origin:
        asked.append(address)
        return Origin("DE", 3320)

    assert [c.origin for c in parse(text, locate).connections] == [Origin("DE", 3320)]
    assert asked == ["198.51.100.7"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\n",
        "hello alice\n",
        "hello\n\nalice\n\n",
        "\tAcct-Status-Type = Start\n",
        text_of("radius/odd-user-names.detail"),
        "\ud800",
    ],
)
def test_could_not_read_is_an_error_without_input_text(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(text)
    assert not PRIVATE.search(str(caught.value))
    assert "\n" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_is_a_capture_or_one_expected_error(text: str) -> None:
    good = stanza("Stop", 1, 5)
    with pytest.raises(BadInputError):
        parse(text)
    capture = parse(f"{good}{text}\n\n{good}")
    assert counts(capture) == [5]


@given(st.lists(st.sampled_from([*stanza("Stop", 1, 5).splitlines(), "", "\t", "x"]), max_size=20))
def test_any_mixture_of_lines_gives_the_true_bytes_or_none(lines: list[str]) -> None:
    capture = parse("".join(f"{line}\n" for line in lines) + "\n\n" + stanza("Stop", 1, 7, nas="b"))
    assert set(counts(capture)) <= {0, 5, 7}


@pytest.mark.parametrize("name", ["detail-nas4.txt", "detail-nas6.txt", "detail-min.txt"])
def test_cs_6_no_address_no_time_and_no_session_id_is_kept(name: str) -> None:
    capture = parse(text_of(f"radius/{name}"))
    assert not PRIVATE.search(repr(capture))
    kept = [(r.counter, r.bytes) for r in capture.readings]
    assert not PRIVATE.search(repr(kept + [c.key for c in capture.connections]))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[RadiusDetailReader]:
    """Return a reader of one file that is not there yet."""
    made = connect(Settings(str(tmp_path / "detail")), nowhere)
    yield made
    made.close()
    made.close()


def write(path: Path, text: str) -> None:
    """Append to a file, as FreeRADIUS does, at the instant NOW."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
    os.utime(path, (SECONDS, SECONDS))


def test_a_file_is_followed_from_its_beginning(reader: RadiusDetailReader, tmp_path: Path) -> None:
    detail = tmp_path / "detail"
    write(detail, text_of("radius/detail-nas4.txt"))
    assert counts(reader.read(NOW)) == counts(parse(text_of("radius/detail-nas4.txt")))
    write(detail, stanza("Start", SECONDS, session="new", user="erin"))
    whole = stanza("Interim-Update", SECONDS, 500, session="new", user="erin")
    write(detail, whole[:90])
    assert [r.bytes for r in reader.read(NOW).readings if r.name == "erin"] == [0]
    write(detail, whole[90:])
    capture = reader.read(NOW)
    assert [r.bytes for r in capture.readings if r.name == "erin"] == [500]
    assert not capture.dropped


def test_what_is_dropped_is_told_once(reader: RadiusDetailReader, tmp_path: Path) -> None:
    write(tmp_path / "detail", stanza("Stop", SECONDS, 5) + "rubbish\n\n")
    assert reader.read(NOW).dropped == {Drop.UNREADABLE: 1}
    assert not reader.read(NOW).dropped


def test_a_session_first_heard_of_later_without_its_start_counts_from_then_on(
    reader: RadiusDetailReader, tmp_path: Path
) -> None:
    """After a rotation in the night its beginning is in a file that nobody reads any more."""
    write(tmp_path / "detail", stanza("Start", SECONDS, session="other"))
    reader.read(NOW)
    write(tmp_path / "detail", stanza("Interim-Update", SECONDS + 60, 5_000_000))
    later = NOW + dt.timedelta(minutes=5)
    assert counts(reader.read(later)) == [0, 0]
    write(tmp_path / "detail", stanza("Interim-Update", SECONDS + 120, 5_000_100))
    assert counts(reader.read(later)) == [0, 100]


@pytest.mark.parametrize("in_the_old", [0, 1, 2])
def test_a_rotation_loses_nothing(
    reader: RadiusDetailReader, tmp_path: Path, in_the_old: int
) -> None:
    detail = tmp_path / "detail"
    write(detail, stanza("Start", SECONDS) + stanza("Interim-Update", SECONDS, 10))
    assert counts(reader.read(NOW)) == [10]
    write(detail, stanza("Interim-Update", SECONDS + 1, 20))
    detail.rename(tmp_path / "detail.1")
    for number in range(in_the_old):
        # FreeRADIUS had it open still.
        write(tmp_path / "detail.1", stanza("Interim-Update", SECONDS + 2, 30 + number))
    write(detail, stanza("Start", SECONDS + 3, session="0002"))
    later = NOW + dt.timedelta(seconds=30)
    assert counts(reader.read(later)) == [0, [20, 30, 31][in_the_old]]
    write(tmp_path / "detail.1", stanza("Interim-Update", SECONDS + 4, 40))
    write(detail, stanza("Interim-Update", SECONDS + 5, 7, session="0002"))
    assert counts(reader.read(later)) == [7, 40]


def test_between_a_rename_and_the_new_file_the_old_one_is_read(
    reader: RadiusDetailReader, tmp_path: Path
) -> None:
    detail = tmp_path / "detail"
    write(detail, stanza("Start", SECONDS) + stanza("Interim-Update", SECONDS, 10))
    reader.read(NOW)
    detail.rename(tmp_path / "detail.1")
    for number in range(5):
        write(tmp_path / "detail.1", stanza("Interim-Update", SECONDS + number, 20 + number))
        for _time in range(3):
            assert counts(reader.read(NOW + dt.timedelta(seconds=9))) == [20 + number]


def test_a_file_that_was_put_aside_is_let_go(reader: RadiusDetailReader, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(6):
        write(tmp_path / "detail", stanza("Stop", SECONDS, 5 + number, session=str(number)))
        reader.read(NOW)
        (tmp_path / "detail").rename(tmp_path / f"detail.{number}")
    write(tmp_path / "detail", stanza("Stop", SECONDS, 4, session="last"))
    for _time in range(4):
        reader.read(NOW)
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_a_file_that_was_cut_is_read_anew_and_counts_nothing_twice(
    reader: RadiusDetailReader, tmp_path: Path
) -> None:
    detail = tmp_path / "detail"
    write(detail, stanza("Start", SECONDS) + stanza("Interim-Update", SECONDS, 10))
    reader.read(NOW)
    detail.write_text("")
    assert counts(reader.read(NOW)) == [10]
    # Cut, and longer than before at the next reading.
    text = "".join(stanza("Interim-Update", SECONDS + n, 20 + n) for n in range(9))
    detail.write_text(text)
    os.utime(detail, (SECONDS, SECONDS))
    assert counts(reader.read(NOW + dt.timedelta(seconds=9))) == [28]
    more = stanza("Start", SECONDS + 9, session="0002")
    detail.write_text(text.replace("= 28\n", "= 40\n").replace("Sun", "Mon") + more)
    os.utime(detail, (SECONDS, SECONDS))
    assert counts(reader.read(NOW + dt.timedelta(seconds=9))) == [0, 40]


def test_a_short_file_that_was_cut_is_read_anew(reader: RadiusDetailReader, tmp_path: Path) -> None:
    detail = tmp_path / "detail"
    write(detail, stanza("Start", SECONDS, user="a-rather-long-name"))
    reader.read(NOW)
    detail.write_text(stanza("Start", SECONDS, user="bob"))
    os.utime(detail, (SECONDS, SECONDS))
    assert {r.name for r in reader.read(NOW).readings} == {"a-rather-long-name", "bob"}


def test_a_pattern_follows_a_folder_for_every_nas(tmp_path: Path) -> None:
    """Their records name no NAS: one id and user in two folders are two sessions."""
    reader = connect(Settings(str(tmp_path / "*" / "detail")), nowhere)
    for folder in ("10.77.0.1", "10.77.0.2"):
        write(tmp_path / folder / "detail", stanza("Start", SECONDS, nas=""))
        write(tmp_path / folder / "detail", stanza("Interim-Update", SECONDS + 1, 100, nas=""))
    later = NOW + dt.timedelta(minutes=1)
    assert counts(reader.read(later)) == [100, 100]
    # One of them is restarted, the other is not.
    write(tmp_path / "10.77.0.1" / "detail", stanza("Accounting-On", SECONDS + 2, nas=""))
    for folder in ("10.77.0.1", "10.77.0.2", "10.77.0.3"):
        write(tmp_path / folder / "detail", stanza("Start", SECONDS + 70, session="2", nas=""))
        write(tmp_path / folder / "detail", stanza("Interim-Update", SECONDS + 71, 300, nas=""))
    later = NOW + dt.timedelta(minutes=2)
    # The third one came when the agent ran: what it held before is not known.
    assert counts(reader.read(later)) == [0, 0, 0, 0, 100, 300, 300]
    assert not PRIVATE.search(repr([vars(tail) for tail in reader._tails.values()]))
    reader.close()


def test_one_file_of_several_nases_knows_no_restarts(
    reader: RadiusDetailReader, tmp_path: Path
) -> None:
    text = [
        stanza("Interim-Update", SECONDS, 100, nas=""),
        stanza("Accounting-On", SECONDS + 1, nas=""),
        stanza("Interim-Update", SECONDS + 2, 150, nas=""),
    ]
    write(tmp_path / "detail", "".join(text))
    assert counts(reader.read(NOW)) == [150]


def test_a_declared_nas_wraps(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path / "detail"), wraps_at_32_bits=("nas-a",))
    reader = connect(settings, nowhere)
    for nas in ("nas-a", "nas-b"):
        write(tmp_path / "detail", stanza("Interim-Update", SECONDS, 2**32 - 1, nas=nas))
        write(tmp_path / "detail", stanza("Interim-Update", SECONDS + 60, 9, nas=nas))
    assert counts(reader.read(NOW + dt.timedelta(minutes=2))) == [9, 2**32 - 1, 2**32 + 9]
    reader.close()


def test_an_absent_file_could_not_be_read(reader: RadiusDetailReader, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file") as caught:
        reader.read(NOW)
    assert str(tmp_path) not in str(caught.value)
    write(tmp_path / "detail", stanza("Stop", SECONDS, 5))
    assert counts(reader.read(NOW)) == [5]
    (tmp_path / "detail").unlink()
    for _time in range(2):
        reader.read(NOW)
    with pytest.raises(BadInputError, match="No such file"):
        reader.read(NOW)


def test_a_pattern_that_fits_nothing_could_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="check the path"):
        connect(Settings(str(tmp_path / "*" / "detail")), nowhere).read(NOW)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_could_not_be_read(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "detail")
    else:
        (tmp_path / "detail").mkdir()
    with pytest.raises(BadInputError, match="no regular file"):
        connect(Settings(str(tmp_path / "detail")), nowhere).read(NOW)


@pytest.mark.parametrize("text", ["rubbish\n\n", "x\n" * 5000, "y" * 3_000_000])
def test_a_file_that_never_was_a_detail_file_is_an_error(
    reader: RadiusDetailReader, tmp_path: Path, text: str
) -> None:
    write(tmp_path / "detail", text)
    with pytest.raises(BadInputError, match="no detail file"):
        reader.read(NOW)


def test_an_endless_stanza_is_one_bad_record(reader: RadiusDetailReader, tmp_path: Path) -> None:
    text = stanza("Stop", SECONDS, 5)
    write(tmp_path / "detail", text + "\tx = " + "y" * 5_000_000 + "\n\n" + text)
    capture = reader.read(NOW)
    assert counts(capture) == [5]
    assert capture.dropped == {Drop.UNREADABLE: 1}


def test_an_empty_file_is_nothing_to_read(reader: RadiusDetailReader, tmp_path: Path) -> None:
    write(tmp_path / "detail", "")
    assert not reader.read(NOW).readings


def test_marzban_1199_silence_is_not_zero(reader: RadiusDetailReader, tmp_path: Path) -> None:
    write(tmp_path / "detail", stanza("Start", SECONDS))
    assert counts(reader.read(NOW + dt.timedelta(seconds=3600))) == [0]
    with pytest.raises(SilentSourceError) as caught:
        reader.read(NOW + dt.timedelta(seconds=3601))
    assert not PRIVATE.search("".join(traceback.format_exception(caught.value)).split("Error:")[-1])
    write(tmp_path / "detail", stanza("Stop", SECONDS + 60, 5))
    # Nobody is connected: that nothing comes is no surprise.
    assert counts(reader.read(NOW + dt.timedelta(seconds=9999))) == [5]


def test_silence_may_be_allowed(tmp_path: Path) -> None:
    write(tmp_path / "detail", stanza("Start", SECONDS))
    reader = connect(Settings(str(tmp_path / "detail"), silent_after_seconds=0), nowhere)
    assert counts(reader.read(NOW + dt.timedelta(days=2))) == [0]
    reader.close()


def test_a_time_that_is_yet_to_come_is_now(reader: RadiusDetailReader, tmp_path: Path) -> None:
    write(tmp_path / "detail", stanza("Stop", 4_000_000_000, 5))
    reader.read(NOW)
    reader.read(NOW + dt.timedelta(days=2))
    write(tmp_path / "detail", stanza("Start", SECONDS + 3 * 86_400, session="0002"))
    write(tmp_path / "detail", stanza("Stop", SECONDS + 3 * 86_400, 7, session="0002"))
    assert counts(reader.read(NOW + dt.timedelta(days=4))) == [7]


def test_no_error_of_the_source_has_a_cause_that_shows_more(tmp_path: Path) -> None:
    made: Any = connect(Settings(str(tmp_path / "alice" / "detail")), nowhere)
    with pytest.raises(BadInputError) as caught:
        made.read(NOW)
    assert "alice" not in str(caught.value)
    assert caught.value.__cause__ is None
