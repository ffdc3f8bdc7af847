"""The words of mails: templates per language, the shipped ones and the operator's.

A folder holds sentences.j2, all that is said in one language; beside the folders lie the files
that lay it out: desk, digest, user and test, each as .subject.j2, .txt.j2 and .html.j2. A file in
the operator's folder takes the place of the shipped one of the same name; a file in a language's
folder takes the place of the one beside the folders.
"""

# ruff: noqa: PLC0415 - heavy libraries load only where a mail or a sentence is written

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aggregator.errors import ConfigError
from aggregator.mail.letter import Case, Letter, example, reply_address, trial_letter
from aggregator.mail.words import MEGABYTE, Figures, Words, clean, figures
from aggregator.model.fairuse import Excess, RuleKind
from aggregator.model.notices import Audience
from aggregator.model.settings import MailSettings

DEFAULT: Final = "en"
_SHIPPED: Final = Path(__file__).parent / "templates"
_SENTENCES: Final = "sentences.j2"
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
_COLUMNS: Final = 72
_NOBODY: Final = "nobody@example.net"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Rendered:
    """A mail's words; `language` is the one of the templates that wrote them."""

    subject: str
    text: str
    html: str
    language: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Told:
    """A case as templates see it."""

    f: Figures
    account: str | None
    plan: str | None
    reference: str


class Renderer:
    """Writes mails and sentences; each language's templates are read when first needed."""

    def __init__(self, settings: MailSettings | None) -> None:
        """Write by `settings`; without any, sentences only, by the shipped templates."""
        self._settings = settings
        own = settings.templates if settings else None
        self._languages = _languages((Path(own), _SHIPPED) if own else (_SHIPPED,))
        self._tools: dict[str, _Tools] = {}

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that there are templates for, as tags."""
        return tuple(self._languages)

    def language(self, asked: str | None) -> str:
        """Return the language to write in: the one asked for, else the settings', else English.

        A tag that is not known is shortened until it is: pt-BR, pt.
        """
        for tag in (asked, self._settings.language if self._settings else None):
            parts = (tag or "").lower().replace("_", "-").split("-")
            for length in range(len(parts), 0, -1):
                known = "-".join(parts[:length])
                if known in self._languages:
                    return known
        return DEFAULT

    def render(self, letter: Letter) -> Rendered:
        """Return the words of `letter`; ConfigError if a template is broken."""
        tools = self._tool(letter.language)
        cases = [tools.told(case) for case in letter.cases]
        fields: dict[str, Any] = {"full": any(case.f.percent >= 100 for case in cases)}
        kind = "user"
        if letter.test:
            kind = "test"
        elif letter.audience is Audience.DESK:
            users = {case.excess.pseudonym for case in letter.cases}
            kind = "desk" if len(users) == 1 else "digest"
            fields["count"] = tools.words.number(len(users))
        if kind == "digest":
            order = sorted(zip(letter.cases, cases, strict=True), key=_heaviest_first)
            cases = [told for _case, told in order]
        return tools.render(kind, cases, fields)

    def sentences(self, excess: Excess, language: str, account: str | None = None) -> list[str]:
        """Return the arithmetic of `excess` in sentences that support may paste into a mail.

        What was compared; what the rule says of it; for rules of a whole month, both estimators
        (CS-9) and where it leads to; the unit. ConfigError if a template is broken.
        """
        from aggregator.mail.sandbox import guarded

        tools = self._tool(language)
        f = figures(excess, tools.words)

        def say() -> list[str]:
            module: Any = tools.plain.get_template(_SENTENCES).module
            who = module.who(None if account is None else clean(account))
            told = [module.arithmetic(f, who), module.outcome(f)]
            if excess.day is None:
                told += [module.compared(f)] if excess.kind.compares else []
                # A month that is over leads nowhere else.
                goes_on = excess.projected_bytes > excess.month_bytes
                told += [module.projection(f, who)] if goes_on else []
            return [str(sentence) for sentence in (*told, module.unit())]

        return guarded(say, tools.folders)

    def check(self) -> None:
        """Write every mail in every language with made-up figures.

        ConfigError names the file, and the line where there is one, if a template is broken, or
        if its HTML would load something from a network (CS-10).
        """
        from aggregator.mail.sandbox import remote

        for language in self._languages:
            for letter in _made_up(language):
                rendered = self.render(letter)
                found = remote(rendered.html)
                if found is not None:
                    raise ConfigError(
                        f"the mail templates for {language} load something from elsewhere"
                        f" (<{found}> in the HTML), and mails must not; take it out"
                    )
            for kind in RuleKind:
                for excess in _odd(example(kind).excess):
                    self.sentences(excess, language)

    def _tool(self, asked: str) -> _Tools:
        language = self.language(asked)
        if language not in self._tools:
            folders = self._languages[language]
            self._tools[language] = _Tools(language, folders, self._settings)
        return self._tools[language]


class _Tools:
    """One language's templates, for plain text and for HTML."""

    def __init__(
        self, language: str, folders: Sequence[Path], settings: MailSettings | None
    ) -> None:
        from aggregator.mail.sandbox import environment

        self.language = language
        self.words = Words(language)
        self.folders = folders
        known = {
            "service": _service(settings),
            "reply_to": reply_address(settings) if settings else "",
            "million": self.words.number(MEGABYTE),
            "language": language,
            "direction": self.words.direction,
        }
        self.plain = environment(folders, known, markup=False)
        self.markup = environment(folders, known, markup=True)

    def told(self, case: Case) -> _Told:
        """Return a case with its figures in words, and names that harm no line."""
        account = None if case.account is None else clean(case.account)
        plan = clean(case.plan) if case.plan else None
        return _Told(figures(case.excess, self.words), account, plan, clean(case.reference))

    def render(self, kind: str, cases: Sequence[_Told], fields: Mapping[str, Any]) -> Rendered:
        """Return the words of a mail of `kind`, one of the files' names."""
        from aggregator.mail.sandbox import guarded

        first = cases[0]
        # No name of anybody is part of what a subject is written from: it cannot slip in.
        public = {
            "month": first.f.month,
            "references": [case.reference for case in cases],
            **fields,
        }
        every = public | {
            "cases": cases,
            "f": first.f,
            "account": first.account,
            "plan": first.plan,
            "some_unnamed": any(case.account is None for case in cases),
        }

        def write() -> Rendered:
            subject = self.plain.get_template(f"{kind}.subject.j2").render(public)
            subject = clean(" ".join(subject.split()))
            text = self.plain.get_template(f"{kind}.txt.j2").render(every)
            page = self.markup.get_template(f"{kind}.html.j2").render(every, subject=subject)
            return Rendered(subject, _wrapped(text), f"{page.strip()}\n", self.language)

        return guarded(write, self.folders)


