"""`aggregator install-units`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command
from aggregator.errors import ConfigError, RefusedError, UsageError

if TYPE_CHECKING:
    from aggregator.stores.config import Config
    from jobs.units import File, Place
    from jobs.units.install import Target

_EPILOG = """\b
Three ways to start the jobs, which do the same; have one of them:
  (default)  a service that runs `aggregator schedule`
  --timers   a systemd timer for each job
  --cron     lines for /etc/cron.d
\b
Examples:
  aggregator --home /srv/usage install-units --dry-run
  aggregator --home /srv/usage install-units
  aggregator --home /srv/usage install-units --timers --no-door
  aggregator --home /srv/usage install-units --cron --out packaging
\b
Another run changes only what is not as it should be. What is yours belongs into
drop-ins, which stay: systemctl edit aggregator-schedule
"""


@command("install-units", epilog=_EPILOG)
@click.option("--dry-run", is_flag=True, help="Only print the files, and what would follow.")
@click.option("--timers", is_flag=True, help="A timer for each job, not the schedule's service.")
@click.option("--cron", is_flag=True, help="Lines for cron, not the schedule's service.")
@click.option("--no-door", is_flag=True, help="Leave out the door, the service for agents.")
@click.option("--user", default="aggregator", show_default=True, help="The user who owns the home.")
@click.option(
    "--executable",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The command aggregator, where it is not this one.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write into this folder, not into the host's own.",
)
def install_units_command(
    said: Globals, dry_run: bool, timers: bool, cron: bool, no_door: bool, user: str,
    executable: Path | None, out: Path | None,
) -> None:  # fmt: skip
    """Write the systemd units that run the jobs and the door, or the lines for cron.

    Times are those in [schedule] of the home's config.toml, else the table's own. Nothing is
    started: the commands that do so are printed.
    """
    from jobs.units import install

    if timers and cron:
        raise UsageError("--timers or --cron, not both")
    mode = "timers" if timers else "cron" if cron else "schedule"
    config = _config(said, needed=mode != "schedule")
    place = _place(said, config, user, executable)
    host = install.HOST if out is None else install.folder(_absolute(out))
    targets = install.aim(_files(mode, place, config, door=not no_door), host)
    steps = install.steps(targets, install.HOST, copied=out is not None)
    for warning in install.warnings(place, targets):
        show.words(said, f"warning: {warning}")
    if not dry_run:
        if out is not None:
            _make(out)
        install.write(targets)
    if said.json:
        rows = _rows(targets, text=dry_run)
        show.as_json({"mode": mode, "dry_run": dry_run, "next": steps, "rows": rows})
    elif dry_run:
        _print_files(targets)
        _print_steps(steps)
    else:
        for target in targets:
            print(f"{'wrote' if target.changed else 'unchanged':<9}  {target.path}")
        if any(target.changed for target in targets):
            _print_steps(steps)


def _config(said: Globals, *, needed: bool) -> Config | None:
    """Return the home's settings; None if there is no home yet, or it is not ours to read.

    ConfigError where times are `needed` and config.toml is wrong.
    """
    from jobs.units import quoting

    home = said.located()
    quoting.check_path(_absolute(home.root), "the home")
    if not os.path.lexists(home.root):
        show.words(said, f"there is no home {home.root} yet; the times are the table's own")
        return None
    try:
        config = home.load_config()
        if config.schedule_problem is not None:
            raise ConfigError(config.schedule_problem)
    except (ConfigError, PermissionError) as error:
        if needed:
            raise
        problem = error if isinstance(error, ConfigError) else f"{home.root} cannot be read"
        show.words(said, f"warning: {problem}")
        return None
    return config


def _place(said: Globals, config: Config | None, user: str, executable: Path | None) -> Place:
    from jobs.units import Place

    home = _absolute(said.located().root)
    metrics = None if config is None else config.watch.metrics_file
    folder = None if metrics is None else os.path.dirname(_absolute(Path(home, metrics)))
    return Place(
        home=home,
        executable=_absolute(executable or _own_executable(said)),
        user=user,
        group=_group_of(user),
        config=None if said.config is None else _absolute(said.config),
        metrics=None if folder is None or Path(folder).is_relative_to(home) else folder,
    )


def _absolute(path: Path) -> str:
    """Return `path` from the root on, without dots; it may be a link, and need not be there."""
    return "/" + os.path.abspath(path).lstrip("/")


def _own_executable(said: Globals) -> Path:
    """Return the command `aggregator` of this installation."""
    from jobs.units import EXECUTABLE

    beside = Path(sys.executable).with_name("aggregator")
    found = beside if beside.exists() else shutil.which("aggregator")
    if found is None:
        show.words(said, f"warning: no command aggregator is found here; taking {EXECUTABLE}")
    return Path(found or EXECUTABLE)


def _group_of(user: str) -> str:
    """Return the user's own group; a name like the user's where there is no such user yet."""
    import grp
    import pwd

    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except (KeyError, ValueError):
        return user


def _files(mode: str, place: Place, config: Config | None, *, door: bool) -> list[File]:
    from jobs import times, units

    planned = times.planned({} if config is None else config.schedule)
    if mode == "cron":
        files = [units.cron(place, planned)]
    elif mode == "timers":
        files = [*units.timers(place, planned)]
    else:
        files = [units.schedule(place)]
    return [*files, units.door(place)] if door else files


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"{folder} cannot be made: {error.strerror}") from None


def _rows(targets: Iterable[Target], *, text: bool) -> list[dict[str, object]]:
    return [
        {"path": str(target.path), "changed": target.changed}
        | ({"text": target.file.text} if text else {})
        for target in targets
    ]


def _print_files(targets: Iterable[Target]) -> None:
    for target in targets:
        state = "new" if target.before is None else "changed" if target.changed else "unchanged"
        print(f"### {target.path} ({state})\n{target.file.text}")


def _print_steps(steps: Sequence[str]) -> None:
    print("then, as root:")
    for step in steps:
        print(f"  {step}")
