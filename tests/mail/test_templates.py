"""What mails say, in every language; goldens are in tests/data/mail.

After a wanted change of words write them anew, and read the difference:
GOLDEN=write python -m pytest tests/mail/test_templates.py -k golden
"""

from __future__ import annotations

import dataclasses
import html.parser
import os
import re
import subprocess
import sys
import traceback
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.errors import ConfigError
from aggregator.mail import templates
from aggregator.mail.letter import Case, Letter, example, trial_letter
from aggregator.mail.templates import Rendered, Renderer
from aggregator.mail.words import Words, clean, figures, rounded
from aggregator.model.fairuse import RuleKind
from aggregator.model.notices import Audience
from aggregator.model.settings import MailSettings, Security

GOLDENS = Path(__file__).parent.parent / "data" / "mail"
SHIPPED = Path(templates.__file__).parent / "templates"
LANGUAGES = ("de", "en", "es", "fr")
SETTINGS = MailSettings(
    host="localhost",
    port=25,
    security=Security.NONE,
    sender="Example VPN <fair-use@vpn.example>",
    desk=("desk@vpn.example",),
    reply_to="Support <support@vpn.example>",
    service_name="Example VPN",
)
ACCOUNT = "acct-81723"
MEAN, SHARE = RuleKind.OUTWEIGHS_MEAN, RuleKind.LOCATION_SHARE


def case(
    kind: RuleKind = MEAN,
    number: int = 0,
    *,
    account: str | None = ACCOUNT,
    plan: str | None = "personal",
    **changes: object,
) -> Case:
    """Return a case; `number` makes its reference, `changes` are of its excess."""
    made = example(kind).excess
    excess = dataclasses.replace(made, **{"rule": kind.value.replace("_", "-"), **changes})
    return Case(excess, account, plan, f"n-{number:010x}")


def letter(audience: Audience, *cases: Case, language: str = "en") -> Letter:
    """Return a letter about `cases`."""
    to = ("user@example.net",)
    return Letter(audience, "1.2@vpn.example", "2026-10-22T03:00:00Z", to, language, cases)


def digest() -> tuple[Case, ...]:
    """Return a case of each kind, each of another user."""
    return tuple(
        case(
            kind,
            number,
            account=None if number == 2 else f"acct-{number}",
            plan="personal" if number % 2 else None,
            pseudonym=number,
            percent=100 if number % 2 else 80,
            month_bytes=10**12 * (number + 1),
        )
        for number, kind in enumerate(RuleKind)
    )


LETTERS = {
    "desk": letter(Audience.DESK, case()),
    "desk-rules": letter(
        Audience.DESK,
        case(number=1, account=None, plan=None),
        case(SHARE, 2, account=None, plan=None, percent=80, plans=("personal", "business")),
    ),
    "digest": letter(Audience.DESK, *digest()),
    "user": letter(Audience.USER, case(), case(RuleKind.DAY_BYTES, 3, percent=80)),
    "user-location": letter(Audience.USER, case(SHARE, 4)),
    "test": trial_letter("user@example.net", "1.3@vpn.example", "2026-10-22T03:00:00Z", "en"),
}


def render(name: str, language: str, settings: MailSettings = SETTINGS) -> Rendered:
    """Return one of the letters in words."""
    return Renderer(settings).render(dataclasses.replace(LETTERS[name], language=language))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", LETTERS)
def test_each_mail_says_what_its_golden_says(name: str, language: str) -> None:
    told = render(name, language)
    found = {"txt": f"{told.subject}\n\n{told.text}", "html": told.html}
    for kind, text in found.items():
        golden = GOLDENS / f"{name}.{language}.{kind}"
        if os.environ.get("GOLDEN") == "write":
            golden.write_text(text, encoding="utf-8")
        assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("percent", [0, 1, 80, 100])
@pytest.mark.parametrize("kind", RuleKind)
def test_every_excess_can_be_told_with_its_unit(
    kind: RuleKind, percent: int, language: str
) -> None:
    excess = dataclasses.replace(example(kind).excess, percent=percent)
    told = Renderer(None).sentences(excess, language, "acct-7")
    assert "acct-7" in told[0]
    assert Words(language).size(excess.bytes).full in told[0]
    assert Words(language).number(1_000_000).text in told[-1]  # 1 MB is 1,000,000 bytes
    assert all(one == one.strip() and one.endswith(".") and "  " not in one for one in told)
    assert all(one[0].isupper() for one in told)
    month = excess.day is None
    assert len(told) == 3 + month + (month and kind.compares)


