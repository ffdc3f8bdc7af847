"""Rows: what is read, what is malformed, and that no part of it is taken for the whole."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.directory import entries, rows
from aggregator.directory.errors import BrokenError, Trouble
from aggregator.model.settings import DirectoryKind, DirectorySettings, Entry

from . import places
from .places import MARK

_FORBIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
ACCOUNTS = st.text(st.characters(exclude_categories=_FORBIDDEN), min_size=1, max_size=128)
WORDS = st.none() | st.text(
    st.characters(exclude_categories=(*_FORBIDDEN, "Zs")), min_size=1, max_size=40
)
ENTRIES = st.builds(
    Entry,
    account=ACCOUNTS,
    address=WORDS,
    language=st.none() | st.sampled_from(["de", "fr-CA", "zh-Hant-TW"]),
    plan=WORDS,
    exempt=st.booleans(),
    objects=st.booleans(),
    restricted=st.booleans(),
)
FIELDS = ("account", "address", "language", "plan", "exempt", "objects", "restricted")


def parsed(data: bytes, *, json_too: bool = True, size: int = 3) -> list[entries.Row]:
    found: list[entries.Row] = []
    reads = (data[at : at + rows.READ_BYTES] for at in range(0, len(data), rows.READ_BYTES))
    for batch in rows.batches(reads, size, json_too=json_too):
        assert len(batch.rows) <= size
        entries.verify(batch.rows, len(found))
        found += batch.rows
    return found


def broken(data: bytes | str, *, json_too: bool = True) -> tuple[Trouble, Any]:
    with pytest.raises(BrokenError) as raised:
        parsed(data.encode() if isinstance(data, str) else data, json_too=json_too)
    return raised.value.trouble, raised.value.n


@given(
    people=st.lists(ENTRIES, min_size=1, max_size=8, unique_by=lambda one: one.account),
    order=st.permutations(FIELDS),
    end=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from(",;"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    data=st.data(),
)
def test_what_was_written_as_csv_is_found_again(
    people: list[Entry],
    order: tuple[str, ...],
    end: str,
    delimiter: str,
    quoting: Any,
    bom: bytes,
    data: st.DataObject,
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow([name.title() for name in order])
    for one in people:
        values = [getattr(one, name) for name in order]
        writer.writerow(["" if value is None else value for value in values])
    wanted = data.draw(st.sets(st.sampled_from([one.account for one in people])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "accounts.csv"
        path.write_bytes(bom + text.getvalue().encode())
        found = places.ask(DirectorySettings(DirectoryKind.CSV, path=str(path)), wanted)
    assert found == {one.account: one for one in people if one.account in wanted}


@given(st.lists(ENTRIES, min_size=1, max_size=6), st.lists(st.integers(0, 400)), st.booleans())
def test_it_does_not_matter_how_the_bytes_arrive(
    people: list[Entry], cuts: list[int], as_json: bool
) -> None:
    table = [{name: getattr(one, name) for name in FIELDS} for one in people]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, FIELDS)
    writer.writeheader()
    writer.writerows(table)
    data = b"\xef\xbb\xbf" + (places.json_lines(table) if as_json else text.getvalue()).encode()
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
    pieces = [batch.rows for batch in rows.batches(parts, 2, json_too=True)]
    assert list(itertools.chain(*pieces)) == parsed(data)
    assert [row[0] for row in parsed(data)] == [one.account for one in people]


@given(st.binary(max_size=200), st.sampled_from([b"", b"account,exempt\n", b'{"account":"a"}\n']))
def test_whatever_comes_is_rows_or_one_of_our_troubles(data: bytes, head: bytes) -> None:
    with contextlib.suppress(BrokenError):
        assert all(row[0] for row in parsed(head + data))


HEAD = "account,address,exempt,objects,restricted\n"
GOOD = "acct-1,one@example.net,,,\n"


@pytest.mark.parametrize(
    ("text", "trouble", "row"),
    [
        ("", Trouble.EMPTY, ""),
        ("\ufeff", Trouble.EMPTY, ""),
        ("\n", Trouble.NO_COLUMN, ""),
        (f"{MARK},address\n", Trouble.NO_COLUMN, ""),
        (f'"account,{MARK}\n', Trouble.NO_COLUMN, ""),
        ("account\taddress\n", Trouble.NO_COLUMN, ""),
        ("account,exempt,Exempt\n", Trouble.COLUMN_TWICE, ""),
        ("account, ACCOUNT\n", Trouble.COLUMN_TWICE, ""),
        (HEAD + GOOD + MARK, Trouble.MALFORMED, 2),
        (HEAD + GOOD + f"{MARK},a,,\n", Trouble.MALFORMED, 2),
        (HEAD + GOOD * 3 + f"{MARK},a,,,,\n", Trouble.MALFORMED, 4),
        (HEAD + GOOD + f"{MARK},a@example.net,,,", Trouble.MALFORMED, 2),
        (HEAD.replace(",", ";") + f"{MARK};;;;", Trouble.MALFORMED, 1),
        (HEAD + f"{MARK};a;;;\n", Trouble.MALFORMED, 1),
        (HEAD + GOOD + f'acct-2,"{MARK},,,', Trouble.MALFORMED, 2),
        (HEAD + GOOD + f'acct-2,"{MARK}"x,,,\n', Trouble.MALFORMED, 2),
        (HEAD + f"{MARK},,maybe,,\n", Trouble.MALFORMED, 1),
        (HEAD + f"{MARK},,,truе,\n", Trouble.MALFORMED, 1),  # noqa: RUF001 - not an e
        (HEAD + GOOD * 5 + f"{MARK},,,,2\n", Trouble.MALFORMED, 6),
        (HEAD + ",one@example.net,,,\n", Trouble.MALFORMED, 1),
        (HEAD + "a" * 10_001 + ",,,,\n", Trouble.MALFORMED, 1),
        (HEAD + "acct-1," + "a" * 10_001 + ",,,\n", Trouble.MALFORMED, 1),
        (HEAD + "acct-1,,," + " " * 10_001 + ",\n", Trouble.MALFORMED, 1),
        (HEAD + GOOD + "a" * 1_000_001, Trouble.TOO_LONG, 2),
        (HEAD + GOOD + "a" * 1_000_001 + "\n", Trouble.TOO_LONG, 2),
        (b"\xff" + HEAD.encode(), Trouble.NOT_TEXT, 0),
        (f"{HEAD}{GOOD}{GOOD}{MARK}".encode() + b"\xff,,,,\n" + b"x\n", Trouble.NOT_TEXT, 3),
        ((HEAD + GOOD).encode("utf-16"), Trouble.NOT_TEXT, 0),
        ('{"account":"a"}\n' + MARK, Trouble.BAD_OBJECT, 2),
        ('{"account":"a"}\n[{"account":"a"}]\n', Trouble.BAD_OBJECT, 2),
        ('{"account":"a"}\n[["account","a"]]\n', Trouble.BAD_OBJECT, 2),
        ('{"account":"a"}\n"account"\n', Trouble.BAD_OBJECT, 2),
        ('{"account":"a"}\n\n{"account":"a","exempt":tr', Trouble.BAD_OBJECT, 2),
        ('{"address":"a"}', Trouble.BAD_OBJECT, 1),
        ('{"account":null}', Trouble.MALFORMED, 1),
        ('{"account":true}', Trouble.BAD_OBJECT, 1),
        ('{"account":1.5}', Trouble.BAD_OBJECT, 1),
        ('{"account":["a"]}', Trouble.BAD_OBJECT, 1),
        ('{"account":{}}', Trouble.BAD_OBJECT, 1),
        ('{"account":"\\ud800"}', Trouble.BAD_OBJECT, 1),
        ('{"account":"a","exempt":2}', Trouble.BAD_OBJECT, 1),
        ('{"account":"a","exempt":[]}', Trouble.BAD_OBJECT, 1),
        ('{"account":"a","exempt":{}}', Trouble.BAD_OBJECT, 1),
        ('{"account":"a","exempt":"perhaps"}', Trouble.MALFORMED, 1),
        ('{"account":"a","exempt":true,"exempt":false}', Trouble.BAD_OBJECT, 1),
        ('{"account":"a","exempt":true,"Exempt":false,"x":1}', Trouble.BAD_OBJECT, 1),
        ('{"account":"a"}\n' + '{"a":' * 100_000, Trouble.BAD_OBJECT, 2),
    ],
)  # fmt: skip
def test_what_cannot_be_trusted_is_told_by_its_row(
    text: str | bytes, trouble: Trouble, row: int | str
) -> None:
    assert broken(text) == (trouble, row)


def test_a_csv_file_is_not_json() -> None:
    assert broken('{"account":"a"}', json_too=False) == (Trouble.NO_COLUMN, "")


def test_every_cut_within_a_quoted_row_is_seen() -> None:
    text = b'account,address,"exempt"\r\n"acct-1","a@example.net","true"\r\n'
    whole = parsed(text)
    start = text.index(b"\n") + 1
    for end in range(start + 1, len(text) - 2):
        assert broken(text[:end])[0] is Trouble.MALFORMED
    assert parsed(text[:-2]) == whole


@pytest.mark.parametrize("flag", ["1", "true", "TRUE", "Yes", " yes "])
def test_flags_that_are_set(flag: str) -> None:
    (row,) = parsed(f"account,exempt,objects,restricted\na,{flag},{flag},{flag}\n".encode())
    found = entries.entry(row)
    assert (found.exempt, found.objects, found.restricted) == (True, True, True)


@pytest.mark.parametrize("flag", ["", " ", "0", "false", "False", "NO"])
def test_flags_that_are_not_set(flag: str) -> None:
    (row,) = parsed(f"account,exempt,objects,restricted\na,{flag},{flag},{flag}\n".encode())
    found = entries.entry(row)
    assert (found.exempt, found.objects, found.restricted) == (False, False, False)


def test_json_flags_may_be_numbers_texts_or_truths() -> None:
    row, other = parsed(
        b'{"account":"a","exempt":1,"objects":true,"restricted":"yes"}\n'
        b'{"account":"b","exempt":0,"objects":false,"restricted":null}\n'
    )
    assert entries.entry(row) == Entry("a", exempt=True, objects=True, restricted=True)
    assert entries.entry(other) == Entry("b")


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u202e"])
def test_an_address_of_more_than_one_plain_line_is_none(bad: str) -> None:
    row = ("a", f"a@example.net{bad}", "en", f"p{bad}", "", "", "")
    assert entries.entry(row) == Entry("a", None, "en", None)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("en", "en"), (" de ", "de"), ("pt-BR", "pt-BR"), ("gsw", "gsw"), ("", None), ("e", None),
        ("english", None), ("en_US", None), ("../../etc", None), ("en-", None), ("en\n", "en"),
    ],
)  # fmt: skip
def test_a_language_is_kept_where_it_looks_like_one(text: str, language: str | None) -> None:
    assert entries.entry(("a", "", text, "", "", "", "")).language == language


@given(ENTRIES, ENTRIES)
def test_two_rows_protect_at_least_as_either_does(earlier: Entry, later: Entry) -> None:
    found = entries.merged(earlier, later)
    for flag in ("exempt", "objects", "restricted"):
        assert getattr(found, flag) == (getattr(earlier, flag) or getattr(later, flag))
    assert (found.account, found.language, found.plan) == (
        later.account, later.language, later.plan,
    )  # fmt: skip
    assert found.address == (later.address if earlier.account == later.account else None)
