"""`install-units`: what it renders, that systemd takes it, and that writing it is safe."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from closed import Run, Said
from hypothesis import given
from hypothesis import strategies as st
from pipeline.faults import DeadError, Faults
from support import TinyHome

from aggregator.errors import UsageError
from aggregator.model import cron
from jobs import times, units
from jobs.table import JOBS
from jobs.units import calendar, install, quoting

ROOT = Path(__file__).resolve().parents[2]
HOME = Path("/srv/usage")
MODES = {"schedule": [], "timers": ["--timers"], "cron": ["--cron"]}
# The worst that `systemd-analyze security` still calls OK by a wide margin; systemd 252 says 1.1.
EXPOSURE = 2.0
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze (package systemd)"
)


@pytest.fixture(autouse=True)
def nobody_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have no user `aggregator`, with whatever group."""

    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)


@pytest.fixture
def units_to(run: Run, tmp_path: Path) -> Path:
    """Return a folder to write units into."""
    return tmp_path / "units"


def written(run: Run, out: Path, *words: str | Path, home: Path = HOME) -> Said:
    """Write units into `out`."""
    said = run(
        home, "install-units", "--out", out, "--executable", units.EXECUTABLE, *words, now=None
    )
    assert said.code == 0, said.err
    return said


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def lines_of(text: str, setting: str) -> list[str]:
    return [line.split("=", 1)[1] for line in text.splitlines() if line.startswith(f"{setting}=")]


# What is rendered


@pytest.mark.parametrize("mode", MODES)
def test_the_copies_in_deploy_are_what_the_command_writes(
    mode: str, run: Run, units_to: Path
) -> None:
    written(run, units_to, *MODES[mode])
    shipped = texts(ROOT / "deploy" / "units")
    assert all(shipped.get(name) == text for name, text in texts(units_to).items()), (
        f"deploy/units is old; for each mode: aggregator --home {HOME} install-units"
        f" --executable {units.EXECUTABLE} --out deploy/units"
    )


def test_deploy_holds_no_other_units(run: Run, units_to: Path) -> None:
    for words in MODES.values():
        written(run, units_to, *words)
    assert texts(units_to).keys() == texts(ROOT / "deploy" / "units").keys()


def test_every_job_of_the_table_has_a_timer_at_its_time(run: Run, units_to: Path) -> None:
    written(run, units_to, "--timers", "--no-door")
    found = texts(units_to)
    assert found.keys() == {units.JOB, *(f"aggregator-{job.name}.timer" for job in JOBS)}
    for job in JOBS:
        text = found[f"aggregator-{job.name}.timer"]
        assert lines_of(text, "OnCalendar") == [calendar.on_calendar(cron.parse(job.cron))]
        assert lines_of(text, "Unit") == [f"aggregator-job@{job.name}.service"]
        assert lines_of(text, "Persistent") == ["true"]


def test_every_job_of_the_table_has_a_line_for_cron(run: Run, units_to: Path) -> None:
    written(run, units_to, "--cron", "--no-door")
    text = texts(units_to)[units.CRON]
    jobs = [line for line in text.splitlines() if re.match(r"[0-9*]", line)]
    call = f"aggregator {units.EXECUTABLE} -q --home {HOME} run"
    assert jobs == [f"{job.cron} {call} {job.name} --wait" for job in JOBS]


@pytest.fixture
def scheduled(tmp_path: Path) -> Path:
    home = TinyHome.make(tmp_path / "home").root
    with (home / "config.toml").open("a") as config:
        config.write(
            '\n[schedule]\nmail = "off"\ndaily = "40 1,13 * * *"\ndoctor = "0 6 * * mon-fri"\n'
            '[watch]\nmetrics_file = "/var/lib/node files/aggregator.prom"\n'
        )
    return home


def test_the_home_s_own_times_are_taken(run: Run, units_to: Path, scheduled: Path) -> None:
    written(run, units_to, "--timers", home=scheduled)
    found = texts(units_to)
    assert "aggregator-mail.timer" not in found
    assert "OnCalendar=*-*-* 01,13:40:00 UTC\n" in found["aggregator-daily.timer"]
    assert "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 06:00:00 UTC\n" in found["aggregator-doctor.timer"]
    assert '\nReadWritePaths="-/var/lib/node files"\n' in found[units.JOB]
    written(run, units_to, "--cron", home=scheduled)
    assert "\n0 6 * * 1,2,3,4,5 aggregator " in texts(units_to)[units.CRON]