def test_the_comparison_is_told_literally() -> None:
    """CS-9: "more traffic than thousands of others combined"."""
    told = Renderer(None).sentences(example(MEAN).excess, "en", "acct-7")
    assert told[:4] == [
        "The account “acct-7” transferred 4,812,346\N{NBSP}MB (4.8\N{NBSP}TB) in October 2026"
        " (up to and including 21\N{NBSP}October); divided by the average of all other users,"
        " 3,857\N{NBSP}MB, that is more traffic than 1,247 average other users combined.",
        "This exceeds the rule\u2019s threshold of 1,000 average other users.",
        "In both ways of comparing: more traffic than 1,247 average others; more than the"
        " 298,113 lightest others together.",
        "At this pace, the account “acct-7” will have transferred about 7.1\N{NBSP}TB by the end"
        " of October 2026.",
    ]


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        (RuleKind.OUTWEIGHS_LIGHTEST, "more traffic than the 298,113 lightest others together."),
        (RuleKind.MONTH_BYTES, "which is 120% of 4,000,000 MB (4 TB)."),
        (RuleKind.DAY_BYTES, "on 17 October 2026, which is 126% of 500,000 MB (500 GB)."),
        (RuleKind.TIMES_MEDIAN, "of all users, 1.9 GB, that is 2,493 times as much."),
        (SHARE, "all users together transferred there on that day, this is 63.1%."),
    ],
)
def test_the_arithmetic_of_other_rules(kind: RuleKind, ending: str) -> None:
    told = Renderer(None).sentences(example(kind).excess, "en")[0]
    assert told.replace("\N{NBSP}", " ").endswith(ending)


