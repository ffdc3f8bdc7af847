"""Reading a running OpenVPN server: a fresh status file, or its management interface."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from captures import golden, said, text_of
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors import openvpn
from aggregator.agent.collectors.openvpn import Settings, connect
from aggregator.agent.collectors.openvpn_management import _ANSWER, _GREETING, _Conversation
from aggregator.agent.readings import Origin, SilentSourceError, nowhere
from aggregator.errors import BadInputError, ConfigError

FILE = "openvpn/03-tcp.status-v3.file"
WRITTEN = 1795325145
V1 = "openvpn/01-connected.mgmt-status1"
LIVE = "openvpn/03-tcp.mgmt-status3"


def at(seconds: float) -> dt.datetime:
    """Return the instant that many seconds after the epoch."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def written(path: Path, text: str, modified: float) -> Path:
    """Write a status file as it was modified then."""
    path.write_text(text, encoding="utf-8", newline="")
    os.utime(path, (modified, modified))
    return path


# -- the status file ---------------------------------------------------------------------------


def test_a_fresh_status_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "status", text_of(FILE), WRITTEN + 1)
    reader = connect(Settings(status=str(path)), lambda _address: Origin("DE", 1))
    for _ in range(2):
        capture = reader.read(at(WRITTEN + 5))
        assert said(capture) == golden(FILE)
        assert {connection.origin for connection in capture.connections} == {Origin("DE", 1)}
    reader.close()
    reader.close()


@pytest.mark.parametrize(
    ("now", "modified", "silent"),
    [
        (WRITTEN + 180, WRITTEN, False),
        (WRITTEN + 181, WRITTEN, True),
        (WRITTEN + 181, WRITTEN + 181, True),  # touched or copied: its TIME is old
        (WRITTEN + 10, WRITTEN - 171, True),  # the server's clock runs ahead: its file is old
        (WRITTEN - 30, WRITTEN - 30, False),
    ],
)
def test_marzban_1199_a_status_left_behind_is_silence_and_no_zero(
    tmp_path: Path, now: float, modified: float, silent: bool
) -> None:
    path = written(tmp_path / "status", text_of(FILE), modified)
    reader = connect(Settings(status=str(path)), nowhere)
    if not silent:
        assert said(reader.read(at(now))) == golden(FILE)
        return
    with pytest.raises(SilentSourceError):
        reader.read(at(now))


