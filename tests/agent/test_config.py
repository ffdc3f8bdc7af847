"""The agent's configuration: every mistake is one line with file, setting and remedy."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from door_stub import Aggregator

from aggregator.agent import config as module
from aggregator.agent.collectors import SOURCES
from aggregator.agent.collectors.wireguard import Settings as WireGuard
from aggregator.agent.config import AccountsSettings, check_enrolled, load_config, url_fault
from aggregator.errors import ConfigError

ACCOUNTS = "accounts.csv"
SOURCE = f"""
[[source]]
kind = "wireguard"
location = "us-nyc"
interface = "wg0"
accounts = "{{folder}}/{ACCOUNTS}"
"""
TOP = 'enrolment = "/etc/aggregator-agent/enrolment.toml"\n'


def loaded(folder: Path, text: str) -> module.Config:
    """Write a configuration, `{folder}` replaced in it, and load it."""
    accounts = folder / ACCOUNTS
    accounts.touch(mode=0o600)
    for name in ("cert.pem", "db.mmdb"):
        (folder / name).touch()
    (folder / "key.pem").touch(mode=0o600)
    return load_config(_written(folder, text))


def _written(folder: Path, text: str) -> Path:
    file = folder / "agent.toml"
    file.write_text(text.replace("{folder}", str(folder)), encoding="utf-8")
    return file


def mistake(folder: Path, text: str) -> str:
    """Return what is said of a configuration that is wrong, without its file's name."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(folder))
    return said.removeprefix(f"{folder}/agent.toml: ")


def test_the_smallest_configuration(tmp_path: Path) -> None:
    found = loaded(tmp_path, TOP + SOURCE)
    assert found.interval_seconds == 300
    assert (found.spool, found.status, found.country_database) == (None, None, None)
    assert found.door == module.DoorSettings(None, None, None, None, 30)
    (source,) = found.sources
    assert (source.number, source.kind, source.location) == (1, "wireguard", "us-nyc")
    assert source.settings == WireGuard("wg0")
    assert source.accounts == AccountsSettings(tmp_path / ACCOUNTS, ())


