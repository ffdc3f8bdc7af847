"""What the door counts, and how Prometheus reads it. No address and no token is among it."""

from __future__ import annotations

import bisect
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "aggregator_door_"
_EDGES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

Sample = tuple[str, Mapping[str, str], float]
"""What is added to a family's name, the labels, and the value."""


@dataclasses.dataclass(slots=True)
class Durations:
    """How long requests took, as a histogram; seconds."""

    buckets: list[int] = dataclasses.field(default_factory=lambda: [0] * (len(_EDGES) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one request."""
        self.buckets[bisect.bisect_left(_EDGES, seconds)] += 1
        self.total += seconds

    def samples(self, labels: Mapping[str, str]) -> Iterator[Sample]:
        """Yield the samples of the histogram."""
        count = 0
        for edge, found in zip((*_EDGES, None), self.buckets, strict=True):
            count += found
            yield "_bucket", {**labels, "le": "+Inf" if edge is None else f"{edge:g}"}, count
        yield "_sum", labels, self.total
        yield "_count", labels, count


@dataclasses.dataclass(frozen=True, slots=True)
class Gauges:
    """What is looked at only when it is asked for."""

    inbox_files: int
    inbox_bytes: int
    disk_free_bytes: int
    connections: int


@dataclasses.dataclass(slots=True)
class Metrics:
    """The counters of one door; touched by its event loop only."""

    requests: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
    batches: Counter[str] = dataclasses.field(default_factory=Counter)
    refused: Counter[str] = dataclasses.field(default_factory=Counter)
    dropped: Counter[str] = dataclasses.field(default_factory=Counter)
    body_bytes: int = 0
    last_batch: dict[str, float] = dataclasses.field(default_factory=dict)
    durations: dict[str, Durations] = dataclasses.field(default_factory=dict)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.requests[route, status] += 1
        self.durations.setdefault(route, Durations()).add(seconds)

    def took(self, agent: str, state: str, size: int, now: float) -> None:
        """Count one batch of `size` bytes that was taken at `now` (seconds, monotonic)."""
        self.batches[state] += 1
        self.body_bytes += size
        self.last_batch[agent] = now

    def text(self, gauges: Gauges, now: float) -> str:
        """Return everything in Prometheus' text format."""
        families: tuple[tuple[str, str, str, Iterable[Sample]], ...] = (
            (
                "requests_total", "counter", "Answers by route and status.",
                (
                    ("", {"route": route, "status": str(status)}, count)
                    for (route, status), count in sorted(self.requests.items())
                ),
            ),
            (
                "request_duration_seconds", "histogram", "From a request's head to its answer.",
                (
                    sample
                    for route, found in sorted(self.durations.items())
                    for sample in found.samples({"route": route})
                ),
            ),
            ("batches_total", "counter", "Batches taken.", _counted("state", self.batches)),
            ("refused_total", "counter", "Requests refused.", _counted("error", self.refused)),
            (
                "dropped_connections_total", "counter", "Connections that were cut off.",
                _counted("reason", self.dropped),
            ),
            ("batch_bytes_total", "counter", "Bytes of batches taken.", _one(self.body_bytes)),
            ("connections", "gauge", "Connections open now.", _one(gauges.connections)),
            ("inbox_files", "gauge", "Batches that wait.", _one(gauges.inbox_files)),
            ("inbox_bytes", "gauge", "Bytes of batches that wait.", _one(gauges.inbox_bytes)),
            (
                "disk_free_bytes", "gauge", "Room on the disk of the inbox.",
                _one(gauges.disk_free_bytes),
            ),
            (
                "last_batch_age_seconds", "gauge", "Since an agent's last batch, from this start.",
                (("", {"agent": agent}, now - at) for agent, at in sorted(self.last_batch.items())),
            ),
        )  # fmt: skip
        lines = (line for family in families for line in _lines(*family))
        return "".join(f"{line}\n" for line in lines)


def _one(value: float) -> Iterable[Sample]:
    return (("", {}, value),)


def _counted(label: str, counts: Counter[str]) -> Iterable[Sample]:
    return (("", {label: word}, count) for word, count in sorted(counts.items()))


def _lines(name: str, kind: str, what: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {what}"
    yield f"# TYPE {_PREFIX}{name} {kind}"
    for suffix, labels, value in samples:
        # No label holds a quote, a backslash or a line end: all are words from closed lists or ids.
        inner = ",".join(f'{label}="{text}"' for label, text in labels.items())
        yield f"{_PREFIX}{name}{suffix}{f'{{{inner}}}' if inner else ''} {value:.15g}"