def test_times_that_are_wrong_stop_timers_but_not_the_daemon_s_unit(
    run: Run, units_to: Path, scheduled: Path
) -> None:
    path = scheduled / "config.toml"
    path.write_text(path.read_text().replace("40 1,13 * * *", "40 1 1 * mon"))
    said = run(scheduled, "install-units", "--timers", "--out", units_to, now=None)
    assert said.code == 3
    assert not units_to.exists()
    assert "schedule.daily" in said.err
    assert "warning: " in written(run, units_to, home=scheduled).err


def test_a_job_switched_off_leaves_its_timer_to_be_removed(tmp_path: Path) -> None:
    host = install.Host(tmp_path / "system", tmp_path / "cron")
    host.units.mkdir()
    place = units.Place(str(HOME))
    install.write(install.aim(units.timers(place, times.planned({})), host))
    fewer = install.aim(units.timers(place, times.planned({"doctor": "off"})), host)
    steps = install.steps(fewer, host, copied=False)
    assert steps[0] == "systemctl disable --now aggregator-doctor.timer"
    assert steps[1] == shlex.join(["rm", str(host.units / "aggregator-doctor.timer")])


def test_another_way_of_starting_the_jobs_ends_the_one_before(tmp_path: Path) -> None:
    host = install.Host(tmp_path / "system", tmp_path / "cron")
    host.units.mkdir()
    place, planned = units.Place(str(HOME)), times.planned({})
    install.write(install.aim([units.schedule(place)], host))
    steps = install.steps(install.aim([units.cron(place, planned)], host), host, copied=False)
    assert steps[0] == "systemctl disable --now aggregator-schedule.service"
    install.write(install.aim([units.cron(place, planned)], host))
    steps = install.steps(install.aim([units.schedule(place)], host), host, copied=False)
    assert steps[0] == shlex.join(["rm", str(host.cron)])


# What systemd says of it


def root_of(folder: Path, where: Path) -> Path:
    """Lay the units of `folder` out as a host's root, with what they name in it."""
    system = where / "etc/systemd/system"
    system.mkdir(parents=True)
    for path in folder.iterdir():
        if path.suffix in (".service", ".timer"):
            name = path.name.replace("job@.", "job@daily.")
            (system / name).write_text(path.read_text())
            (system / path.name).write_text(path.read_text())
    for name in (
        "sysinit", "basic", "shutdown", "network-online", "time-sync", "multi-user", "timers",
    ):  # fmt: skip
        (system / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    for command in (units.EXECUTABLE, "/bin/kill"):
        path = where / command.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return system


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    call = ["systemd-analyze", "--no-pager", *map(str, words)]
    clean = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        call,
        check=False,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


@needs_systemd
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("home", [HOME, Path("/srv/my us%ge/$HOME of; it")], ids=["plain", "odd"])
def test_systemd_takes_every_unit_without_a_word(
    mode: str, home: Path, run: Run, units_to: Path, tmp_path: Path
) -> None:
    written(run, units_to, *MODES[mode], home=home)
    system = root_of(units_to, tmp_path / "root")
    found = [path for path in sorted(system.glob("aggregator-*")) if "@." not in path.name]
    done = analyze("verify", "--man=no", f"--root={tmp_path / 'root'}", *found)
    assert (done.returncode, done.stdout) == (0, "")


@needs_systemd
def test_a_mistake_in_a_unit_would_be_told(run: Run, units_to: Path, tmp_path: Path) -> None:
    written(run, units_to)
    system = root_of(units_to, tmp_path / "root")
    door = system / units.DOOR
    door.write_text(door.read_text().replace("ProtectHome=", "ProtectHoom="))
    assert (
        "ProtectHoom" in analyze("verify", "--man=no", f"--root={tmp_path / 'root'}", door).stdout
    )


@needs_systemd
def test_no_service_is_more_exposed_than_it_need_be(
    run: Run, units_to: Path, tmp_path: Path
) -> None:
    for words in MODES.values():
        written(run, units_to, *words)
    root_of(units_to, tmp_path / "root")
    found = {}
    for name in ("aggregator-schedule", "aggregator-door", "aggregator-job@daily"):
        unit = f"{name}.service"
        done = analyze("security", "--offline=true", f"--root={tmp_path / 'root'}", unit)
        said = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
        assert said is not None, done.stdout
        found[name] = float(said[1])
    print(found)
    assert max(found.values()) <= EXPOSURE, found


def test_the_services_can_still_do_their_work(run: Run, units_to: Path) -> None:
    for words in MODES.values():
        written(run, units_to, *words)
    found = texts(units_to)
    for name in (units.SCHEDULE, units.JOB):
        # Keys are overwritten in place; mail and directories are reached by network and by socket.
        assert str(HOME) in lines_of(found[name], "ReadWritePaths")
        assert lines_of(found[name], "RestrictAddressFamilies") == ["AF_INET AF_INET6 AF_UNIX"]
        assert lines_of(found[name], "SystemCallFilter") == [
            "@system-service",
            "~@privileged @resources",
        ]
        assert lines_of(found[name], "ProcSubset") == []
    assert lines_of(found[units.DOOR], "ReadWritePaths") == [f"{HOME}/inbox"]
    for text in (found[units.SCHEDULE], found[units.JOB], found[units.DOOR]):
        assert lines_of(text, "User") == ["aggregator"]
        assert lines_of(text, "AmbientCapabilities") in ([""], ["", ""])
        # Raw counters and keys are never swapped out, nor in a core file.
        assert lines_of(text, "MemorySwapMax") == ["0"]
        assert lines_of(text, "LimitCORE") == ["0"]


# Words


_PATHS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp"), exclude_characters="\"'\\"),
    min_size=1,
    max_size=30,
).filter(lambda text: text == text.strip())


