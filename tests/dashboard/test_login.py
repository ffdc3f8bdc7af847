"""Nobody sees a page without the key; a browser that was led here by others sends it nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.dashboard.application import SECONDS_A_TRY, TRIES
from aggregator.dashboard.guard import HEADERS, hosts
from aggregator.dashboard.serve import LIMITS
from aggregator.dashboard.sessions import IDLE_SECONDS, WHOLE_SECONDS

from .running import PASSWORD, PATIENCE, Answer, Running, opened, wait_until
from .running import settings as of_dashboard

PATHS = (
    "/", "/index.html", "/locations.html", "/assets/site.css", "/none", "//x", "/login/", "/logout",
    "/2026-10-01..2026-10-03/", "/?from=last-week", "/?from=nonsense", "/..%2f", "/dashboard.css/",
    "/%00", "/docs", "/openapi.json", "/LOGIN",
)  # fmt: skip
PUBLIC = ("/login", "/dashboard.css")


def check_headers(answer: Answer) -> None:
    """Fail if an answer lacks what every answer has, or says what it is made by."""
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for name, value in HEADERS.items():
        if name != "Content-Security-Policy":
            assert answer.headers[name.lower()] == value
    assert not {"server", "date", "etag", "last-modified", "access-control-allow-origin"} & set(
        answer.headers
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", [None, "x", "session", "other name"])
def test_no_page_without_a_login(shared: Running, path: str, cookie: str | None) -> None:
    name = shared.log_in().partition("=")[0]
    sent = {
        None: None, "x": f"{name}=x", "session": f"{name}={'A' * 43}",
        "other name": shared.log_in().replace(name, f"{name}x"),
    }[cookie]  # fmt: skip
    for method in ("GET", "HEAD"):
        answer = shared.ask(method, path, cookie=sent)
        assert (answer.status, answer.headers["location"]) == (303, "/login")
        assert answer.body == b""
        assert "set-cookie" not in answer.headers
        check_headers(answer)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))
def test_whatever_is_asked_for_it_leads_to_the_login(shared: Running, rest: str) -> None:
    shared.wait(1)
    answer = shared.ask("GET", f"/{rest}")
    if f"/{rest}".partition("?")[0].partition("#")[0] in PUBLIC:
        assert answer.status == 200
    else:
        assert (answer.status, answer.headers["location"]) == (303, "/login")


def test_the_login_page_says_nothing_of_the_home(shared: Running) -> None:
    for path in PUBLIC:
        answer = shared.ask("GET", path)
        assert answer.status == 200
        check_headers(answer)
        for word in ("2026", "us-nyc", str(shared.root), "rehearsal", "script"):
            assert word not in answer.text
    page = shared.ask("GET", "/login").text
    assert 'type="password"' in page
    assert 'autocomplete="current-password"' in page
    # Whoever is in already goes on.
    assert shared.ask("GET", "/login", cookie=shared.log_in()).headers["location"] == "/"


def test_a_cookie_for_this_browser_only(shared: Running) -> None:
    shared.wait(SECONDS_A_TRY)
    answer = shared.post("/login", {"key": PASSWORD})
    check_headers(answer)
    pair, *attributes = answer.headers["set-cookie"].split("; ")
    assert {one.lower() for one in attributes} == {"httponly", "samesite=strict", "path=/"}
    name, _, identity = pair.partition("=")
    assert name == f"aggregator_dashboard_{shared.server.port}"
    assert len(identity) >= 43
    assert shared.log_in() != pair
    assert shared.ask("GET", "/", cookie=f"other=1; {pair}").status == 200


def test_a_new_login_ends_the_old_session(shared: Running) -> None:
    first = shared.log_in()
    shared.wait(SECONDS_A_TRY)
    second = shared.post("/login", {"key": PASSWORD}, first).cookie
    assert shared.ask("GET", "/", cookie=first).status == 303
    assert shared.ask("GET", "/", cookie=second).status == 200


def test_logging_out_ends_it_for_every_copy_of_the_cookie(shared: Running) -> None:
    cookie, other = shared.log_in(), shared.log_in()
    answer = shared.post("/logout", cookie=cookie)
    assert (answer.status, answer.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    check_headers(answer)
    assert shared.ask("GET", "/", cookie=cookie).status == 303
    assert shared.ask("GET", "/", cookie=other).status == 200
    # By nothing but a form, and whoever is out may log out.
    assert shared.ask("GET", "/logout", cookie=other).status == 404
    assert shared.ask("GET", "/", cookie=other).status == 200
    assert shared.post("/logout").status == 303


@pytest.mark.parametrize(
    ("step", "steps"),
    [(IDLE_SECONDS, 1), (IDLE_SECONDS - 1, WHOLE_SECONDS // (IDLE_SECONDS - 1) + 1)],
)
def test_a_session_is_over_after_a_while(shared: Running, step: float, steps: float) -> None:
    cookie = shared.log_in()
    for left in reversed(range(int(steps))):
        shared.wait(step)
        assert shared.ask("GET", "/", cookie=cookie).status == (200 if left else 303)


@pytest.mark.parametrize(
    "key", ["", PASSWORD[:-1], PASSWORD + " ", PASSWORD.upper(), "\0", "ä" * 999]
)
def test_a_wrong_password_is_not_repeated(shared: Running, key: str) -> None:
    shared.wait(SECONDS_A_TRY)
    answer = shared.post("/login", {"key": key})
    assert answer.status == 403
    assert "set-cookie" not in answer.headers
    assert 'role="alert">This password is wrong.</p>' in answer.text
    assert 'aria-invalid="true"' in answer.text
    check_headers(answer)
    if key:
        assert key not in answer.text


def test_tries_are_slowed_down_whoever_makes_them(board: Running) -> None:
    for _ in range(TRIES):
        assert board.post("/login", {"key": "wrong"}).status == 403
    # From now on the right one is not looked at either, or it could be guessed at any speed.
    for key in ("wrong", PASSWORD):
        answer = board.post("/login", {"key": key})
        assert answer.status == 429
        assert answer.headers["retry-after"] == "2"
        assert "Wait 2 s" in answer.text
    board.wait(SECONDS_A_TRY - 0.1)
    assert board.post("/login", {"key": PASSWORD}).status == 429
    board.wait(0.1)
    assert board.post("/login", {"key": PASSWORD}).status == 303
    assert board.post("/login", {"key": PASSWORD}).status == 429
    # In an hour somebody guesses so often, and no more.
    right = 0
    for _ in range(60):
        board.wait(1.0)
        right += board.post("/login", {"key": "wrong"}).status == 403
    assert right == 30


def test_the_journal_holds_no_key_no_cookie_and_no_address(board: Running) -> None:
    """CS-6: no log of the dashboard tells who came from where."""
    board.post("/login", {"key": "marker-of-a-guess"})
    cookie = board.log_in()
    board.ask("GET", "/marker?from=marker", cookie=cookie)
    with socket.create_connection(("127.0.0.1", board.server.port)) as garbage:
        garbage.sendall(b"\x00marker\r\n\r\n")
        assert garbage.recv(65_536).startswith(b"HTTP/1.1 400 ")
    board.post("/logout", cookie=cookie)
    assert board.said == [
        f"the dashboard is open: http://{board.host}/",
        "warning: somebody tried to log in to the dashboard, and could not",
        "somebody logged in to the dashboard",
    ]


@pytest.mark.parametrize(
    "host",
    ["example.net:{port}", "127.0.0.1", "localhost", "127.0.0.1:1", "127.0.0.1.example:{port}",
     "127.0.0.2:{port}", "[::1]:1", "localhost.:{port}", "x@127.0.0.1:{port}", "", None,
     "0.0.0.0:{port}", "[::ffff:127.0.0.1]:{port}"],
)  # fmt: skip
def test_a_name_of_others_that_points_here_gets_nothing(shared: Running, host: str | None) -> None:
    cookie = shared.log_in()
    said = None if host is None else host.format(port=shared.server.port)
    for method, path in (("GET", "/"), ("GET", "/login"), ("POST", "/login")):
        answer = shared.ask(method, path, headers={"Host": said}, cookie=cookie)
        # Without a Host it is no HTTP/1.1 at all.
        assert answer.status == (400 if host is None else 421)
        assert answer.body.count(b"\n") == 1
        assert "example" not in answer.text
        check_headers(answer)


def test_the_names_of_this_machine() -> None:
    common = {"127.0.0.1:8480", "localhost:8480", "[::1]:8480"}
    assert hosts(("127.0.0.1", 8480)) == common
    assert hosts(("::1", 8480)) == common
    assert hosts(("127.9.8.7", 8480)) == common | {"127.9.8.7:8480"}
    assert hosts(("127.0.0.1", 80)) >= {"127.0.0.1", "localhost", "[::1]", "localhost:80"}


def test_every_name_of_this_machine_is_served(shared: Running) -> None:
    cookie = shared.log_in()
    for name in ("127.0.0.1", "localhost", "[::1]", "LocalHost"):
        host = {"Host": f"{name}:{shared.server.port}"}
        assert shared.ask("GET", "/", headers=host, cookie=cookie).status == 200


@pytest.mark.parametrize(
    ("origin", "site", "expected"),
    [
        ("null", "same-origin", 303), ("own", "same-origin", 303), ("own", None, 303),
        (None, "same-origin", 303), ("null", None, 403), (None, None, 403),
        ("null", "cross-site", 403), ("null", "same-site", 403), ("null", "none", 403),
        ("http://example.net", "same-origin", 403), ("http://example.net", None, 403),
        ("own", "cross-site", 403), ("http://127.0.0.1:1", None, 403),
        ("https-own", None, 403), ("http://localhost:{port}", None, 403),
    ],
)  # fmt: skip
def test_a_form_of_another_site_does_nothing(
    shared: Running, origin: str | None, site: str | None, expected: int
) -> None:
    cookie = shared.log_in()
    own = f"http://{shared.host}"
    said = {"own": own, "https-own": own.replace("http:", "https:")}.get(origin or "", origin)
    said = said and said.format(port=shared.server.port)
    answer = shared.post("/logout", cookie=cookie, Origin=said, Sec_Fetch_Site=site)
    assert answer.status == expected
    check_headers(answer)
    after = shared.ask("GET", "/", cookie=cookie).status
    assert after == (303 if expected == 303 else 200)


@pytest.mark.parametrize(
    ("site", "mode", "dest", "expected"),
    [
        ("none", "navigate", "document", 200), ("same-origin", "no-cors", "style", 200),
        ("cross-site", "navigate", "document", 200), ("same-site", "navigate", "document", 200),
        ("cross-site", "navigate", "iframe", 403), ("cross-site", "no-cors", "image", 403),
        ("same-site", "cors", "empty", 403), ("same-site", "no-cors", "script", 403),
        (None, None, None, 200),
    ],
)  # fmt: skip
def test_another_site_can_embed_nothing(
    shared: Running, site: str | None, mode: str | None, dest: str | None, expected: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    answer = shared.ask("GET", "/", headers=headers, cookie=shared.log_in())
    assert answer.status == expected


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "X"])
def test_other_methods_are_not_taken(shared: Running, method: str) -> None:
    answer = shared.ask(method, "/", cookie=shared.log_in())
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    check_headers(answer)


def test_forms_go_to_two_places_only(shared: Running) -> None:
    cookie = shared.log_in()
    for path in ("/", "/index.html", "/dashboard.css", "/none"):
        answer = shared.post(path, cookie=cookie)
        assert answer.status == 405
        check_headers(answer)


def test_it_is_no_proxy(shared: Running) -> None:
    cookie = shared.log_in()
    for target in ("http://example.net/", f"http://{shared.host}/", "*", "index.html"):
        answer = shared.ask("GET", target, cookie=cookie)
        assert answer.status == 404
        assert "example" not in answer.text
        check_headers(answer)


def test_what_is_no_small_form_is_not_taken(shared: Running) -> None:
    shared.wait(PATIENCE)
    assert shared.post("/login", {"key": "x" * 20_000}).status == 413
    assert shared.post("/login", Content_Type="text/plain").status == 415
    assert shared.post("/login", Content_Type=None).status == 415
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    for body in (b"key=%ff", b"\xff", b"&".join([b"a=1"] * 20)):
        answer = shared.ask("POST", "/login", body, form)
        assert answer.status == 400
        check_headers(answer)
    # None of these was a try.
    for _ in range(TRIES):
        assert shared.post("/login", {"other": "1"}).status == 403
    shared.wait(PATIENCE)


def test_a_head_without_an_end_is_cut_off_and_too_long_a_one_refused(shared: Running) -> None:
    with socket.create_connection(("127.0.0.1", shared.server.port), timeout=PATIENCE) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (40 << 10))
        with contextlib.suppress(ConnectionResetError):
            assert plain.recv(65_536).startswith(b"HTTP/1.1 400 ")


def test_requests_are_limited_in_number(board: Running) -> None:
    found = [board.ask("GET", "/login") for _ in range(LIMITS.burst + 1)]
    assert [one.status for one in found] == [200] * LIMITS.burst + [429]
    assert found[-1].headers["retry-after"] == "1"
    check_headers(found[-1])
    board.wait(1.0)
    assert board.ask("GET", "/login").status == 200


def test_connections_are_limited_in_number(board: Running) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(LIMITS.connections):
            plain = socket.create_connection(("127.0.0.1", board.server.port), timeout=PATIENCE)
            stack.enter_context(plain)
        wait_until(lambda: len(board.server.server_state.connections) == LIMITS.connections)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            board.ask("GET", "/login")
    wait_until(lambda: not board.server.server_state.connections)
    assert board.ask("GET", "/login").status == 200


def test_without_a_password_a_code_is_shown_once_and_opens(home: Path) -> None:
    of_dashboard(home)
    with opened(home) as board:
        ((url, code),) = board.shown
        assert url == f"http://{board.host}/"
        page = board.ask("GET", "/login").text
        assert 'type="text"' in page
        assert "terminal" in page
        assert code not in page
        assert board.post("/login", {"key": "AAAAA-AAAAA-AAAAA-AAAAA"}).status == 403
        cookie = board.log_in(code.lower())
        assert board.ask("GET", "/", cookie=cookie).status == 200
        # Until the process ends, also for a second browser.
        assert board.log_in(code) != cookie
        assert code not in json.dumps(board.said)


def test_with_a_password_nothing_is_shown(shared: Running) -> None:
    assert shared.shown == []
    assert PASSWORD not in json.dumps(shared.said)


def test_many_at_once_share_the_tries(board: Running) -> None:
    found: list[int] = []
    several = [
        threading.Thread(target=lambda: found.append(board.post("/login", {"key": "x"}).status))
        for _ in range(3 * TRIES)
    ]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert sorted(found) == [403] * TRIES + [429] * 2 * TRIES
