"""The dashboard for Grafana asks for what there is: every metric in it is one that we write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from closed import Run
from prometheus_client import parser

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy/grafana/usage-aggregator.json"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def test_every_metric_that_is_asked_for_is_written(
    dashboard: dict[str, Any], home: Path, run: Run, tmp_path: Path
) -> None:
    pipeline = tmp_path / "aggregator.prom"
    with (home / "config.toml").open("a") as config:
        config.write(f'\n[watch]\nmetrics_file = "{pipeline}"\n')
    assert run(home, "run", "ingest").code == 0
    texts = [pipeline.read_text(), run(home, "report", "metrics").out.removesuffix("# EOF\n")]
    written: dict[str, set[str]] = {}
    for family in parser.text_string_to_metric_families("".join(texts)):
        labels = written.setdefault(family.name, set())
        for sample in family.samples:
            labels.update(sample.labels)
    asked = set()
    for query in queries(dashboard):
        for name, matchers in re.findall(r"(aggregator_\w+)(?:\{([^}]*)\})?", query):
            asked.add(name)
            assert name in written, query
            if written[name]:  # a family of which nothing is told has no labels
                assert set(re.findall(r"(\w+)=", matchers)) <= written[name]
    assert len(asked) > 12


def test_panels_do_not_lie_on_each_other(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