def test_a_step_and_no_excess_are_told_apart() -> None:
    """For support: a user who exceeds nothing may ask too."""
    steps = [dataclasses.replace(example(MEAN).excess, percent=percent) for percent in (0, 80, 100)]
    outcomes = [Renderer(None).sentences(excess, "en")[1] for excess in steps]
    assert outcomes == [
        "This does not exceed the rule\u2019s threshold of 1,000 average other users.",
        "This has reached 80% of the rule\u2019s threshold of 1,000 average other users.",
        "This exceeds the rule\u2019s threshold of 1,000 average other users.",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"users": 1, "others_bytes": 0}, "no other user in this month"),
        ({"others_bytes": 0}, "all other users together transferred nothing"),
        ({"outweighs_lightest": 0}, "no more than the lightest other user"),
        ({"outweighs_lightest": 1}, "; more than the lightest other user"),
        ({"outweighs_lightest": 299_998}, "more than all 299,998 others together"),
    ],
)
def test_what_is_rarer_has_its_own_words(changes: dict[str, int], words: str) -> None:
    excess = dataclasses.replace(example(MEAN).excess, **changes)
    assert words in " ".join(Renderer(None).sentences(excess, "en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mail_to_a_user_tells_of_no_other_user(language: str) -> None:
    """Neither how many others there are, nor what one of them moved, nor how many were there."""
    cases = [case(kind, number) for number, kind in enumerate(RuleKind)]
    told = Renderer(SETTINGS).render(letter(Audience.USER, *cases, language=language))
    words = Words(language)
    for secret in (words.number(299_998), words.number(299_999), words.size(1_930_000_000).full):
        assert str(secret) not in told.text + told.html
    assert re.search(r"\b412\b", told.text) is None
    assert ACCOUNT not in told.text + told.html + told.subject
    assert "aggregator" not in told.text
    assert "us-nyc" in told.text  # where the rule is about a location, it is told


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", LETTERS)
def test_nothing_is_fetched_and_nothing_is_linked_but_the_address_to_answer(
    name: str, language: str
) -> None:
    """CS-10 and CO-2."""
    told = render(name, language)
    assert re.search(r"https?:|//\w|url\(|@import|\ssrc|<script|<img|<link", told.html) is None
    assert set(re.findall(r'href="([^"]*)"', told.html)) == {"mailto:support@vpn.example"}
    assert "support@vpn.example" in told.text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", LETTERS)
def test_pages_can_be_read_aloud(name: str, language: str) -> None:
    page = render(name, language).html
    assert f'<html lang="{language}" dir="ltr">' in page
    shape = _Shape(page)
    assert shape.levels == sorted(shape.levels)
    assert shape.levels.count(1) == 1
    # A table either only lays out, or has headers.
    assert all(role == "presentation" or headers for role, headers in shape.tables)
    assert any(headers for _role, headers in shape.tables) == name.startswith(("desk", "digest"))
    assert shape.open == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", LETTERS)
def test_plain_text_fits_a_narrow_window(name: str, language: str) -> None:
    told = render(name, language)
    commands = ("    aggregator fairuse ",)
    assert all(len(x) <= 72 or x.startswith(commands) for x in told.text.splitlines())
    assert "\n\n\n" not in told.text
    assert told.text.endswith("\n")
    assert not re.search(r"\{\{|\}\}|\{%|None|Undefined", told.text + told.html + told.subject)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_name_stands_in_a_subject(language: str) -> None:
    """Subjects end in the logs of servers."""
    subjects = {name: render(name, language).subject for name in LETTERS}
    for subject in subjects.values():
        assert "acct" not in subject
        assert "personal" not in subject
        assert "us-nyc" not in subject
    assert "n-0000000001, n-0000000002" in subjects["desk-rules"]
    assert "6" in subjects["digest"]
    assert not re.search("fair|raisonn|razon|n-00", subjects["user"], re.IGNORECASE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_a_service_name_each_language_has_its_own_words(language: str) -> None:
    plain = dataclasses.replace(SETTINGS, service_name="the VPN service", sender="a@b.example")
    for name in LETTERS:
        told = render(name, language, plain)
        assert ("the VPN service" in told.text.lower().replace("vpn", "VPN")) <= (language == "en")
        assert "Example VPN" not in told.text


def test_without_a_reply_address_the_sender_is_told() -> None:
    told = render("user", "en", dataclasses.replace(SETTINGS, reply_to=None))
    assert "fair-use@vpn.example" in told.text


def test_a_digest_begins_with_the_heaviest_user() -> None:
    text = render("digest", "en").text
    places = [text.index(f"n-{number:010x}") for number in range(6)]
    assert places == sorted(places, reverse=True)


def test_one_user_who_is_left_is_no_digest() -> None:
    told = Renderer(SETTINGS).render(letter(Audience.DESK, case(), case(SHARE, 1)))
    assert told.subject == "Fair use, October 2026: n-0000000000, n-0000000001"


@pytest.mark.parametrize(
    ("language", "small", "large", "times", "month", "day", "first"),
    [
        (
            "en", "823 MB", "4,812,345 MB (4.8 TB)", "1,240",
            "October 2026", "21 October 2026", "1 May",
        ),
        (
            "de", "823 MB", "4.812.345 MB (4,8 TB)", "1.240",
            "Oktober 2026", "21. Oktober 2026", "1. Mai",
        ),
        (
            "fr", "823 Mo", "4 812 345 Mo (4,8 To)", "1 240",
            "octobre 2026", "21 octobre 2026", "1er mai",
        ),
        (
            "es", "823 MB", "4.812.345 MB (4,8 TB)", "1.240",
            "octubre de 2026", "21 de octubre de 2026", "1 de mayo",
        ),
    ],
)  # fmt: skip
def test_numbers_are_written_as_people_write_them(
    language: str, small: str, large: str, times: str, month: str, day: str, first: str
) -> None:
    words = Words(language)
    told = (
        str(words.size(823_000_000)),
        str(words.size(4_812_345_000_000)),
        words.number(1240).text,
        words.month("2026-10"),
        words.day("2026-10-21"),
        words.day_of_year("2026-05-01"),
    )
    narrow = "\N{NARROW NO-BREAK SPACE}"
    assert (narrow in told[1]) == (language == "fr")
    plain = tuple(one.replace("\N{NBSP}", " ").replace(narrow, " ") for one in told)
    assert plain == (small, large, times, month, day, first)
    assert " " not in told[0] + told[1].replace(" (", "(") + told[2]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 MB"),
        (1, "0.000001 MB"),
        (1_234_567, "1.23 MB"),
        (12_345_678, "12.3 MB"),
        (999_999_999, "1,000 MB"),
        (1_000_000_000, "1,000 MB (1 GB)"),
        (999_949_999_999, "999,950 MB (1 TB)"),
        (10**18, "1,000,000,000,000 MB (1,000 PB)"),
    ],
)
def test_sizes_are_decimal(count: int, text: str) -> None:
    assert str(Words("en").size(count)).replace("\N{NBSP}", " ") == text


@pytest.mark.parametrize(
    ("value", "above", "strictly", "shown"),
    [
        ("1247.69", None, False, "1247"),
        ("12.49", None, False, "12.4"),
        ("0.0468", None, False, "0.046"),
        ("0", None, True, "0"),
        ("100", None, True, "99"),
        # What exceeds a threshold by little is not told as equal to it.
        ("10.00019", "10", False, "10.0001"),
        ("50.0000000019", "50", False, "50.000000001"),
        # "More than 1,000" says it already; "more than 2" would not say that 2.4 is passed.
        ("1000.4", "1000", True, "1000"),
        ("2.47", "2.4", True, "2.4"),
        ("1000.5", "1000.2", True, "1000.4"),
    ],
)
def test_figures_are_rounded_down(
    value: str, above: str | None, strictly: bool, shown: str
) -> None:
    limit = None if above is None else Fraction(above)
    assert str(rounded(Fraction(value), limit, strictly=strictly)) == shown


@given(st.fractions(0, 10**9), st.fractions(0, 10**9), st.booleans())
def test_rounding_makes_no_sentence_untrue(
    value: Fraction, above: Fraction, strictly: bool
) -> None:
    shown = Fraction(rounded(value, above, strictly=strictly))
    assert shown <= value
    if value > above and value - above > Fraction(1, 10**6):
        assert shown >= above if strictly else shown > above
    if strictly and value > 0:
        assert shown < value


@given(st.integers(1, 10**18), st.integers(2, 10**6), st.integers(1, 10**18), st.integers(1, 10**6))
def test_who_is_told_of_is_shown_above_the_threshold(
    moved: int, users: int, others: int, threshold: int
) -> None:
    flagged = moved * (users - 1) > threshold * others
    excess = dataclasses.replace(
        example(MEAN).excess,
        bytes=moved, month_bytes=moved, users=users, others_bytes=others, threshold=threshold,
    )  # fmt: skip
    f = figures(excess, Words("en"))
    assert not isinstance(f.value, str)
    shown = Decimal(f.value.text.replace(",", ""))
    if flagged:
        assert shown >= threshold
    assert shown * others < moved * (users - 1)
    assert f.average_others == f.value
    assert max(f.value_bar, f.limit_bar) == 100
    assert min(f.value_bar, f.limit_bar) >= 1


def test_names_are_harmless_in_a_line() -> None:
    assert clean("a\r\nBcc: b\x1b[31m\u202e\u2028") == "a\ufffd\ufffdBcc: b\ufffd[31m\ufffd\ufffd"
    assert clean("\U0001f98a \u05d0 <b> {{7*7}}") == "\U0001f98a \u05d0 <b> {{7*7}}"
    assert len(clean("x" * 200)) == 128


@pytest.mark.parametrize(
    ("asked", "settings", "found"),
    [
        ("de", "en", "de"),
        ("DE-at", "en", "de"),
        ("fr_CA", "en", "fr"),
        ("pt-BR", "es", "es"),
        ("pt-BR", "tlh", "en"),
        ("", "de", "de"),
        ("../../etc", "de", "de"),
        ("e", "fr", "fr"),
    ],
)
def test_a_language_that_nobody_wrote_falls_back(asked: str, settings: str, found: str) -> None:
    renderer = Renderer(dataclasses.replace(SETTINGS, language=settings))
    assert renderer.language(asked) == found
    told = renderer.render(dataclasses.replace(LETTERS["user"], language=asked))
    assert told.language == found


def test_an_override_takes_the_place_of_one_file_only(tmp_path: Path) -> None:
    own = _own(tmp_path, {"desk.txt.j2": "Look at {{ account }} ({{ f.bytes.short }})."})
    told = render("desk", "de", own)
    assert told.text == f"Look at {ACCOUNT} (4,8\N{NBSP}TB).\n"
    assert told.html == render("desk", "de").html
    assert render("user", "de", own) == render("user", "de")


def test_an_override_may_be_of_one_language_only(tmp_path: Path) -> None:
    own = _own(tmp_path, {"de/user.txt.j2": "Hallo."})
    assert render("user", "de", own).text == "Hallo.\n"
    assert render("user", "fr", own) == render("user", "fr")
    Renderer(own).check()


def test_a_language_is_added_by_one_file(tmp_path: Path) -> None:
    sentences = (SHIPPED / "en" / "sentences.j2").read_text().replace("Hello", "Olá")
    own = _own(tmp_path, {"pt-BR/sentences.j2": sentences})
    renderer = Renderer(own)
    assert set(renderer.languages) == {*LANGUAGES, "pt-br"}
    renderer.check()
    told = render("user", "pt-BR", own)
    assert told.text.startswith("Olá,\n")
    assert told.language == "pt-br"
    assert "4.812.346\N{NBSP}MB (4,8\N{NBSP}TB) in outubro de 2026" in " ".join(
        told.text.split("\n")
    )
    assert render("user", "pt", own).language == "en"


def test_a_language_without_sentences_is_told(tmp_path: Path) -> None:
    own = _own(tmp_path, {"nl/user.txt.j2": "Hallo."})
    with pytest.raises(ConfigError, match=r"the folder nl in mail\.templates has no sentences\.j2"):
        Renderer(own)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    own = dataclasses.replace(SETTINGS, templates=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"the folder that mail\.templates names is not there"):
        Renderer(own)


@pytest.mark.parametrize(
    ("template", "line", "words"),
    [
        ("one\n{% if account %}", 2, "end of template"),
        ("one\n\n{% bogus %}", 3, "unknown tag"),
        ("one\n{{ account | bogus }}", 2, "No filter named"),
        ("one\n{{ nobody }}", 2, "a name in it is not known"),
        ("one\n{{ account.nothing }}", 2, "a name in it is not known"),
        ("one\n{{ {}[account] }}", 2, "a name in it is not known"),
        ("one\n{{ account.__class__.__mro__ }}", 2, "something in it is not allowed"),
        ("one\n{{ ''.format.__globals__ }}", 2, "something in it is not allowed"),
        ("one\n{{ 1 // (account | length - account | length) }}", 2, "cannot be carried out"),
        ("one\n{{ account + 1 }}", 2, "cannot be carried out"),
        ("one\n{% include account %}", 2, "a file that it names is not there"),
        ("one\n{{ cases.append(1) }}", 2, "something in it is not allowed"),
    ],
)
def test_a_broken_override_is_told_by_its_place_and_by_no_value(
    tmp_path: Path, template: str, line: int, words: str
) -> None:
    own = _own(tmp_path, {"desk.txt.j2": template})
    with pytest.raises(ConfigError) as caught:
        render("desk", "en", own)
    told = str(caught.value)
    assert f"{tmp_path / 'desk.txt.j2'}, line {line}," in told
    assert words in told
    assert "\n" not in told
    # Nor by what Python would print of the errors behind it.
    assert ACCOUNT not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    with pytest.raises(ConfigError, match=re.escape("desk.txt.j2, line")):
        Renderer(own).check()


def test_a_template_in_another_encoding_is_told(tmp_path: Path) -> None:
    own = _own(tmp_path, {})
    (tmp_path / "desk.txt.j2").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"desk\.txt\.j2 cannot be used: it is not in UTF-8"):
        render("desk", "en", own)


