"""`aggregator config`: each mistake with its line and its remedy, and never with a value."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from closed import Run, Said

from aggregator.model.profile import DEFAULT_PROFILE
from aggregator.pipeline import check_profile

START = "2026-10-01T00:00:00Z"
MARK = "mark-6604"
CORE = "[limits]\nlink_rate_gbits = 10\n[keys]\naccept_weak_destruction = false\n"
MAIL = '[mail]\nhost = "mail.example.net"\nfrom = "a@b.example"\ndesk = "a@b.example"\n'


@pytest.fixture
def root(run: Run, tmp_path: Path) -> Path:
    """Return a new rehearsal home."""
    assert run(tmp_path / "home", "init", now=START).code == 0
    return tmp_path / "home"


def check(run: Run, root: Path, *words: str | Path) -> tuple[Said, list[dict[str, Any]]]:
    said = run(root, "config", "check", *words, "--json", now=None)
    assert said.json["schema_version"] == 1
    assert said.json["valid"] is (said.code == 0)
    assert MARK not in said.out + said.err
    rows: list[dict[str, Any]] = said.json["rows"]
    assert all(row["what"] and row["remedy"] for row in rows)
    assert any(row["level"] == "mistake" for row in rows) == (said.code == 3)
    return said, rows


def told(run: Run, root: Path, text: str) -> list[tuple[int | None, str]]:
    """Return line and setting of everything that is told of this config.toml."""
    (root / "config.toml").write_text(text)
    return [(row["line"], row["setting"]) for row in check(run, root)[1]]


def test_a_new_home_is_valid(run: Run, root: Path) -> None:
    assert check(run, root)[1] == []
    said = run(root, "config", "check", now=None)
    assert (said.code, said.out, said.err) == (0, "", "the settings are valid\n")
    assert run(root, "-q", "config", "check", now=None).err == ""


def test_every_mistake_is_told_with_its_line_in_the_files_order(run: Run, root: Path) -> None:
    (root / "config.toml").write_text(
        f"""\
# settings
[limits]
link_rate_gbits = "{MARK}"
[keys]

[mail]
hots = "{MARK}"
host = "mail.example.net"
from = "{MARK}"
desk = [
  "a@b.example",
  "{MARK}",
]
port = 70_000
security = '{MARK}'

[schedule]
daily = \"\"\"
{MARK}\"\"\"
mail = "0 0 1 * mon"
[watch]
ping_url = "http://{MARK}.example"
[other]
x = 1
"""
    )
    said, rows = check(run, root)
    assert said.err == "error: 11 mistakes in the settings; correct each\n"
    assert [(row["line"], row["setting"]) for row in rows] == [
        (3, "limits.link_rate_gbits"), (4, "keys.accept_weak_destruction"), (7, "mail.hots"),
        (9, "mail.from"), (10, "mail.desk"), (14, "mail.port"), (15, "mail.security"),
        (18, "schedule.daily"), (20, "schedule.mail"), (22, "watch.ping_url"), (23, "other"),
    ]  # fmt: skip
    assert {row["where"] for row in rows} == {str(root / "config.toml")}
    assert rows[2]["remedy"] == "did you mean host?"
    words = run(root, "config", "check", now=None)
    assert words.code == 3
    lines = words.out.splitlines()
    assert len(lines) == len(rows)
    assert lines[2] == (
        f"{root}/config.toml:7: unknown setting: 'hots' in [mail]; did you mean host?"
    )
    assert MARK not in words.out + words.err


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[limits]\nlink_rate_gbits = mark-6604\n", 2), (b"[limits]\n\n[limits]\n", 3),
        (b"[limits]\nx = [\n1,\n", 4), (b"\n\xffmark-6604\n", 2), (b"[limits\n", 1),
        (b"x = " + b"[" * 9999, 1), (b'[a]\nb = "mark-6604\n', 2), (b"a = 1\na = 2\n", 2),
    ],
)  # fmt: skip
def test_what_is_no_toml_is_told_with_its_line(
    run: Run, root: Path, content: bytes, line: int
) -> None:
    (root / "config.toml").write_bytes(content)
    said, (row,) = check(run, root)
    assert (said.code, row["line"], row["level"]) == (3, line, "mistake")


def test_files_that_settings_name_are_looked_at(run: Run, root: Path) -> None:
    for name, mode in (("pw", 0o644), ("url", 0o600), ("a.csv", 0o644), ("key", 0o604)):
        (root / name).write_text(f"{MARK}\n")
        (root / name).chmod(mode)
    text = f"""{CORE}{MAIL}username = "u"
