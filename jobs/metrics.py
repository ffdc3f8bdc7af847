"""How the home is, for Prometheus: as a text file for its node exporter, and for /metrics.

No label holds a user, an agent, a location or an address: these are the pipeline's figures only.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aggregator import __version__
from aggregator.errors import AggregatorError, explain
from aggregator.model.days import start_of
from aggregator.model.runs import Facts, Incident, Trouble
from aggregator.pipeline import status
from aggregator.pipeline.deployment import Deployment
from aggregator.stores import atomic

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

_PREFIX: Final = "aggregator_"
_READABLE: Final = 0o644


Look = Callable[[], tuple[Deployment, Facts, Sequence[Incident]]]
"""Opens the home to see how it is now."""


def text(look: Look) -> bytes:
    """Return everything in Prometheus' text format."""
    # Loaded where somebody wants figures; most runs do without.
    from prometheus_client import generate_latest  # noqa: PLC0415

    written: bytes = generate_latest(_registry(look))
    return written


@contextlib.contextmanager
def served(listen: tuple[str, int], look: Look, unread: Callable[[str], None]) -> Iterator[int]:
    """Answer GET /metrics at `listen`, an address of this machine, until left; yields the port.

    Where the home cannot be read, `home_readable` is 0 and `unread` is told why. OSError if that
    port is taken.
    """
    from prometheus_client import start_http_server  # noqa: PLC0415

    host, port = listen
    server, thread = start_http_server(port, host, _registry(look, unread))
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _registry(look: Look, unread: Callable[[str], None] | None = None) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class Figures(Collector):
        def collect(self) -> Iterable[GaugeMetricFamily]:
            try:
                figures = list(_figures(*look()))
            except (AggregatorError, OSError) as error:
                if unread is None:
                    raise
                unread(explain(error)[0])
                figures = []
            yield from figures
            yield _gauge(
                "home_readable", "0 where the home could not be read.", None,
                [("", bool(figures))],
            )  # fmt: skip

        def describe(self) -> Iterable[GaugeMetricFamily]:
            return ()  # else it would look once for nothing

    registry = CollectorRegistry()
    registry.register(Figures())
    return registry


def write(path: Path, content: bytes) -> None:
    """Replace the text file; others may read it, since the exporter runs as another user.

    Two jobs that end at once must not write it together: see `RunStore.writing`.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(2, "the folder of watch.metrics_file is not there")
    atomic.write(path, content, _READABLE, exactly=True)


def _gauge(
    name: str, what: str, label: str | None, samples: Iterable[tuple[str, float]]
) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    family = GaugeMetricFamily(_PREFIX + name, what, labels=[label] if label else None)
    for value, number in samples:
        family.add_metric([value] if label else [], number)
    return family


def _figures(
    house: Deployment, facts: Facts, troubles: Sequence[Incident]
) -> Iterable[GaugeMetricFamily]:
    yield from _jobs(facts)
    yield from _days(house)
    yield from _purge(house, facts)
    yield from _state(house, facts, troubles)


def _jobs(facts: Facts) -> Iterable[GaugeMetricFamily]:
    runs = facts.runs
    yield _gauge(
        "job_last_run_timestamp_seconds", "When the job's last run began.", "job",
        ((run.job, run.began_at.timestamp()) for run in runs),
    )  # fmt: skip
    yield _gauge(
        "job_last_success_timestamp_seconds", "When its last successful run began.", "job",
        ((run.job, run.succeeded_at.timestamp()) for run in runs if run.succeeded_at),
    )  # fmt: skip
    yield _gauge(
        "job_last_run_seconds", "How long its last run took.", "job",
        ((run.job, run.seconds) for run in runs),
    )  # fmt: skip
    yield _gauge(
        "job_last_run_exit_code", "How its last run ended; 0 is well.", "job",
        ((run.job, run.exit_code) for run in runs),
    )  # fmt: skip
    yield _gauge(
        "job_failures", "Failed runs in a row.", "job", ((run.job, run.failures) for run in runs)
    )


def _days(house: Deployment) -> Iterable[GaugeMetricFamily]:
    days = status.days_of(house)
    counts = (
        ("open", days.open),
        ("grace", days.grace),
        ("due", days.due),
        ("closed", days.closed),
    )
    yield _gauge(
        "days", "Days of which raw counters are here, by state.", "state",
        ((state, len(names)) for state, names in counts),
    )  # fmt: skip
    yield _gauge(
        "oldest_due_day_seconds", "Since when the oldest day that is not closed is due.", None,
        [("", days.lag.total_seconds())],
    )  # fmt: skip
    kept = [day for _, names in counts for day in names]
    oldest = house.now - start_of(dt.date.fromisoformat(min(kept))) if kept else dt.timedelta(0)
    yield _gauge(
        "oldest_raw_counter_seconds", "Age of the oldest day of which raw counters are here.", None,
        [("", oldest.total_seconds())],
    )  # fmt: skip


def _purge(house: Deployment, facts: Facts) -> Iterable[GaugeMetricFamily]:
    month, due_at = facts.purge_month, facts.purge_due_at
    due = [(month, due_at.timestamp())] if month and due_at else []
    yield _gauge("purge_due_timestamp_seconds", "When the next purge is due.", "month", due)
    late = max(0.0, (facts.now - due_at).total_seconds()) if due_at else 0.0
    yield _gauge("purge_late_seconds", "How long a purge is due and not done.", None, [("", late)])
    yield _gauge(
        "clock_in_doubt", "1 while the purge waits for the clock.", None,
        [("", facts.clock_doubt_since is not None)],
    )  # fmt: skip
    yield _gauge(
        "receipts", "Months that were purged, each with its receipt.", None,
        [("", len(house.receipts.months()))],
    )  # fmt: skip


def _state(
    house: Deployment, facts: Facts, troubles: Sequence[Incident]
) -> Iterable[GaugeMetricFamily]:
    yield _gauge("inbox_batches", "Batches that wait.", None, [("", len(house.inbox.paths()))])
    yield _gauge("agents", "Agents that are enrolled.", None, [("", len(house.agents.ids()))])
    messages, _ = status.messages_by_state(house)
    yield _gauge("fairuse_messages", "Fair-use mails by state.", "state", sorted(messages.items()))
    yield _gauge("disk_free_bytes", "Room on the disk.", None, [("", facts.free_bytes or 0)])
    yield _gauge(
        "incidents", "Troubles that last, by kind.", "kind",
        ((kind.value, sum(one.trouble is kind for one in troubles)) for kind in Trouble),
    )  # fmt: skip
    yield _gauge("build_info", "The version that runs.", "version", [(__version__, 1)])
    yield _gauge(
        "metrics_timestamp_seconds", "When this was written.", None, [("", facts.now.timestamp())]
    )
