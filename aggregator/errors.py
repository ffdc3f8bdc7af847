"""One tree of expected errors: one line to the user, one exit code a kind.

A message says what happened and what to do. It never holds a user, an address or a rejected
value: it is printed, logged and mailed as it is.
"""

from __future__ import annotations

import os
import traceback


class AggregatorError(Exception):
    """Base of every expected error; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(AggregatorError):
    """The command line asks for something that cannot be done as written."""

    exit_code = 2


class ConfigError(AggregatorError):
    """The home, its configuration or its policy profile is missing or wrong."""

    exit_code = 3


class BadInputError(AggregatorError):
    """Input could not be read, or held rejected records under `--strict`."""

    exit_code = 4


class RefusedError(AggregatorError):
    """The policy, the clock or the file system forbids the request."""

    exit_code = 5


class IntegrityError(AggregatorError):
    """Stored data does not verify: a seal, a hash, a chain or a total is wrong."""

    exit_code = 6


class DeliveryError(AggregatorError):
    """Mail could not be delivered, or the directory that knows its addresses did not answer."""

    exit_code = 7


class LockedError(AggregatorError):
    """Another run holds the home's lock; try again later."""

    exit_code = 75


def explain(error: Exception) -> tuple[str, int]:
    """Return the one line that a person is told of `error`, and the exit code of the process.

    Of what was not expected only kind and place are told: its message may hold a value.
    """
    if isinstance(error, AggregatorError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        words = f"the system refused: {reason}; nothing acknowledged is lost, mend it and run again"
        return words, 1
    return f"unexpected {type(error).__name__} at {place(error)}; please report it", 1


def place(error: BaseException) -> str:
    """Return the innermost file and line of this package that `error` passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    ours = [frame for frame in frames if f"{os.sep}aggregator{os.sep}" in frame.filename]
    frame = (ours or frames)[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"
