"""`aggregator report site`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from aggregator.cli import show
from aggregator.cli.options import Globals, command
from aggregator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.site.build import Page

_MANIFEST: Final = ".usage-site.json"
_MODE: Final = 0o644
_EPILOG = """\b
Examples:
  aggregator report site --out /var/www/usage
  aggregator report site --out usage-2026 --from 2026-01 --to 2026-06 --json
"""


@command("site", epilog=_EPILOG)
@click.option("--out", metavar="DIR", required=True, help="A folder of its own; made if need be.")
@click.option("--from", "first", metavar="DAY", help="First day, or month.  [default: a year]")
@click.option("--to", "last", metavar="DAY", help="Last day, or month, which is in it.")
def site_command(said: Globals, out: str, first: str | None, last: str | None) -> None:
    """Write pages for people: charts and tables that work from disk and offline.

    Overview, locations, connections, apps, crowd, fair use, retention with receipts, the policy.
    Nothing in them is fetched from anywhere. Written again, a folder has the new pages.
    """
    from aggregator.pipeline.report import span_of
    from aggregator.site.build import pages

    house = said.read()
    folder = Path(out).absolute()
    known = _known(folder)
    made = list(pages(house, span_of(first, last, house.now.date())))
    _write(folder, made, known)
    size = sum(len(page.content) for page in made)
    if said.json:
        show.as_json({"out": str(folder), "files": len(made), "bytes": size})
        return
    print(folder / "index.html")
    show.words(said, f"{show.counted(len(made), 'file')}, {show.size(size)}")


def _known(folder: Path) -> Sequence[str]:
    """Return the files of an earlier site in `folder`; UsageError where others lie there."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UsageError(f"--out cannot be read: {error.strerror}") from None
    if not names:
        return ()
    try:
        files = list(json.loads((folder / _MANIFEST).read_text("utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError("--out has other files in it; name a folder of its own") from None
    return [name for name in files if isinstance(name, str) and _is_inside(name)]


def _is_inside(name: str) -> bool:
    """Say whether a name in a manifest is that of a file below its folder."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)


def _write(folder: Path, made: Sequence[Page], known: Sequence[str]) -> None:
    """Write every page, then remove what an earlier site had besides."""
    from aggregator.stores import atomic

    names = sorted(page.path for page in made)
    # Before any other file, and of both sites: a run that ends in between can be run again.
    try:
        for name in {str(Path(one).parent) for one in names}:
            (folder / name).mkdir(parents=True, exist_ok=True)
        _manifest(folder, sorted({*names, *known}))
        for page in made:
            atomic.write(folder / page.path, page.content, mode=_MODE, exactly=True)
        for name in set(known) - set(names):
            (folder / name).unlink(missing_ok=True)
        _manifest(folder, names)
    except OSError as error:
        raise UsageError(f"--out cannot be written: {error.strerror}") from None


def _manifest(folder: Path, names: Sequence[str]) -> None:
    from aggregator.stores import atomic

    content = json.dumps({"files": list(names)}, indent=1).encode() + b"\n"
    atomic.write(folder / _MANIFEST, content, mode=_MODE, exactly=True)