def test_everything_set(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        enrolment = "/etc/e.toml"
        interval_seconds = 60
        spool = "/run/aggregator-agent/spool"
        status = "/run/aggregator-agent/status.json"
        [door]
        url = "https://usage.example.net:8443/"
        ca_file = "{folder}/cert.pem"
        client_certificate = "{folder}/cert.pem"
        client_key = "{folder}/key.pem"
        timeout_seconds = 5
        [origin]
        country = "{folder}/db.mmdb"
        asn = "{folder}/db.mmdb"
        [[source]]
        kind = "wireguard"
        location = "us-nyc"
        interface = "wg0"
        command = "/usr/bin/wg"
        timeout_seconds = 3
        accounts_command = ["/usr/local/bin/accounts", "--csv"]
        [[source]]
        kind = "openvpn"
        location = "de-fra"
        status = "/run/openvpn/status.log"
        """,
    )
    assert (found.interval_seconds, found.door.timeout_seconds) == (60, 5)
    assert found.asn_database == tmp_path / "db.mmdb"
    first, second = found.sources
    assert first.settings == WireGuard("wg0", "/usr/bin/wg", 3)
    assert first.accounts == AccountsSettings(None, ("/usr/local/bin/accounts", "--csv"))
    assert (second.number, second.accounts) == (2, None)


def test_the_example_is_a_good_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, and with all that is commented out in it; it has every source."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    example = Path(__file__).parents[2] / "deploy" / "agent.toml.example"
    text = example.read_text(encoding="utf-8")
    for path in ("/etc/aggregator-agent", "/var/lib/GeoIP"):
        text = text.replace(path, str(tmp_path))
    for name in ("ca.pem", "client.pem", "GeoLite2-Country.mmdb", "GeoLite2-ASN.mmdb"):
        (tmp_path / name).touch()
    for name in ("client.key", "accounts.csv", "softether.password", "radius.secret"):
        (tmp_path / name).touch(mode=0o600)
    assert len(loaded(tmp_path, text).sources) == 1
    whole = "".join(
        f"{line.removeprefix('#')}\n" if _is_setting(line) else f"{line}\n"
        for line in text.splitlines()
    )
    _start, *sources = re.split(r"(?m)^(?=\[\[source\]\])", whole)
    kinds = [_kind(each) for each in sources]
    assert [source.kind for source in loaded(tmp_path, whole).sources] == kinds
    assert set(kinds) == set(SOURCES)


def _kind(table: str) -> str:
    """Return the kind of source that a table of the example is about."""
    found = re.search(r'(?m)^kind = "(.+)"', table)
    assert found is not None
    return found[1]


def _is_setting(line: str) -> bool:
    """Say whether a line of the example is a setting that is commented out: `#name = …`."""
    return line.startswith("#") and not line.startswith("# ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SOURCE, "enrolment is missing; set it, for example to /etc/"),
        ('enrolment = "e.toml"\n' + SOURCE, "enrolment must be an absolute path, such as /etc/"),
        ("enrolment = 3\n" + SOURCE, "enrolment must be a text"),
        (TOP, "source is missing; describe at least one in [[source]]"),
        (TOP + "[source]\n", "source must be tables, each begun by [[source]]"),
        (TOP + "interval_seconds = 0\n" + SOURCE, "interval_seconds must be a whole number from 1"),
        (TOP + "interval_seconds = 1.5\n" + SOURCE, "interval_seconds must be a whole number"),
        (TOP + "interval_seconds = true\n" + SOURCE, "interval_seconds must be a whole number"),
        (TOP + "intervall = 3\n" + SOURCE, "intervall is no setting here; known are door, enr"),
        (TOP + "door = 3\n" + SOURCE, "door must be a table, begun by [door]"),
        (TOP + '[door]\nurl = "usage.example.net"\n' + SOURCE, "[door] url must be a scheme"),
        (TOP + '[door]\nca_file = "/x"\n' + SOURCE, "[door] ca_file names no file that is there"),
        (
            TOP + '[door]\nclient_key = "{folder}/key.pem"\n' + SOURCE,
            "[door] client_certificate is missing; client_key alone is of no use",
        ),
        (TOP + "[door]\ntimeout_seconds = 301\n" + SOURCE, "[door] timeout_seconds must be"),
        (TOP + "[door]\nport = 3\n" + SOURCE, "[door] port is no setting here"),
        (TOP + '[origin]\ncountry = "/x"\n' + SOURCE, "[origin] country names no file"),
        (TOP + SOURCE.replace("wireguard", "pptp"), "[[source]] 1: kind is no source; known are"),
        (TOP + SOURCE.replace("us-nyc", "other"), "[[source]] 1: location must be written like"),
        (TOP + SOURCE.replace("us-nyc", "New York"), "[[source]] 1: location must be written like"),
        (TOP + SOURCE.replace('location = "us-nyc"', ""), "[[source]] 1: location is missing"),
        (TOP + SOURCE.replace('interface = "wg0"', ""), "[[source]] 1: interface is missing"),
        (TOP + SOURCE.replace('"wg0"', "0"), "[[source]] 1: interface must be a text"),
        (
            TOP + SOURCE + "timeout_seconds = true\n",
            "[[source]] 1: timeout_seconds must be a whole",
        ),
        (
            TOP + SOURCE + "peers = 3\n",
            "[[source]] 1: peers is no setting here; known are accounts",
        ),
        (
            TOP + SOURCE.replace('accounts = "{folder}/accounts.csv"', ""),
            "[[source]] 1: accounts is missing; what wireguard calls its users is never sent",
        ),
        (
            TOP + SOURCE.replace(ACCOUNTS, "none.csv"),
            "[[source]] 1: accounts names no file that is there",
        ),
        (
            TOP + SOURCE + 'accounts_command = ["x"]\n',
            "[[source]] 1: accounts and accounts_command exclude each other",
        ),
        (
            TOP + SOURCE + 'accounts_command = "x"\n',
            "[[source]] 1: accounts_command must be a list",
        ),
        (TOP + SOURCE + 'accounts_command = [""]\n', "[[source]] 1: accounts_command must be a"),
        (
            TOP + SOURCE + SOURCE,
            "[[source]] 2: reads the same as [[source]] 1; take one out, or every byte counts",
        ),
        (TOP + "[", "is not TOML; look at end of document"),
        (TOP + SOURCE.replace('"wg0"', '"$CREDENTIALS_DIRECTORY/x"'), "which only systemd sets"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert words in mistake(tmp_path, text)


def test_secrets_that_others_may_open_are_refused(tmp_path: Path) -> None:
    door = '[door]\nclient_certificate = "{folder}/cert.pem"\nclient_key = "{folder}/key.pem"\n'
    loaded(tmp_path, TOP + door + SOURCE)
    for name in ("key.pem", ACCOUNTS):
        (tmp_path / name).chmod(0o604)
        assert mistake(tmp_path, TOP + door + SOURCE).startswith(f"{tmp_path}/{name}: holds a")
        (tmp_path / name).chmod(0o600)


@pytest.mark.parametrize("written", ["$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}"])
def test_credentials_of_systemd_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    text = f'enrolment = "{written}/enrolment"\n' + SOURCE.replace("{folder}", written)
    found = loaded(tmp_path, text)
    assert found.enrolment == tmp_path / "enrolment"
    assert found.sources[0].accounts == AccountsSettings(tmp_path / ACCOUNTS, ())


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Settings of every type that a source may have."""

    word: str
    words: tuple[str, ...]
    number: int = 3
    switch: bool = False
    perhaps: str | None = None
    or_not: str = ""
    more: tuple[str, ...] = ("a",)
    password_file: str = ""


def test_a_source_has_the_settings_of_its_dataclass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = dataclasses.replace(SOURCES["openvpn"], settings=Settings)
    monkeypatch.setattr(module, "SOURCES", {"test": row})
    start = TOP + '[[source]]\nkind = "test"\nlocation = "us-nyc"\n'
    least = start + 'word = "w"\nwords = ["1", "2"]\n'
    assert loaded(tmp_path, least).sources[0].settings == Settings("w", ("1", "2"))
    most = least + 'number = 0\nswitch = true\nperhaps = "p"\nor_not = "o"\nmore = []\n'
    most += 'password_file = "{folder}/key.pem"\n'
    found = loaded(tmp_path, most).sources[0].settings
    secret = f"{tmp_path}/key.pem"
    assert found == Settings("w", ("1", "2"), 0, True, "p", "o", (), secret)
    assert "words is missing" in mistake(tmp_path, start + 'word = "w"\n')
    assert "words must not be empty" in mistake(tmp_path, start + 'word = "w"\nwords = []\n')
    assert "switch must be true or false" in mistake(tmp_path, least + "switch = 1\n")
    assert "number must be a whole number" in mistake(tmp_path, least + "number = -1\n")
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(ConfigError, match=r"key\.pem: holds a secret"):
        load_config(_written(tmp_path, most))


def test_every_source_takes_only_what_a_file_can_say() -> None:
    """A new collector's settings are of the four types that `config` reads."""
    for source in SOURCES.values():
        for field in dataclasses.fields(source.settings):
            assert str(field.type) in {"str", "int", "bool", "tuple[str, ...]", "str | None"}


def test_a_location_that_was_not_enrolled_is_refused(tmp_path: Path) -> None:
    enrolment = Aggregator().enrolment
    check_enrolled(loaded(tmp_path, TOP + SOURCE), enrolment)
    config = loaded(tmp_path, TOP + SOURCE.replace("us-nyc", "de-fra"))
    with pytest.raises(ConfigError, match=r"\[\[source\]\] 1: location is none of the enrolment"):
        check_enrolled(config, enrolment)


@pytest.mark.parametrize(
    "url",
    [
        "https://usage.example.net",
        "https://usage.example.net:8443/",
        "https://[2001:db8::1]:8443",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://localhost",
    ],
)
def test_good_urls(url: str) -> None:
    assert url_fault(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://usage.example.net",
        "http://127.0.0.1.example.net",
        "ftp://usage.example.net",
        "https://",
        "https://user:word@usage.example.net",
        "https://usage.example.net/v1",
        "https://usage.example.net?x=1",
        "https://usage.example.net#x",
        "https://usage.example.net:99999",
        "https://[::1",
        "usage.example.net:8443",
    ],
)
def test_bad_urls(url: str) -> None:
    fault = url_fault(url)
    assert fault is not None
    assert "word" not in fault
