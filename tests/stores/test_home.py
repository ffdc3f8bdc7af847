"""A home: what marks it, of which format it is, and what its config.toml may say."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aggregator
from aggregator.errors import AggregatorError, ConfigError, RefusedError
from aggregator.stores import config, formats
from aggregator.stores.formats import FORMAT, Mark, Taken
from aggregator.stores.home import FOLDERS, Home

SETTINGS = """\
[limits]
link_rate_gbits = 10

[keys]
accept_weak_destruction = false
"""
OLD = f"# ours\nformat = 1\nrehearsal = false  # true: never here\n\n{SETTINGS}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a new live home."""
    made = Home(tmp_path / "home")
    made.create(rehearsal=False, accept_weak=False)
    return made


@pytest.fixture
def old(home: Home) -> Home:
    """Return a home as releases before home.json made it."""
    home.mark_path.unlink()
    home.config_path.write_text(OLD)
    (home.folder("audit") / "log.ndjson").write_text("{}\n")
    return home


def refused(home: Home) -> str:
    """Return why the home does not open; it must be a matter of its configuration."""
    with pytest.raises(ConfigError) as caught:
        home.load_config()
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_home_says_what_it_is_in_home_json(home: Home, tmp_path: Path) -> None:
    said = {"format": FORMAT, "rehearsal": False, "made_by": aggregator.__version__}
    assert json.loads(home.mark_path.read_text()) == said
    assert home.mark() == Mark(FORMAT, False, aggregator.__version__)
    assert home.format == FORMAT
    assert not home.load_config().rehearsal
    rehearsal = Home(tmp_path / "rehearsal")
    rehearsal.create(rehearsal=True, accept_weak=False)
    assert rehearsal.load_config().rehearsal
    assert all(rehearsal.folder(name).is_dir() for name in FOLDERS)


def test_home_json_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    there: list[bool] = []
    whole = ("config.toml", "policy/profile.toml", "runs", "audit")
    monkeypatch.setattr(
        formats, "write", lambda *_: there.extend((tmp_path / one).exists() for one in whole)
    )
    home.create(rehearsal=True, accept_weak=False)
    assert there == [True] * len(whole)
    assert "aggregator init" in refused(home)
    monkeypatch.undo()
    home.create(rehearsal=False, accept_weak=True)
    assert home.load_config().accept_weak_destruction


def test_a_home_is_not_made_twice(home: Home, old: Home) -> None:
    for again in (home, old):
        with pytest.raises(RefusedError):
            again.create(rehearsal=False, accept_weak=False)


def test_settings_that_somebody_wrote_before_are_kept(tmp_path: Path) -> None:
    """As a configuration management tool does, before it runs `init`."""
    home = Home(tmp_path)
    home.config_path.write_text(SETTINGS.replace("10", "40"))
    home.create(rehearsal=False, accept_weak=False)
    assert home.load_config().link_rate_gbits == 40
    assert home.config_path.read_text() == SETTINGS.replace("10", "40")


@pytest.mark.parametrize(
    ("text", "accept_weak", "words"),
    [
        (SETTINGS, True, "accept_weak_destruction = true"),
        ("rehearsal = true\n" + SETTINGS, False, "take the line out"),
        ("format = 3\n" + SETTINGS, False, "newer release"),
        (OLD, False, "there is a home already"),
        ("[", False, "is not TOML"),
        ("[limits]\n", False, "link_rate_gbits"),
    ],
)
def test_settings_that_do_not_fit_make_no_home(
    tmp_path: Path, text: str, accept_weak: bool, words: str
) -> None:
    home = Home(tmp_path)
    home.config_path.write_text(text)
    with pytest.raises(AggregatorError, match=words):
        home.create(rehearsal=False, accept_weak=accept_weak)
    assert not home.mark_path.exists()
    assert home.config_path.read_text() == text


