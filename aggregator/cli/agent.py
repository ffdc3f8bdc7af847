"""`aggregator agent`."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command, global_options, take_globals
from aggregator.errors import BadInputError, RefusedError, UsageError
from aggregator.model.days import instant

if TYPE_CHECKING:
    from aggregator.pipeline.enrol import Papers
    from aggregator.stores.agents import Agent

_EPILOG = """\b
Examples:
  aggregator agent enrol us-nyc-01 --location us-nyc --out us-nyc-01.toml
  aggregator agent list
  aggregator agent rotate us-nyc-01 --out us-nyc-01.toml
  aggregator agent revoke us-nyc-01
"""
_ENROL_EPILOG = """\b
Examples:
  aggregator agent enrol us-nyc-01 --location us-nyc --out us-nyc-01.toml
  aggregator agent enrol eu-02 --location de-fra --location nl-ams \\
      --door https://usage.example.net:8443 | ssh eu-02 'umask 77; cat > enrolment.toml'
  ssh us-nyc-01 aggregator-agent keys | \\
      aggregator agent enrol us-nyc-01 --location us-nyc --public-key - --out us-nyc-01.toml
"""
_LIST_EPILOG = """\b
Examples:
  aggregator agent list
  aggregator agent list --json
"""
_REVOKE_EPILOG = """\b
Examples:
  aggregator agent revoke us-nyc-01
"""
_ROTATE_EPILOG = """\b
Examples:
  aggregator agent rotate us-nyc-01 --out us-nyc-01.toml
  aggregator agent rotate us-nyc-01 --overlap 0 --out us-nyc-01.toml
