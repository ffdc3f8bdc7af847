"""A home: the folder of one deployment, its configuration and its policy profile."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aggregator
from aggregator.errors import ConfigError, RefusedError
from aggregator.model.profile import DEFAULT_PROFILE, Profile, parse_profile
from aggregator.stores import atomic, config, config_text, custody, formats
from aggregator.stores.config import Config
from aggregator.stores.formats import FORMAT, Mark

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

    def create(self, *, rehearsal: bool, accept_weak: bool, profile: str | None = None) -> None:
        """Lay the folders and files of a new home; home.json last, so that it marks a whole one.

        A config.toml that is there already, as a configuration management tool writes it, is kept.
        RefusedError if there is a home already, or if `root` has other files in it.
        """
        if self.mark_path.exists() or self._marked_by_settings() is not None:
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
        text = DEFAULT_PROFILE if profile is None else profile
        parse_profile(text)
        mark = Mark(FORMAT, rehearsal, aggregator.__version__)
        for name in FOLDERS:
            atomic.make_folder(self.folder(name))
        atomic.write(self.profile_path, text.encode())
        self._settle_config(mark, accept_weak=accept_weak)
        formats.write(self.mark_path, mark)

    def _settle_config(self, mark: Mark, *, accept_weak: bool) -> None:
        """Write config.toml, unless one is there that somebody else wrote and that can be used."""
        try:
            before = self.config_path.read_bytes()
        except FileNotFoundError:
            before = None
        # One of ours was left by a run that was killed; the flags may be others now.
        ours = {_settings(weak) for weak in (True, False)}
        if before is None or before in ours:
            atomic.write(self.config_path, _settings(accept_weak))
            return
        found = self._configured(mark)
        if accept_weak and not found.accept_weak_destruction:
            raise ConfigError(
                f"{self.config_path} was there already and is kept;"
                " set accept_weak_destruction = true in it"
            )

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

    def _configured(self, mark: Mark) -> Config:
        # Only the home itself says that it is a rehearsal: else --now could reach real data.
        if self.settings is None:
            own = self._own_settings()
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

    def _own_settings(self) -> dict[str, Any]:
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


def _settings(accept_weak: bool) -> bytes:
    """Return the text of a new config.toml."""
    return config_text.render({"keys": {"accept_weak_destruction": accept_weak}}).encode()