def test_a_home_of_format_1_opens_as_it_is(old: Home) -> None:
    assert old.mark() == Mark(1, False)
    assert not old.load_config().rehearsal
    old.config_path.write_text(OLD.replace("= false  # true", "= true  # true"))
    assert old.load_config().rehearsal
    old.config_path.write_text(OLD.replace("rehearsal", "# rehearsal"))
    assert "rehearsal" in refused(old)


@pytest.mark.parametrize("line", ["format = 2", "rehearsal = false", "# rehearsal = true"])
def test_lines_that_agree_with_home_json_may_stay(home: Home, line: str) -> None:
    home.config_path.write_text(f"{line}\n{SETTINGS}")
    assert not home.load_config().rehearsal


@pytest.mark.parametrize(
    "line", ["format = 1", 'format = "2"', "rehearsal = true", "rehearsal = 0", "format = true"]
)
def test_lines_that_contradict_home_json_are_told(home: Home, line: str) -> None:
    """An older release would take `format = 1` for its own; `rehearsal` would move the clock."""
    home.config_path.write_text(f"{line}\n{SETTINGS}")
    told = refused(home)
    assert line.split(" ", maxsplit=1)[0] in told
    assert "take the line out of config.toml" in told


def test_another_settings_file_says_nothing_of_the_home(home: Home, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    told = Home(home.root, other)
    for line in ("", "format = 1\n", "rehearsal = true\n", "format = 2\n"):
        other.write_text(line + SETTINGS)
        assert not told.load_config().rehearsal
    home.config_path.unlink()
    assert not told.load_config().rehearsal
    other.write_text("format = 3\n" + SETTINGS)
    assert "newer release" in refused(told)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": 3, "rehearsal": false, "made_by": "0.9.0"}', "the newer release 0.9.0;"),
        ('{"format": 3, "rehearsal": false}', "a newer release;"),
        ('{"format": 3, "rehearsal": false, "made_by": "10.8.0.7/24 x"}', "a newer release;"),
        ('{"format": 3, "rehearsal": "maybe", "taken_out": 7}', "migrate --back"),
    ],
)
def test_a_home_of_a_newer_release_is_left_alone(home: Home, text: str, words: str) -> None:
    home.mark_path.write_text(text)
    told = refused(home)
    assert words in told
    assert "upgrade" in told


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "7", "null", "{}", '{"format": 2}', '{"format": true, "rehearsal": false}',
        '{"format": 0, "rehearsal": false}', '{"format": 2, "rehearsal": "no"}',
        '{"format": 2, "rehearsal": false, "taken_out": 7}',
        '{"format": 2, "rehearsal": false, "taken_out": [[-1, "x"]]}',
        '{"format": 2, "rehearsal": false, "taken_out": [["x", "x"]]}',
        '{"format": 2, "rehearsal": false, "taken_out": [[0, 7]]}', "\xff",
    ],
)  # fmt: skip
def test_a_damaged_home_json_is_told_with_its_remedy(home: Home, text: str) -> None:
    home.mark_path.write_text(text, encoding="latin-1")
    assert '{"format": 2, "rehearsal": false}' in refused(home)


def test_unknown_fields_of_home_json_are_ignored(home: Home) -> None:
    home.mark_path.write_text('{"format": 2, "rehearsal": true, "made_by": 7, "more": [1]}')
    assert home.mark() == Mark(2, True)


def test_what_is_missing_is_named(home: Home, tmp_path: Path) -> None:
    assert "is no home; make one" in refused(Home(tmp_path / "nowhere"))
    home.config_path.rename(tmp_path / "aside")
    assert "config.toml is missing; restore it" in refused(home)
    (tmp_path / "aside").rename(home.config_path)
    home.mark_path.unlink()
    home.config_path.write_text(SETTINGS)
    # Nothing was ever done in it: a making that was killed.
    assert "is no home; make one" in refused(home)
    (home.folder("audit") / "log.ndjson").write_text("{}\n")
    assert "home.json is missing; restore it" in refused(home)
    home.config_path.unlink()
    assert "home.json and config.toml are missing" in refused(home)


