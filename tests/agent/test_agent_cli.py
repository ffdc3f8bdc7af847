"""`aggregator-agent read`: data on stdout, words on stderr, nothing private on either (CS-6)."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from captures import DATA, golden, goldens, server_only, text_of
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator import __version__
from aggregator.agent import cli_read
from aggregator.agent.cli import main

ROOT = Path(__file__).parents[2]
SERVED = ("01-handshake", "02-udp1000x1000", "03-udp6-1000x1000")
PRIVATE = re.compile(r"\d+\.\d+\.\d+\.\d+|fd[0-9a-f]{2}:|\d\d:\d\d:\d\d|179532\d{4}")
RECORDS = [
    "--records",
    "--location",
    "us-nyc",
    "--day",
    "2026-10-05",
    "--epoch",
    "9f3c2b7a11d04e55",
]

Captured = pytest.CaptureFixture[str]


def path(name: str) -> str:
    """Return the path of a capture."""
    return str(DATA / name)


def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "aggregator.agent.cli", *arguments],
        input=given,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"},
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("source", ["wireguard", "openvpn"])
def test_read_prints_the_golden_output(source: str, capsys: Captured) -> None:
    for parameter in goldens(source):
        (name,) = parameter.values
        assert main(["read", "--source", source, path(str(name))]) == 0
        out, err = capsys.readouterr()
        assert [json.loads(line) for line in out.splitlines()] == golden(str(name))["accounts"]
        assert err.count("\n") == 1
        for word in (out, err):
            assert not PRIVATE.search(word)


def test_several_captures_are_numbered(capsys: Captured) -> None:
    files = [path(f"openvpn/{name}.status-v2.file") for name in ("00-start", "01-connected")]
    assert main(["read", "--source", "openvpn", *files]) == 0
    out, err = capsys.readouterr()
    assert out == (
        '{"capture":2,"account":"user1","sessions":2,"bytes":8267}\n'
        '{"capture":2,"account":"user2","sessions":1,"bytes":4026}\n'
    )
    assert err == ("capture 1: 0 readings, dropped none\ncapture 2: 3 readings, dropped none\n")


def test_dropped_rows_are_counted_on_stderr(capsys: Captured) -> None:
    name = path("openvpn/unfinished-handshakes.status-v2.file")
    assert main(["read", "--source", "openvpn", name]) == 0
    assert capsys.readouterr().err == "capture 1: 1 readings, dropped 3 unfinished\n"


def test_one_unreadable_file_does_not_stop_the_others(tmp_path: Path, capsys: Captured) -> None:
    """FreeRADIUS PR 5835: one bad record must not stop the queue."""
    (tmp_path / "cut").write_text(
        text_of("openvpn/01-connected.status-v2.file").removesuffix("END\n"), encoding="utf-8"
    )
    files = [
        str(tmp_path / "cut"),
        str(tmp_path / "missing"),
        str(tmp_path),
        path("openvpn/01-connected.status-v3.file"),
    ]
    assert main(["read", "--source", "openvpn", *files]) == 4
    out, err = capsys.readouterr()
    assert json.loads(out) == {"capture": 4, "account": "user3", "sessions": 1, "bytes": 4068}
    first, second, third, last = err.splitlines()
    assert first == f"aggregator-agent: capture 1: {files[0]}: is cut off: its END is missing"
    assert f"{files[1]}: cannot be read: No such file" in second
    assert files[2] in third
    assert last == "capture 4: 1 readings, dropped none"
    assert not PRIVATE.search(err)


def wireguard_files(tmp_path: Path) -> list[str]:
    """Write captures of the server's interface alone, and return their paths."""
    files = []
    for name in SERVED:
        file = tmp_path / name
        file.write_text(server_only(text_of(f"wireguard/{name}.all-transfer")), encoding="utf-8")
        files.append(str(file))
    return files


