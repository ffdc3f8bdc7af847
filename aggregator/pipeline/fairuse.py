"""Judge a month: who exceeds which fair-use rule, from its sealed counters (CS-9, CT-5, CT-6).

Month to date is everything that was taken in, days that are not closed too. A day is worked at a
time, so memory hangs on the users of a month and the counters of a day.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from aggregator.model.fairuse import Excess, Rule, RuleKind
from aggregator.pipeline import cells, raw
from aggregator.pipeline.deployment import Deployment
from aggregator.pipeline.pseudonyms import pseudonym as pseudonym_of
from aggregator.rules import fairuse
from aggregator.rules.fairuse import Crowd, Peak
from aggregator.stores.engine import DuckDBEngine, Engine
from aggregator.stores.keys import MonthKeys

# So often a day is looked at again whose segments are replaced while it is read.
_TRIES: Final = 5
# Rows of days that are added up together: about 16 bytes each.
_ROWS_AT_ONCE: Final = 8_000_000
_EMPTY: Final = pa.schema([("pseudonym", pa.uint64()), ("user_bytes", pa.int64())])

Peaks = dict[str, dict[int, Peak]]


def months(house: Deployment) -> list[str]:
    """Return the months of which counters are kept and that are not over, oldest first."""
    return [month for month in house.segments.months() if not house.gate.is_over(month)]


def judge(house: Deployment, month: str) -> list[Excess]:
    """Return what the users of `month` exceed so far, in the order of the profile's rules.

    IntegrityError if the month's keys are missing or a segment does not open.
    """
    rules = house.profile.fair_use
    days = _days(house, month)
    if not rules or not days:
        return []
    crowd, peaks = _gather(house, month, days, rules, None)
    listed = {name: list(found.values()) for name, found in peaks.items()}
    return fairuse.judge(rules, crowd, listed, fairuse.span(days, house.now))


def explain(house: Deployment, month: str, account: bytes) -> list[Excess]:
    """Return the arithmetic of every rule about one account, also where it exceeds nothing.

    An empty list if the account has no counter in `month`.
    """
    days = _days(house, month)
    if not days:
        return []
    mine = pseudonym_of(account, house.month_keys(month))
    rules = house.profile.fair_use
    crowd, peaks = _gather(house, month, days, rules, mine)
    moved = crowd.of(mine)
    if moved is None:
        return []
    spanned = fairuse.span(days, house.now)
    found = []
    for rule in rules:
        if rule.kind in (RuleKind.DAY_BYTES, RuleKind.LOCATION_SHARE):
            peak = peaks.get(rule.name, {}).get(mine)
            if peak is not None:
                found.append(fairuse.of_peak(rule, peak, crowd, spanned))
        else:
            found.append(fairuse.of_month(rule, mine, moved, crowd, spanned))
    return found


def _days(house: Deployment, month: str) -> list[str]:
    """Return the days of `month` that have usage counters, oldest first."""
    return [
        day
        for day in house.segments.days(month)
        if house.segments.list(day, raw.USAGE) or house.segments.list(day, raw.USAGE + raw.FROZEN)
    ]


def _gather(
    house: Deployment, month: str, days: Sequence[str], rules: Sequence[Rule], only: int | None
) -> tuple[Crowd, Peaks]:
    """Return the users of the month, and who passes rules about days; of `only`, any peak."""
    keys = house.month_keys(month)
    by_day = [rule for rule in rules if rule.kind is RuleKind.DAY_BYTES]
    by_location = [rule for rule in rules if rule.kind is RuleKind.LOCATION_SHARE]
    peaks: Peaks = {rule.name: {} for rule in (*by_day, *by_location)}
    parts = [_EMPTY.empty_table()]
    with DuckDBEngine() as engine:
        for number, day in enumerate(days):
            house.progress("judging days", number, len(days))
            rows = _user_day(house, keys, day, engine)
            for rule in by_location:
                for peak in _location_peaks(engine, rows, day, rule, house.profile.k, only):
                    _keep(peaks[rule.name], rule, peak, only)
            rows = rows.select(["pseudonym", "user_bytes"])
            if by_day:
                rows = _added(engine, [rows])
                for rule in by_day:
                    for peak in _day_peaks(rows, day, rule, only):
                        _keep(peaks[rule.name], rule, peak, only)
            parts.append(rows)
            if sum(part.num_rows for part in parts) > _ROWS_AT_ONCE:
                parts = [_added(engine, parts)]
        totals = _added(engine, parts)
    return Crowd(totals["pseudonym"].to_numpy(), totals["user_bytes"].to_numpy()), peaks


def _user_day(house: Deployment, keys: MonthKeys, day: str, engine: Engine) -> pa.Table:
    """Return (location, pseudonym, user_bytes) of a day, merged; a pseudonym may be there twice.

    Who only looks takes no lock: a run beside it may seal the day's segments as one, and remove
    them, at any time.
    """
    for _try in range(_TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            return _read_day(house, keys, day, engine)
    return _read_day(house, keys, day, engine)


def _read_day(house: Deployment, keys: MonthKeys, day: str, engine: Engine) -> pa.Table:
    """Read a day; one that lies in one segment was merged when that was sealed."""
    # In this order: a closed segment is there before those that it takes up are gone.
    segments = [
        *house.segments.list(day, raw.USAGE),
        *house.segments.list(day, raw.USAGE + raw.FROZEN),
    ]
    if len(segments) != 1:
        return cells.user_day(house, keys, segments, engine)
    rows = house.segments.read(keys, segments[0])
    return rows.select(["location", "pseudonym", "bytes"]).rename_columns(
        ["location", "pseudonym", "user_bytes"]
    )


def _added(engine: Engine, parts: Iterable[pa.Table]) -> pa.Table:
    """Return (pseudonym, user_bytes) with one row a pseudonym."""
    engine.register("user_days", pa.concat_tables(parts))
    return engine.query(fairuse.USER_MONTH).rename_columns(["pseudonym", "user_bytes"])


def _day_peaks(rows: pa.Table, day: str, rule: Rule, only: int | None) -> Iterator[Peak]:
    """Yield who passes the lowest step of `rule` on a day, or only `only` in any case."""
    least = rule.threshold * rule.warn_percent[0] // 100
    mask = pc.greater(rows["user_bytes"], pa.scalar(min(least, (1 << 63) - 1), pa.int64()))
    if only is not None:
        mask = pc.equal(rows["pseudonym"], pa.scalar(only, pa.uint64()))
    for row in rows.filter(mask).to_pylist():
        yield Peak(row["pseudonym"], row["user_bytes"], day)


def _location_peaks(
    engine: Engine, rows: pa.Table, day: str, rule: Rule, k: int, only: int | None
) -> Iterator[Peak]:
    """Yield who passes the lowest step of `rule` at a location, or only `only` in any case.

    At a location with fewer than k users a share would tell of the others: none is looked at.
    """
    engine.register("user_day", rows)
    least = rule.threshold * rule.warn_percent[0]
    mine, all_bytes = (
        f"CAST({name} AS DECIMAL(24, 0))" for name in ("location_user_bytes", "location_bytes")
    )
    wanted = f"{mine} * 10000 > {all_bytes} * {least}"
    if only is not None:
        wanted = f"pseudonym = {only}"
    # Where there is nobody else there is no share, whatever k a profile allows.
    crowded = f"location_users >= {max(k, 2)}"
    found = engine.query(f"{fairuse.LOCATION_SHARES} WHERE {crowded} AND {wanted}")
    for row in found.to_pylist():
        yield Peak(
            row["pseudonym"], row["location_user_bytes"], day,
            row["location"], row["location_bytes"], row["location_users"],
        )  # fmt: skip


def _keep(peaks: dict[int, Peak], rule: Rule, peak: Peak, only: int | None) -> None:
    """Keep a peak that passes a step of `rule`, or is of `only`, if it is the user's highest.

    Of equal ones the first day's, then the first location's by name: engines have no order.
    """
    rank = _rank(rule, peak)
    if rank[0] == 0 and only is None:
        return
    before = peaks.get(peak.pseudonym)
    rank_before = (-1, -1) if before is None else _rank(rule, before)
    if rank > rank_before or (before and rank == rank_before and _place(peak) < _place(before)):
        peaks[peak.pseudonym] = peak


def _place(peak: Peak) -> tuple[str, str]:
    return peak.day, peak.location or ""


def _rank(rule: Rule, peak: Peak) -> tuple[int, int]:
    passed = [one for one in rule.warn_percent if peak.bytes > fairuse.peak_limit(rule, one, peak)]
    return max(passed, default=0), peak.bytes
