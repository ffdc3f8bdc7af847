"""Where the templates of mails run: Jinja2 in a sandbox, its errors told without values.

A template sees only what it is given, and can reach nothing beyond it. An error is told by file
and line, never by what was to be written (CT-3). Imported only where a mail or a sentence is
written: Jinja2 takes time to load.
"""

from __future__ import annotations

import html.parser
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote

from jinja2 import (
    BytecodeCache,
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
)
from jinja2.bccache import Bucket
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from aggregator.errors import ConfigError
from aggregator.mail.words import clean, is_right_to_left

Made = TypeVar("Made")

# What an expression of a template may raise, besides Jinja2's own errors.
_FAILURES: Final = (
    ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
)  # fmt: skip
_REASONS: Final = {
    "UndefinedError": "a name in it is not known",
    "SecurityError": "something in it is not allowed",
    "TemplateNotFound": "a file that it names is not there",
    "UnicodeDecodeError": "it is not in UTF-8",
}
_LOADING_TAGS: Final = frozenset(
    {"script", "link", "iframe", "frame", "object", "embed", "applet", "form", "base", "audio"}
    | {"video", "source", "track", "svg"}
)
_LOADING: Final = ("src", "srcset", "background", "poster", "data", "action", "longdesc")
_WITHIN: Final = ("cid:", "data:")


def environment(folders: Sequence[Path], known: Mapping[str, Any], *, markup: bool) -> Environment:
    """Return what reads templates from `folders`, the first that has a file wins.

    `known` is what every template sees; `markup` is for HTML: all that is not markup is escaped.
    """
    made = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folders),
        undefined=StrictUndefined,
        autoescape=markup,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        bytecode_cache=_COMPILED[markup],
    )
    made.globals.update(known)
    made.filters.update(_HTML_FILTERS if markup else _TEXT_FILTERS)
    return made


def guarded(make: Callable[[], Made], folders: Sequence[Path]) -> Made:
    """Return what `make` makes of templates in `folders`; ConfigError says which one is broken."""
    try:
        return make()
    except (*_FAILURES, TemplateError) as error:
        told = _blame(error, folders)
    # Out of the handler, so that the error's own words, which may hold values, go no further.
    raise ConfigError(told)


def remote(page: str) -> str | None:
    """Return the first tag of `page` that would load or run anything, None if all is in it."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.found


class _Compiled(BytecodeCache):
    """Keeps compiled templates for this process: most are the same in every language."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[str, Any]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        checksum, code = self._codes.get(bucket.key, ("", None))
        bucket.code = code if checksum == bucket.checksum else None

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key] = bucket.checksum, bucket.code


_COMPILED: Final = {False: _Compiled(), True: _Compiled()}


class _Reader(html.parser.HTMLParser):
    """Notes the first tag that loads or runs something (CS-10)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        named = {name: (value or "").strip().lower() for name, value in attrs}
        bad = (
            tag in _LOADING_TAGS
            or any(name.startswith("on") for name in named)
            or any(not named.get(name, "cid:").startswith(_WITHIN) for name in _LOADING)
            or (tag == "meta" and named.get("http-equiv") == "refresh")
            or _loads(named.get("style", ""))
        )
        self._note(tag, bad)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        self._note("style", self._in_style and _loads(data))

    def handle_comment(self, data: str) -> None:
        # Outlook takes some comments for markup.
        self._note("!--", "src" in data.lower() or _loads(data))

    def _note(self, tag: str, bad: bool) -> None:
        if bad and self.found is None:
            self.found = tag


def _loads(style: str) -> bool:
    """Say whether CSS would load something; an escape may spell anything, so it counts as that."""
    within = re.sub(r"url\(\s*[\"']?data:", "", style.lower())
    return any(word in within for word in ("url(", "@import", "image-set(", "\\"))


def _blame(error: Exception, folders: Sequence[Path]) -> str:
    """Return which template is broken, where and how; never what it was about to write."""
    name = type(error).__name__
    file: str | None
    if isinstance(error, TemplateSyntaxError):
        # Its words are about the template's source: no value is there yet.
        file, line, reason = error.filename, error.lineno, clean(error.message or name)
    else:
        file, line = _place(error.__traceback__, folders)
        reason = _REASONS.get(name, "something in it cannot be carried out")
    if isinstance(error, UnicodeDecodeError):
        file, line = next(_not_utf8(folders), None), 0
    where = f"template {file}" if file else f"templates in {folders[0]}"
    return f"the mail {where}{f', line {line},' if line else ''} cannot be used: {reason}"


def _place(traceback: TracebackType | None, folders: Sequence[Path]) -> tuple[str | None, int]:
    """Return the last file and line of a template that `traceback` passes."""
    found: tuple[str | None, int] = (None, 0)
    while traceback is not None:
        file = Path(traceback.tb_frame.f_code.co_filename)
        if file.suffix == ".j2" and any(map(file.is_relative_to, folders)):
            found = str(file), traceback.tb_lineno
        traceback = traceback.tb_next
    return found


def _not_utf8(folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        for file in sorted(folder.glob("*.j2")):
            try:
                file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                yield str(file)


def _sentence(words: str) -> str:
    """Return `words` with a capital at their beginning."""
    return words[:1].upper() + words[1:]


def _heading(words: str) -> str:
    return f"{words}\n{'-' * len(words)}"


def _isolated(name: str) -> str:
    """Return a name that does not turn the words around it about."""
    return f"\u2068{name}\u2069" if is_right_to_left(name) else name


def _isolated_markup(name: str) -> str:
    return Markup("<bdi>{}</bdi>").format(name)


def _whole_markup(reference: str) -> str:
    return Markup('<span style="white-space:nowrap;">{}</span>').format(reference)


def _mailbox_markup(address: str) -> str:
    return Markup('<a href="mailto:{}" style="color:#0b5f70;">{}</a>').format(
        quote(address, safe="@"), address
    )


_TEXT_FILTERS: Final[Mapping[str, Callable[[str], str]]] = {
    "sentence": _sentence, "heading": _heading, "isolated": _isolated, "mailbox": str,
    "whole": str,
}  # fmt: skip
_HTML_FILTERS: Final[Mapping[str, Callable[[str], str]]] = {
    "sentence": _sentence, "isolated": _isolated_markup, "mailbox": _mailbox_markup,
    "whole": _whole_markup,
}  # fmt: skip
