"""The options that every command takes, before and after its name."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aggregator.errors import UsageError
from aggregator.model.days import parse_instant

if TYPE_CHECKING:
    from aggregator.app import Access
    from aggregator.pipeline.deployment import Deployment
    from aggregator.stores.home import Home

Result = TypeVar("Result")


@dataclasses.dataclass(slots=True)
class Globals:
    """What the global options say; unset ones are None or False."""

    home: Path | None = None
    config: Path | None = None
    now: dt.datetime | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def located(self) -> Home:
        """Return the home that the command is about; UsageError if none is named.

        Variables of the environment override its settings, whatever the command.
        """
        from aggregator.stores.home import Home

        if self.home is None:
            raise UsageError("name a home with --home DIR or in AGGREGATOR_HOME")
        return Home(self.home, self.config, os.environ)

    def read(self) -> Deployment:
        """Open the home for a command that writes nothing."""
        from aggregator import app
        from aggregator.cli.progress import shown

        return app.open_to_read(self.located(), self.now, wall_clock(), shown(self))

    def access(self, *, confirm_clock: bool = False) -> Access:
        """Return how a job opens the home."""
        from aggregator import app
        from aggregator.cli.progress import shown

        return app.Access(self.located(), self.now, wall_clock(), confirm_clock, shown(self))

    def write(self, *, confirm_clock: bool = False) -> AbstractContextManager[Deployment]:
        """Open the home for a command that writes, under its lock."""
        return self.access(confirm_clock=confirm_clock).write()


def wall_clock() -> dt.datetime:
    """Return the machine's clock, to the second."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


class _Instant(click.ParamType[dt.datetime]):
    name = "instant"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dt.datetime:
        if isinstance(value, dt.datetime):
            return value
        try:
            return parse_instant(value)
        except (ValueError, OverflowError):
            self.fail("write it as 2026-11-01T00:30:00Z", param, ctx)


_OPTIONS = (
    click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="The home of one deployment.  [env: AGGREGATOR_HOME]",
    ),
    click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="A settings file in place of the home's config.toml.",
    ),
    click.option(
        "--now",
        type=_Instant(),
        default=None,
        help="The clock of a rehearsal, such as 2026-11-01T00:30:00Z.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No words on stderr but errors."),
    click.option("-v", "--verbose", is_flag=True, help="More words on stderr."),
)


def global_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """Add the global options to a command or group."""
    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), function)


def take_globals(context: click.Context, values: dict[str, Any]) -> Globals:
    """Move the global options out of `values`, over what was said before the command's name."""
    said = context.find_object(Globals) or Globals()
    merged = Globals(
        home=values.pop("home") or said.home,
        config=values.pop("config") or said.config,
        now=values.pop("now") or said.now,
        json=values.pop("as_json") or said.json,
        quiet=values.pop("quiet") or said.quiet,
        verbose=values.pop("verbose") or said.verbose,
    )
    if merged.home is None and os.environ.get("AGGREGATOR_HOME"):
        merged.home = Path(os.environ["AGGREGATOR_HOME"])
    return merged


def command(name: str, **attributes: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Make a click command whose function is given the merged globals first."""

    def decorate(function: Callable[..., None]) -> click.Command:
        def run(context: click.Context, /, **values: Any) -> None:
            function(take_globals(context, values), **values)

        made: Callable[..., None] = click.pass_context(run)
        functools.update_wrapper(made, function)
        decorator = click.command(name, cls=click.Command, **attributes)
        return decorator(global_options(made))

    return decorate


confirm_clock_option = click.option(
    "--confirm-clock",
    is_flag=True,
    help="Say that the clock is right after it jumped ahead by more than 48 h.",
)

log_option = click.option(
    "--log",
    type=click.Choice(["words", "text", "json"]),
    default=None,
    envvar="AGGREGATOR_LOG",
    help="Log lines on stderr as text, or one JSON object a line.  [env: AGGREGATOR_LOG]",
)
