"""[mail] and [directory] of config.toml: what is wrong is named, and never repeated."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import ConfigError
from aggregator.model.settings import DirectoryKind, Secret, Security
from aggregator.stores import secret, settings
from aggregator.stores.home import Home

ROOT = Path("/srv/usage")
MARK = "mark-6604"
_MAIL = """
host = "mail.example.net"
from = "Fair use <fair-use@example.net>"
desk = ["desk@example.net", "second@example.net"]
"""


def mail(text: str = "", base: str = _MAIL) -> Any:
    return settings.mail(tomllib.loads(base + text), ROOT)


def directory(text: str) -> Any:
    return settings.directory(tomllib.loads(text), ROOT)


def test_a_home_without_the_sections_sends_no_mail_and_asks_no_directory() -> None:
    assert settings.mail(None, ROOT) is None
    assert settings.directory(None, ROOT) is None


def test_mail_has_safe_defaults() -> None:
    found = mail()
    assert (found.host, found.port, found.security) == (
        "mail.example.net", 587, Security.STARTTLS,
    )  # fmt: skip
    assert found.sender == "Fair use <fair-use@example.net>"
    assert found.desk == ("desk@example.net", "second@example.net")
    assert (found.to_user, found.password, found.per_minute, found.language) == (
        False, None, 0, "en",
    )  # fmt: skip


def test_one_desk_address_needs_no_list_and_tls_has_its_own_port() -> None:
    found = settings.mail(
        {"host": "h", "from": "a@example.net", "desk": "b@example.net", "security": "tls"}, ROOT
    )
    assert found is not None
    assert (found.desk, found.port) == (("b@example.net",), 465)


def test_paths_begin_in_the_home_and_secrets_are_only_named() -> None:
    found = mail('username = "u"\npassword_file = "mail.password"\nca_file = "/etc/ca.pem"')
    assert found.password == Secret(file="/srv/usage/mail.password")
    assert found.ca_file == "/etc/ca.pem"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_mail_in_the_clear_stays_on_this_machine(host: str) -> None:
    base = f'host = "{host}"\nfrom = "a@example.net"\ndesk = "b@example.net"\n'
    assert mail('security = "none"', base).port == 25


@pytest.mark.parametrize(
    "host", ["mail.example.net", "127.0.0.1.example.net", "localhost.example.net", "10.0.0.1"]
)
def test_mail_in_the_clear_to_another_machine_is_refused(host: str) -> None:
    base = f'host = "{host}"\nfrom = "a@example.net"\ndesk = "b@example.net"\n'
    with pytest.raises(ConfigError, match="readable"):
        mail('security = "none"', base)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = 0", "mail.port"),
        ("port = true", "mail.port"),
        (f'security = "{MARK}"', "mail.security"),
        ("security = 1", "mail.security"),
        (f'reply_to = "{MARK}"', "mail.reply_to"),
        (f'reply_to = "a@b.example\\r\\nBcc: {MARK}@x.example"', "mail.reply_to"),
        ('to_user = "yes"', "mail.to_user"),
        (f'username = "{MARK}"', "mail.username"),
        (f'password_env = "{MARK}"', "mail.username"),
        (f'username = "u"\npassword_env = "{MARK}"\npassword_file = "{MARK}"', "twice"),
        ("timeout_seconds = 0", "mail.timeout_seconds"),
        ("per_minute = -1", "mail.per_minute"),
        (f'language = "{MARK}!"', "mail.language"),
        ('service_name = ""', "mail.service_name"),
    ],
)
def test_a_wrong_mail_setting_is_named_and_not_repeated(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        mail("\n" + text)
    assert named in str(raised.value)
    assert MARK not in str(raised.value)


@pytest.mark.parametrize(
    "base",
    [
        'from = "a@example.net"\ndesk = "b@example.net"',
        'host = "h"\ndesk = "b@example.net"',
        'host = "h"\nfrom = "a@example.net"',
        'host = "h"\nfrom = "a@example.net"\ndesk = []',
        f'host = "h"\nfrom = "a@example.net"\ndesk = ["b@example.net", "{MARK}"]',
        f'host = "h"\nfrom = "{MARK} <{MARK}>"\ndesk = "b@example.net"',
        'host = "h"\nfrom = "a@vpn_gw.example"\ndesk = "b@example.net"',
        'host = "h"\nfrom = "a@example.net"\ndesk = ["b@example.net", "c@mail_relay"]',
    ],
)
def test_mail_needs_a_server_a_sender_and_a_desk(base: str) -> None:
    with pytest.raises(ConfigError) as raised:
        mail("", base)
    assert MARK not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('kind = "csv"\npath = "accounts.csv"', DirectoryKind.CSV),
        ('kind = "sql"\nurl_file = "url"\nquery = "SELECT 1"', DirectoryKind.SQL),
        ('kind = "http"\nurl = "https://x.example/a"\ntoken_env = "T"', DirectoryKind.HTTP),
        ('kind = "command"\ncommand = ["accounts", "--csv"]', DirectoryKind.COMMAND),
    ],
)
def test_each_kind_of_directory_reads(text: str, kind: DirectoryKind) -> None:
    assert directory(text).kind is kind


def test_a_relative_path_of_a_directory_begins_in_the_home() -> None:
    assert directory('kind = "csv"\npath = "accounts.csv"').path == "/srv/usage/accounts.csv"


@pytest.mark.parametrize(
    "text",
    [
        f'path = "{MARK}"',
        f'kind = "{MARK}"',
        'kind = "csv"',
        f'kind = "csv"\npath = "x"\nurl = "{MARK}"',
        'kind = "sql"\nquery = "SELECT 1"',
        f'kind = "sql"\nurl = "{MARK}"',
        f'kind = "sql"\nurl = "{MARK}"\nurl_env = "X"\nquery = "q"',
        'kind = "http"',
        'kind = "command"',
        'kind = "command"\ncommand = []',
        f'kind = "command"\ncommand = "{MARK}"',
        f'kind = "command"\ncommand = ["x"]\npath = "{MARK}"',
        'kind = "csv"\npath = "x"\ntimeout_seconds = 0',
    ],
)
def test_a_wrong_directory_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        directory(text)
    assert MARK not in str(raised.value)
    assert "directory" in str(raised.value)


def test_a_section_must_be_a_table() -> None:
    with pytest.raises(ConfigError, match=r"\[mail\]"):
        settings.mail(MARK, ROOT)


def test_a_home_reads_both_sections_and_refuses_unknown_settings(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create(rehearsal=True, accept_weak=True)
    assert (home.load_config().mail, home.load_config().directory) == (None, None)
    own = home.config_path.read_text()
    home.config_path.write_text(f'{own}[mail]{_MAIL}[directory]\nkind = "csv"\npath = "a.csv"\n')
    config = home.load_config()
    assert config.mail is not None
    assert config.directory is not None
    assert config.directory.path == str(tmp_path / "a.csv")
    for wrong, told in (("to_user = true", r"\[directory\]"), ("smtp = 1", "'smtp'")):
        home.config_path.write_text(f"{own}[mail]{_MAIL}{wrong}\n")
        config = home.load_config()  # nothing but mail stops for it
        assert (config.mail, config.directory) == (None, None)
        with pytest.raises(ConfigError, match=told):
            config.check_mail()


def test_a_secret_is_read_without_its_newline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "password"
    path.write_text(MARK + "\n")
    monkeypatch.setenv("MAIL_PASSWORD", MARK)
    assert secret.read(None, "mail.password") is None
    assert secret.read(Secret(file=str(path)), "mail.password") == MARK
    assert secret.read(Secret(variable="MAIL_PASSWORD"), "mail.password") == MARK


def test_a_secret_that_is_not_there_is_told_by_its_setting(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff" + MARK.encode())
    missing = tmp_path / MARK
    secrets = [Secret(file=str(path)) for path in (empty, binary, missing)]
    for one in (*secrets, Secret(variable=f"{MARK}_UNSET")):
        with pytest.raises(ConfigError, match=r"mail\.password") as raised:
            secret.read(one, "mail.password")
        assert MARK not in str(raised.value)