def _specifiers_gone(text: str) -> str:
    assert not re.sub("%%", "", text).count("%")
    return text.replace("%%", "%")


@given(_PATHS)
def test_any_path_is_one_word_of_a_unit(text: str) -> None:
    path = f"/srv/{text}"
    quoting.check_path(path, "the home")
    word = quoting.setting_word(path)
    assert word.startswith('"') or not re.search(r"[\s;#]", word)
    assert _specifiers_gone(word).strip('"') == path
    command = quoting.exec_word(path)
    assert "$" not in command.replace("$$", "")
    assert _specifiers_gone(command).replace("$$", "$").strip('"') == path


@given(_PATHS)
def test_any_path_is_one_word_of_a_crontab(text: str) -> None:
    path = f"/srv/{text}"
    word = quoting.cron_word(path)
    assert not re.search(r"(?<!\\)%", word)
    assert shlex.split(word.replace("\\%", "%")) == [path]


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\x7fb", 'a"b', "a'b", "a\\b", "b ", "a\u2028b"])
def test_a_path_that_no_unit_can_name_is_refused(text: str, run: Run, units_to: Path) -> None:
    said = run(Path(f"/srv/{text}"), "install-units", "--dry-run", "--out", units_to, now=None)
    assert (said.code, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert "choose another path" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["--user", "a b"],
        ["--user", "../x"],
        ["--user", "a\nb"],
        ["--executable", "/opt/$x/aggregator"],
        ["--timers", "--cron"],
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    words: list[str], run: Run, units_to: Path
) -> None:
    said = run(HOME, "install-units", "--out", units_to, *words, now=None)
    assert said.code == 2
    assert not units_to.exists()


def test_the_root_is_no_home() -> None:
    with pytest.raises(UsageError):
        units.Place("/").check()


# Writing


def test_a_dry_run_writes_nothing_and_shows_all(run: Run, units_to: Path) -> None:
    said = run(HOME, "install-units", "--dry-run", "--out", units_to, now=None)
    assert said.code == 0
    assert not units_to.exists()
    for name in (units.SCHEDULE, units.DOOR):
        assert f"### {units_to / name} (new)" in said.out
    assert "then, as root:" in said.out
    rows = run(HOME, "install-units", "--dry-run", "--json", "--out", units_to, now=None).json[
        "rows"
    ]
    assert [Path(row["path"]).name for row in rows] == [units.SCHEDULE, units.DOOR]
    assert all(row["changed"] and row["text"] in said.out for row in rows)


def test_a_rerun_changes_only_what_differs(run: Run, units_to: Path) -> None:
    written(run, units_to, "--timers")
    drop_in = units_to / f"{units.JOB}.d" / "override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nMemoryMax=2G\n")
    (units_to / units.DOOR).write_text("# somebody's own\n")
    before = {path.name: path.stat() for path in units_to.iterdir()}
    rows = written(run, units_to, "--timers", "--json").json["rows"]
    assert [Path(row["path"]).name for row in rows if row["changed"]] == [units.DOOR]
    after = {path.name: path.stat() for path in units_to.iterdir()}
    assert {name for name in before if before[name].st_ino != after[name].st_ino} == {units.DOOR}
    assert drop_in.read_text() == "[Service]\nMemoryMax=2G\n"
    again = written(run, units_to, "--timers")
    assert "then, as root" not in again.out
    assert "wrote" not in again.out