"""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "": 1}
_LONGEST = dt.timedelta(days=31)
_KEY_BYTES = 32


class _Span(click.ParamType[dt.timedelta]):
    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dt.timedelta:
        if isinstance(value, dt.timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,7})([smhd])|(0)", value)
        if found is None:
            self.fail("write it as 24h, 30m or 0", param, ctx)
        span = dt.timedelta(seconds=int(found[1] or 0) * _SECONDS[found[2] or ""])
        if span > _LONGEST:
            self.fail("it is at most 31d", param, ctx)
        return span


_DOOR_OPTION = click.option(
    "--door", metavar="URL", help="What the agent reports to; else url in [door] of config.toml."
)
_KEY_OPTION = click.option(
    "--public-key",
    metavar="FILE|-|BASE64",
    help="The agent's own key, as `aggregator-agent keys` printed it.",
)
_OUT_OPTION = click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A new file for the enrolment, mode 0600; else standard output.",
)


@click.group("agent", epilog=_EPILOG)
@global_options
@click.pass_context
def agent_command(context: click.Context, /, **values: Any) -> None:
    """Enrol agents, list them, give them new credentials, revoke them."""
    context.obj = take_globals(context, values)


@command("enrol", epilog=_ENROL_EPILOG)
@click.argument("agent", metavar="ID")
@click.option(
    "--location", "locations", multiple=True, required=True, help="What it may report; repeatable."
)
@_DOOR_OPTION
@_KEY_OPTION
@_OUT_OPTION
def enrol_command(
    said: Globals,
    agent: str,
    locations: tuple[str, ...],
    door: str | None,
    public_key: str | None,
    out: Path | None,
) -> None:
    """Enrol an agent: make the file that lets it report its locations.

    The file is a secret, and nothing secret of it is kept here: once it is lost, run rotate.
    """
    from aggregator.pipeline import enrol

    key = None if public_key is None else _public_key(public_key)
    with said.write() as house:
        papers = enrol.new(house, agent, locations, door, key)
        with _handed_over(papers, out):
            enrol.register(house, papers)
    _tell(said, papers, out, "enrolled")


@command("rotate", epilog=_ROTATE_EPILOG)
@click.argument("agent", metavar="ID")
@click.option(
    "--overlap",
    type=_Span(),
    default="24h",
    show_default=True,
    help="How long the old credentials stay good; 0 if they may be known to others.",
)
@_DOOR_OPTION
@_KEY_OPTION
@_OUT_OPTION
def rotate_command(
    said: Globals,
    agent: str,
    overlap: dt.timedelta,
    door: str | None,
    public_key: str | None,
    out: Path | None,
) -> None:
    """Give an agent a new token and signing key; the old ones end after the overlap."""
    from aggregator.pipeline import enrol

    key = None if public_key is None else _public_key(public_key)
    with said.write() as house:
        papers = enrol.rotated(house, agent, overlap, door, key)
        with _handed_over(papers, out):
            enrol.register(house, papers)
    _tell(said, papers, out, "has new credentials")


@command("revoke", epilog=_REVOKE_EPILOG)
@click.argument("agent", metavar="ID")
def revoke_command(said: Globals, agent: str) -> None:
    """Refuse everything of an agent from now on, also what waits in the inbox."""
    from aggregator.pipeline import enrol

    with said.write() as house:
        is_new = enrol.revoke(house, agent)
    if said.json:
        show.as_json({"agent": agent, "revoked": is_new})
    else:
        show.words(said, f"{agent} is revoked" if is_new else f"{agent} was revoked already")


@command("list", epilog=_LIST_EPILOG)
def list_command(said: Globals) -> None:
    """List every agent ever enrolled, and when each was heard last, to the hour."""
    from aggregator.pipeline import contacts, enrol

    house = said.read()
    agents, heard = enrol.listed(house), contacts.heard(house)
    rows = [_row(agent, heard.get(agent.id), house.now) for agent in agents]
    if said.json:
        show.as_json({"rows": rows})
    elif rows:
        show.table(
            ("agent", "locations", "state", "enrolled", "heard", "credentials until"),
            [
                (
                    row["agent"], ", ".join(row["locations"]), row["state"], row["enrolled_day"],
                    row["heard_at"] or "never",
                    ", ".join(until or "no end" for until in row["credentials_until"]),
                )
                for row in rows
            ],
        )  # fmt: skip
    else:
        show.words(said, "no agent is enrolled; see: aggregator agent enrol --help")


for _command in (enrol_command, list_command, revoke_command, rotate_command):
    agent_command.add_command(_command)


def _row(agent: Agent, heard_at: dt.datetime | None, now: dt.datetime) -> dict[str, Any]:
    """Return one line of the list; credentials that are over are left out."""
    good = [one for one in agent.credentials if agent.revoked_at is None and one.is_good(now)]
    return {
        "agent": agent.id,
        "locations": list(agent.locations),
        "state": "enrolled" if agent.revoked_at is None else "revoked",
        "enrolled_day": f"{agent.enrolled_at:%Y-%m-%d}",
        "heard_at": heard_at and instant(heard_at),
        "credentials_until": [one.until and instant(one.until) for one in good],
    }


def _public_key(said: str) -> bytes:
    """Return the raw Ed25519 key that is given as base64, in a file, or on standard input."""
    key = _decoded(said)
    if key is None:
        try:
            text = sys.stdin.read(1024) if said == "-" else Path(said).read_text("ascii")
        except (OSError, ValueError):
            raise BadInputError("the public key is neither base64 nor a file that reads") from None
        key = _decoded(text.strip())
    if key is None:
        raise BadInputError("the public key is not 32 bytes in base64; run: aggregator-agent keys")
    return key


def _decoded(text: str) -> bytes | None:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == _KEY_BYTES else None


@contextlib.contextmanager
def _handed_over(papers: Papers, out: Path | None) -> Iterator[None]:
    """Write the enrolment before the register knows of it; take it back if that fails."""
    if out is None:
        yield
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise RefusedError(f"{out} is there already; no enrolment is ever overwritten") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(papers.enrolment)
            file.flush()
            os.fsync(file.fileno())
        yield
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def _tell(said: Globals, papers: Papers, out: Path | None, what: str) -> None:
    """Print what was done, and the enrolment itself if it went to no file."""
    agent = papers.agent
    if said.json:
        fields = {"agent": agent.id, "locations": list(agent.locations)}
        where = {"enrolment": papers.enrolment} if out is None else {"out": str(out)}
        show.as_json({**fields, **where})
        return
    if out is None:
        print(papers.enrolment, end="")
    where_to = "standard output" if out is None else str(out)
    show.words(said, f"{agent.id} {what}; its enrolment, a secret, is in {where_to}")