password_file = "pw"
templates = "none"
[directory]
kind = "csv"
path = "a.csv"
[door]
certificate = "nowhere.pem"
private_key = "key"
[watch]
ping_url_file = "url"
metrics_file = "none/x.prom"
"""
    (root / "config.toml").write_text(text)
    _, rows = check(run, root)
    assert [(row["setting"], row["level"], row["line"]) for row in rows] == [
        ("mail.password_file", "mistake", 10), ("mail.templates", "mistake", 11),
        ("directory.path", "warning", 14), ("door.certificate", "warning", 16),
        ("door.private_key", "mistake", 17), ("watch.ping_url_file", "mistake", 19),
        ("watch.metrics_file", "warning", 20),
    ]  # fmt: skip
    assert "chmod 0600" in rows[0]["remedy"]
    for name, content in (("pw", "x"), ("key", "x"), ("url", "https://x.example"), ("a.csv", "x")):
        (root / name).write_text(content)
        (root / name).chmod(0o640)
    (root / "none").mkdir()
    (root / "nowhere.pem").touch()
    assert check(run, root)[1] == []


@pytest.mark.parametrize(
    ("way", "level"),
    [
        ('password_file = "none"', "mistake"), ('password_file = "empty"', "mistake"),
        ('password_file = "binary"', "mistake"), ('password_file = "."', "warning"),
        ('password_env = "NOT_SET_6604"', "warning"), ('password_env = "SET_6604"', None),
        ('password_credential = "none"', "mistake"), ('password_credential = "p"', None),
        (f'password_command = ["/nowhere/{MARK}"]', "mistake"),
        ('password_command = ["false"]', None),
    ],
)  # fmt: skip
def test_each_way_to_give_a_secret_is_looked_at(
    run: Run, root: Path, way: str, level: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But no command is run: it may ask somebody, or cost something."""
    (root / "empty").touch()
    (root / "binary").write_bytes(b"\xff" + MARK.encode())
    (root / "p").write_text(MARK)
    (root / "p").chmod(0o400)
    monkeypatch.setenv("SET_6604", MARK)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(root))
    (root / "config.toml").write_text(f'{CORE}{MAIL}username = "u"\n{way}\n')
    _, rows = check(run, root)
    assert [(row["level"], row["line"]) for row in rows] == ([(level, 10)] if level else [])


def test_a_secret_in_the_file_itself_is_for_nobody_else(run: Run, root: Path) -> None:
    text = f'{CORE}[watch]\nping_url = "https://x.example/{MARK}"\n'
    assert told(run, root, text) == []
    (root / "config.toml").chmod(0o644)
    _, (row,) = check(run, root)
    assert (row["level"], row["line"]) == ("warning", 6)
    assert "ping_url_file" in row["remedy"]


def test_one_half_of_the_doors_tls_is_a_warning(run: Run, root: Path) -> None:
    (root / "c.pem").touch()
    assert told(run, root, f'{CORE}[door]\ncertificate = "c.pem"\n') == [(6, "door.certificate")]


def test_the_environment_is_checked_as_well(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGGREGATOR_MAIL_HOTS", MARK)
    monkeypatch.setenv("AGGREGATOR_LIMITS_LINK_RATE_GBITS", MARK)
    monkeypatch.setenv("AGGREGATOR_FOO", MARK)
    _, rows = check(run, root)
    assert [(row["where"], row["level"], row["line"]) for row in rows] == [
        ("AGGREGATOR_MAIL_HOTS", "mistake", None),
        ("AGGREGATOR_LIMITS_LINK_RATE_GBITS", "mistake", None),
        ("AGGREGATOR_FOO", "warning", None),
    ]
    assert rows[0]["remedy"] == "did you mean AGGREGATOR_MAIL_HOST?"


def test_another_file_is_checked_without_a_home(
    run: Run, tmp_path: Path, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from aggregator.cli.main import main

    other = tmp_path / "other.toml"
    other.write_text(f"{CORE}x = 1\n")
    capfd.readouterr()
    assert main(["config", "check", str(other)]) == 3
    assert capfd.readouterr().out.startswith(f"{other}:5: unknown setting: 'x' in [keys]; ")
    (root / "config.toml").write_text("nonsense")
    (root / "policy/profile.toml").unlink()
    other.write_text(f'{CORE}[directory]\nkind = "csv"\npath = "a.csv"\n')
    (tmp_path / "a.csv").touch()
    # Paths begin in the home that is named, else beside the file.
    assert [row["setting"] for row in check(run, root, other)[1]] == ["directory.path"]
    assert main(["config", "check", str(other)]) == 0
    assert main(["config", "check", str(tmp_path / "none.toml")]) == 2
    assert main(["config", "check"]) == 2


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("format = 1\n", "format"), ("format = 9\n", "format"),
        ("rehearsal = false\n", "rehearsal"), ("rehearsal = 7\n", "rehearsal"),
        ("format = 2\nrehearsal = true\n", None),
    ],
)  # fmt: skip
def test_what_config_says_of_the_home_must_agree_with_it(
    run: Run, root: Path, text: str, setting: str | None
) -> None:
    assert told(run, root, text + CORE) == ([(1, setting)] if setting else [])


