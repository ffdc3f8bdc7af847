"""A directory over HTTPS: whom it trusts and tells, and that no part is taken for the whole."""

from __future__ import annotations

import gzip
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aggregator.directory.lookup import check
from aggregator.model.settings import DirectoryKind, DirectorySettings, Entry, Secret

from . import places
from .places import MARK, Handler, Site

HERE = f"/{MARK}"
TEXT = f"account,address\nacct-1,{MARK}@example.net\n"
FOUND = {"acct-1": Entry("acct-1", f"{MARK}@example.net")}
TOKEN = f"token-{MARK}"


@pytest.fixture
def site() -> Iterator[Site]:
    with places.site() as made:
        made.answers[HERE] = lambda answer: answer.whole(TEXT)
        yield made


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> Secret:
    monkeypatch.setenv("DIRECTORY_TOKEN", TOKEN)
    return Secret(variable="DIRECTORY_TOKEN")


def of(url: str) -> DirectorySettings:
    return DirectorySettings(DirectoryKind.HTTP, url=url, timeout_seconds=places.FOREVER)


def test_what_is_asked_and_told(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    site.answers["/a%20b/%C3%A4"] = lambda answer: answer.whole(TEXT)
    settings = site.settings("/a b/ä?x=1&y=ü z", token=Secret(file=str(file)))
    assert places.ask(settings, ["acct-1"]) == FOUND
    ((path, headers),) = site.asked
    assert path == "/a%20b/%C3%A4?x=1&y=%C3%BC%20z"
    assert headers == {
        "Host": f"localhost:{site.server_port}",
        "Accept": "text/csv, application/x-ndjson",
        "Accept-Encoding": "identity",
        "Authorization": f"Bearer {TOKEN}",
        "Connection": "close",
        "User-Agent": "usage-aggregator",
    }


def test_without_a_token_none_is_sent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert places.ask(site.settings(url=site.url().replace("localhost", "127.0.0.1")), ["acct-1"])
    assert "Authorization" not in site.asked[0][1]


@pytest.mark.parametrize("content", ["", f"{MARK} {MARK}", f"{MARK}\r\nX: {MARK}", f"ä{MARK}"])
def test_a_token_that_cannot_be_sent_is_not(site: Site, tmp_path: Path, content: str) -> None:
    file = tmp_path / f"{MARK}.token"
    file.write_text(content)
    assert "directory.token_" in places.fails(site.settings(token=Secret(file=str(file))))
    assert not site.asked


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (MARK, "no URL that leads"),
        (f"/{MARK}", "no URL that leads"),
        (f"file:///{MARK}", "no URL that leads"),
        (f"ftp://{MARK}/", "no URL that leads"),
        (f"https:///{MARK}", "no URL that leads"),
        (f"https://[{MARK}/", "no URL that leads"),
        (f"https://{MARK}:99999/", "no URL that leads"),
        (f"https://{MARK}:x/", "no URL that leads"),
        (f"https://{MARK} x/", "no URL that leads"),
        (f"https://{'a' * 64}.example/{MARK}", "no URL that leads"),
        (f"https://u:{MARK}@localhost/", "has a password in its URL"),
        (f"https://{MARK}@localhost/", "has a password in its URL"),
        (f"http://{MARK}.example/", "its URL is not https"),
        ("http://10.0.0.1/", "its URL is not https"),
        ("http://127.0.0.1.example.net/", "its URL is not https"),
        ("http://localhost.example.net/", "its URL is not https"),
        (f"https://{MARK}.invalid/", "cannot be reached"),
    ],
)
def test_a_url_that_will_not_do_is_not_repeated(url: str, said: str) -> None:
    assert said in places.fails(of(url))


def test_nobody_listens(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "cannot be reached" in places.fails(of(f"http://127.0.0.1:{port}/{MARK}"))


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 404, 500, 503])
def test_another_status_is_no_directory(site: Site, status: int) -> None:
    site.answers[HERE] = lambda answer: answer.whole(TEXT, status)
    assert f"answered with status {status}; " in places.fails(site.settings())


def test_tls_is_verified(tmp_path: Path) -> None:
    context, ca_file = places.certificates(tmp_path)
    with places.site(context) as site:
        site.answers[HERE] = lambda answer: answer.whole(TEXT)
        assert places.ask(site.settings(ca_file=ca_file), ["acct-1"]) == FOUND
        assert "over TLS" in places.fails(site.settings())
        named = site.settings(url=site.url().replace("localhost", "127.0.0.1"), ca_file=ca_file)
        assert "over TLS" in places.fails(named)
        old = site.settings(ca_file=str(tmp_path / MARK))
        assert "file of authorities" in places.fails(old)
        (tmp_path / MARK).write_text(MARK)
        assert "file of authorities" in places.fails(old)
        assert len(site.asked) == 1


def test_old_tls_is_refused(tmp_path: Path) -> None:
    context, ca_file = places.certificates(tmp_path)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with places.site(context) as site:
        assert "over TLS" in places.fails(site.settings(ca_file=ca_file))


def test_a_redirect_within_the_same_place_is_followed(site: Site, token: Secret) -> None:
    site.answers["/old"] = lambda answer: answer.whole("", 302, Location=f"{HERE}?page=1")
    assert places.ask(site.settings("/old", token=token), ["acct-1"]) == FOUND
    assert [path for path, _ in site.asked] == ["/old", f"{HERE}?page=1"]
    assert [headers["Authorization"] for _, headers in site.asked] == [f"Bearer {TOKEN}"] * 2