def test_a_subject_is_written_without_any_name(tmp_path: Path) -> None:
    own = _own(tmp_path, {"desk.subject.j2": "About {{ account }}"})
    with pytest.raises(ConfigError, match="a name in it is not known"):
        render("desk", "en", own)
    own = _own(tmp_path, {"desk.subject.j2": "About\n{{ references[0] }}\r\nBcc: x"})
    assert render("desk", "en", own).subject == "About n-0000000000 Bcc: x"


@pytest.mark.parametrize(
    "page",
    [
        '<img src="https://vpn.example/pixel.gif">',
        '<img src="//vpn.example/pixel.gif">',
        '<img srcset="https://vpn.example/pixel.gif 2x">',
        '<td background="https://vpn.example/b.png">',
        '<div style="background:url(https://vpn.example/b.png)">',
        '<div style="background:\\75rl(https://vpn.example/b.png)">',
        "<style>@import 'https://vpn.example/a.css';</style>",
        '<link rel="stylesheet" href="https://vpn.example/a.css">',
        "<script>1</script>",
        '<a href="#" onclick="x()">x</a>',
        '<meta http-equiv="refresh" content="0;url=https://vpn.example">',
        '<!--[if mso]><v:fill src="https://vpn.example/b.png"/><![endif]-->',
        '<iframe src="about:blank"></iframe>',
        '<IMG SRC="HTTPS://vpn.example/pixel.gif">',
    ],
)
def test_an_override_that_loads_anything_is_refused(tmp_path: Path, page: str) -> None:
    """CS-10: no pixel, no remote content."""
    own = _own(tmp_path, {"user.html.j2": f"<html><body>{page}</body></html>"})
    with pytest.raises(ConfigError, match="load something from elsewhere"):
        Renderer(own).check()