def test_check_says_valid_only_of_what_opens(run: Run, root: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "none", "config", "check", now=None).code == 3
    (root / "config.toml").write_text(CORE)
    (root / "home.json").write_text("{")
    assert run(root, "config", "check", now=None).code == 3
    (root / "home.json").unlink()
    (root / "config.toml").write_text(f"format = 1\n{CORE}")
    assert "rehearsal" in run(root, "config", "check", now=None).err
    (root / "config.toml").write_text(f"format = 1\nrehearsal = true\n{CORE}")
    assert run(root, "config", "check", now=None).code == 0


# The policy profile


_BROKEN = [line.partition(" =")[0] for line in DEFAULT_PROFILE.splitlines() if line[:1].isalpha()]


@pytest.mark.parametrize("name", _BROKEN)
def test_a_mistake_in_the_profile_is_told_with_its_line(run: Run, root: Path, name: str) -> None:
    lines = DEFAULT_PROFILE.splitlines()
    (at,) = [at for at, line in enumerate(lines) if line.startswith(f"{name} =")]
    lines[at] = f'{name} = ["{MARK}"]'
    (root / "policy/profile.toml").write_text("\n".join(lines))
    said, (row,) = check(run, root)
    assert (said.code, row["line"]) == (3, at + 1)
    assert row["where"] == str(root / "policy/profile.toml")
    assert row["setting"].rpartition(".")[2] == name


_RULE = '[[fair_use.rules]]\nname = "r"\nkind = "day_bytes"\nthreshold = 5\n'
_HERE = "# here"


def changed(old: str, new: str) -> str:
    assert old in DEFAULT_PROFILE
    return DEFAULT_PROFILE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (f"hots = 1 # here\n{DEFAULT_PROFILE}", "hots"),
        (changed("[grace]", "[grace]\nhots = 1 # here"), "grace.hots"),
        (changed("[release]", "[release] # here").replace("k = 10", ""), "release.k"),
        (changed("k = 10", "k = 1 # here"), "release.k"),
        (changed("k = 10", "k = 1\nallow_k_below_2 = 1 # here"), "release.allow_k_below_2"),
        (changed("version = 1", ""), "version"),
        (changed("[regions]", "[regions] # here") + "other = 7", "regions"),
        (changed("[regions]", "[regions] # here") + "a-b = ['us-x']\nc-d = ['us-x']", "regions"),
        (changed("[regions]", "[regions] # here") + "other = ['us-x']", "regions"),
        (DEFAULT_PROFILE + "a = [ # here", ""),
        (DEFAULT_PROFILE + "a = mark-6604 # here", ""),
        (DEFAULT_PROFILE + _RULE.replace("5", "-5 # here"), "fair_use.rules.1.threshold"),
        (
            DEFAULT_PROFILE + _RULE + _RULE.replace('"day_bytes"', '"mark-6604" # here'),
            "fair_use.rules.2.kind",
        ),
        (DEFAULT_PROFILE + _RULE.replace("]]", "]] # here") + _RULE, "fair_use.rules"),
        (DEFAULT_PROFILE + _RULE + "hots = 1 # here", "fair_use.rules.1.hots"),
        (DEFAULT_PROFILE + _RULE + "plans = 1 # here", "fair_use.rules.1.plans"),
        (
            DEFAULT_PROFILE + _RULE + "warn_percent = [ # here\n 2,\n 1]",
            "fair_use.rules.1.warn_percent",
        ),
    ],
)
def test_every_sort_of_mistake_in_the_profile_has_its_line(text: str, setting: str) -> None:
    found = check_profile.first_mistake(text.encode())
    assert found is not None
    before = text.partition(_HERE)[0]
    line = before.count("\n") + 1 if _HERE in text else None
    assert (found.line, found.setting) == (line, setting)
    assert MARK not in found.what + found.remedy


