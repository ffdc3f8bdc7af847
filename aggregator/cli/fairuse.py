"""`aggregator fairuse`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from aggregator.cli import fairuse_mail, show
from aggregator.cli.options import Globals, command, global_options, take_globals
from aggregator.errors import UsageError
from aggregator.model.days import is_month

if TYPE_CHECKING:
    from aggregator.model.fairuse import Excess
    from aggregator.pipeline.deployment import Deployment

_EPILOG: Final = """\b
Examples:
  aggregator fairuse check
  aggregator fairuse check --explain -
  aggregator fairuse send --test support@example.net
  aggregator fairuse list --state deferred
"""
_CHECK_EPILOG: Final = """\b
Examples:
  aggregator fairuse check
  aggregator fairuse check --rule outweighs_mean --json
  aggregator fairuse check --explain - --language de
"""
# More rows than anybody reads; --json has all of them.
_SHOWN_ROWS: Final = 100
# Sentences keep numbers and units together; in a terminal that would only hinder a search.
_PLAIN_SPACES: Final = {0x00A0: " ", 0x202F: " "}


@click.group("fairuse", epilog=_EPILOG)
@global_options
@click.pass_context
def fairuse_command(context: click.Context, /, **values: Any) -> None:
    """Fair use: who exceeds which rule of the profile, and the mails that tell of it."""
    context.obj = take_globals(context, values)


@command("check", epilog=_CHECK_EPILOG, context_settings={"allow_extra_args": True})
@click.option("--month", metavar="YYYY-MM", help="This month only.  [default: all that are kept]")
@click.option("--rule", metavar="NAME", help="This rule of the profile only.")
@click.option(
    "--explain",
    metavar="USER",
    help='The arithmetic of one account in sentences; "-" reads it from standard input, so that'
    " no history has it.",
)
@click.option("--language", default="en", show_default=True, help="Of the sentences.")
def check_command(
    said: Globals, month: str | None, rule: str | None, explain: str | None, language: str
) -> None:
    """Show who exceeds which rule, by pseudonym, and why. Reads only.

    Everything that was taken in counts, days that are not closed too. Plans, exemptions and
    objections are the directory's, which is asked only when a notice is sent.
    """
    from aggregator.pipeline import fairuse

    if click.get_current_context().args:
        # Not click's own words: the rest of an account with spaces would be in them.
        raise UsageError("check takes no further words; put an account with spaces in quotes")
    if month is not None and not is_month(month):
        raise UsageError("--month takes a month such as 2026-10")
    house = said.read()
    names = [one.name for one in house.profile.fair_use]
    if rule is not None and rule not in names:
        raise UsageError(f"the profile's rules are: {', '.join(names) or 'none'}")
    months = [one for one in fairuse.months(house) if month in (None, one)]
    if explain is not None:
        _explain(said, house, months, rule, _account(explain), language)
        return
    found = [one for each in months for one in fairuse.judge(house, each)]
    found = [one for one in found if rule in (None, one.rule)]
    if said.json:
        show.as_json({"rows": [_fields(one) for one in found]})
        return
    if found:
        _table(said, found)
    _footer(said, house, months, found, names if rule is None else [rule])


for _command in (check_command, *fairuse_mail.COMMANDS):
    fairuse_command.add_command(_command)


def _account(given: str) -> bytes:
    """Return the account as bytes, read from standard input for "-"."""
    if given != "-":
        return given.encode("utf-8", "surrogateescape")
    return sys.stdin.buffer.read().removesuffix(b"\n").removesuffix(b"\r")


def _explain(
    said: Globals,
    house: Deployment,
    months: Sequence[str],
    rule: str | None,
    account: bytes,
    language: str,
) -> None:
    from aggregator.mail.templates import Renderer
    from aggregator.pipeline import fairuse
    from aggregator.rules.notices import may_tell_user

    found = [one for month in months for one in fairuse.explain(house, month, account)]
    found = [one for one in found if rule in (None, one.rule)]
    renderer = Renderer(house.config.mail)
    told = [(one, renderer.sentences(one, language)) for one in found]
    if said.json:
        rows = [{**_fields(one), "sentences": sentences} for one, sentences in told]
        show.as_json({"rows": rows})
        return
    for number, (excess, sentences) in enumerate(told):
        if number:
            print()
        if len(told) > 1 or excess.plans:
            plans = f", for the plans {', '.join(excess.plans)} only" if excess.plans else ""
            print(f"{excess.month}, rule {excess.rule}{plans}:")
        print("\n".join(sentences).translate(_PLAIN_SPACES))
    if not all(may_tell_user(one, house.profile.k) for one in found):
        show.words(
            said,
            f"a comparison here tells of fewer than {house.profile.k} others: do not pass it on",
        )
    if not told:
        show.words(said, "this account has no counter in a month that is kept")


def _fields(excess: Excess) -> dict[str, Any]:
    share = None
    if excess.location_bytes:
        share = round(100 * excess.bytes / excess.location_bytes, 1)
    return {
        "month": excess.month,
        "pseudonym": f"{excess.pseudonym:016x}",
        "rule": excess.rule,
        "kind": excess.kind.value,
        "threshold": excess.threshold,
        "percent": excess.percent,
        "plans": list(excess.plans),
        "bytes": excess.bytes,
        "month_bytes": excess.month_bytes,
        "projected_bytes": excess.projected_bytes,
        "outweighs_mean": _rounded(excess.outweighs_mean),
        "outweighs_lightest": excess.outweighs_lightest,
        "times_median": _rounded(excess.times_median),
        "users": excess.users,
        "through": excess.through,
        "day": excess.day,
        "location": excess.location,
        "location_share_percent": share,
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


def _table(said: Globals, found: Sequence[Excess]) -> None:
    rows = [
        (
            one.month,
            f"{one.pseudonym:016x}",
            one.rule + (f" ({', '.join(one.plans)})" if one.plans else ""),
            f"{one.percent} %",
            show.size(one.bytes),
            _where(one),
            "-" if one.outweighs_mean is None else f"{one.outweighs_mean:,.0f}",
            f"{one.outweighs_lightest:,}",
            show.size(one.projected_bytes),
        )
        for one in found[:_SHOWN_ROWS]
    ]
    show.table(
        (
            "month", "pseudonym", "rule", "step", "bytes", "on", "times the mean",
            "lightest below", "month projected",
        ),
        rows,
        numbers=("step", "bytes", "times the mean", "lightest below", "month projected"),
    )  # fmt: skip
    if len(found) > _SHOWN_ROWS:
        left = len(found) - _SHOWN_ROWS
        show.words(said, f"and {left:,} more; --json has all of them")


def _where(excess: Excess) -> str:
    return " ".join(part for part in (excess.day, excess.location) if part) or "-"


def _footer(
    said: Globals,
    house: Deployment,
    months: Sequence[str],
    found: Sequence[Excess],
    rules: Sequence[str],
) -> None:
    if not rules:
        show.words(said, "the profile has no fair-use rule")
    elif not months:
        show.words(said, "no counters are kept of a month that is not over")
    else:
        names = ", ".join(rules)
        days = [day for month in months for day in house.segments.days(month)]
        between = f"{days[0]} to {days[-1]}" if days else ", ".join(months)
        who = len({(one.month, one.pseudonym) for one in found})
        told = f"{show.counted(who, 'user')} of {found[0].users:,}" if found else "nobody"
        show.words(said, f"{between}: {told} by {names}")
