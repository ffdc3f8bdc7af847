"""Put rendered files where a host looks for them, and say what must follow; nothing is started."""

from __future__ import annotations

import dataclasses
import os
import pwd
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from aggregator.errors import RefusedError
from aggregator.stores import atomic
from jobs import units
from jobs.units import File, Place, quoting

_READABLE: Final = 0o644
_PUBLIC_UMASK: Final = 0o022
_MOUNTS: Final = "RequiresMountsFor="
# What the units do not see of the host: ProtectHome=, PrivateTmp=, PrivateDevices=.
_UNSEEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev")  # noqa: S108 - names only


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """Where units lie, and the file of the lines for cron."""

    units: Path = Path("/etc/systemd/system")
    cron: Path = Path("/etc/cron.d/aggregator")


HOST: Final = Host()


def folder(path: str) -> Host:
    """Return a host whose files all lie in one folder, to be copied later."""
    return Host(Path(path), Path(path, units.CRON))


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A file, where it goes, and the text that is there now, None if nothing is."""

    file: File
    path: Path
    before: str | None

    @property
    def changed(self) -> bool:
        """Whether it is not there as it should be."""
        return self.before != self.file.text


def aim(files: Sequence[File], host: Host) -> list[Target]:
    """Return where `files` go on `host`; RefusedError if a file there is not to be replaced."""
    return [_target(file, host) for file in files]


def _target(file: File, host: Host) -> Target:
    path = host.cron if file.name == units.CRON else host.units / file.name
    if path.is_symlink():
        raise RefusedError(f"{path} is a link, as of a masked unit; remove it first")
    try:
        return Target(file, path, path.read_text("utf-8", "replace"))
    except FileNotFoundError:
        return Target(file, path, None)
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from None


def write(targets: Sequence[Target]) -> None:
    """Write what changed, each file whole and readable by all.

    RefusedError if a folder is not there, or is not this user's to write to.
    """
    changed = [target for target in targets if target.changed]
    for parent in dict.fromkeys(target.path.parent for target in changed):
        if not parent.is_dir():
            raise RefusedError(f"there is no folder {parent} here; see --cron, --no-door and --out")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise RefusedError(f"{parent} cannot be written to; run it as root, or see --out")
    before = os.umask(_PUBLIC_UMASK)
    try:
        for target in changed:
            # What a killed run left, or a link that somebody laid there, is not written through.
            target.path.with_name(target.path.name + atomic.TEMPORARY_SUFFIX).unlink(
                missing_ok=True
            )
            atomic.write(target.path, target.file.text.encode(), _READABLE)
    finally:
        os.umask(before)


def steps(targets: Sequence[Target], host: Host, *, copied: bool) -> list[str]:
    """Return the commands that follow, in order.

    `host` is where the units work; `copied` says that the files lie elsewhere and go there yet.
    """
    names = [target.file.name for target in targets]
    started = [name for name in names if name.startswith("aggregator-") and "@" not in name]
    commands = list(_end_others(names, host))
    if copied:
        commands += _copy(targets, host)
    if not started:
        return commands
    commands += ["systemctl daemon-reload", f"systemctl enable --now {shlex.join(started)}"]
    changed = [target.file.name for target in targets if target.before and target.changed]
    again = [name for name in changed if name in started and not copied]
    return commands + [f"systemctl restart {shlex.join(again)}"] * bool(again)


def _end_others(names: Sequence[str], host: Host) -> Iterator[str]:
    """Yield what ends another way of starting the jobs, or the timer of a job that is off now."""
    found = [host.units / units.SCHEDULE, *sorted(host.units.glob(units.timer_name("*")))]
    old = [path for path in found if path.name not in names and path.exists()]
    if old:
        yield f"systemctl disable --now {shlex.join(path.name for path in old)}"
        yield f"rm {shlex.join(map(str, old))}"
    if units.CRON not in names and host.cron.exists():
        yield f"rm {shlex.quote(str(host.cron))}"


def _copy(targets: Sequence[Target], host: Host) -> Iterator[str]:
    copies = [str(target.path) for target in targets if target.file.name != units.CRON]
    if copies:
        yield shlex.join(["install", "-m", "644", "-t", str(host.units), *copies])
    for target in targets:
        if target.file.name == units.CRON:
            yield shlex.join(["install", "-m", "644", str(target.path), str(host.cron)])


def warnings(place: Place, targets: Sequence[Target]) -> Iterator[str]:
    """Yield what would keep the files from doing their work on this host."""
    yield from _of_user(place)
    if any(target.file.name != units.CRON for target in targets):
        for path in filter(None, (place.home, place.executable, place.config)):
            if any(Path(path).is_relative_to(unseen) for unseen in _UNSEEN):
                words = "have the home in /srv, say, and the command in /opt"
                yield f"a hardened service does not see {path}; {words}"
    needed = _MOUNTS + quoting.setting_word(place.home)
    for target in targets:
        lines = (target.before or "").splitlines()
        if needed not in lines and any(line.startswith(_MOUNTS) for line in lines):
            yield f"{target.path} was for another home, whose jobs or door it no longer starts"


def _of_user(place: Place) -> Iterator[str]:
    try:
        user = pwd.getpwnam(place.user).pw_uid
    except KeyError:
        made = ["useradd", "--system", "--home-dir", place.home, "--no-create-home", place.user]
        yield f"there is no user {place.user} here yet; make it by: {shlex.join(made)}"
        return
    if os.path.isdir(place.home) and os.stat(place.home).st_uid != user:
        yield f"{place.home} does not belong to {place.user}, who could not work in it"
