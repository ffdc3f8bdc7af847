"""The dashboard in a real browser: logging in and out by keyboard, and what other pages can do."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard.running import PASSWORD, Running, opened, with_password

from aggregator.dashboard.application import SECONDS_A_TRY

pytestmark = pytest.mark.integration
NEEDS = None

ELSEWHERE = "elsewhere.example"


@pytest.fixture
def board(home: Path) -> Iterator[Running]:
    """Return a dashboard that shows the pages of the site."""
    from aggregator.site.build import pages

    with_password(home)
    with opened(home, pages) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Return a headless browser, for which another name points to this machine too."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("needs the program chromium")
    words = ["--no-sandbox", f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=words)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, board: Running) -> Iterator[Any]:
    """Return a tab that fails the test for anything a page complains about."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab, told = context.new_page(), []
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.on("console", lambda one: one.type in ("error", "warning") and told.append(one.text))
    tab.told = told
    yield tab
    context.close()
    # A status that is no success is told as an error; everything else is one.
    assert [one for one in told if "Failed to load resource" not in one] == []


def log_in(page: Any, board: Running) -> None:
    """Log in by keyboard: the field has the focus already."""
    board.wait(SECONDS_A_TRY)
    page.goto(board.server.url)
    assert page.url == f"{board.server.url}login"
    page.locator("#key:focus").wait_for()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(board.server.url)


def check_accessible(page: Any) -> None:
    """Fail if axe-core finds anything, in light and in dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()


def shot(page: Any, name: str) -> None:
    """Keep a picture where SCREENSHOTS says so, for somebody to look at."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_in_by_keyboard_around_and_out(page: Any, board: Running) -> None:
    page.goto(f"{board.server.url}locations.html")
    assert page.url == f"{board.server.url}login"
    page.locator("#key:focus").wait_for()
    check_accessible(page)
    shot(page, "login-dark")
    page.keyboard.type("wrong password")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("Password").input_value() == ""
    check_accessible(page)
    page.emulate_media(color_scheme="light")
    shot(page, "login-wrong")
    log_in(page, board)
    shot(page, "overview")
    check_accessible(page)
    page.emulate_media(color_scheme="light")
    # Every page that the overview leads to.
    links = page.evaluate("[...document.links].map(one => one.href)")
    own = sorted({one.partition("#")[0] for one in links if one.startswith(board.server.url)})
    assert len(own) > 1
    for address in own:
        answer = page.goto(address)
        assert answer.status == 200
        assert page.get_by_role("region", name="Dashboard").count() == 1
        assert page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        check_accessible(page)
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(board.server.url)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot(page, "overview-narrow")
    page.get_by_role("button", name="Log out").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{board.server.url}login")
    assert page.context.cookies() == []
    shot(page, "login-narrow")


def test_after_logging_out_the_back_button_shows_nothing(page: Any, board: Running) -> None:
    log_in(page, board)
    secret = page.locator("main").inner_text()[:40]
    page.goto(f"{board.server.url}?from=2026-10-01&to=2026-10-03")
    assert page.url == f"{board.server.url}2026-10-01..2026-10-03/"
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{board.server.url}login")
    for _ in range(3):
        page.go_back()
        page.wait_for_load_state()
        assert page.get_by_label("Password").count() == 1
        assert secret not in page.content()


def test_days_are_chosen_in_the_bar_by_keyboard(page: Any, board: Running) -> None:
    log_in(page, board)
    page.get_by_label("From", exact=True).focus()
    page.keyboard.type("last-week")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{board.server.url}2026-09-28..2026-10-04/")
    shot(page, "overview-week")
    assert page.get_by_label("to", exact=True).input_value() == "2026-10-04"
    page.get_by_label("From", exact=True).fill("<b>x</b>")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    check_accessible(page)
    shot(page, "no-days")


def test_an_error_is_a_page_that_can_be_read(page: Any, board: Running) -> None:
    log_in(page, board)
    damaged = board.root / "tables/usage_daily/month=2026-10/2026-10-02.parquet"
    damaged.write_bytes(b"nonsense")
    assert page.goto(board.server.url).status == 503
    assert "2026-10-02" in page.get_by_role("alert").inner_text()
    check_accessible(page)
    shot(page, "error")


@contextlib.contextmanager
def another_site(body: str) -> Iterator[int]:
    """Serve one page of another origin of this machine; give its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(f"<!doctype html><title>x</title>{body}".encode())

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", ELSEWHERE])
def test_another_site_in_the_same_browser_reaches_nothing(
    page: Any, board: Running, name: str
) -> None:
    log_in(page, board)
    own = board.server.url
    body = (
        f'<iframe src="{own}"></iframe><img src="{own}assets/x.png" alt="">'
        f'<form method="post" action="{own}logout"><button>Go</button></form>'
    )
    with another_site(body) as port:
        tab = page.context.new_page()
        tab.goto(f"http://{name}:{port}/")
        framed = [one for one in tab.frames if one is not tab.main_frame]
        assert all("Dashboard" not in one.content() for one in framed)
        answer = tab.evaluate(
            "async address => { try { return (await fetch(address,"
            " {credentials: 'include', mode: 'no-cors'})).type } catch { return 'refused' } }",
            own,
        )
        assert answer in ("refused", "opaque")
        with tab.expect_navigation() as gone:
            tab.get_by_role("button").click()
        assert gone.value.status == 403
        tab.close()
    assert page.goto(own).status == 200  # still in


def test_a_name_of_others_that_points_here_gets_nothing(page: Any, board: Running) -> None:
    log_in(page, board)
    answer = page.goto(board.server.url.replace("127.0.0.1", ELSEWHERE))
    assert answer.status == 421
    page.told.clear()  # that such a name is no origin to be trusted
    assert page.locator("form").count() == 0
