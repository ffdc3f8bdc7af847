"""For tests: the four kinds of directory as real things, and what must hold when one fails."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from aggregator.directory.lookup import DirectoryError, check, look_up
from aggregator.model.settings import DirectoryKind, DirectorySettings, Entry

MARK: Final = "mark-7731"
"""Stands in every value that no error may hold."""

PATIENCE: Final = 45.0
"""Seconds after which a test gives up; nothing waits so long when all is well."""

FOREVER: Final = 600

SOON: Final[Any] = 0.3
"""A deadline that tests wait for; settings have whole seconds."""


def pseudonym(account: bytes) -> int:
    """Return a pseudonym as the house makes it, under a key of the tests."""
    return int.from_bytes(blake2b(account, digest_size=8, key=b"tests").digest(), "little")


def ask(settings: DirectorySettings, accounts: Iterable[str]) -> dict[str, Entry]:
    """Return what the directory says of `accounts`, by account."""
    wanted = {pseudonym(account.encode()): account for account in accounts}
    return {wanted[one]: found for one, found in look_up(settings, pseudonym, list(wanted)).items()}


def csv_file(folder: Path, text: str | bytes, **other: Any) -> DirectorySettings:
    """Return the settings of a CSV file of this text."""
    path = folder / f"{MARK}.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return DirectorySettings(DirectoryKind.CSV, path=str(path), **other)


def command(program: str, *words: str | Path, seconds: Any = FOREVER) -> DirectorySettings:
    """Return the settings of a command that is a Python `program`, given `words`."""
    line = (sys.executable, "-I", "-c", program, *map(str, words), MARK)
    return DirectorySettings(DirectoryKind.COMMAND, command=line, timeout_seconds=seconds)


def show(path: Path) -> DirectorySettings:
    """Return the settings of a command that shows a file."""
    return command("import shutil, sys; shutil.copyfileobj(open(sys.argv[1]), sys.stdout)", path)


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def fails(settings: DirectorySettings, *accounts: str) -> str:
    """Return the error's line of a look-up that must fail, and leave and tell nothing."""
    with pytest.raises(DirectoryError) as raised, nothing_left():
        ask(settings, accounts or ["acct-1"])
    return tells_nothing(raised.value)


def check_fails(settings: DirectorySettings) -> str:
    """Return the error's line of a check that must fail, and leave and tell nothing."""
    with pytest.raises(DirectoryError) as raised, nothing_left():
        check(settings)
    return tells_nothing(raised.value)


def tells_nothing(error: BaseException) -> str:
    """Return the error's line; no mark is in it, in its traceback, or in what frames hold of us."""
    assert (error.__cause__, error.__context__) == (None, None)
    told = [str(error), repr(error), *traceback.format_exception(error)]
    for frame, _line in traceback.walk_tb(error.__traceback__):
        if "/aggregator/directory/" in frame.f_code.co_filename:
            told += [repr(value) for value in frame.f_locals.values()]
            assert not frame.f_locals.get("found")
    assert not [text for text in told if MARK in text and "DirectorySettings(" not in text]
    assert "\n" not in str(error)
    return str(error)


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Within it no thread that reads a directory, and no child of this process, is left behind."""
    assert not _left()
    yield
    deadline = time.monotonic() + PATIENCE
    while _left():
        assert time.monotonic() < deadline, _left()
        time.sleep(0.01)


def _left() -> list[str]:
    threads = [one.name for one in threading.enumerate() if one.name == "directory"]
    children: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        # A thread of the test's own server may just have ended.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children += (task / "children").read_text().split()
    return threads + children


def is_running(pid: int) -> bool:
    """Say whether a process is there, and not only its number."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def gone(pid: int) -> bool:
    """Wait for the end of a process; False if it does not come."""
    deadline = time.monotonic() + PATIENCE
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def open_files() -> set[str]:
    """Return what this process has open, by number and name."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return {one for one in found if "/proc/" not in one}


class Handler(BaseHTTPRequestHandler):
    """Answers as the site's script for the path has it."""

    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.answers[self.path.partition("?")[0]](self)

    def handle(self) -> None:
        try:
            super().handle()
        finally:
            self.server.left.set()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def say(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Send an answer with these headers and nothing else, and then `body`."""
        lines = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
        head = f"HTTP/1.1 {status} {MARK}\r\n{lines}\r\n"
        self.wfile.write(head.encode() + body)
        self.wfile.flush()

    def whole(self, body: str | bytes, status: int = 200, **headers: str) -> None:
        """Send a whole answer with its length."""
        data = body.encode() if isinstance(body, str) else body
        self.say(data, status, Content_Length=str(len(data)), **headers)

    def until_left(self, then: Callable[[], None] = lambda: None) -> None:
        """Do `then` now and then until the other side has gone."""
        self.connection.settimeout(0.05)
        while True:
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                pass
            except OSError:
                break
            try:
                then()
            except OSError:
                break


class Site(ThreadingHTTPServer):
    """A server of this machine: what it answers by path, who asked, and whether one has left."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        """Listen on a free port, under TLS with a `context`."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = context
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.left = threading.Event()

    def get_request(self) -> Any:
        one, address = super().get_request()
        if self.context is not None:
            one = self.context.wrap_socket(one, server_side=True, do_handshake_on_connect=False)
        return one, address

    def handle_error(self, *_words: object) -> None:
        """A client that breaks off is no news here."""

    def url(self, path: str = f"/{MARK}") -> str:
        scheme = "http" if self.context is None else "https"
        return f"{scheme}://localhost:{self.server_port}{path}"

    def settings(self, path: str = f"/{MARK}", **other: Any) -> DirectorySettings:
        """Return settings that ask this site."""
        named = {"url": self.url(path), "timeout_seconds": FOREVER, **other}
        return DirectorySettings(DirectoryKind.HTTP, **named)


@contextlib.contextmanager
def site(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Run a site."""
    with Site(context) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


def certificates(folder: Path, *names: str) -> tuple[ssl.SSLContext, str]:
    """Return a server's context, and the file of the authority that it is to be trusted by."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost",))).configure_cert(context)
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, str(path)