def test_a_profile_that_is_missing_or_no_text_is_told(run: Run, root: Path) -> None:
    assert check_profile.first_mistake(DEFAULT_PROFILE.encode()) is None
    assert check_profile.first_mistake(DEFAULT_PROFILE.replace("\n", "\r\n").encode()) is None
    path = root / "policy/profile.toml"
    path.write_bytes(b"# a\n\xff\n")
    assert [row["line"] for row in check(run, root)[1]] == [2]
    path.unlink()
    assert [row["what"] for row in check(run, root)[1]] == ["the policy profile is missing"]


# What is in force


def shown(run: Run, root: Path) -> dict[str, dict[str, Any]]:
    said = run(root, "config", "show", "--json", now=None)
    assert said.code == 0, said.err
    assert MARK not in said.out + said.err
    return {row["setting"]: row for row in said.json["rows"]}


def test_show_says_where_each_value_is_from(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "mail.host" not in shown(run, root)
    (root / "config.toml").write_text(
        f'{CORE}{MAIL}security = "tls"\n[watch]\nping_url = "https://x.example/{MARK}"\n'
    )
    monkeypatch.setenv("AGGREGATOR_MAIL_HOST", "other.example.net")
    found = shown(run, root)
    host = found["mail.host"]
    assert (host["value"], host["from"]) == ("other.example.net", "environment")
    assert (host["variable"], host["line"]) == ("AGGREGATOR_MAIL_HOST", None)
    assert (found["mail.from"]["value"], found["mail.from"]["line"]) == ("a@b.example", 7)
    assert (found["mail.port"]["value"], found["mail.port"]["from"]) == (465, "default")
    assert found["schedule.daily"]["from"] == "default"
    ping = found["watch.ping_url"]
    assert (ping["value"], ping["hidden"], ping["from"]) == (None, True, "file")
    table = run(root, "config", "show", now=None).out
    assert MARK not in table
    assert "AGGREGATOR_MAIL_HOST" in table
    assert "(not shown)" in table


def test_show_leaves_out_a_section_that_is_wrong_and_says_so(run: Run, root: Path) -> None:
    (root / "config.toml").write_text(f"{CORE}{MAIL}port = 0\n")
    said = run(root, "config", "show", now=None)
    assert said.code == 0
    assert "mail.host" not in said.out
    assert said.err.startswith("problem: config.toml: mail.port must be")
    assert len(run(root, "config", "show", "--json", now=None).json["problems"]) == 1
    (root / "config.toml").write_text("")
    assert run(root, "config", "show", now=None).code == 3


@pytest.mark.parametrize(
    "words", [("status",), ("run", "ingest"), ("doctor",), ("rollup",), ("ingest",)]
)
def test_variables_override_settings_for_every_command(
    run: Run, root: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(root, *words, now=START)
    assert before.code in (0, 3)  # doctor tells of the file system below
    monkeypatch.setenv("AGGREGATOR_LIMITS_LINK_RATE_GBITS", MARK)
    after = run(root, *words, now=START)
    assert "AGGREGATOR_LIMITS_LINK_RATE_GBITS" in after.out + after.err
    assert MARK not in after.out + after.err
    assert after.code != 0
    # And a good one mends what the file has wrong.
    (root / "config.toml").write_text(CORE.replace("10", "0"))
    monkeypatch.setenv("AGGREGATOR_LIMITS_LINK_RATE_GBITS", "10")
    assert run(root, *words, now=START).code == before.code


def test_schema_prints_one(run: Run, tmp_path: Path) -> None:
    said = run(tmp_path, "config", "schema", now=None)
    path = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.json"
    assert said.out == path.read_text("utf-8")
    assert json.loads(said.out)["title"] == "config"
    # The hint in a new config.toml is no directive by itself.
    assert tomllib.loads("#:schema ./x.json\n") == {}
