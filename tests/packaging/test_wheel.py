"""The wheel: it is reproducible, holds all that the programs read, and works by itself."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from aggregator import __version__

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("aggregator", "jobs", "schemas", "pyproject.toml", "README.md", "LICENSE")
NOW = "2026-10-01T00:00:00Z"
TIMEOUT = 300

for tool in ("hatchling", "pip"):
    pytest.importorskip(tool, reason=f"there is no {tool} here, so no wheel can be built")


def build(source: Path, out: Path) -> Path:
    """Build the wheel of `source` into `out`."""
    call = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        str(out),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1800000000"}
    subprocess.run(
        call, cwd=source, env=environment, check=True, capture_output=True, timeout=TIMEOUT
    )
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built in the source tree."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@dataclasses.dataclass(frozen=True, slots=True)
class Installed:
    """The wheel in a virtual environment of its own, used from outside of the source tree."""

    bin: Path
    outside: Path

    def run(self, command: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run an installed command to its end; it must succeed."""
        kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG")}
        return subprocess.run(
            [self.bin / command, *words],
            cwd=self.outside,
            env={**kept, "PATH": f"{self.bin}:/usr/bin:/bin"},
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel without a network; its libraries are those of this environment."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    install = ["--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel]
    subprocess.run([*pip, *install], check=True, capture_output=True, timeout=TIMEOUT)
    # Behind the wheel's own; a .pth of an editable install is not read there.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(site, "libraries.pth").write_text("\n".join(sorted(paths)))
    return Installed(folder / "bin", tmp_path_factory.mktemp("outside"))


def test_another_copy_of_the_source_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    before = os.umask(0o027)
    try:
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(ROOT / name, copy / name)
        again = build(copy, tmp_path / "dist")
    finally:
        os.umask(before)
    assert (again.name, again.read_bytes()) == (wheel.name, wheel.read_bytes())


def test_it_holds_every_file_that_the_programs_read(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {
        path.relative_to(ROOT).as_posix()
        for package in ("aggregator", "jobs")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    schemas = {f"aggregator/schemas/{path.name}" for path in (ROOT / "schemas").glob("*.json")}
    assert data | schemas <= names
    assert any(name.startswith("jobs/units/templates/") for name in data)
    assert "aggregator/schemas/door.openapi.json" in schemas
    ours = (f"usage_aggregator-{__version__}.dist-info/", "aggregator/", "jobs/")
    assert all(name.startswith(ours) for name in names)
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in names)


def test_it_is_what_runs_and_not_the_source(installed: Installed) -> None:
    where = "import aggregator, jobs; print(aggregator.__file__, jobs.__file__)"
    paths = installed.run("python", "-c", where).stdout.split()
    assert all(Path(path).is_relative_to(installed.bin.parent) for path in paths)


def test_both_commands_say_their_version(installed: Installed) -> None:
    for command in ("aggregator", "aggregator-agent"):
        assert __version__ in installed.run(command, "--version").stdout


def test_a_home_works_and_units_name_the_installed_command(
    installed: Installed, tmp_path: Path
) -> None:
    home = ["--home", tmp_path / "home"]
    installed.run("aggregator", *home, "init", "--now", NOW)
    assert "a rehearsal" in installed.run("aggregator", *home, "status", "--now", NOW).stdout
    shown = installed.run("aggregator", *home, "install-units", "--timers", "--dry-run").stdout
    assert f"ExecStart={installed.bin / 'aggregator'} --home {tmp_path / 'home'} run %i" in shown
    assert "OnCalendar=*-*-* 00:20:00 UTC" in shown
    assert "_AGGREGATOR_COMPLETE" in installed.run("aggregator", "completion", "bash").stdout


def test_what_lies_beside_the_code_is_found(installed: Installed) -> None:
    """The door's description, templates of mails, and the captures of the demo."""
    read = """
import datetime as dt
from aggregator.demo import daemons
from aggregator.mail.templates import _SHIPPED
from aggregator import dashboard, pictures, site
from aggregator.cli import picture
from aggregator.model.tables import TABLES
from aggregator.stores import schemas
from pathlib import Path
assert b'"openapi"' in schemas.path("door.openapi.json").read_bytes()
assert all(schemas.load(f"{name}.table") for name in TABLES)
assert schemas.load("public_release.1")
assert (Path(pictures.__file__).parent / picture._FONT).is_file()
for name in ("templates/page.html", "assets/site.css", "assets/site.js"):
    assert (Path(site.__file__).parent / name).is_file()
assert (Path(dashboard.__file__).parent / "dashboard.css").is_file()
assert daemons.read_daemons(dt.date(2026, 10, 1)).records
assert (_SHIPPED / "en" / "sentences.j2").is_file()
"""
    installed.run("python", "-c", read)
