"""The files of the site: every page as bytes, the same for the same tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from aggregator.pipeline import dictionary
from aggregator.pipeline.deployment import Deployment
from aggregator.rules.periods import Span
from aggregator.site import connections, figures, kept
from aggregator.site import pages as found
from aggregator.site.figures import Figures
from aggregator.site.views import Section, View, Words

_FOLDER: Final = Path(__file__).parent
_ASSETS: Final = ("site.css", "site.js")


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One file of the site; `path` is relative, such as "assets/site.css"."""

    path: str
    content: bytes


def pages(house: Deployment, span: Span | None = None) -> Iterator[Page]:
    """Yield every file of the site of the days in `span`, else of the last year.

    IntegrityError where a table or a receipt does not read.
    """
    numbers = figures.gather(house, span)
    views = list(_views(house, numbers))
    template = _environment().get_template("page.html")
    menu = [(view.file, view.title) for view in views]
    for view in views:
        text = template.render(
            view=view,
            menu=menu,
            data=None if view.data is None else _json(view.data),
            last=numbers.last if numbers else None,
            first=numbers.span.first if numbers else None,
            rehearsal=house.config.rehearsal,
            profile=house.profile,
        )
        yield Page(view.file, text.encode())
    for name in _ASSETS:
        yield Page(f"assets/{name}", (_FOLDER / "assets" / name).read_bytes())


def _views(house: Deployment, numbers: Figures | None) -> Iterator[View]:
    if numbers is None:
        yield _nothing()
    else:
        yield found.overview(numbers, kept.facts(house, numbers))
        yield found.locations(numbers)
        yield connections.connections(numbers)
        yield found.apps(numbers)
        yield kept.crowd(numbers, house.profile.k)
    yield kept.fair_use(house)
    yield kept.retention(house)
    yield kept.policy(house, dictionary.table_entries(house.profile))


def _nothing() -> View:
    words = Words(
        (
            "No day is closed in that time, so there is nothing to show yet.",
            "A day is closed when its grace is over: aggregator status tells when.",
        )
    )
    return View("index.html", "Overview", "", (Section("nothing", "No closed day", (words,)),))


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _json(data: Mapping[str, Any]) -> str:
    """Return JSON that is safe inside an element of a page."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
