"""The README runs: its transcript is typed in, line by line, and must answer as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def transcript() -> list[tuple[str, str]]:
    """Return (command, expected output) of every `$` line in the README's console blocks."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", README.read_text("utf-8"), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], ""))
            elif line.startswith("> "):
                steps[-1] = (steps[-1][0] + "\n" + line[2:], steps[-1][1])
            else:
                steps[-1] = (steps[-1][0], steps[-1][1] + line + "\n")
    return steps


def test_the_transcript_is_true(tmp_path: Path) -> None:
    """Every command of the README answers what the README says; … stands for a size."""
    environment = dict(os.environ, NO_COLOR="1", PYTHONPATH=str(README.parent))
    environment.pop("AGGREGATOR_HOME", None)
    function = f'aggregator() {{ "{sys.executable}" -m aggregator "$@"; }}\n'
    exports = ""
    steps = transcript()
    assert len(steps) > 9
    for command, expected in steps:
        if command.startswith("export "):
            exports += command + "\n"
            continue
        done = subprocess.run(
            ["bash", "-c", function + exports + command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = re.sub(r"[ \t]+$", "", done.stderr + done.stdout, flags=re.MULTILINE)
        pattern = re.escape(expected).replace("…", "[^)]+")
        assert re.fullmatch(pattern, said), f"$ {command}\n{said}"


def test_it_names_what_a_newcomer_types() -> None:
    text = README.read_text("utf-8")
    assert "make demo" in text
    assert "make test" in text
