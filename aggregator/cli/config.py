"""`aggregator config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, global_options, take_globals
from aggregator.errors import ConfigError

if TYPE_CHECKING:
    from aggregator.pipeline.check_config import Found
    from aggregator.pipeline.show_config import InForce
    from aggregator.stores.home import Home

_EPILOG = """\b
Examples:
  aggregator config check
  aggregator config show
  aggregator config schema > config.schema.json
"""
_CHECK_EPILOG = """\b
Examples:
  aggregator config check
  aggregator config check new-config.toml
  aggregator config check --json
\b
Exit code 3 if there is a mistake; warnings alone are exit code 0.
"""
_SHOW_EPILOG = """\b
Examples:
  aggregator config show
  AGGREGATOR_MAIL_PORT=465 aggregator config show --json
"""
_SCHEMA_EPILOG = """\b
Examples:
  aggregator config schema > /etc/aggregator/config.schema.json
\b
An editor with a TOML language server (taplo, Even Better TOML) completes and checks config.toml
by it, if its first line is: #:schema /etc/aggregator/config.schema.json
"""


@click.group("config", epilog=_EPILOG)
@global_options
@click.pass_context
def config_command(context: click.Context, /, **values: Any) -> None:
    """Check the settings, and show those in force.

    A variable of the environment overrides a setting: AGGREGATOR_MAIL_HOST is host in [mail].
    """
    context.obj = take_globals(context, values)


@command("check", epilog=_CHECK_EPILOG)
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
def check_command(said: Globals, file: Path | None) -> None:
    """Tell of every mistake in the settings: its line, what it is, what to do.

    Without FILE: config.toml of the home, and the first mistake in its policy profile. Files that
    settings name are looked at too. No value is repeated, and no command is run.
    """
    from aggregator.pipeline import check_config
    from aggregator.pipeline.check_config import Level

    home = _home(said, file)
    if file is None and not (home.settings or home.config_path).exists():
        home.load_config()  # which says what is missing
    found = check_config.check(home, file)
    mistakes = sum(one.level is Level.MISTAKE for one in found)
    if file is None and not mistakes:
        home.load_config()  # what every other command reads must be what was checked
    if said.json:
        show.as_json({"valid": not mistakes, "rows": [_row(one) for one in found]})
    for one in found if not said.json else ():
        print(_line(one))
    if mistakes:
        raise ConfigError(f"{show.counted(mistakes, 'mistake')} in the settings; correct each")
    if not said.json:
        warnings = show.counted(len(found), "warning")
        show.words(said, f"the settings are valid{f', {warnings}' if found else ''}")


@command("show", epilog=_SHOW_EPILOG)
def show_command(said: Globals) -> None:
    """Show the settings in force, and where each comes from.

    What may hold a secret is named and not shown.
    """
    from aggregator.pipeline import show_config

    home = said.located()
    found = show_config.in_force(home)
    problems = home.load_config().problems
    if said.json:
        show.as_json({"problems": list(problems.values()), "rows": [_shown(one) for one in found]})
        return
    show.table(
        ("setting", "value", "from"),
        [(one.setting.path, _value(one), _source(one)) for one in found],
    )
    for problem in problems.values():
        show.words(said, f"problem: {problem}")


@command("schema", epilog=_SCHEMA_EPILOG)
def schema_command(_said: Globals) -> None:
    """Print the JSON Schema of config.toml, for an editor."""
    from aggregator.model.config_schema import schema

    print(json.dumps(schema(), ensure_ascii=False, indent=2))


for _command in (check_command, show_command, schema_command):
    config_command.add_command(_command)


def _home(said: Globals, file: Path | None) -> Home:
    """Return the home; a file alone is checked as if in a home of its own."""
    if file is not None and said.home is None:
        return Globals(home=file.parent).located()
    return said.located()


def _line(found: Found) -> str:
    place = found.where if found.line is None else f"{found.where}:{found.line}"
    level = "warning: " if found.level == "warning" else ""
    return f"{place}: {level}{found.what}; {found.remedy}"


def _row(found: Found) -> dict[str, Any]:
    return {
        "level": found.level.value,
        "where": found.where,
        "line": found.line,
        "setting": found.setting,
        "what": found.what,
        "remedy": found.remedy,
    }


def _shown(one: InForce) -> dict[str, Any]:
    return {
        "setting": one.setting.path,
        "value": one.value,
        "hidden": one.hidden,
        "from": one.source,
        "line": one.line,
        "variable": one.variable,
    }


def _value(one: InForce) -> str:
    from aggregator.stores.values import shown

    return "(not shown)" if one.hidden else shown(one.value)


def _source(one: InForce) -> str:
    if one.variable is not None:
        return one.variable
    return "default" if one.line is None else f"line {one.line}"