def test_an_override_may_bring_a_picture_with_it_and_link_to_a_page(tmp_path: Path) -> None:
    page = '<img alt="" src="data:image/png;base64,iVBORw0KGgo="><a href="https://x.example">x</a>'
    Renderer(_own(tmp_path, {"user.html.j2": f"<html><body>{page}</body></html>"})).check()


def test_the_shipped_templates_pass_their_own_check() -> None:
    Renderer(SETTINGS).check()
    Renderer(dataclasses.replace(SETTINGS, service_name="the VPN service")).check()


def test_every_language_says_the_same_things() -> None:
    """A macro that one language lacks would be found only when it is needed."""
    names = {}
    for language in LANGUAGES:
        source = (SHIPPED / language / "sentences.j2").read_text()
        found = re.findall(r"{% (?:macro|set) (\w+)", source)
        assert len(found) == len(set(found))
        # What each language builds its sentences of is its own affair.
        names[language] = set(found) - {"users", "lightest", "average"}
    assert all(one == names["en"] for one in names.values())


@pytest.mark.parametrize("name", ["bogus <script>alert(1)</script>", "{{7*7}}", "\"'&"])
@pytest.mark.parametrize("letter_name", ["desk", "digest"])
def test_names_are_inert_in_pages(name: str, letter_name: str) -> None:
    made = LETTERS[letter_name]
    cases = tuple(dataclasses.replace(one, account=name, plan=name) for one in made.cases)
    told = Renderer(SETTINGS).render(dataclasses.replace(made, cases=cases))
    harmless = tuple(dataclasses.replace(one, account="a", plan="a") for one in made.cases)
    plain = Renderer(SETTINGS).render(dataclasses.replace(made, cases=harmless))
    assert _Shape(told.html).tags == _Shape(plain.html).tags
    assert name in _Shape(told.html).text
    assert name in told.text
    assert re.search(r"\b49\b", told.text) is None


