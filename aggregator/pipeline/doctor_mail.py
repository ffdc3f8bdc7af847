"""What the doctor looks at where notices are sent: settings, templates, the directory, the outbox.

No mail is sent; `aggregator fairuse send --test ADDRESS` does that.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aggregator.directory import lookup
from aggregator.errors import AggregatorError
from aggregator.mail.templates import Renderer
from aggregator.model.notices import State as MessageState
from aggregator.model.settings import MailSettings
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.findings import Found, State
from aggregator.rules import notices
from aggregator.stores import secret


def _mail(house: Deployment) -> Found:
    if house.config.mail_problem is not None:
        yield State.FAIL, house.config.mail_problem, "correct config.toml; until then notices wait"
        return
    settings = house.config.mail
    if settings is None:
        yield State.OK, "no [mail]: notices wait, and expire with their month", ""
        return
    bad = False
    try:
        secret.read(settings.password, "mail.password")
        Renderer(settings).check()
    except AggregatorError as error:
        bad = True
        yield State.FAIL, str(error), "mend it; until then notices wait"
    if settings.ca_file and not Path(settings.ca_file).is_file():
        bad = True
        yield State.FAIL, "the file that mail.ca_file names is not there", "correct config.toml"
    if _is_readable_by_others(settings):
        bad = True
        what = "the file that mail.password_file names is open to others"
        yield State.WARN, what, "chmod 0600 it"
    if not bad:
        what = f"{settings.host}:{settings.port}, {settings.security.value}"
        yield State.OK, f"{what}; templates can be used", ""


def _is_readable_by_others(settings: MailSettings) -> bool:
    if settings.password is None or settings.password.file is None:
        return False
    path = Path(settings.password.file)
    return path.is_file() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _directory(house: Deployment) -> Found:
    settings = house.config.directory
    if settings is None:
        by_plan = [rule.name for rule in house.profile.fair_use if rule.plans]
        if by_plan:
            what = f"rules for some plans, but nothing that knows plans: {', '.join(by_plan)}"
            yield State.WARN, what, "add [directory]; until then these rules tell of nobody"
        elif house.config.mail is not None:
            what = "no [directory]: notices name no account, objections are not known"
            yield State.WARN, what, "add [directory] to config.toml"
        else:
            yield State.OK, "no [directory], and no mail that would need it", ""
        return
    try:
        columns = lookup.check(settings)
    except AggregatorError as error:
        yield State.FAIL, str(error), "mend it; until then notices are deferred"
        return
    lacking = sorted(_needed(house) - set(columns))
    if lacking:
        what = f"its first row lacks what a rule or mail.to_user needs: {', '.join(lacking)}"
        yield State.WARN, what, "add the column; until then notices are deferred"
        return
    unsaid = [name for name in ("exempt", "objects", "restricted") if name not in columns]
    if unsaid:
        what = f"its first row says nothing of {', '.join(unsaid)}: so nobody is"
        yield State.WARN, what, "if somebody is, name these columns so"
        return
    yield State.OK, f"kind {settings.kind.value} answers with {', '.join(columns)}", ""


def _needed(house: Deployment) -> set[str]:
    mail = house.config.mail
    needed = {"address"} if mail is not None and mail.to_user else set()
    return needed | {"plan" for rule in house.profile.fair_use if rule.plans}


def _notices(house: Deployment) -> Found:
    waits = failed = deferred = 0
    for month in house.outbox.months():
        book = notices.replay(house.outbox.read(house.month_keys(month)))
        states = [tracked.state for tracked in book.messages.values()]
        waits += sum(state.waits for state in states)
        failed += states.count(MessageState.FAILED)
        deferred += states.count(MessageState.DEFERRED)
    if failed:
        what = f"messages that their server refused for good: {failed}"
        yield State.WARN, what, "see: aggregator fairuse list --state failed"
    if deferred:
        what = f"messages that could not be sent yet: {deferred}"
        yield State.WARN, what, "see: aggregator fairuse list --state deferred"
    if not failed and not deferred:
        yield State.OK, f"messages that wait: {waits}", ""


CHECKS: Final[tuple[tuple[str, Callable[[Deployment], Found]], ...]] = (
    ("mail", _mail),
    ("directory", _directory),
    ("notices", _notices),
)
