"""Findings: what a check of the doctor says."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator


class State(enum.StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it, "" where nothing is to be done."""

    check: str
    state: State
    what: str
    remedy: str = ""


Found = Iterator[tuple[State, str, str]]
