"""What starts the jobs on a host, as text: systemd's units, or lines for cron.

Rendered from the table of jobs; nothing here looks at the host or writes to it. `deploy/` holds
what comes out for /srv/usage.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import Final

from aggregator.errors import ConfigError, UsageError
from aggregator.model import cron as cron_text
from aggregator.model.cron import Cron, CronError
from jobs.times import Planned
from jobs.units import calendar, quoting

SCHEDULE: Final = "aggregator-schedule.service"
DOOR: Final = "aggregator-door.service"
JOB: Final = "aggregator-job@.service"
CRON: Final = "aggregator.cron"
EXECUTABLE: Final = "/opt/aggregator/bin/aggregator"
_PLACEHOLDER: Final = re.compile(r"@([A-Z]+)@")
_HOME_WORD: Final = re.compile(r"[^\s=]*@HOME@\S*|@([A-Z]+)@")
_NO_METRICS: Final = """\
# Where watch.metrics_file lies, outside of the home:
#ReadWritePaths=-/var/lib/prometheus/node-exporter"""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What is run, where and as whom; paths are absolute.

    `metrics` is the folder of watch.metrics_file, where it lies outside of the home.
    """

    home: str
    executable: str = EXECUTABLE
    user: str = "aggregator"
    group: str = "aggregator"
    config: str | None = None
    metrics: str | None = None

    def check(self) -> None:
        """Raise UsageError if a path or a name cannot stand in a unit."""
        quoting.check_path(self.home, "the home")
        quoting.check_path(self.executable, "the command aggregator")
        if "$" in self.executable:
            raise UsageError("the command aggregator has a $ in its path; install it elsewhere")
        if self.config is not None:
            quoting.check_path(self.config, "--config")
        if self.metrics is not None:
            quoting.check_path(self.metrics, "the folder of watch.metrics_file")
        quoting.check_name(self.user, "--user")
        quoting.check_name(self.group, "the group")

    def words(self) -> tuple[str, ...]:
        """Return the words of a call, up to the command's name."""
        config = () if self.config is None else ("--config", self.config)
        return (self.executable, "--home", self.home, *config)


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file to install, by its name in its folder."""

    name: str
    text: str


def schedule(place: Place) -> File:
    """Return the unit of `aggregator schedule`."""
    return File(SCHEDULE, _unit(SCHEDULE, place))


def door(place: Place) -> File:
    """Return the unit of `aggregator serve`."""
    return File(DOOR, _unit(DOOR, place))


def timers(place: Place, planned: Sequence[Planned]) -> tuple[File, ...]:
    """Return the unit of a job, and a timer for each that is planned.

    ConfigError if a job's time is not one that systemd can be told.
    """
    return (File(JOB, _unit(JOB, place)), *map(_timer, planned))


def cron(place: Place, planned: Sequence[Planned]) -> File:
    """Return the lines for /etc/cron.d/aggregator; ConfigError if a time is not understood."""
    place.check()
    command, *rest = place.words()
    call = " ".join(map(quoting.cron_word, (command, "-q", *rest)))
    lines = [
        f"# {one.job.does}\n"
        f"{calendar.crontab(_times(one))} {place.user} {call} run {one.job.name} --wait"
        for one in planned
    ]
    values = {"HOME": place.home, "LINES": "\n".join(lines)}
    return File(CRON, _fill(_template("aggregator.cron"), values))


def timer_name(job: str) -> str:
    """Return the name of a job's timer."""
    return f"aggregator-{job}.timer"


def _timer(one: Planned) -> File:
    values = {
        "JOB": one.job.name,
        "DOES": one.job.does,
        "CRON": f"{one.cron} (cron, UTC)",
        "CALENDAR": calendar.on_calendar(_times(one)),
        "UNIT": JOB.replace("@", f"@{one.job.name}"),
    }
    return File(timer_name(one.job.name), _fill(_template("aggregator.timer"), values))


def _times(one: Planned) -> Cron:
    try:
        return cron_text.parse(one.cron)
    except CronError as error:
        raise ConfigError(f"schedule.{one.job.name} {error}") from None


def _unit(name: str, place: Place) -> str:
    place.check()
    text = _template(name).replace("@JOBS@", _template("jobs.conf").rstrip())
    metrics = quoting.setting_word(f"-{place.metrics}") if place.metrics else None
    values = {
        "HOME": place.home,
        "USER": place.user,
        "GROUP": place.group,
        "RUN": " ".join(map(quoting.exec_word, place.words())),
        "METRICS": f"ReadWritePaths={metrics}" if metrics else _NO_METRICS,
    }
    return _fill(text, values)


def _fill(text: str, values: Mapping[str, str]) -> str:
    """Put `values` into a template; the home in a setting is quoted with the word it is part of."""

    def raw(found: re.Match[str]) -> str:
        return values[found[1]]

    def word(found: re.Match[str]) -> str:
        if found[1]:
            return values[found[1]]
        return quoting.setting_word(found[0].replace("@HOME@", values["HOME"]))

    lines = [
        _PLACEHOLDER.sub(raw, line) if line.startswith("#") else _HOME_WORD.sub(word, line)
        for line in text.splitlines()
    ]
    return "\n".join(lines) + "\n"


def _template(name: str) -> str:
    folder = importlib.resources.files(__name__) / "templates"
    return (folder / name).read_text("utf-8")