def test_files_are_readable_by_all_whatever_the_umask(run: Run, units_to: Path) -> None:
    before = os.umask(0o077)
    try:
        written(run, units_to, "--cron")
    finally:
        assert os.umask(before) == 0o077
    assert {stat.S_IMODE(path.stat().st_mode) for path in units_to.iterdir()} == {0o644}


@pytest.mark.parametrize("leads_to", ["/dev/null", "elsewhere", "nowhere"])
def test_a_link_is_never_written_through(
    leads_to: str, run: Run, units_to: Path, tmp_path: Path
) -> None:
    units_to.mkdir()
    (tmp_path / "elsewhere").write_text("kept")
    link = units_to / units.DOOR
    link.symlink_to(tmp_path / leads_to)
    said = run(HOME, "install-units", "--out", units_to, now=None)
    assert said.code == 5
    assert "is a link" in said.err.splitlines()[-1]
    assert [path.name for path in units_to.iterdir()] == [units.DOOR]
    # Neither is one in the place of the file that is written first.
    link.unlink()
    (units_to / f"{units.DOOR}.part").symlink_to(tmp_path / "elsewhere")
    written(run, units_to)
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert not link.is_symlink()
    assert texts(units_to).keys() == {units.DOOR, units.SCHEDULE}


def test_a_folder_in_the_place_of_a_file_is_refused(run: Run, units_to: Path) -> None:
    (units_to / units.DOOR).mkdir(parents=True)
    said = run(HOME, "install-units", "--out", units_to, now=None)
    assert said.code == 5
    assert [path.name for path in units_to.iterdir()] == [units.DOOR]


def test_a_folder_that_is_not_there_or_not_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(install, "HOST", install.Host(tmp_path / "none", tmp_path / "none/cron"))
    said = run(HOME, "install-units", now=None)
    assert said.code == 5
    assert "there is no folder" in said.err.splitlines()[-1]
    closed = tmp_path / "closed"
    closed.mkdir()
    real = os.access
    monkeypatch.setattr(install, "HOST", install.Host(closed, closed / "cron"))
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and real(path, mode))
    said = run(HOME, "install-units", now=None)
    assert said.code == 5
    assert "run it as root, or see --out" in said.err.splitlines()[-1]
    assert not list(closed.iterdir())


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    said = run(HOME, "install-units", "--out", tmp_path / "file" / "below", now=None)
    assert said.code == 5
    assert "cannot be" in said.err.splitlines()[-1]


def test_killed_at_any_step_each_file_is_whole_and_the_next_run_mends_the_rest(
    tmp_path: Path,
) -> None:
    place, planned = units.Place(str(HOME)), times.planned({})
    old = units.timers(units.Place("/srv/old"), planned)
    new = units.timers(place, planned)
    whole = {
        file.name: {file.text, *(one.text for one in old if one.name == file.name)} for file in new
    }
    dies_at, died = 0, True
    while died:
        dies_at += 1
        host = install.folder(str(tmp_path / str(dies_at)))
        host.units.mkdir()
        install.write(install.aim(old, host))
        died = False
        with Faults(dies_at):
            try:
                install.write(install.aim(new, host))
            except DeadError:
                died = True
        for name, possible in whole.items():
            assert (host.units / name).read_text() in possible
        install.write(install.aim(new, host))
        assert texts(host.units) == {file.name: file.text for file in new}
    assert dies_at > 3


# What is said


def test_warnings_say_what_would_not_work(run: Run, tmp_path: Path) -> None:
    said = run(
        Path("/home/op/usage"), "install-units", "--dry-run", "--user", "no-such-user",
        "--executable", "/root/venv/bin/aggregator", "--out", tmp_path, now=None,
    )  # fmt: skip
    warnings = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert any("does not see /home/op/usage" in line for line in warnings)
    assert any("does not see /root/venv/bin/aggregator" in line for line in warnings)
    assert any("useradd --system" in line and line.endswith("no-such-user") for line in warnings)


def test_units_of_another_home_are_not_replaced_in_silence(run: Run, units_to: Path) -> None:
    written(run, units_to)
    said = written(run, units_to, home=Path("/srv/second"))
    assert "was for another home" in said.err


def test_without_a_home_named_it_is_a_mistake_of_usage(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from aggregator.cli.main import main

    monkeypatch.delenv("AGGREGATOR_HOME", raising=False)
    assert main(["install-units", "--dry-run"]) == 2
    assert capfd.readouterr().err.count("\n") == 1