def test_a_migration_between_two_reads_is_no_error(
    old: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status and the door read without the lock, at any moment of it."""
    real = config.read

    def late(path: Path) -> dict[str, object]:
        found = real(path)
        monkeypatch.undo()
        old.config_path.write_text(SETTINGS)
        formats.write(old.mark_path, Mark(2, False))
        return found

    monkeypatch.setattr(config, "read", late)
    assert not old.load_config().rehearsal


# What may stand in a config.toml around the two lines, each part whole.
_PARTS = st.sampled_from(
    [
        "# format = 7\n", "\n", "   \n", "# rehearsal = true, said nobody\r\n", "#\tä \u2028 x\n",
    ]
)  # fmt: skip
_TABLES = st.sampled_from(
    [
        "[limits]\nlink_rate_gbits = 10\n", "[keys]\r\nformat = 1\r\n",
        '[directory]\nquery = """\nformat = 1\nrehearsal = true\n"""\n', "[door]", "",
        "[mail]\nrehearsal = true # x\n",
    ]
)  # fmt: skip
_FORMAT = st.sampled_from(["format = 1\n", '"format"=1 # one\r\n', "  format\t=\t1\n"])
_REHEARSAL = st.sampled_from(
    ["rehearsal = true\n", "'rehearsal' = false  # never\n", "rehearsal=true\r\n"]
)


@given(
    st.tuples(st.lists(_PARTS, max_size=3), st.lists(_PARTS, max_size=3), st.lists(_PARTS)),
    _FORMAT,
    _REHEARSAL,
    _TABLES,
    st.booleans(),
)
def test_the_two_lines_go_and_come_back_to_the_byte(
    parts: tuple[list[str], list[str], list[str]], first: str, second: str, tables: str, swap: bool
) -> None:
    before, between, after = ("".join(one) for one in parts)
    lines = (second, first) if swap else (first, second)
    content = f"{before}{lines[0]}{between}{lines[1]}{after}{tables}".encode()
    data = tomllib.loads(content.decode())
    rest, taken = formats.take_out(content)
    assert rest == f"{before}{between}{after}{tables}".encode()
    assert [one.line.decode() for one in taken] == list(lines)
    assert formats.put_back(rest, Mark(2, data["rehearsal"], None, taken)) == content
    assert formats.put_back(content, Mark(2, data["rehearsal"], None, taken)) == content
    assert formats.take_out(rest) == (rest, ())


@pytest.mark.parametrize(
    ("rest", "taken"),
    [
        (b"[limits]\n", (Taken(9, b"format = 1\n"), Taken(10, b"rehearsal = true"))),
        (b"[limits]\nx = 1\n", (Taken(1, b"format = 1\n"),)),
        (b'query = """\n\n"""\n', (Taken(1, b"format = 1\n"),)),
        (b"format = 2\nrehearsal = true\n[limits]\n", ()),
        (b"", ()),
    ],
)  # fmt: skip
def test_lines_that_cannot_go_where_they_were_go_to_the_top(
    rest: bytes, taken: tuple[Taken, ...]
) -> None:
    """Somebody else wrote config.toml meanwhile."""
    bare, _ = formats.take_out(rest)
    content = formats.put_back(rest, Mark(2, True, None, taken))
    assert content == b"format = 1\nrehearsal = true\n" + bare
    said = tomllib.loads(content.decode())
    assert said == {**tomllib.loads(bare.decode()), "format": 1, "rehearsal": True}


@pytest.mark.parametrize(
    "text", ["format = 1; x", '"form\\u0061t" = 1\nrehearsal = true\n', "\xff"]
)
def test_what_cannot_be_taken_out_is_told(text: str) -> None:
    with pytest.raises(ConfigError):
        formats.take_out(text.encode("latin-1"))
