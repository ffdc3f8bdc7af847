"""The parts of the door by themselves: metrics, rates, words, and the text that describes it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import usage
from uvicorn.protocols.http import h11_impl

from aggregator.door.answers import WORDINGS, Fault
from aggregator.door.journal import Journal
from aggregator.door.limits import Budget, Limits, Rates
from aggregator.door.metrics import Durations, Gauges, Metrics
from aggregator.pipeline.receive import Refusal
from aggregator.wire.batch import MAX_BATCH_BYTES

from .running import DESCRIPTION, Running

_SAMPLE = re.compile(
    r'aggregator_door_[a-z_]+(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})? [0-9.e+-]+'
)


def samples(text: str) -> dict[str, float]:
    """Return the samples of a Prometheus text by their whole name; every line is looked at."""
    found, families = {}, set()
    for line in text.splitlines():
        if line.startswith("#"):
            _, kind, name, *rest = line.split(" ", 3)
            assert kind in ("HELP", "TYPE")
            assert rest
            families.add(name)
            continue
        assert _SAMPLE.fullmatch(line), line
        name, _, value = line.rpartition(" ")
        base = re.sub(r"_(bucket|sum|count)$", "", name.partition("{")[0])
        assert base in families or name.partition("{")[0] in families
        assert name not in found
        found[name] = float(value)
    return found


def test_metrics_say_what_happened(door: Running) -> None:
    content = door.agent.batch([usage()], door.keys)
    client = door.client()
    for _ in range(2):
        client.ask("POST", "/v1/batches", content, door.authorised())
    client.ask("POST", "/v1/batches", b"x", door.authorised())
    client.ask("GET", "/nope")
    client.http.close()
    answer = door.ask("GET", "/metrics")
    found = samples(answer.body.decode())
    prefix = "aggregator_door_"
    expected = {
        'requests_total{route="/v1/batches",status="202"}': 2,
        'requests_total{route="/v1/batches",status="400"}': 1,
        'requests_total{route="other",status="404"}': 1,
        'batches_total{state="accepted"}': 1,
        'batches_total{state="known"}': 1,
        'refused_total{error="malformed"}': 1,
        'refused_total{error="not_found"}': 1,
        "batch_bytes_total": 2 * len(content),
        "inbox_files": 1,
        "inbox_bytes": len(content),
        'request_duration_seconds_count{route="/v1/batches"}': 3,
        'request_duration_seconds_bucket{route="/v1/batches",le="+Inf"}': 3,
    }
    assert {name: found[prefix + name] for name in expected} == expected
    assert 0 <= found[prefix + 'last_batch_age_seconds{agent="us-nyc-01"}'] < 3600
    assert found[prefix + "disk_free_bytes"] > 0
    assert found[prefix + "connections"] >= 1
    for secret in (door.agent.token, "127.0.0.1", door.agent.token.rpartition(".")[2]):
        assert secret not in answer.body.decode()


def test_metrics_are_for_this_machine_only(door: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert door.ask("GET", "/metrics").status == 200
    for peer, status in (
        ("203.0.113.7", 404), ("2001:db8::1", 404), ("::ffff:203.0.113.7", 404),
        ("::1", 200), ("::ffff:127.0.0.1", 200), ("127.1.2.3", 200),
    ):  # fmt: skip
        monkeypatch.setattr(h11_impl, "get_remote_addr", lambda _transport, peer=peer: (peer, 1))
        assert door.ask("GET", "/metrics").status == status
        assert door.ask("GET", "/healthz").status == 200


@given(st.lists(st.floats(0, 1000)))
def test_a_histogram_counts_everything_once(times: list[float]) -> None:
    durations = Durations()
    for seconds in times:
        durations.add(seconds)
    found = list(durations.samples({}))
    buckets = [(labels["le"], value) for suffix, labels, value in found if suffix == "_bucket"]
    counts = [value for _, value in buckets]
    assert counts == sorted(counts)
    for edge, value in buckets:
        assert value == sum(seconds <= float(edge.replace("+Inf", "inf")) for seconds in times)
    assert found[-1] == ("_count", {}, len(times))


def test_metrics_of_a_door_nobody_came_to() -> None:
    assert samples(Metrics().text(Gauges(0, 0, 1, 0), 0.0))["aggregator_door_disk_free_bytes"] == 1


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 9), st.floats(0.1, 5))
def test_nobody_gets_more_than_its_burst_and_its_rate(
    pauses: list[float], burst: int, rate: float
) -> None:
    rates = Rates(Limits(burst=burst, requests_a_second=rate))
    now = taken = 0.0
    for pause in pauses:
        now += pause
        wait = rates.wait("a", now)
        taken += not wait
        assert taken <= burst + now * rate + 1e-6
        if wait:  # who waits as long as it was told to is served
            now += wait
            assert rates.wait("a", now) == 0
            taken += 1


def test_one_agents_rate_is_not_anothers() -> None:
    rates = Rates(Limits(burst=1, requests_a_second=1))
    assert [rates.wait("a", 0), rates.wait("a", 0), rates.wait("b", 0)] == [0, 1, 0]


def test_a_budget_is_never_overdrawn() -> None:
    budget = Budget(10)
    assert [budget.take(6), budget.take(6), budget.take(4), budget.take(0)] == [
        True, False, True, True,
    ]  # fmt: skip
    budget.give_back(6)
    assert budget.take(6)


def test_an_alarm_that_repeats_itself_is_told_once() -> None:
    said: list[str] = []
    journal = Journal(quiet=True, say=said.append)
    journal.tell("as it should")
    for _ in range(3):
        journal.alarm("look")
    assert said == ["warning: look"]


def test_what_others_log_is_told_by_place_and_type() -> None:
    """CS-6: uvicorn and asyncio log peers, and exceptions with any words."""
    said: list[str] = []
    journal = Journal(say=said.append)
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
    before = [(logging.getLogger(name).handlers, logging.getLogger(name).level) for name in names]
    with journal.in_charge():
        for name in names:
            logger = logging.getLogger(name)
            logger.info("203.0.113.7")
            logger.warning("203.0.113.7")
            try:
                raise KeyError("203.0.113.7")
            except KeyError:
                logger.exception("planted from %s", "203.0.113.7")
            logger.error("planted from %s", "203.0.113.7")
        logging.getLogger("uvicorn.error").error(
            "Cancel %s running task(s), timeout graceful shutdown exceeded", 3
        )
        journal.on_loop_exception(None, {"message": "planted", "exception": OSError("planted")})
        journal.on_loop_exception(None, {"message": "planted", "exception": ConnectionError("x")})
        journal.on_loop_exception(None, {"message": "planted"})
    assert [logging.getLogger(n).handlers for n in names] == [handlers for handlers, _ in before]
    assert [logging.getLogger(n).level for n in names] == [level for _, level in before]
    text = "\n".join(said)
    assert "203.0" not in text
    assert "planted" not in text
    assert re.search(r"unexpected KeyError at test_parts\.py:\d+", text)
    assert "unexpected OSError at an unknown place" in text
    assert "stopped before every request was answered" in text
    assert len(said) == 4


def responses(path: str, method: str) -> dict[str, Any]:
    """Return the described responses of a route by status, references followed."""
    found = DESCRIPTION["paths"][path][method]["responses"]
    named = DESCRIPTION["components"]["responses"]
    return {
        status: named[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
        for status, one in found.items()
    }


def test_the_description_has_every_route_and_no_other(shared: Running) -> None:
    answer = shared.ask("GET", "/openapi.json")
    assert answer.json == DESCRIPTION
    assert DESCRIPTION["openapi"].startswith("3.1.")
    routes = {
        (route.path, method.lower())
        for route in shared.server._door.routes
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, name) for path, item in DESCRIPTION["paths"].items() for name in item}
    assert described == routes


def test_the_description_has_every_word_with_its_status_and_no_other() -> None:
    assert set(WORDINGS) == {*Refusal, *Fault}
    described = {
        (int(status), word)
        for path, item in DESCRIPTION["paths"].items()
        for method in item
        for status, response in responses(path, method).items()
        if int(status) >= 400
        for word in response["content"]["application/json"]["schema"]["properties"]["error"]["enum"]
    }
    assert described == {(wording.status, word.value) for word, wording in WORDINGS.items()}
    for word, wording in WORDINGS.items():
        assert 0 < len(wording.message) <= 200, word
        assert "\n" not in wording.message
        # The description demands Retry-After for these two, and the agent waits for it.
        assert (wording.retry_after is not None) == (wording.status in (429, 503))


def test_the_description_is_closed_and_whole() -> None:
    text = json.dumps(DESCRIPTION)
    for reference in re.findall(r'"#/([^"]+)"', text):
        place: Any = DESCRIPTION
        for part in reference.split("/"):
            place = place[part]
    for part in DESCRIPTION["components"]["schemas"].values():
        assert part["additionalProperties"] is False
        assert jsonschema_rs.meta.is_valid(part)
    body = DESCRIPTION["paths"]["/v1/batches"]["post"]["requestBody"]
    assert f"{MAX_BATCH_BYTES >> 20} MiB" in body["description"]


def test_the_description_is_part_of_the_package() -> None:
    root = Path(__file__).parents[2]
    assert 'schemas = "aggregator/schemas"' in (root / "pyproject.toml").read_text()
    assert (root / "schemas" / "door.openapi.json").is_file()