def test_the_age_at_which_a_status_is_old_is_a_setting(tmp_path: Path) -> None:
    path = written(tmp_path / "status", text_of(FILE), WRITTEN)
    reader = connect(Settings(status=str(path), stale_after_seconds=1200), nowhere)
    assert reader.read(at(WRITTEN + 1200)).readings
    with pytest.raises(SilentSourceError):
        reader.read(at(WRITTEN + 1201))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_version_1_goes_by_the_files_time_since_its_own_has_no_zone(
    tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    path = written(tmp_path / "status", text_of(V1), 1000)
    reader = connect(Settings(status=str(path)), nowhere)
    assert said(reader.read(at(1180))) == golden(V1)
    with pytest.raises(SilentSourceError):
        reader.read(at(1181))


class Rewriting:
    """A file that is written on whenever it is read, as by a server at work."""

    def __init__(self, path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Write the next of `texts` before each pause of the reader."""
        self.path, self.texts, self.pauses = path, texts, 0
        self.sleep(0)
        monkeypatch.setattr(openvpn.time, "sleep", self.sleep)

    def sleep(self, _seconds: float) -> None:
        """Go on writing instead of waiting."""
        self.pauses += 1
        written(self.path, self.texts.pop(0) if len(self.texts) > 1 else self.texts[0], WRITTEN)


def test_a_file_that_is_just_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(FILE)
    cut = [text[:200], text[:200], text[:400], text.removesuffix("END\n"), text]
    Rewriting(tmp_path / "status", ["", *cut], monkeypatch)
    reader = connect(Settings(status=str(tmp_path / "status")), nowhere)
    assert said(reader.read(at(WRITTEN))) == golden(FILE)


def test_an_old_tail_behind_a_new_head_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server overwrites in place: half of it is new, and its END is the old one."""
    text = text_of(FILE)
    line = text.index("CLIENT_LIST\tuser3")
    torn = text[:line] + text[line + 20 :]
    Rewriting(tmp_path / "status", [torn, text], monkeypatch)
    reader = connect(Settings(status=str(tmp_path / "status")), nowhere)
    assert not reader.read(at(WRITTEN)).dropped


@pytest.mark.parametrize("endless", [False, True], ids=["cut off", "changing"])
def test_a_file_that_never_gets_whole_could_not_be_read(
    tmp_path: Path, endless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(FILE)
    texts = [text + "x" * n for n in range(50)] if endless else [text.removesuffix("END\n")]
    writing = Rewriting(tmp_path / "status", texts, monkeypatch)
    with pytest.raises(BadInputError) as caught:
        connect(Settings(status=str(tmp_path / "status")), nowhere).read(at(WRITTEN))
    assert not isinstance(caught.value, SilentSourceError)
    assert writing.pauses > 3


def test_a_file_that_is_not_there_could_not_be_read(tmp_path: Path) -> None:
    reader = connect(Settings(status=str(tmp_path / "alice")), nowhere)
    with pytest.raises(BadInputError) as caught:
        reader.read(at(WRITTEN))
    assert "alice" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(status="/run/x", management="/run/y"),
        Settings(management="192.0.2.1:7505"),
        Settings(management="vpn.example.net:7505"),
        Settings(management="127.0.0.1"),
        Settings(management="127.0.0.1:"),
        Settings(management="127.0.0.1:70000"),
        Settings(management="[::]:7505"),
        Settings(management=":7505"),
        Settings(status="/run/x", hook_socket="relative.sock"),
        Settings(status="/run/x", hook_socket="/nowhere/at/all.sock"),
        Settings(status="/run/x", hook_socket="/run/" + "x" * 200),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(settings: Settings) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(settings, nowhere)
    assert "\n" not in str(caught.value)


# -- the management interface --------------------------------------------------------------------

Script = Callable[[socket.socket], None]
GREETING = b">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n"


@contextlib.contextmanager
def server(script: Script, path: Path | None = None) -> Iterator[str]:
    """Serve one client after the other by `script`; yield the address, as a setting."""
    listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
    with listener:
        listener.bind(("127.0.0.1", 0) if path is None else str(path))
        listener.listen(1)

        def serve() -> None:
            while True:
                with contextlib.suppress(OSError):
                    client, _address = listener.accept()
                    with client:
                        script(client)
                    continue
                return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}" if path is None else str(path)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def heard(client: socket.socket) -> bytes:
    """Return one line of the client."""
    line = b""
    while not line.endswith(b"\n"):
        byte = client.recv(1)
        if not byte:
            return line
        line += byte
    return line


def answering(text: str, commands: list[bytes]) -> Script:
    """Return a script that greets, notes commands and answers `status 3` in small pieces."""

    def script(client: socket.socket) -> None:
        client.sendall(GREETING)
        commands.append(heard(client))
        content = text.replace("\n", "\r\n").encode()
        for start in range(0, len(content), 100):
            client.sendall(content[start : start + 100])
        commands.append(heard(client))

    return script


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_the_management_interface_tells_the_live_status(tmp_path: Path, unix: bool) -> None:
    commands: list[bytes] = []
    path = tmp_path / "management.sock" if unix else None
    text = ">CLIENT:ENV,END\n" + text_of(LIVE).partition("<<< status 3\n")[2]
    with server(answering(text, commands), path) as address:
        reader = connect(Settings(management=address), nowhere)
        for _ in range(2):
            # However old its TIME is, it is an answer, and so it is not left behind.
            assert said(reader.read(at(WRITTEN + 10**6))) == golden(LIVE)
    assert commands == [b"status 3\n", b"quit\n"] * 2


class Pieces:
    """In the place of a socket: what the server says, in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        """Give these, one a call."""
        self.pieces = pieces

    def settimeout(self, _seconds: float) -> None:
        """Wait for nothing."""

    def recv(self, _size: int) -> bytes:
        """Return the next piece."""
        return self.pieces.pop(0)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_an_answer_may_come_in_any_pieces(sizes: list[int]) -> None:
    answer = b">INFO:x\r\nSTEND\r\nTHE END\r\n>CLIENT:ENV,END\r\nEND\r\n"
    pieces, at = [], 0
    for size in [*sizes, *([1] * len(answer))]:
        pieces.append(answer[at : at + size])
        at += size
    talk = _Conversation(time.monotonic() + 60)
    talk._socket = Pieces([piece for piece in pieces if piece] + [b""])
    assert talk.read(_GREETING)[0] == b">INFO:x\r\n"
    assert talk.read(_ANSWER) == (b"END", answer.removeprefix(b">INFO:x\r\n"))


def asking(password: bytes, refusal: bytes) -> Script:
    """Return a script that wants a password first."""

    def script(client: socket.socket) -> None:
        client.sendall(b"ENTER PASSWORD:")
        if heard(client) != password + b"\n":
            client.sendall(refusal)
            heard(client)
            return
        client.sendall(b"SUCCESS: password is correct\r\n" + GREETING)
        heard(client)
        client.sendall(text_of(FILE).encode())

    return script


@pytest.mark.parametrize(
    "refusal",
    [b"ENTER PASSWORD:", b"ERROR: bad password\r\nENTER PASSWORD:"],
    ids=["2.6.14", "as documented"],
)
def test_a_password_is_read_from_its_file_each_time(tmp_path: Path, refusal: bytes) -> None:
    file = tmp_path / "password"
    with server(asking(b"s3cret word", refusal)) as address:
        reader = connect(Settings(management=address, management_password_file=str(file)), nowhere)
        for content in (None, b"", b"wrong s3cret\n"):
            if content is not None:
                file.write_bytes(content)
            with pytest.raises(BadInputError, match="password") as caught:
                reader.read(at(WRITTEN))
            assert "s3cret" not in str(caught.value)
        file.write_bytes(b"s3cret word\nmore\n")
        assert said(reader.read(at(WRITTEN))) == golden(FILE)


def test_a_password_that_is_not_set_is_asked_for() -> None:
    with (
        server(asking(b"s3cret", b"")) as address,
        pytest.raises(BadInputError, match="set its file"),
    ):
        connect(Settings(management=address), nowhere).read(at(WRITTEN))


def silent(client: socket.socket) -> None:
    """Say nothing, as OpenVPN does while another client is connected."""
    heard(client)


def stopping(client: socket.socket) -> None:
    """End in the middle of the status."""
    client.sendall(GREETING)
    heard(client)
    client.sendall(text_of(FILE).encode()[:300])


def refusing(client: socket.socket) -> None:
    """Refuse the command."""
    client.sendall(GREETING)
    heard(client)
    client.sendall(b"ERROR: alice\r\n")


def dripping(client: socket.socket) -> None:
    """Send a notification every moment, and never the answer."""
    with contextlib.suppress(OSError):
        client.settimeout(0.05)
        client.sendall(GREETING)
        while True:
            client.sendall(b">BYTECOUNT_CLI:1,2,3\r\n")
            try:
                if not client.recv(100):
                    return
            except TimeoutError:
                continue


@pytest.mark.parametrize("script", [silent, stopping, refusing, dripping])
def test_an_answer_that_does_not_come_could_not_be_read(script: Script) -> None:
    with server(script) as address:
        reader = connect(Settings(management=address, timeout_seconds=1), nowhere)
        with pytest.raises(BadInputError) as caught:
            reader.read(at(WRITTEN))
        assert "alice" not in str(caught.value)
        assert "user" not in str(caught.value)


def test_a_management_interface_that_is_not_there_could_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        connect(Settings(management=str(tmp_path / "none.sock")), nowhere).read(at(WRITTEN))