@pytest.mark.parametrize(
    "where",
    [
        "{other}", "http://[::1]:{port}/", "http://127.0.0.1:{port}/", "//127.0.0.1:{port}/",
        "https://localhost:{port}/", "file:///etc/hostname", "http://u:p@localhost:{port}/",
        "http://mark-7731.example/", "http://[", "/again", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_elsewhere_or_in_a_circle_is_not(
    site: Site, token: Secret, where: str, status: int
) -> None:
    with places.site() as other:
        other.answers[HERE] = site.answers[HERE]
        place = where.format(other=other.url(), port=site.server_port)
        site.answers["/again"] = lambda answer: answer.whole(TEXT, status, Location=place)
        assert "sends to another place; " in places.fails(site.settings("/again", token=token))
        assert not other.asked
    assert {path for path, _ in site.asked} == {"/again"}


CUTS: dict[str, Callable[[Handler], None]] = {
    "shorter than its length": lambda answer: answer.say(
        TEXT.encode(), Content_Length=str(len(TEXT) + 1)
    ),
    "no last chunk": lambda answer: answer.say(
        b"%x\r\n%s\r\n" % (len(TEXT), TEXT.encode()), Transfer_Encoding="chunked"
    ),
    "within a chunk": lambda answer: answer.say(
        b"%x\r\n%s" % (len(TEXT) + 1, TEXT.encode()), Transfer_Encoding="chunked"
    ),
    "a broken chunk": lambda answer: answer.say(
        b"%x\r\n%s\r\nzz\r\n" % (len(TEXT), TEXT.encode()), Transfer_Encoding="chunked"
    ),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
def test_an_answer_that_was_cut_is_not_the_whole(tmp_path: Path, cut: str, secured: bool) -> None:
    context, ca_file = places.certificates(tmp_path) if secured else (None, None)
    with places.site(context) as site:
        site.answers[HERE] = CUTS[cut]
        assert "was cut off before its end; " in places.fails(site.settings(ca_file=ca_file))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda it: it.say(TEXT.encode()), "neither the length nor chunks"),
        (lambda it: it.say(TEXT.encode(), Content_Length=MARK), "neither the length nor chunks"),
        (lambda it: it.whole(gzip.compress(TEXT.encode()), Content_Encoding="gzip"), "encoding"),
        (lambda it: it.wfile.write(MARK.encode() * 9), "does not answer as HTTP has it"),
        (lambda it: it.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500), "HTTP has it"),
        (lambda it: it.wfile.write(b"A" * 100_000), "HTTP has it"),
        (lambda it: None, "was cut off"),
        (lambda it: it.whole(""), "is empty"),
        (lambda it: it.whole(f"<html>{MARK}</html>\n"), 'no column "account"'),
        (lambda it: it.whole(f'[{{"account":"{MARK}"}}]'), 'no column "account"'),
        (lambda it: it.whole(TEXT + "a" * 1_500_000), "1 MB in row 2 "),
        (lambda it: it.whole(TEXT.encode() + b"\xff,\n"), "UTF-8 in row 2 "),
        (lambda it: it.whole(f'{{"account":"{MARK}"}}\n{MARK}'), "malformed in row 2; "),
    ],
)
def test_an_answer_that_cannot_be_trusted_fails(
    site: Site, answer: Callable[[Handler], None], said: str
) -> None:
    site.answers[HERE] = answer
    assert said in places.fails(site.settings())


def drip(answer: Handler) -> None:
    answer.say(TEXT.encode(), Content_Length="1000000")
    answer.until_left(lambda: answer.wfile.write(b"a"))


SLOW: dict[str, Callable[[Handler], None]] = {
    "says nothing": Handler.until_left,
    "drips its head": lambda answer: answer.until_left(lambda: answer.wfile.write(b"H")),
    "stops in its head": lambda answer: (
        answer.wfile.write(b"HTTP/1.1 200 OK\r\n"), answer.until_left(),
    )[1],
    "goes on and on about going on": lambda answer: answer.until_left(
        lambda: answer.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    ),
    "drips its rows": drip,
}  # fmt: skip


@pytest.mark.parametrize("how", SLOW)
@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
def test_the_deadline_ends_a_slow_answer(tmp_path: Path, how: str, secured: bool) -> None:
    context, ca_file = places.certificates(tmp_path) if secured else (None, None)
    with places.site(context) as site:
        site.answers[HERE] = SLOW[how]
        settings = site.settings(ca_file=ca_file, timeout_seconds=places.SOON)
        assert "timed out after 0.3 s; " in places.fails(settings)
        assert site.left.wait(places.PATIENCE)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_deadline_ends_what_hangs_before_any_answer(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        url = f"{scheme}://127.0.0.1:{port}/{MARK}"
        settings = DirectorySettings(DirectoryKind.HTTP, url=url, timeout_seconds=places.SOON)
        assert "timed out after 0.3 s; " in places.fails(settings)
        taken, _ = deaf.accept()
        with taken:
            taken.settimeout(places.PATIENCE)
            while taken.recv(4096):
                pass


def test_the_deadline_ends_a_connection_that_is_never_made() -> None:
    with socket.socket() as full:
        # Its queue is full: the system answers to nobody else.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}/{MARK}"
            settings = DirectorySettings(DirectoryKind.HTTP, url=url, timeout_seconds=places.SOON)
            assert "timed out after 0.3 s; " in places.fails(settings)
        finally:
            for one in waiting:
                one.close()


def test_a_check_leaves_after_the_first_row(site: Site) -> None:
    site.answers[HERE] = drip
    with places.nothing_left():
        assert check(site.settings()) == ("account", "address")
    assert site.left.wait(places.PATIENCE)
