"""The dashboard's own pages, its bar on the pages of the site, and their style."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aggregator.dashboard.sessions import MOST_KEY

if TYPE_CHECKING:
    import jinja2

_HERE: Final = Path(__file__).parent
_SITE_STYLE: Final = _HERE.parent / "site" / "assets" / "site.css"
# A page's own word on what it may do, which lets it send no form; the header says it anew.
_META: Final = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n?')
_BODY: Final = re.compile(r'\s*<body[^>]*>\s*(?:<a class="skip"[^>]*>[^<]*</a>\s*)?')
_STYLE: Final = '<link rel="stylesheet" href="/dashboard.css">\n'


@functools.cache
def _templates() -> jinja2.Environment:
    # Loaded where the first page is written.
    import jinja2  # noqa: PLC0415

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
    )


def style() -> bytes:
    """Return the site's style sheet, which holds nothing of a home, and what is ours."""
    return _SITE_STYLE.read_bytes() + (_HERE / "dashboard.css").read_bytes()


def login(*, is_code: bool, problem: str = "", is_wrong: bool = False) -> bytes:
    """Return the page that asks for the password or the code; `problem` says why it asks again."""
    return _page("login.html", is_code=is_code, problem=problem, is_wrong=is_wrong, most=MOST_KEY)


def message(title: str, words: str) -> bytes:
    """Return a page that says what is wrong, to somebody who is logged in."""
    return _page("message.html", title=title, words=words)


def with_bar(page: bytes, day: str, first: str, last: str) -> bytes:
    """Return a page of the site with the bar: as of which day it is, which days it is about.

    `first` and `last` are those that were chosen, "" for all there are.
    """
    text = _META.sub("", page.decode(), count=1)
    bar = _page("bar.html", day=day, first=first, last=last).decode()
    head, end, body = text.partition("</head>")
    # After what leads to the content, which comes first for who goes by keyboard.
    return f"{head}{_STYLE}{end}{_BODY.sub(lambda found: found[0] + bar, body, count=1)}".encode()


def _page(name: str, **fields: Any) -> bytes:
    return f"{_templates().get_template(name).render(fields)}\n".encode()
