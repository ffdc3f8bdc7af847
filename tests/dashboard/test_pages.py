"""What is shown: the pages as the home is now, with the bar, and errors in one line."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from closed import Run

from aggregator.dashboard.rendered import KEPT, PageLike, stamp_of
from aggregator.errors import IntegrityError
from aggregator.pipeline.deployment import Deployment
from aggregator.rules.periods import Span
from aggregator.stores.home import Home

from .running import Running, StandIn, opened, stand_in, with_password

DAYS = "2026-09-29 2026-09-30 2026-10-01 2026-10-02 2026-10-03"


def test_a_page_has_the_bar_and_is_as_the_site_made_it(shared: Running) -> None:
    cookie = shared.log_in()
    answer = shared.ask("GET", "/", cookie=cookie)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "index|2026-09-29" in answer.text
    assert '<link rel="stylesheet" href="/dashboard.css">\n</head>' in answer.text
    head, _, rest = answer.text.partition('<body class="x">')
    assert head
    assert rest.lstrip().startswith('<div class="dashboard-bar"')
    assert '<time datetime="2026-10-05">2026-10-05</time>' in rest
    assert '<form method="post" action="/logout">' in rest
    assert shared.ask("GET", "/index.html", cookie=cookie).body == answer.body
    style = shared.ask("GET", "/assets/site.css", cookie=cookie)
    assert (style.status, style.body) == (200, b"body{}")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert shared.ask("HEAD", "/", cookie=cookie).body == b""


def test_what_is_no_page_is_not_found_and_not_repeated(shared: Running) -> None:
    cookie = shared.log_in()
    for path in ("/marker.html", "//marker.example/", "/marker/../index.html", "/%2e%2e/marker"):
        for query in ("", "?from=&to=", "?from=last-week"):
            answer = shared.ask("GET", path + query, cookie=cookie)
            assert answer.status == 404
            assert "marker" not in answer.text


def test_it_is_rendered_once_until_something_changed(board: Running, run: Run) -> None:
    cookie = board.log_in()
    before = board.ask("GET", "/", cookie=cookie).text
    for path in ("/", "/locations.html", "/assets/site.css", "/none"):
        board.ask("GET", path, cookie=cookie)
    assert board.rendered == [None]
    assert DAYS in before
    # The 4th leaves its grace.
    assert run(board.root, "rollup", "--confirm-clock", now="2026-10-06T01:00:00Z").code == 0
    after = board.ask("GET", "/", cookie=cookie).text
    assert f"{DAYS} 2026-10-04" in after
    assert board.rendered == [None, None]


def test_a_new_profile_a_receipt_or_settings_are_a_change(board: Running) -> None:
    cookie, home = board.log_in(), Home(board.root)
    assert "k=10<" in board.ask("GET", "/", cookie=cookie).text
    text = home.profile_path.read_text()
    home.profile_path.write_text(text.replace("k = 10", "k = 11"))
    assert home.profile_path.read_text() != text
    assert "k=11<" in board.ask("GET", "/", cookie=cookie).text
    for path in (home.folder("audit") / "receipt-erase-1.json", home.config_path):
        before = stamp_of(home)
        with path.open("a") as file:
            file.write("\n")
        assert stamp_of(home) != before
    (home.folder("audit") / "log.ndjson").touch()
    before = stamp_of(home)
    (next(home.folder("raw").iterdir()) / "x").touch()
    assert stamp_of(home) == before
    # A month begins, of which a page tells when it will be purged.
    (home.folder("raw") / "2026-11").mkdir()
    assert stamp_of(home) != before


def test_what_changes_while_it_is_rendered_is_shown(home: Path) -> None:
    with_password(home)
    left = [1]

    def changing(house: Deployment, span: Span | None) -> Iterator[PageLike]:
        yield from list(stand_in(house, span))
        if left:
            left.pop()
            house.tables.remove("usage_daily", "2026-10-03")

    with opened(home, changing) as board:
        answer = board.ask("GET", "/", cookie=board.log_in())
        assert DAYS.removesuffix(" 2026-10-03") + "|" in answer.text


def test_one_rendering_at_a_time_whoever_asks(home: Path) -> None:
    with_password(home)
    inside, most = [0], [0]

    def counted(house: Deployment, span: Span | None) -> Iterator[PageLike]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        yield from stand_in(house, span)
        inside[0] -= 1

    with opened(home, counted) as board:
        cookie = board.log_in()
        paths = [f"/2026-09-{day:02d}..2026-10-03/" for day in range(1, 9)]
        found: list[int] = []
        several = [
            threading.Thread(
                target=lambda path=path: found.append(board.ask("GET", path, cookie=cookie).status)
            )
            for path in paths
        ]
        for one in several:
            one.start()
        for one in several:
            one.join()
        assert found == [200] * len(paths)
        assert most == [1]
        # The last few are kept, and no more.
        done = len(board.rendered)
        for span in board.rendered[-KEPT:]:
            assert span is not None
            path = f"/{span.first}..{span.last}/index.html"
            assert board.ask("GET", path, cookie=cookie).status == 200
        assert len(board.rendered) == done
        first = board.rendered[0]
        assert first is not None
        board.ask("GET", f"/{first.first}..{first.last}/", cookie=cookie)
        assert len(board.rendered) == done + 1


@pytest.mark.parametrize("damaged", ["table", "config", "profile", "no home"])
def test_damage_is_a_page_of_one_line_and_the_journal_knows(board: Running, damaged: str) -> None:
    cookie, home = board.log_in(), Home(board.root)
    assert board.ask("GET", "/", cookie=cookie).status == 200
    path = {
        "table": board.root / "tables/usage_daily/month=2026-10/2026-10-02.parquet",
        "config": home.config_path,
        "profile": home.profile_path,
        "no home": home.mark_path,
    }[damaged]
    sound = path.read_bytes()
    path.write_bytes(b"<b>nonsense")
    answer = board.ask("GET", "/", cookie=cookie)
    assert answer.status == 503
    assert "nonsense" not in answer.text
    (told,) = [line for line in board.said if line.startswith("warning: the dashboard shows")]
    line = told.removeprefix("warning: the dashboard shows no page: ")
    assert f'role="alert">{line}</p>' in html.unescape(answer.text)
    # Put back, it is shown again without a restart.
    path.write_bytes(sound)
    assert board.ask("GET", "/", cookie=cookie).status == 200


def test_the_words_of_an_error_are_words_and_no_page(home: Path) -> None:
    with_password(home)

    def broken(house: Deployment, span: Span | None) -> Iterator[PageLike]:
        yield next(stand_in(house, span))
        raise IntegrityError("the file <b>x</b> & 'y' does not read")

    with opened(home, broken) as board:
        answer = board.ask("GET", "/", cookie=board.log_in())
        assert answer.status == 503
        assert "<b>" not in answer.text
        assert "the file &lt;b&gt;x&lt;/b&gt; &amp; &#39;y&#39; does not read" in answer.text


def test_an_unexpected_error_tells_its_kind_and_place_only(home: Path) -> None:
    with_password(home)

    def broken(house: Deployment, span: Span | None) -> Iterator[PageLike]:
        yield next(stand_in(house, span))
        raise RuntimeError("acct-81723")

    with opened(home, broken) as board:
        answer = board.ask("GET", "/", cookie=board.log_in())
        assert answer.status == 503
        assert "unexpected RuntimeError at" in answer.text
        (told,) = [line for line in board.said if line.startswith("warning: ")]
        assert told.startswith("warning: unexpected RuntimeError at")
        assert "acct" not in answer.text + "".join(board.said)


def test_what_a_page_says_of_its_own_policy_gives_way_to_the_header(home: Path) -> None:
    with_password(home)
    meta = '<meta http-equiv="Content-Security-Policy" content="form-action \'none\'">'
    skip = '<a class="skip" href="#main">To the content</a>'

    def strict(house: Deployment, span: Span | None) -> Iterator[PageLike]:
        yield StandIn("index.html", f"<head>{meta}</head><body>\n{skip}\n<main>".encode())

    with opened(home, strict) as board:
        answer = board.ask("GET", "/", cookie=board.log_in())
        assert "http-equiv" not in answer.text
        assert "form-action 'self'" in answer.headers["content-security-policy"]
        # What leads to the content is still the first link.
        assert f'<body>\n{skip}\n<div class="dashboard-bar"' in answer.text


def test_in_days_without_a_page_it_leads_to_their_overview(home: Path) -> None:
    with_password(home)

    def fewer(house: Deployment, span: Span | None) -> Iterator[PageLike]:
        yield from (one for one in stand_in(house, span) if not span or "loc" not in one.path)

    with opened(home, fewer) as board:
        cookie = board.log_in()
        there = "/2026-10-01..2026-10-02"
        answer = board.ask("GET", f"{there}/locations.html", cookie=cookie)
        assert (answer.status, answer.headers["location"]) == (303, f"{there}/")
        assert board.ask("GET", f"{there}/", cookie=cookie).status == 200
        assert board.ask("GET", f"{there}/none.css", cookie=cookie).status == 404


def test_days_are_chosen_by_the_address_and_links_stay_among_them(shared: Running) -> None:
    cookie = shared.log_in()
    answer = shared.ask("GET", "/locations.html?from=last-week", cookie=cookie)
    where = "/2026-09-28..2026-10-04/locations.html"
    assert (answer.status, answer.headers["location"]) == (303, where)
    page = shared.ask("GET", where, cookie=cookie).text
    assert "locations|" in page
    assert "|2026-09-28..2026-10-04|" in page
    assert 'value="2026-09-28"' in page
    assert 'value="2026-10-04"' in page
    # From there to others, and back to all.
    again = shared.ask("GET", f"{where}?from=2026-10-01&to=2026-10-03", cookie=cookie)
    assert again.headers["location"] == "/2026-10-01..2026-10-03/locations.html"
    whole = shared.ask("GET", f"{where}?from=&to=", cookie=cookie)
    assert whole.headers["location"] == "/locations.html"
    root = shared.ask("GET", "/?from=2026-10-01&to=", cookie=cookie)
    assert root.headers["location"] == "/2026-10-01..2026-10-05/"
    # What a page has in its own query is its own.
    assert shared.ask("GET", "/?location=us-nyc", cookie=cookie).status == 200


@pytest.mark.parametrize(
    "query",
    [
        "from=mark<b>er", "to=marker", "from=2026-10-02&to=2026-10-01", "from=7d&from=7d",
        "to=2026-10-01", "from=%00marker", "from=%ff", "from=" + "9" * 5000 + "d",
        "from=2026-12-01",
    ],
)  # fmt: skip
def test_what_names_no_days_is_refused_and_not_repeated(shared: Running, query: str) -> None:
    answer = shared.ask("GET", f"/?{query}", cookie=shared.log_in())
    assert answer.status == 400
    assert "marker" not in answer.text
    assert "<b>" not in answer.text