def test_records_are_the_running_totals_of_successive_captures(
    tmp_path: Path, capsys: Captured
) -> None:
    accounts = tmp_path / "accounts.csv"
    accounts.write_text(
        "key,account\nhsvmn4RoaUmJIgeJ7ChOEGfVvVl/BKQy23vUbW1NJUk=,acct-81723\n"
        "HFGmpzz1C4tSzNFoU8KvVISEjJUEyiZ6SoosY0mI6Co=,bob@example.org\n",
        encoding="utf-8",
    )
    arguments = ["read", "--source", "wireguard", *RECORDS, "--accounts", str(accounts)]
    assert main([*arguments, *wireguard_files(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out == (
        '{"record":"usage_counter.1","day":"2026-10-05","user":"acct-81723","location":"us-nyc",'
        '"epoch":"9f3c2b7a11d04e55","bytes":1072000}\n'
        '{"record":"usage_counter.1","day":"2026-10-05","user":"bob@example.org",'
        '"location":"us-nyc","epoch":"9f3c2b7a11d04e55","bytes":1088000}\n'
    )
    assert err.count("3 readings, dropped 1 unmapped\n") == 3


def test_records_without_epoch_get_a_random_one(capsys: Captured) -> None:
    files = [path(f"openvpn/fast-02{name}") for name in ("a.mgmt-before", "b.mgmt-after")]
    epochs: set[str] = set()
    for _ in range(2):
        assert main(["read", "--source", "openvpn", *RECORDS[:-2], *files]) == 0
        epochs |= {json.loads(line)["epoch"] for line in capsys.readouterr().out.splitlines()}
    assert len(epochs) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", epoch) for epoch in epochs)


def test_an_unreadable_capture_in_between_costs_nothing(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "empty").touch()
    files = [
        path("openvpn/fast-02a.mgmt-before"),
        str(tmp_path / "empty"),
        path("openvpn/fast-02b.mgmt-after"),
    ]
    assert main(["read", "--source", "openvpn", *RECORDS, *files]) == 4
    first = capsys.readouterr().out.splitlines()[0]
    assert json.loads(first)["bytes"] == 1_052_000 + 40


def test_one_capture_is_only_a_baseline_and_says_so(capsys: Captured) -> None:
    name = path("openvpn/01-connected.status-v2.file")
    assert main(["read", "--source", "openvpn", *RECORDS, name]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "baseline" in err


def test_a_public_key_is_never_sent(tmp_path: Path, capsys: Captured) -> None:
    assert main(["read", "--source", "wireguard", *RECORDS, *wireguard_files(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--accounts" in err


def test_read_takes_accounts_too(tmp_path: Path, capsys: Captured) -> None:
    accounts = tmp_path / "accounts.csv"
    accounts.write_text("user1,acct-1\n", encoding="utf-8")
    name = path("openvpn/01-connected.status-v2.file")
    assert main(["read", "--source", "openvpn", "--accounts", str(accounts), name]) == 0
    out, err = capsys.readouterr()
    assert out == '{"account":"acct-1","sessions":2,"bytes":8267}\n'
    assert err == "capture 1: 3 readings, dropped 1 unmapped\n"


def test_a_wrong_map_is_bad_input(tmp_path: Path, capsys: Captured) -> None:
    accounts = tmp_path / "accounts.csv"
    accounts.write_text("one,two,three\n", encoding="utf-8")
    name = path("openvpn/01-connected.status-v2.file")
    assert main(["read", "--source", "openvpn", "--accounts", str(accounts), name]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "line 1" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["read"],
        ["read", "--source", "pptp", "x"],
        ["read", "--source", "openvpn"],
        ["read", "--source", "openvpn", "--records", "x"],
        ["read", "--source", "openvpn", "--epoch", "0123456789abcdef", "x"],
        ["read", "--source", "openvpn", "-", "-"],
        ["read", "--source", "openvpn", *RECORDS[:2], "other", *RECORDS[3:], "x"],
        ["read", "--source", "openvpn", *RECORDS[:2], "de-aa-bb-cc-dd-ee-ff", *RECORDS[3:], "x"],
        ["read", "--source", "openvpn", *RECORDS[:-1], "9F3C2B7A11D04E55", "x"],
        ["read", "--source", "openvpn", *RECORDS, "--day", "2026-02-30", "x"],
        ["read", "--source", "openvpn", *RECORDS, "--day", "2026-10-05T10:00", "x"],
    ],
)
def test_usage_errors(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err
    assert "de-aa" not in err
    assert "10:00" not in err


def test_help_has_examples_and_version(capsys: Captured) -> None:
    assert main(["read", "--help"]) == 0
    assert "wg show wg0 transfer | aggregator-agent read" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"aggregator-agent {__version__}\n"


def test_standard_input_in_a_process_of_its_own() -> None:
    """With the C locale, and a name that is not ASCII."""
    text = text_of("openvpn/01-connected.status-v3.file").replace("user3", "ärger")
    done = run("read", "--source", "openvpn", "-", given=text.encode())
    assert done.returncode == 0
    assert json.loads(done.stdout)["account"] == "ärger"
    assert not PRIVATE.search((done.stdout + done.stderr).decode())


def test_a_name_that_is_no_utf_8_drops_its_row() -> None:
    text = text_of("openvpn/01-connected.mgmt-status3").encode().replace(b"user2", b"\xff\xfe")
    done = run("read", "--source", "openvpn", "-", given=text)
    assert done.returncode == 0
    assert done.stderr == b"capture 1: 2 readings, dropped 1 bad_format\n"


def test_a_private_key_in_a_dump_appears_nowhere(tmp_path: Path) -> None:
    """Whole dump or broken, CS-7: keys and endpoints end in the parser."""
    private, peer, secret = (f"{letter * 42}A=" for letter in "kpq")
    row = f"{peer}\t{secret}\t203.0.113.9:1\t10.0.0.2/32\t9\t1\t2\t25\n"
    dump = f"{private}\t{peer}\t51820\toff\n{row}"
    for text in (dump, dump.replace("\t", " "), dump[:-1], dump.replace("\t1\t2", "\tx\t2")):
        done = run("read", "--source", "wireguard", "-", given=text.encode())
        for word in (private, secret, "203.0.113.9", "10.0.0.2"):
            assert word.encode() not in done.stdout + done.stderr


def test_the_agent_stays_light() -> None:
    code = (
        "import sys; import aggregator.agent.cli; "
        "heavy = {'duckdb', 'pyarrow', 'click', 'rich', 'numpy', 'cryptography', 'ssl', 'vici', "
        "'maxminddb'} & set(sys.modules); "
        "sys.exit(1 if heavy else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env=environment, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0


def test_an_unexpected_error_tells_its_kind_and_place_only(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def fails(_path: str) -> str:
        raise ValueError("alice 203.0.113.9")

    monkeypatch.setattr(cli_read, "_text", fails)
    assert main(["read", "--source", "openvpn", "x"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"aggregator-agent: unexpected ValueError at aggregator\.agent\.cli_read:\d+\n", err
    )


def test_an_interrupt_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def interrupted(_path: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_read, "_text", interrupted)
    assert main(["read", "--source", "openvpn", "x"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_left_gives_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    name = path("openvpn/01-connected.status-v2.file")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "aggregator.agent.cli", "read", "--source", "openvpn", name],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert done.stderr == b"capture 1: 3 readings, dropped none\n"


def test_keys_writes_the_private_half_once_and_prints_the_public_one(
    tmp_path: Path, capsys: Captured
) -> None:
    """The private half never leaves the machine, and is never overwritten."""
    out = tmp_path / "signing.key"
    assert main(["keys", "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(out.read_bytes()))
    assert base64.b64decode(printed) == private.public_key().public_bytes_raw()
    assert out.stat().st_mode & 0o777 == 0o600
    content = out.read_bytes()
    assert main(["keys", "--out", str(out)]) == 3
    assert out.read_bytes() == content
    assert "is there already" in capsys.readouterr().err
    assert main(["keys", "--out", str(tmp_path / "missing" / "key")]) == 3


def test_run_of_a_configuration_that_is_missing_is_exit_3(tmp_path: Path, capsys: Captured) -> None:
    for arguments in (["--check"], []):
        assert main(["run", "--config", str(tmp_path / "agent.toml"), *arguments]) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert f"{tmp_path}/agent.toml: cannot be read: No such file" in err


def test_openvpn_hook_hands_the_end_of_a_session_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "hook"))
        listening.settimeout(60)
        ended = {"common_name": "alice", "time_unix": "9", "bytes_received": "1", "bytes_sent": "2"}
        for name, value in (ended | {"trusted_ip": "203.0.113.9"}).items():
            monkeypatch.setenv(name, value)
        assert main(["openvpn-hook", str(tmp_path / "hook"), "added by OpenVPN"]) == 0
        message = listening.recv(1000)
    assert b"alice" in message
    assert b"203.0.113.9" not in message
    assert main(["openvpn-hook", str(tmp_path / "nobody")]) == 0, "a server must never be stopped"
