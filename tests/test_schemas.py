"""The schema files are the single source: the model and the checks are held to them."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pyarrow.parquet as pq
import pytest

from aggregator.model.days import text_of
from aggregator.model.profile import DEFAULT_PROFILE, parse_profile
from aggregator.model.reasons import Reason
from aggregator.model.records import (
    MAX_USER_CHARACTERS,
    RESERVED_LOCATIONS,
    SCHEMAS,
    Field,
    JsonType,
    Rejection,
)
from aggregator.model.tables import TABLES, Kind
from aggregator.pipeline.close import FLAG_TABLES
from aggregator.rules.calendar import Calendar, DayGate
from aggregator.rules.rollup import EDGES
from aggregator.rules.validate import Gate, check_line
from aggregator.stores.tables import file_schema

ROOT: Final = Path(__file__).resolve().parents[1] / "schemas"
# That of the settings has tests of its own: tests/stores/test_config.py.
FILES: Final = sorted(
    path for path in ROOT.glob("*.schema.json") if path.name != "config.schema.json"
)
EXAMPLES: Final = sorted((ROOT / "examples").rglob("*.json"))
INT64: Final = 2**63 - 1
_PROFILE: Final = parse_profile(DEFAULT_PROFILE)
_GRACE: Final = Calendar(
    dt.timedelta(hours=_PROFILE.day_grace_hours), dt.timedelta(hours=_PROFILE.purge_grace_hours)
)
GATE: Final = Gate(
    DayGate(_GRACE, dt.datetime(2026, 10, 6, 12, tzinfo=dt.UTC)), 10 * 10**9 // 8 * 86_400
)


def load(name: str) -> dict[str, Any]:
    """Return a schema by its name, such as usage_daily.table."""
    schema: dict[str, Any] = json.loads((ROOT / f"{name}.schema.json").read_text())
    return schema


def validator(name: str) -> Any:
    """Return what validates against the schema called `name`."""
    return jsonschema_rs.Draft202012Validator(load(name))


def example_id(path: Path) -> str:
    """Return how an example is called in a test's name."""
    return path.relative_to(ROOT / "examples").with_suffix("").as_posix()


def test_the_schema_files_are_those_of_the_model() -> None:
    tables = {f"{name}.table" for name in TABLES}
    expected = {*SCHEMAS, *tables, "purge_receipt.1", "audit_checkpoint.1", "public_release.1"}
    assert {path.name.removesuffix(".schema.json") for path in FILES} == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".schema.json"))
