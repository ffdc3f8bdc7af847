"""`completion`: the shells take what it prints, and it completes commands, options and values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.cli.main import _COMMANDS, main

CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}
TIMEOUT = 120


def script(shell: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Return what `aggregator completion SHELL` prints."""
    capfd.readouterr()
    assert main(["completion", shell]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    return said.out


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")


@pytest.mark.parametrize("shell", CHECKS)
def test_the_shell_takes_it(shell: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "script"
    path.write_text(script(shell, capfd))
    assert "_AGGREGATOR_COMPLETE" in path.read_text()
    needs(shell)
    done = subprocess.run(
        [*CHECKS[shell], path], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def path_with_command(tmp_path: Path) -> str:
    """Return a PATH on which `aggregator` is this source, however it is installed here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "aggregator"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aggregator "$@"\n')
    command.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def completed(words: str, path: str, capfd: pytest.CaptureFixture[str]) -> set[str]:
    """Return what bash offers for the last of `words`, as a Tab would make it ask."""
    needs("bash")
    asked = f"""{script("bash", capfd)}
    COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    _aggregator_completion aggregator
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", asked],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("aggregator inst", {"install-units"}),
        ("aggregator --home /srv/usage comp", {"completion"}),
        ("aggregator report usage --format j", {"json"}),
        ("aggregator completion z", {"zsh"}),
        ("aggregator install-units --t", {"--timers"}),
        ("aggregator audit v", {"verify"}),
    ],
)
def test_bash_completes(
    words: str, expected: set[str], path_with_command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert completed(words, path_with_command, capfd) == expected


def test_bash_completes_every_command(
    path_with_command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert completed("aggregator ''", path_with_command, capfd) == set(_COMMANDS)


def test_a_shell_that_is_not_known_is_a_mistake_of_usage(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "Traceback" not in capfd.readouterr().err
