"""Doctor: is this deployment sound? A table of checks, each a function that only looks.

The one thing that is written is the probe of `custody.weakness`, a block of random bytes that is
made and removed, and only where the keys folder can be written to.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from aggregator.errors import AggregatorError, ConfigError, IntegrityError
from aggregator.model.days import instant
from aggregator.pipeline import audit, doctor_door, doctor_mail, month_end, status
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.findings import Finding, Found, State
from aggregator.stores import atomic, custody
from aggregator.stores.formats import FORMAT
from aggregator.stores.home import Home

LONG_DUE: Final = dt.timedelta(hours=48)
LITTLE_SPACE: Final = 1_000_000_000
NO_SPACE: Final = 100_000_000


Open = Callable[[], Deployment]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What the machine says of itself: the kernel's files, given so that tests can have others."""

    swaps: Path = Path("/proc/swaps")
    core_pattern: Path = Path("/proc/sys/kernel/core_pattern")
    locks: Path = Path("/proc/locks")


def examine(home: Home, opened: Open, place: Place | None = None) -> list[Finding]:
    """Run every check on `home`; `opened` opens it, and may raise what then is a finding.

    ConfigError if the folder is no home at all.
    """
    if not home.config_path.exists():
        home.load_config()
    findings: list[Finding] = []
    place = place or Place()
    for name, check in HOME_CHECKS:
        findings += _findings(name, check(home, place))
    try:
        house = opened()
    except AggregatorError as error:
        if all(finding.state is not State.FAIL for finding in findings):
            findings.append(Finding("opening", State.FAIL, str(error), "see: aggregator audit log"))
        return findings
    for name, house_check in HOUSE_CHECKS:
        findings += _findings(name, house_check(house))
    return findings


def _findings(name: str, found: Found) -> Iterator[Finding]:
    """Yield the findings of one check; what it could not look at is one too."""
    try:
        for state, what, remedy in found:
            yield Finding(name, state, what, remedy)
    except IntegrityError as error:
        yield Finding(name, State.FAIL, str(error), "see: aggregator audit verify")
    except OSError as error:
        what = f"could not be looked at: {error.strerror or type(error).__name__}"
        yield Finding(name, State.WARN, what, "run it as the user who owns the home")


def _configuration(home: Home, _place: Place) -> Found:
    try:
        config = home.load_config()
    except ConfigError as error:
        yield State.FAIL, str(error), "correct config.toml"
        return
    kind = "a rehearsal home" if config.rehearsal else "a live home"
    if home.format < FORMAT:
        what = f"{kind} of format {home.format}, which an older release made; it works as it is"
        yield State.WARN, what, "see: aggregator migrate --dry-run"
    else:
        yield State.OK, kind, ""


def _profile(home: Home, _place: Place) -> Found:
    try:
        profile = home.load_profile()
    except ConfigError as error:
        yield State.FAIL, str(error), "correct policy/profile.toml"
        return
    if profile.k < 2:
        what = f"release.k = {profile.k}: cells of fewer than 2 users are published"
        yield State.WARN, what, "set release.k to 10 or more"
    else:
        yield State.OK, f"{profile.name}, version {profile.version}, k = {profile.k}", ""


def _permissions(home: Home, _place: Place) -> Found:
    keys = home.folder("keys")
    secret = [keys, *sorted(keys.glob("????-??.*"))] if keys.is_dir() else []
    wide = [path for path in secret if _is_open_to_others(path)]
    for path in wide:
        mode = "0700" if path.is_dir() else "0600"
        name = path.relative_to(home.root)
        yield State.FAIL, f"{name} is open to others", f"chmod {mode} {name}, in the home"
    if not keys.is_dir():
        yield State.FAIL, "the folder keys is missing", "restore it, or make it with mode 0700"
    for folder in (".", "raw", "inbox", "outbox"):
        if (home.root / folder).is_dir() and _is_open_to_others(home.root / folder):
            opened = "the home" if folder == "." else folder
            yield State.WARN, f"{opened} is open to others", f"chmod 0700 {folder}, in the home"
    if not wide and keys.is_dir():
        yield State.OK, "keys are open to their owner only", ""


def _is_open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _destruction(home: Home, _place: Place) -> Found:
    folder = home.folder("keys")
    if not folder.is_dir():
        return
    if os.access(folder, os.W_OK):
        weakness = custody.weakness(folder)
    else:
        weakness = custody.file_system(folder).weakness
    kind = custody.file_system(folder).kind
    if weakness is None:
        yield State.OK, f"{kind} overwrites destroyed keys in place", ""
        return
    remedy = "move the home to a file system that writes in place, such as ext4 or xfs"
    yield (State.WARN if _is_weakness_accepted(home) else State.FAIL), weakness, remedy


def _is_weakness_accepted(home: Home) -> bool:
    try:
        config = home.load_config()
    except ConfigError:
        return False
    return config.rehearsal or config.accept_weak_destruction


def _leftovers(home: Home, _place: Place) -> Found:
    parts = [path for path in home.root.rglob("*" + atomic.TEMPORARY_SUFFIX) if path.is_file()]
    if parts:
        what = f"unfinished files of killed runs, or of one that works now: {len(parts)}"
        yield State.WARN, what, "the next ingest, rollup or purge removes them"
    else:
        yield State.OK, "no unfinished files", ""


def _space(home: Home, _place: Place) -> Found:
    free = shutil.disk_usage(home.root).free
    what = f"{free / 1e9:,.1f} GB free"
    if free >= LITTLE_SPACE:
        yield State.OK, what, ""
    else:
        state = State.FAIL if free < NO_SPACE else State.WARN
        yield (
            state,
            what,
            "make room: a full disk stops ingest and closing, and holds a purge up for a day",
        )