def test_a_schema_is_closed_described_and_valid(path: Path) -> None:
    schema = json.loads(path.read_text())
    assert jsonschema_rs.meta.is_valid(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == path.name
    assert schema["title"] == path.name.removesuffix(".schema.json").removesuffix(".table")
    for part in objects_in(schema):
        assert part["additionalProperties"] is False
        assert part["description"]
        for name, column in part["properties"].items():
            assert "const" in column or column.get("description"), name


def objects_in(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schema's objects, itself first; items of a list have their list's description."""
    found = [schema]
    for column in schema["properties"].values():
        if column.get("type") == "object":
            found += objects_in(column)
        items = column.get("items", {})
        if items.get("type") == "object":
            found += objects_in({"description": column["description"], **items})
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_record_has_the_fields_of_its_schema(name: str) -> None:
    schema, model = load(name), SCHEMAS[name]
    assert set(schema["properties"]) == model.names
    required = {"record", *(field.name for field in model.fields if field.required)}
    assert set(schema["required"]) == required
    assert schema["properties"]["record"] == {"const": name}
    for field in model.fields:
        assert_field(field, schema["properties"][field.name])


def assert_field(field: Field, column: dict[str, Any]) -> None:
    """Compare one field of a record with its schema."""
    if field.is_integer:
        limits = (column["type"], column["minimum"], column["maximum"])
        assert limits == ("integer", 0, field.maximum)
        return
    assert column["type"] == "string"
    if field.choices is not None:
        assert set(column["enum"]) == field.choices
        assert field.pattern is not None
        assert all(field.pattern.fullmatch(choice) for choice in field.choices)
    elif field.pattern is not None:
        assert column["pattern"] == f"^{field.pattern.pattern}$"
    if field.name == "location":
        assert set(column["not"]["enum"]) == RESERVED_LOCATIONS
    if field.name == "user":
        assert (column["minLength"], column["maxLength"]) == (1, MAX_USER_CHARACTERS)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_columns_of_its_schema(name: str) -> None:
    schema, model = load(f"{name}.table"), TABLES[name]
    assert list(schema["properties"]) == list(model.columns)
    assert schema["required"] == list(model.columns)
    assert schema["x-dimensions"] == list(model.columns)[: model.dimensions]
    for column, kind in model.columns.items():
        assert_column(schema["properties"][column], kind)


def assert_column(column: dict[str, Any], kind: Kind) -> None:
    """Compare one column of a table with its schema."""
    if kind in (Kind.COUNT, Kind.COUNT_OR_NULL):
        nullable = kind is Kind.COUNT_OR_NULL
        assert column["type"] == (["integer", "null"] if nullable else "integer")
        assert column["minimum"] in (-1, 0, 1)
        assert column["maximum"] in (INT64, 2**32 - 1, 100)
    elif kind is Kind.HISTOGRAM:
        assert column["type"] == "array"
        assert column["items"]["required"] == ["from_bytes", "users"]
        assert column["items"]["properties"]["from_bytes"]["enum"] == list(EDGES)
    elif kind is Kind.FLAG:
        assert column["type"] == "boolean"
    else:
        assert column["type"] == "string"
        assert "pattern" in column or "enum" in column
        assert (column.get("format") == "date") == (kind is Kind.DAY)
        assert re.fullmatch(column.get("pattern", ""), "2026-10") or kind is not Kind.MONTH


def test_closed_lists_are_the_models() -> None:
    columns = load("rejections_daily.table")["properties"]
    fields = {"record", *(field.name for model in SCHEMAS.values() for field in model.fields)}
    assert set(columns["reason"]["enum"]) == set(Reason)
    assert set(columns["json_type"]["enum"]) == set(JsonType)
    assert set(columns["schema"]["enum"]) == {*SCHEMAS, "unknown"}
    assert set(columns["field"]["enum"]) == {*fields, "unknown"}
    closed = load("closings_daily.table")["properties"]["table"]["enum"]
    assert set(closed) == {"usage_daily", *(table.name for table in FLAG_TABLES)}
    receipt = load("purge_receipt.1")["properties"]["tables"]["items"]["properties"]["table"]
    assert set(receipt["enum"]) == TABLES.keys() - {"rejections_daily"}


def test_every_schema_has_examples_that_pass_and_that_fail() -> None:
    for path in FILES:
        folder = ROOT / "examples" / path.name.removesuffix(".schema.json")
        assert len(list((folder / "pass").glob("*.json"))) >= 2, folder.name
        assert len(list((folder / "fail").glob("*.json"))) >= 3, folder.name
    known = {path.name.removesuffix(".schema.json") for path in FILES}
    assert {path.parts[-3] for path in EXAMPLES} == known
    assert {path.parts[-2] for path in EXAMPLES} == {"pass", "fail", "fail-rule"}


@pytest.mark.parametrize("path", EXAMPLES, ids=example_id)
def test_an_example_passes_or_fails_its_schema(path: Path) -> None:
    value = json.loads(path.read_text())
    # What only the rule catches passes the schema; if not, it belongs to `fail`.
    assert validator(path.parts[-3]).is_valid(value) == (path.parts[-2] != "fail")


RECORD_EXAMPLES: Final = [path for path in EXAMPLES if path.parts[-3] in SCHEMAS]


@pytest.mark.parametrize("path", RECORD_EXAMPLES, ids=example_id)
def test_an_example_record_passes_or_fails_the_rule_for_its_reason(path: Path) -> None:
    found = check_line(path.read_bytes().rstrip(b"\n"), GATE)
    if path.parts[-2] == "pass":
        assert not isinstance(found, Rejection)
    else:
        assert isinstance(found, Rejection)
        assert found.reason.value == path.name.partition(".")[0]


def test_examples_show_every_reason_that_a_small_record_can_have() -> None:
    shown = {path.name.partition(".")[0] for path in RECORD_EXAMPLES if path.parts[-2] != "pass"}
    # Too long for a file that people read; and reasons of records that come later.
    later = {Reason.TOO_LARGE, Reason.NO_CONSENT, Reason.FORBIDDEN_BY_POLICY}
    assert shown == set(Reason) - later


@pytest.mark.parametrize("name", sorted(TABLES.keys() - {"notices_monthly"}))  # see test_notices.py
def test_the_rows_of_a_deployment_are_as_their_schema_says(closed_home: Path, name: str) -> None:
    check = validator(f"{name}.table")
    paths = sorted((closed_home / "tables" / name).rglob("*.parquet"))
    assert paths
    for path in paths:
        table = pq.ParquetFile(path).read()
        assert table.schema.equals(file_schema(TABLES[name]))
        for row in table.to_pylist():
            check.validate({column: text_of(value) for column, value in row.items()})


def test_the_receipt_of_a_deployment_is_as_its_schema_says(closed_home: Path) -> None:
    receipt = json.loads((closed_home / "audit" / "receipt-purge-2026-09.json").read_text())
    validator("purge_receipt.1").validate(receipt)
    assert set(receipt) == set(load("purge_receipt.1")["properties"])