def test_what_the_operator_named_is_inert_in_pages_too(tmp_path: Path) -> None:
    named = dataclasses.replace(SETTINGS, service_name="A<b>B & C", reply_to="o'neil&x@vpn.example")
    told = render("user", "en", named)
    assert "A&lt;b&gt;B &amp; C" in told.html
    assert "<b>" not in told.html
    assert 'href="mailto:o%27neil%26x@vpn.example"' in told.html
    own = _own(tmp_path, {"desk.html.j2": "{{ account }}"})
    made = letter(Audience.DESK, case(account="<i>"))
    assert Renderer(own).render(made).html == "&lt;i&gt;\n"


def test_a_name_that_runs_from_right_to_left_turns_nothing_about() -> None:
    hebrew = "\u05d3\u05d5\u05d2\u05de\u05d4"
    told = Renderer(SETTINGS).render(letter(Audience.DESK, case(account=hebrew)))
    assert f"\u2068{hebrew}\u2069" in told.text
    assert f"<bdi>{hebrew}</bdi>" in told.html


def test_neither_help_nor_the_modules_load_what_only_a_mail_needs() -> None:
    code = (
        "import sys\n"
        "import aggregator.mail.letter, aggregator.mail.templates, aggregator.mail.words\n"
        "from aggregator.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "late = {'jinja2', 'markupsafe', 'babel', 'idna'} & set(sys.modules)\n"
        "sys.exit(repr(late) if late else 0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def _own(folder: Path, files: dict[str, str]) -> MailSettings:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return dataclasses.replace(SETTINGS, templates=str(folder))


class _Shape(html.parser.HTMLParser):
    """The tags of a page, its text, its headings' levels, and its tables: role, has headers."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.levels: list[int] = []
        self.tables: list[tuple[str | None, bool]] = []
        self.open: list[str] = []
        self._at: list[int] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(f"{tag} {sorted(named)}")
        if tag in ("h1", "h2", "h3"):
            self.levels.append(int(tag[1]))
        if tag == "table":
            self._at.append(len(self.tables))
            self.tables.append((named.get("role"), False))
        if tag == "th":
            assert named.get("scope") in ("row", "col")
            self.tables[self._at[-1]] = (self.tables[self._at[-1]][0], True)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self._at.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
