"""`make man`: every command has its page, made from its --help."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aggregator.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "build-man"
TIMEOUT = 120

pytest.importorskip("click_man", reason="there is no click-man here, a tool of development")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all pages."""
    folder = tmp_path_factory.mktemp("man")
    (folder / "aggregator-gone.1").write_text("of a command that is no more")
    subprocess.run(
        [sys.executable, SCRIPT, folder],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1800000000", "LC_ALL": "C.UTF-8"},
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
    )
    return folder


def commands(
    command: click.Command, context: click.Context, path: str
) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, click.Context(below, context), f"{path}-{name}")


def test_every_command_has_its_page_and_no_other_is_there(pages: Path) -> None:
    every = dict(commands(cli, click.Context(cli), "aggregator"))
    assert len(every) > 20
    assert {path.stem for path in pages.iterdir()} == set(every)
    for name, command in every.items():
        text = (pages / f"{name}.1").read_text().replace("\\-", "-")
        assert text.startswith(f'.TH "{name.upper()}" "1" "2027-01-15"')
        assert "\b" not in text
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[0] in text, (name, option.opts)


def test_the_main_page_lists_every_command_and_the_exit_codes(pages: Path) -> None:
    text = (pages / "aggregator.1").read_text().replace("\\-", "-")
    for name in cli.list_commands(click.Context(cli)):
        assert f"aggregator-{name}(1)" in text
    assert "75 locked by another run" in text


def test_no_line_of_a_page_is_a_request_by_accident(pages: Path) -> None:
    known = {".TH", ".SH", ".PP", ".TP", ".B", ".nf", ".fi"}
    for path in pages.iterdir():
        requests = {line.split()[0] for line in path.read_text().splitlines() if line[:1] in ".'"}
        assert requests <= known, path.name
