"""Shared by the agent's tests: captures of real daemons, and their golden output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aggregator.agent.readings import Capture

DATA = Path(__file__).parents[1] / "data"


def text_of(name: str) -> str:
    """Return the text of a capture, such as `openvpn/00-start.status-v2.file`."""
    return (DATA / name).read_text(encoding="utf-8")


def goldens(source: str) -> list[Any]:
    """Return one pytest parameter for every capture that has a golden output."""
    names = sorted(path.stem for path in (DATA / source).glob("*.json"))
    return [pytest.param(f"{source}/{name}", id=name) for name in names]


def golden(name: str) -> Any:
    """Return the golden output of a capture."""
    return json.loads(text_of(f"{name}.json"))


def said(capture: Capture) -> dict[str, Any]:
    """Return what a capture says, in the form of the golden outputs."""
    found: dict[str, list[int]] = {}
    for reading in capture.readings:
        found.setdefault(reading.name, []).append(reading.bytes)
    return {
        "accounts": [
            {"account": name, "sessions": len(counts), "bytes": sum(counts)}
            for name, counts in sorted(found.items())
        ],
        "dropped": {str(reason): count for reason, count in capture.dropped.items()},
    }


def server_only(all_transfer: str) -> str:
    """Return what `wg show wgs… transfer` says, cut out of `wg show all transfer`.

    The captures of wireguard-go also list the clients' interfaces, which share its socket folder.
    """
    rows = [line.split("\t", 1) for line in all_transfer.splitlines() if line.startswith("wgs")]
    return "".join(f"{row}\n" for _interface, row in rows)
