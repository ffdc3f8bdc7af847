"""A home: the folder of one deployment, its configuration and its policy profile."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aggregator
from aggregator.errors import ConfigError, RefusedError
from aggregator.model.config_table import BY_SECTION, Given, Kind
from aggregator.model.profile import DEFAULT_PROFILE, Profile, parse_profile
from aggregator.stores import atomic, config, config_text, custody, formats
from aggregator.stores.config import Config, Contact
from aggregator.stores.formats import FORMAT, Mark
from aggregator.stores.values import shown

FOLDERS: Final = ("policy", "agents", "keys", "inbox", "raw", "tables", "outbox", "audit", "runs")
# Those that are written to under the home's lock only; others drop files into the inbox, and a
# job's run is noted whether it had the lock or not.
OWN_FOLDERS: Final = tuple(name for name in FOLDERS if name not in ("inbox", "runs"))


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """The folder of one deployment; paths only, nothing is opened.

    `settings` names a file whose settings are used in place of the home's own; whether this is a
    rehearsal stays the home's own word. Variables of `environment` override settings.
    """

    root: Path
    settings: Path | None = None
    environment: Mapping[str, str] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    def folder(self, name: str) -> Path:
        """Return one of the home's own folders."""
        return self.root / name

    @property
    def lock_path(self) -> Path:
        """The file on which a writing run holds its lock."""
        return self.root / ".lock"

    @property
    def config_path(self) -> Path:
        """The settings file."""
        return self.root / "config.toml"

    @property
    def mark_path(self) -> Path:
        """What makes the folder a home, and says of which format; one of format 1 has none."""
        return self.root / "home.json"

    @property
    def profile_path(self) -> Path:
        """The active policy profile."""
        return self.root / "policy" / "profile.toml"

    @property
    def format(self) -> int:
        """The home's format; an older one than `formats.FORMAT` works, and waits for `migrate`."""
        return self.mark().format

    @property
    def is_made(self) -> bool:
        """Whether there is a whole home; ConfigError if what is there cannot be read."""
        return self.mark_path.exists() or self._marked_by_settings() is not None

    def check_can_be_made(self) -> None:
        """Raise RefusedError if there is a home already, or if `root` has other files in it."""
        if self.is_made:
            raise RefusedError(f"there is a home already in {self.root}")
        if self._holds_data():
            raise RefusedError(f"{self.root} holds a home's data but no home.json; restore it")
        files = {
            self.config_path.name,
            self.config_path.name + ".part",
            self.mark_path.name + ".part",
        }
        allowed = {*FOLDERS, self.lock_path.name, *files}
        found = {path.name for path in self.root.iterdir()} if self.root.exists() else set()
        # A killed run may have left its probe of the file system; the next run sweeps it.
        if any(not name.startswith(custody.PROBE_PREFIX) for name in found - allowed):
            raise RefusedError(f"{self.root} is not empty; a home needs a folder of its own")

    def create(
        self,
        *,
        rehearsal: bool,
        accept_weak: bool,
        profile: str | None = None,
        given: Given | None = None,
    ) -> None:
        """Lay the folders and files of a new home; home.json last, so that it marks a whole one.

        Its config.toml has the settings `given`. One that is there already, as a configuration
        management tool writes it, is kept. RefusedError as `check_can_be_made`; ConfigError if
        settings or profile are wrong. Either way nothing was written.
        """
        self.check_can_be_made()
        text = DEFAULT_PROFILE if profile is None else profile
        parse_profile(text)
        mark = Mark(FORMAT, rehearsal, aggregator.__version__)
        wanted = {**(given or {})}
        if accept_weak:
            wanted["keys"] = {**wanted.get("keys", {}), "accept_weak_destruction": True}
        content = self._new_config(mark, wanted)
        for name in FOLDERS:
            atomic.make_folder(self.folder(name))
        atomic.write(self.profile_path, text.encode())
        if content is not None:
            atomic.write(self.config_path, content)
        formats.write(self.mark_path, mark)

    def unmake(self) -> None:
        """Remove what a `create` that was stopped has laid; other files, and a whole home, stay."""
        if self.mark_path.exists():
            return
        atomic.sweep(self.root)
        for path in (self.profile_path, self.config_path, self.lock_path):
            path.unlink(missing_ok=True)
        for folder in (*map(self.folder, FOLDERS), self.root):
            with contextlib.suppress(OSError):  # it is not there, or not empty
                folder.rmdir()

    def _new_config(self, mark: Mark, given: Given) -> bytes | None:
        """Return config.toml with the settings `given`; None if one is there that is kept."""
        try:
            before = self.config_path.read_bytes()
        except FileNotFoundError:
            before = None
        text = config_text.render(given)
        # One of ours was left by a run that was killed; the flags may be others now.
        ours = {text.encode(), *map(_plain_config, (True, False))}
        if before is None or before in ours:
            self._checked(config.parse(text), mark)
            return text.encode()
        self._configured(mark)
        other = differing(self.own_settings(), given)
        if other:
            raise ConfigError(
                f"{self.config_path} was there already and is kept;"
                f" set {_wanted(other[0], given)} in it"
            )
        return None

    def mark(self) -> Mark:
        """Return the home's format, and whether it is a rehearsal; ConfigError if this is none.

        A home of a newer release's format is a ConfigError too.
        """
        found = formats.read(self.mark_path) or self._marked_by_settings()
        if found is not None:
            return found
        if self._holds_data() and self.config_path.exists():
            raise ConfigError(f"{self.mark_path} is missing; {formats.REMEDY}")
        if self._holds_data():
            raise ConfigError(f"{self.mark_path} and config.toml are missing; restore them")
        raise ConfigError(
            f"{self.root} is no home; make one with: aggregator init --home {self.root}"
        )

    def load_config(self) -> Config:
        """Return the settings; ConfigError says what is missing or wrong."""
        before = self._stamp()
        try:
            return self._configured(self.mark())
        except ConfigError:
            # A migration may have changed one of the two files after the other was read.
            if self._stamp() == before:
                raise
            return self._configured(self.mark())

    def check_user(self) -> None:
        """Raise RefusedError to root in a home of another user, who could not read it then."""
        if os.geteuid() == 0 and _owner(self.root) != 0:
            raise RefusedError(
                "this home belongs to another user than root; run it as that user:"
                " runuser -u NAME -- aggregator …"
            )

    def load_contact(self) -> Contact:
        """Return how the operator is told; ConfigError if no settings can be read at all."""
        try:
            data = config.read(self.settings or self.config_path)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{self.settings or self.config_path} is missing") from None
        return config.contact(data, self.root, self.environment)

    def _configured(self, mark: Mark) -> Config:
        # Only the home itself says that it is a rehearsal: else --now could reach real data.
        if self.settings is None:
            own = self.own_settings()
            formats.check_agrees(mark, own)
            return self._checked(own, mark)
        try:
            other = config.read(self.settings)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"there is no settings file {self.settings}") from None
        formats.check_known(other, self.settings)
        return self._checked(other, mark)

    def _checked(self, data: dict[str, Any], mark: Mark) -> Config:
        rehearsal, environment = mark.rehearsal, self.environment
        return config.check(data, self.root, rehearsal=rehearsal, environment=environment)

    def own_settings(self) -> dict[str, Any]:
        """Return what config.toml says, unchecked; ConfigError if it is missing or no TOML."""
        try:
            return config.read(self.config_path)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{self.config_path} is missing; restore it") from None

    def _marked_by_settings(self) -> Mark | None:
        """Return what config.toml says of a home of format 1, None if there is no such home."""
        try:
            return formats.of_settings(config.read(self.config_path), self.config_path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _holds_data(self) -> bool:
        return any(any(self.folder(name).glob("*")) for name in ("keys", "raw", "audit"))

    def _stamp(self) -> bytes | None:
        try:
            return self.mark_path.read_bytes()
        except OSError:
            return None

    def load_profile(self) -> Profile:
        """Return the active policy profile; ConfigError says what is missing or wrong."""
        try:
            return parse_profile(self.profile_path.read_text("utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{self.profile_path} is missing; restore it") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self.profile_path} is not UTF-8 text") from None


def differing(data: Mapping[str, Any], given: Given) -> list[str]:
    """Return the full names of the settings `given` that are others in the settings `data`."""
    found = []
    for section, values in given.items():
        table = data.get(section, {})
        for name, value in values.items():
            default = BY_SECTION[section][name].default
            if not isinstance(table, dict) or table.get(name, default) != value:
                found.append(f"{section}.{name}")
    return found


def _wanted(path: str, given: Given) -> str:
    """Return how the setting `path` is told; its value only if it cannot be a secret."""
    section, _, name = path.partition(".")
    setting, value = BY_SECTION[section][name], given[section][name]
    return f"{name} = {shown(value)}" if setting.kind is Kind.FLAG else path


def _plain_config(accept_weak: bool) -> bytes:
    """Return the text of a new config.toml without any settings given."""
    return config_text.render({"keys": {"accept_weak_destruction": accept_weak}}).encode()


def _owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:  # told by whatever comes next
        return os.geteuid()
