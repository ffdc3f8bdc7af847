"""The settings of mail, directory, watch and dashboard, as config.toml gives them.

Paths are texts, already resolved against the home. Secrets are only named here, never held.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

JOB_NAMES: Final = ("ingest", "daily", "mail", "month-end", "checkpoint", "doctor")
"""The names of the jobs, each of which [schedule] may give other times."""

DAILY_JOBS: Final = frozenset({"daily", "month-end"})
"""What must run every day at least: raw counters are destroyed in time by it (CL-2)."""

OFF: Final = "off"
"""In place of its times: a job that does not run by itself."""


class Security(enum.StrEnum):
    """How mail travels; `none` is for a server on this machine only."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclasses.dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is, in one of four ways, of which exactly one is given.

    A file, a variable of the environment, a systemd credential by its name, or a command that
    prints it.
    """

    file: str | None = None
    variable: str | None = None
    credential: str | None = None
    command: tuple[str, ...] = dataclasses.field(default=(), repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class MailSettings:
    """[mail]: the server, who writes to whom, and how many mails at once.

    `per_minute` 0 is no limit. A run with more than `digest_over` users sends the desk one digest.
    """

    host: str
    port: int
    security: Security
    sender: str
    desk: tuple[str, ...]
    reply_to: str | None = None
    to_user: bool = False
    username: str | None = None
    password: Secret | None = None
    ca_file: str | None = None
    timeout_seconds: int = 30
    per_minute: int = 0
    digest_over: int = 3
    language: str = "en"
    service_name: str = "the VPN service"
    templates: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class DashboardSettings:
    """[dashboard]: the loopback address and the port where it listens, and who may log in.

    Without a password a code is made at every start.
    """

    listen: tuple[str, int]
    password: Secret | None = None


class DirectoryKind(enum.StrEnum):
    """Where the operator keeps accounts and addresses."""

    CSV = "csv"
    SQL = "sql"
    HTTP = "http"
    COMMAND = "command"


@dataclasses.dataclass(frozen=True, slots=True)
class DirectorySettings:
    """[directory]: asked when a notice is sent, streamed, and never stored (CT-3).

    `path` is of csv; `url` (a secret: it may hold a password) and `query` of sql; `url`, `token`
    and `ca_file` of http; `command` of command. All of it takes at most `timeout_seconds`.
    What may hold a password is not in its repr.
    """

    kind: DirectoryKind
    path: str | None = None
    url: Secret | str | None = dataclasses.field(default=None, repr=False)
    query: str | None = dataclasses.field(default=None, repr=False)
    token: Secret | None = None
    ca_file: str | None = None
    command: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    timeout_seconds: int = 300


@dataclasses.dataclass(frozen=True, slots=True)
class WatchSettings:
    """[watch]: who is told how the jobs do, and in which ways.

    Mail goes to `alert` by the server of [mail]; a trouble that lasts is told again every
    `repeat_hours`. `ping_url` is asked after each job and may hold a secret. `metrics_file` is for
    Prometheus' node exporter, `metrics_listen` a loopback address and a port.
    """

    alert: tuple[str, ...] = ()
    repeat_hours: int = 24
    ping_url: Secret | str | None = dataclasses.field(default=None, repr=False)
    metrics_file: str | None = None
    metrics_listen: tuple[str, int] | None = None


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """What the directory says of one account; held in memory while a notice is sent."""

    account: str
    address: str | None = None
    language: str | None = None
    plan: str | None = None
    exempt: bool = False
    objects: bool = False
    restricted: bool = False
