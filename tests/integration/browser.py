"""A headless Chromium without a network, and the audit of what it shows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NEEDS_PROGRAM = "chromium"


@contextlib.contextmanager
def launched(*words: str) -> Iterator[Any]:
    """Give a browser; the test is skipped without one, and fails where INTEGRATION=1."""
    program = os.environ.get("CHROMIUM") or shutil.which(NEEDS_PROGRAM)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        say = pytest.fail if os.environ.get("INTEGRATION") == "1" else pytest.skip
        say("needs the program chromium and playwright (see `make integration`)")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox", *words])
        yield browser
        browser.close()


@dataclasses.dataclass(slots=True)
class Tab:
    """A page of the browser, and whatever it complained of."""

    page: Any
    told: list[str]

    def violations(self) -> list[str]:
        """Return what axe-core finds at fault: the rule, and where."""
        from axe_playwright_python.sync_playwright import Axe

        # It would fetch style sheets again, by a way that the page's policy forbids.
        found = Axe().run(self.page, options={"preload": False}).response["violations"]
        return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]]

    def is_wider_than_its_window(self) -> bool:
        """Say whether the page scrolls sideways as a whole."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))


@contextlib.contextmanager
def tab(browser: Any, width: int = 1100, scheme: str = "light") -> Iterator[Tab]:
    """Give a tab that is offline; at the end it must have complained of nothing."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    made = Tab(context.new_page(), [])
    made.page.on("pageerror", lambda error: made.told.append(str(error)))
    made.page.on("requestfailed", lambda one: made.told.append(f"failed: {one.url}"))
    made.page.on(
        "request",
        lambda one: one.url.startswith(("file:", "data:")) or made.told.append(f"asked: {one.url}"),
    )
    made.page.on(
        "console",
        lambda one: one.type in ("error", "warning") and made.told.append(one.text),
    )
    try:
        yield made
    finally:
        context.close()
    assert made.told == []
