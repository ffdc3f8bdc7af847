"""The settings in config.toml as a table: what each is, what it may be, what holds without it.

Everything that is about all settings goes by this table: the checks, the variables of the
environment, the text of a new config.toml, the JSON Schema for editors, and `config show`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Final

from aggregator.model.settings import JOB_NAMES, DirectoryKind, Security

FILE: Final = "config.toml"
"""What a settings file is called where a mistake in it is told."""


class Kind(enum.Enum):
    """What a value is; `whole` and `flag` are no texts, `words` is a list, two may be either."""

    TEXT = enum.auto()
    PATH = enum.auto()
    WHOLE = enum.auto()
    FLAG = enum.auto()
    CHOICE = enum.auto()
    MAILBOX = enum.auto()
    ADDRESSES = enum.auto()
    LANGUAGE = enum.auto()
    LISTEN = enum.auto()
    LOOPBACK = enum.auto()
    URL = enum.auto()
    CREDENTIAL = enum.auto()
    WORDS = enum.auto()
    TIMES = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `about` is a phrase, `example` a value that passes, `default` what else holds.

    `least` and `most` are of a whole number. One that `may_hold_secret` is never shown. One that
    is not `common` is left out of a new config.toml.
    """

    section: str
    name: str
    kind: Kind
    about: str
    example: Any
    default: Any = None
    least: int = 0
    most: int = 0
    choices: tuple[str, ...] = ()
    needed: bool = False
    may_hold_secret: bool = False
    common: bool = True

    @property
    def path(self) -> str:
        """Its full name, such as mail.port."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The variable of the environment that overrides it."""
        return f"{PREFIX}{self.section}_{self.name.replace('-', '_')}".upper()


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """One section. What is wrong in one that is `apart` stops only what needs that section."""

    name: str
    about: str
    apart: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: with which setting, what, and what to do. No value is in it.

    `setting` is its full name, or that of a section, or "" for the whole file. `where` is a file of
    the home, or a variable of the environment.
    """

    setting: str
    what: str
    remedy: str
    where: str = FILE

    @property
    def section(self) -> str:
        """The section that it is about, "" for none."""
        return self.setting.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


PREFIX: Final = "AGGREGATOR_"
OF_THE_HOME: Final = ("format", "rehearsal")
"""What homes of format 1 have in config.toml; neither is a setting that could be changed."""

SECTIONS: Final = (
    Section("limits", "What is plausible.", apart=False),
    Section("keys", "Where the months' keys are.", apart=False),
    Section("door", "What `aggregator serve` needs: agents report to it."),
    Section(
        "dashboard",
        "Where `aggregator serve --dashboard` shows the pages of the site, on this machine only;"
        " without a password it prints a code at every start.",
    ),
    Section(
        "mail",
        "The mail server: fair-use notices and alerts are sent by it; without it notices wait for"
        " their month.",
    ),
    Section(
        "directory",
        "Who an account is, asked when a notice is sent and never stored. Columns: account,"
        " address, language, plan, exempt, objects, restricted.",
    ),
    Section("schedule", "When the jobs run: the five fields of cron, in UTC, weekdays by name."),
    Section("watch", "Who is told how the jobs do."),
)

SECRETS: Final[Mapping[str, tuple[str, ...]]] = {
    "dashboard.password": ("_file", "_env", "_credential", "_command"),
    "mail.password": ("_file", "_env", "_credential", "_command"),
    "directory.url": ("", "_file", "_env", "_credential", "_command"),
    "directory.token": ("_file", "_env", "_credential", "_command"),
    "watch.ping_url": ("", "_file", "_env", "_credential", "_command"),
}
"""Each secret with the endings of the settings that may give it, of which one is taken."""

DIRECTORY_NEEDS: Final[Mapping[DirectoryKind, tuple[str, ...]]] = {
    DirectoryKind.CSV: ("path",),
    DirectoryKind.SQL: ("url", "query"),
    DirectoryKind.HTTP: ("url",),
    DirectoryKind.COMMAND: ("command",),
}
"""What each kind of directory needs."""

DIRECTORY_MAY: Final[Mapping[DirectoryKind, tuple[str, ...]]] = {
    DirectoryKind.CSV: (),
    DirectoryKind.SQL: (),
    DirectoryKind.HTTP: ("token", "ca_file"),
    DirectoryKind.COMMAND: (),
}
"""What each kind of directory may have besides that, `kind` and `timeout_seconds`."""

_DAY_SECONDS: Final = 86_400
_MILLION: Final = 1_000_000
_ABOUT_TIMES: Final = {
    "ingest": ("take in the batches that wait", "2-57/5 * * * *"),
    "daily": ("close days, judge fair use; every day", "20 0 * * *"),
    "mail": ("send the notices that wait", "4-54/10 * * * *"),
    "month-end": ("the purge; at least every day", "40 * * * *"),
    "checkpoint": ("note where the audit log ends", "40 3 * * *"),
    "doctor": ("check whether the deployment is sound", "50 4 * * *"),
}


def _ways(section: str, name: str, about: str, file: str) -> tuple[Setting, ...]:
    """Return the settings that say where a secret is, beside one that gives it itself."""
    return (
        Setting(section, f"{name}_file", Kind.PATH, f"a file with {about}", file),
        Setting(
            section, f"{name}_env", Kind.TEXT, f"a variable with {about}",
            f"{section}_{name}".upper(), common=False,
        ),
        Setting(
            section, f"{name}_credential", Kind.CREDENTIAL, f"a systemd credential with {about}",
            f"{section}.{name}", common=False,
        ),
        Setting(
            section, f"{name}_command", Kind.WORDS, f"a command that prints {about}, run directly",
            ["pass", "show", f"aggregator/{section}-{name}"], may_hold_secret=True, common=False,
        ),
    )  # fmt: skip


SETTINGS: Final = (
    Setting(
        "limits", "link_rate_gbits", Kind.WHOLE, "a day's counter above this rate is implausible",
        10, least=1, most=10_000, needed=True,
    ),
    Setting(
        "keys", "accept_weak_destruction", Kind.FLAG,
        "true: the file system may keep what is overwritten", False, needed=True,
    ),
    Setting("door", "listen", Kind.LISTEN, "where it listens", "0.0.0.0:8443", "0.0.0.0:8443"),
    Setting(
        "door", "url", Kind.TEXT, "what `aggregator agent enrol` tells agents",
        "https://usage.example.net:8443",
    ),
    Setting("door", "certificate", Kind.PATH, "its chain, as PEM", "/etc/aggregator/door.pem"),
    Setting("door", "private_key", Kind.PATH, "its key, as PEM", "/etc/aggregator/door.key"),
    Setting(
        "door", "client_ca", Kind.PATH, "agents must show a certificate of it as well",
        "/etc/aggregator/agents-ca.pem",
    ),
    Setting(
        "door", "min_free_mib", Kind.WHOLE, "with less room on the disk no batch is taken",
        1024, 1024, most=1 << 30,
    ),
    Setting(
        "dashboard", "listen", Kind.LOOPBACK, "where it listens", "127.0.0.1:8480",
        "127.0.0.1:8480",
    ),
    *_ways("dashboard", "password", "its password", "/etc/aggregator/dashboard.password"),
    Setting("mail", "host", Kind.TEXT, "the server", "mail.example.net", needed=True),
    Setting(
        "mail", "port", Kind.WHOLE, "else 587 for starttls, 465 for tls, 25 for none", 587,
        least=1, most=65_535,
    ),
    Setting(
        "mail", "security", Kind.CHOICE, 'how mail travels; "none" only on this machine',
        "starttls", "starttls", choices=tuple(Security),
    ),
    Setting(
        "mail", "from", Kind.MAILBOX, "the sender", "Fair use <fair-use@example.net>", needed=True,
    ),
    Setting(
        "mail", "desk", Kind.ADDRESSES, "who gets the notices", ["support@example.net"],
        needed=True,
    ),
    Setting("mail", "reply_to", Kind.MAILBOX, "who is answered", "support@example.net"),
    Setting("mail", "to_user", Kind.FLAG, "true: users are written to as well", False, False),
    Setting("mail", "username", Kind.TEXT, "where the server asks for one", "aggregator"),
    *_ways("mail", "password", "its password", "/etc/aggregator/mail.password"),
    Setting(
        "mail", "ca_file", Kind.PATH, "authorities, else the system's",
        "/etc/aggregator/mail-ca.pem", common=False,
    ),
    Setting(
        "mail", "timeout_seconds", Kind.WHOLE, "for each step with the server", 30, 30,
        least=1, most=600, common=False,
    ),
    Setting(
        "mail", "per_minute", Kind.WHOLE, "how many mails at the most; 0 is any number", 0, 0,
        most=_MILLION,
    ),
    Setting(
        "mail", "digest_over", Kind.WHOLE, "for more users the desk gets one digest", 3, 3,
        most=_MILLION,
    ),
    Setting("mail", "language", Kind.LANGUAGE, "of mails to the desk", "en", "en"),
    Setting(
        "mail", "service_name", Kind.TEXT, "what users know the service as", "Example VPN",
        "the VPN service",
    ),
    Setting(
        "mail", "templates", Kind.PATH, "a folder with templates of your own",
        "/etc/aggregator/templates", common=False,
    ),
    Setting(
        "directory", "kind", Kind.CHOICE, "csv, sql, http or command: where accounts are", "csv",
        choices=tuple(DirectoryKind), needed=True,
    ),
    Setting("directory", "path", Kind.PATH, "of csv: the file", "/etc/aggregator/accounts.csv"),
    Setting(
        "directory", "url", Kind.TEXT, "of sql and http: where to ask",
        "https://crm.example.net/accounts.csv", may_hold_secret=True,
    ),
    *_ways("directory", "url", "the URL, with its password", "/etc/aggregator/crm.url"),
    Setting(
        "directory", "query", Kind.TEXT, "of sql: what to ask",
        "SELECT account, email AS address FROM customers", may_hold_secret=True, common=False,
    ),
    *_ways("directory", "token", "the bearer token of http", "/etc/aggregator/crm.token"),
    Setting(
        "directory", "ca_file", Kind.PATH, "authorities of http, else the system's",
        "/etc/aggregator/crm-ca.pem", common=False,
    ),
    Setting(
        "directory", "command", Kind.WORDS, "of command: prints CSV or JSON objects",
        ["/usr/local/bin/accounts", "--csv"], may_hold_secret=True,
    ),
    Setting(
        "directory", "timeout_seconds", Kind.WHOLE, "for all of it", 300, 300,
        least=1, most=_DAY_SECONDS,
    ),
    *(
        Setting("schedule", name, Kind.TIMES, about, times, times)
        for name, (about, times) in ((one, _ABOUT_TIMES[one]) for one in JOB_NAMES)
    ),
    Setting(
        "watch", "alert", Kind.ADDRESSES, "who is written to by the server of [mail]",
        ["ops@example.net"],
    ),
    Setting(
        "watch", "repeat_hours", Kind.WHOLE, "a trouble that lasts is told again so often", 24, 24,
        least=1, most=168,
    ),
    Setting(
        "watch", "ping_url", Kind.URL, "asked after each job; {job} stands for its name",
        "https://hc-ping.example.net/3f0c/{job}", may_hold_secret=True, common=False,
    ),
    *_ways("watch", "ping_url", "the URL that is asked after each job", "/etc/aggregator/ping-url"),
    Setting(
        "watch", "metrics_file", Kind.PATH, "for Prometheus' node exporter",
        "/var/lib/node-exporter/aggregator.prom",
    ),
    Setting(
        "watch", "metrics_listen", Kind.LOOPBACK, "where `aggregator schedule` answers /metrics",
        "127.0.0.1:9109",
    ),
)  # fmt: skip

BY_SECTION: Final[Mapping[str, Mapping[str, Setting]]] = {
    section.name: {one.name: one for one in SETTINGS if one.section == section.name}
    for section in SECTIONS
}


Given = Mapping[str, Mapping[str, Any]]
"""Values of settings, by section and name."""


def ways(path: str) -> tuple[str, ...]:
    """Return the names, without the section, of the settings that may give what `path` is."""
    _, _, name = path.partition(".")
    return tuple(name + way for way in SECRETS.get(path, ("",)))


def of_directory(kind: DirectoryKind) -> frozenset[str]:
    """Return the names of all settings that a directory of this kind may have."""
    named = (*DIRECTORY_NEEDS[kind], *DIRECTORY_MAY[kind])
    every = (way for name in named for way in ways(f"directory.{name}"))
    return frozenset(("kind", "timeout_seconds", *every))


def find(path: str) -> Setting | None:
    """Return the setting with the full name `path`, None if there is none."""
    section, _, name = path.partition(".")
    return BY_SECTION.get(section, {}).get(name)