def _lock(home: Home, place: Place) -> Found:
    """Look in the kernel's table: taking the lock could make a run fail that starts just now."""
    if not home.lock_path.exists() or not place.locks.exists():
        yield State.OK, "no run holds the lock", ""
        return
    found = home.lock_path.stat()
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    held = any("FLOCK" in line and device in line.split() for line in _lines(place.locks))
    if held:
        yield State.WARN, "another run holds the lock now", "if it never ends, look what it does"
    else:
        yield State.OK, "no run holds the lock", ""


def _memory(_home: Home, place: Place) -> Found:
    swaps = [line for line in _lines(place.swaps)[1:] if not line.startswith("/dev/zram")]
    if swaps:
        remedy = "switch swap off, or encrypt it with a key that is made at boot"
        yield State.WARN, "swap is on: keys in memory could reach a disk", remedy
    pattern = "".join(_lines(place.core_pattern)[:1])
    # These two keep to the limit of 0 that every command sets; a kernel pipe alone does not.
    if pattern.startswith("|") and "systemd-coredump" not in pattern and "apport" not in pattern:
        what = "core dumps go to a program, which may not keep to the limit that commands set"
        yield State.WARN, what, "set kernel.core_pattern to a plain name, or check that program"
    elif not swaps:
        yield State.OK, "no swap on a disk; commands switch core dumps off", ""


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines() if path.exists() else []


def _keys(house: Deployment) -> Found:
    bad = 0
    unfinished = set(house.receipts.intents())
    purged = house.receipts.purged_through()
    months = [month for month in house.segments.months() if month not in unfinished]
    for month in (month for month in months if month > purged and house.segments.files(month)):
        try:
            house.month_keys(month)
        except IntegrityError as error:
            bad += 1
            yield State.FAIL, str(error), f"restore keys/{month}.key from where copies are kept"
    if not bad:
        yield State.OK, f"raw months whose keys load: {len(months)}", ""


def _remnants(house: Deployment) -> Found:
    found = month_end.remnants(house)
    for month in found:
        what = f"keys or counters of {month} are here, which was purged"
        yield State.FAIL, what, "run: aggregator purge"
    for month in sorted(set(house.receipts.intents()) - set(found)):
        yield (
            State.FAIL,
            f"the purge of {month} was begun and not finished",
            "run: aggregator purge",
        )
    if not found and not house.receipts.intents():
        yield (
            State.OK,
            f"purged months of which nothing is left: {len(house.receipts.months())}",
            "",
        )


def _chain(house: Deployment) -> Found:
    entries, broken = audit.read(house)
    yield from _compared(
        audit.chain_problems(entries, broken),
        f"entries that follow from each other: {len(entries):,}",
    )


def _receipts(house: Deployment) -> Found:
    entries, _ = audit.read(house)
    count = len(house.receipts.months())
    yield from _compared(
        audit.receipt_problems(house, entries), f"receipts that agree with their entries: {count}"
    )


def _partitions(house: Deployment) -> Found:
    entries, _ = audit.read(house)
    problems = audit.partition_problems(house, entries)
    yield from _compared(problems, "closed tables are as they were closed")


def _compared(problems: Iterable[audit.Problem], fine: str) -> Found:
    whats = [problem.what for problem in problems]
    for what in whats:
        yield State.FAIL, what, "restore it from a backup, or find out who changed it"
    if not whats:
        yield State.OK, fine, ""


def _clock(house: Deployment) -> Found:
    if status.would_doubt_clock(house):
        what = "the clock is more than 48 h ahead of the last runs, so a purge waits"
        yield State.WARN, what, "check the time, then give the next run --confirm-clock"
    elif status.is_clock_behind(house):
        what = "the clock is behind the last entry; batches of days that have not begun wait"
        yield State.WARN, what, "check the time; if it is right: aggregator ingest --confirm-clock"
    else:
        yield State.OK, f"{instant(house.now)}, not in doubt", ""


def _due_days(house: Deployment) -> Found:
    days = status.days_of(house)
    if days.lag > LONG_DUE:
        what = f"days that are due and not closed: {len(days.due)}, the oldest {days.due[0]}"
        yield State.FAIL, what, "run: aggregator rollup; then see why its job does not run"
    else:
        yield State.OK, "no day is due for more than 48 h", ""


def _purge(house: Deployment) -> Found:
    purge = status.next_purge(house)
    if purge is None or not purge.is_due:
        yield State.OK, "no purge is due", ""
        return
    late = house.now - purge.due_at > month_end.LATE_AFTER
    what = f"the purge of {purge.month} is due since {instant(purge.due_at)}"
    remedy = "run: aggregator purge" + (" --confirm-clock, if the time is right" * purge.waits)
    yield (State.FAIL if late else State.WARN), what, remedy


HOME_CHECKS: Final[tuple[tuple[str, Callable[[Home, Place], Found]], ...]] = (
    ("configuration", _configuration),
    ("profile", _profile),
    ("permissions", _permissions),
    ("destruction", _destruction),
    ("leftovers", _leftovers),
    ("disk", _space),
    ("lock", _lock),
    ("memory", _memory),
)
HOUSE_CHECKS: Final[tuple[tuple[str, Callable[[Deployment], Found]], ...]] = (
    ("keys", _keys),
    ("remnants", _remnants),
    ("audit chain", _chain),
    ("receipts", _receipts),
    ("partitions", _partitions),
    ("clock", _clock),
    ("due days", _due_days),
    ("purge", _purge),
    *doctor_door.CHECKS,
    *doctor_mail.CHECKS,
)
