"""What the doctor looks at where agents report: the door, its certificate, the inbox, agents."""

from __future__ import annotations

import datetime as dt
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aggregator.errors import IntegrityError
from aggregator.model.days import instant
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.findings import Found, State

SOON: Final = dt.timedelta(days=21)
"""A renewal by ACME comes 30 days before the end; by now it has failed for a week."""
VERY_SOON: Final = dt.timedelta(days=7)


def _door(house: Deployment) -> Found:
    config = house.config
    if config.door_problem is not None:
        yield State.FAIL, config.door_problem, "see: aggregator config check; no door can open"
        return
    certificate, private_key = config.door.certificate, config.door.private_key
    if certificate is None or private_key is None:
        yield State.OK, "no certificate: a door opens for a proxy on this machine only", ""
        return
    bad = False
    for state, what, remedy in (*_key(private_key), *_certificate(certificate, house.now)):
        bad = True
        yield state, what, remedy
    if not bad:
        yield State.OK, "its certificate is good for three weeks and more", ""


def _key(path: Path) -> Found:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        yield State.WARN, "the file of door.private_key cannot be looked at", "correct [door]"
        return
    if mode & 0o007:
        yield State.FAIL, "the file of door.private_key is open to everybody", "chmod 0640 it"


def _certificate(path: Path, now: dt.datetime) -> Found:
    # Loaded where a door is; it takes a while.
    from cryptography import x509  # noqa: PLC0415

    try:
        ends = x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc
    except (OSError, ValueError):
        yield State.FAIL, "the file of door.certificate cannot be read as PEM", "correct [door]"
        return
    left = ends - now
    if left > SOON:
        return
    when = f"the door's certificate {'ends' if left > dt.timedelta(0) else 'ended'} {instant(ends)}"
    remedy = "renew it, then: systemctl reload aggregator-door"
    yield (State.FAIL if left < VERY_SOON else State.WARN), when, remedy


def _inbox(house: Deployment) -> Found:
    unknown = dead = 0
    known, kept = set(house.agents.ids()), {}
    for header, _path in house.inbox.headers():
        if header.month not in kept:
            keys = house.keys.load(header.month)
            kept[header.month] = keys.key_id if keys else None
        unknown += header.agent not in known
        dead += header.key_id != kept[header.month]
    if unknown:
        what = f"batches in the inbox from agents that are not enrolled: {unknown}"
        yield State.WARN, what, "enrol them: aggregator agent enrol"
    if dead:
        what = f"batches in the inbox whose key is not here: {dead}"
        yield State.WARN, what, "restore the key set; without it they go with their month"
    others = house.inbox.others()
    if others:
        what = f"files in the inbox that are no batches: {others}"
        yield State.WARN, what, "move them away; plain files are named on the command line"
    if not (unknown or dead or others):
        yield State.OK, f"batches that wait: {len(house.inbox.paths())}", ""


def _agents(house: Deployment) -> Found:
    count = 0
    for agent in house.agents.ids():
        try:
            count += house.agents.load(agent) is not None
        except IntegrityError as error:
            yield State.FAIL, str(error), "its batches wait meanwhile"
    if count and house.agents.announcement() is None:
        yield State.FAIL, "no month key is announced", "run: aggregator keys publish"
    else:
        yield State.OK, f"agents enrolled: {count}", ""


CHECKS: Final[tuple[tuple[str, Callable[[Deployment], Found]], ...]] = (
    ("agents", _agents),
    ("inbox", _inbox),
    ("door", _door),
)