def _languages(roots: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Return each language's tag with the folders of its templates, the first that wins first."""
    for root in roots:
        if not root.is_dir():
            raise ConfigError("the folder that mail.templates names is not there; correct it")
    named: dict[str, dict[Path, Path]] = {}
    for root in roots:
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and _LANGUAGE.fullmatch(folder.name):
                named.setdefault(folder.name.lower(), {})[root] = folder
    for tag, own in named.items():
        if not any((folder / _SENTENCES).is_file() for folder in own.values()):
            raise ConfigError(
                f"the folder {tag} in mail.templates has no {_SENTENCES}, which holds all that"
                " mails say in a language; add it"
            )
    return {
        tag: tuple(path for root in roots for path in (own.get(root), root) if path)
        for tag, own in named.items()
    }


def _service(settings: MailSettings | None) -> str | None:
    """Return the service's name; None for the standard one, which each language has words for."""
    standard = MailSettings.__dataclass_fields__["service_name"].default
    if settings is None or settings.service_name == standard:
        return None
    return clean(settings.service_name)


def _heaviest_first(pair: tuple[Case, _Told]) -> tuple[int, int, str]:
    excess = pair[0].excess
    return -excess.month_bytes, excess.pseudonym, excess.rule


def _wrapped(text: str) -> str:
    """Return `text` in lines of 72 columns; those indented by four are left as they are."""
    lines = []
    for line in text.strip().splitlines():
        indent = line[: len(line) - len(line.lstrip(" "))]
        lines += [line] if len(indent) >= 4 else _filled(line, indent)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _filled(line: str, indent: str) -> list[str]:
    filled = textwrap.wrap(
        line,
        _COLUMNS,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled or [""]


def _made_up(language: str) -> Iterator[Letter]:
    """Yield letters for every audience, with all kinds of rules and steps."""
    full = [example(kind) for kind in RuleKind]
    near = [dataclasses.replace(one, account=None, excess=_at(one.excess, 80)) for one in full]
    plans = [dataclasses.replace(one, plan="plan", excess=_by_plan(one.excess)) for one in full]
    odd = [
        dataclasses.replace(one, excess=dataclasses.replace(excess, pseudonym=number))
        for one in plans
        for number, excess in enumerate(_odd(one.excess))
    ]
    for audience, cases in (
        (Audience.DESK, full),
        (Audience.DESK, near),
        (Audience.DESK, plans),
        (Audience.DESK, [*odd, *near]),
        (Audience.USER, full),
        (Audience.USER, near),
    ):
        yield Letter(audience, "check", "", (_NOBODY,), language, tuple(cases))
    yield trial_letter(_NOBODY, "check", "", language)


def _at(excess: Excess, percent: int) -> Excess:
    return dataclasses.replace(excess, percent=percent)


def _by_plan(excess: Excess) -> Excess:
    return dataclasses.replace(excess, plans=("plan",))


def _odd(excess: Excess) -> Iterator[Excess]:
    """Yield what is rarer: no step passed, nobody else, and others who moved nothing."""
    idle = dataclasses.replace(
        excess, others_bytes=0, median_bytes=0, outweighs_mean=None, times_median=None
    )
    yield _at(excess, 0)
    yield _at(excess, 80)
    yield idle
    yield dataclasses.replace(idle, users=1, outweighs_lightest=0)
    yield dataclasses.replace(excess, outweighs_lightest=1)
    yield dataclasses.replace(excess, outweighs_lightest=excess.users - 1)
