"""Death at the n-th durable step, in this process: what a SIGKILL there would leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

STEPS = (
    "replace", "unlink", "fsync", "pwrite", "ftruncate", "posix_fallocate", "mkdir", "rmdir",
    "link", "rename", "remove", "truncate",
)  # fmt: skip


class DeadError(BaseException):
    """The process was killed here."""


class Faults:
    """Counts durable steps and dies before number `dies_at`; a dying `pwrite` does half.

    Once dead, every further step dies too: a killed process cleans nothing up.
    """

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at = dies_at
        self.seen = 0
        self.dead = False

    def __enter__(self) -> Faults:
        self._patch = pytest.MonkeyPatch()
        for name in STEPS:
            self._patch.setattr(os, name, self._step(name, getattr(os, name)))
        return self

    def __exit__(self, *_error: object) -> None:
        self._patch.undo()

    def _step(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **named: Any) -> Any:
            self.seen += 1
            if self.seen == self.dies_at and name == "pwrite":
                descriptor, data, offset = words
                real(descriptor, data[: len(data) // 2], offset)
            self.dead = self.dead or self.seen == self.dies_at
            if self.dead:
                raise DeadError
            return real(*words, **named)

        return step
