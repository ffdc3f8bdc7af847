"""The JSON Schema of config.toml, made from the table of settings, for editors that complete it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

from aggregator.model.config_table import (
    BY_SECTION,
    DIRECTORY_NEEDS,
    SECRETS,
    SECTIONS,
    Kind,
    Section,
    Setting,
    of_directory,
    ways,
)
from aggregator.model.settings import DAILY_JOBS, OFF, DirectoryKind, Security

Schema = dict[str, Any]

_TEXT: Final[Mapping[str, Any]] = {"type": "string", "minLength": 1}
_ADDRESS: Final[Mapping[str, Any]] = {"type": "string", "pattern": r"^[^@<>\s]+@[^@<>\s]+$"}
_MAILBOX: Final = r"^([^<>]*<)?[^@<>\s]+@[^@<>\s]+>?$"
_LISTEN: Final = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"
_TIMES: Final = "^ *([0-9A-Za-z*,/-]+ +){4}[0-9A-Za-z*,/-]+ *$"
_LOOPBACK: Final = r"^(127\.[0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"
_THIS_MACHINE: Final = r"^(localhost|127\..+|.*:.*)$"
_SHAPES: Final[Mapping[Kind, Mapping[str, Any]]] = {
    Kind.TEXT: _TEXT,
    Kind.PATH: _TEXT,
    Kind.FLAG: {"type": "boolean"},
    Kind.MAILBOX: {"type": "string", "pattern": _MAILBOX},
    Kind.ADDRESSES: {
        "anyOf": [_ADDRESS, {"type": "array", "minItems": 1, "items": _ADDRESS}],
    },
    Kind.LANGUAGE: {"type": "string", "pattern": "^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"},
    Kind.LISTEN: {"type": "string", "pattern": _LISTEN},
    Kind.LOOPBACK: {"type": "string", "pattern": _LOOPBACK},
    Kind.URL: {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$"},
    Kind.CREDENTIAL: {"type": "string", "pattern": "^[A-Za-z0-9._@:-]{1,255}$"},
    Kind.WORDS: {"type": "array", "minItems": 1, "items": _TEXT},
}
_OF_FORMAT_1: Final[Schema] = {
    "format": {
        "title": "format",
        "description": "Only in the settings of a home of format 1: see aggregator migrate.",
        "type": "integer",
        "minimum": 1,
        "deprecated": True,
    },
    "rehearsal": {
        "title": "rehearsal",
        "description": "Only in the settings of a home of format 1: see aggregator migrate.",
        "type": "boolean",
        "deprecated": True,
    },
}


def schema() -> Schema:
    """Return the schema: whatever the software takes passes it, and most mistakes do not.

    It says nothing of what is inside a text, such as the days of a time; `config check` does.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "config",
        "description": "config.toml of the usage aggregator: the settings of one deployment.",
        "type": "object",
        "additionalProperties": False,
        "required": [section.name for section in SECTIONS if not section.apart],
        "properties": {
            **_OF_FORMAT_1,
            **{section.name: _section(section) for section in SECTIONS},
        },
        "allOf": [
            _if(_has("mail", "to_user", {"const": True}), {"required": ["directory"]}),
            _if(_has("watch", "alert", {}), {"required": ["mail"]}),
        ],
    }


def _section(section: Section) -> Schema:
    settings = BY_SECTION[section.name].values()
    found: Schema = {
        "title": section.name,
        "description": section.about,
        "type": "object",
        "additionalProperties": False,
    }
    needed = [one.name for one in settings if one.needed]
    if needed:
        found["required"] = needed
    found["properties"] = {one.name: _setting(one) for one in settings}
    rules = [*_RULES.get(section.name, list)(), *_one_way(section.name)]
    return found | ({"allOf": rules} if rules else {})


def _setting(setting: Setting) -> Schema:
    about = setting.about[0].upper() + setting.about[1:]
    found: Schema = {"title": setting.path, "description": f"{about}.", **_shape(setting)}
    if setting.default is not None:
        found["default"] = setting.default
    return found | {"examples": [setting.example]}


def _shape(setting: Setting) -> Schema:
    if setting.kind is Kind.WHOLE:
        return {"type": "integer", "minimum": setting.least, "maximum": setting.most}
    if setting.kind is Kind.CHOICE:
        return {"type": "string", "enum": [str(one) for one in setting.choices]}
    if setting.kind is Kind.TIMES:
        times = {"type": "string", "pattern": _TIMES}
        return times if setting.name in DAILY_JOBS else {"anyOf": [{"const": OFF}, times]}
    return dict(_SHAPES[setting.kind])


def _one_way(section: str) -> list[Schema]:
    """Return that each secret of `section` is given in one way at the most."""
    secrets = [secret for secret in SECRETS if secret.startswith(f"{section}.")]
    pairs = [pair for secret in secrets for pair in itertools.combinations(ways(secret), 2)]
    return [{"not": {"anyOf": [{"required": list(pair)} for pair in pairs]}}] if pairs else []


def _given(path: str) -> Schema:
    """Return what a section passes that gives what `path` is, in one of its ways."""
    return {"anyOf": [{"required": [name]} for name in ways(path)]}


def _mail() -> list[Schema]:
    password, named = _given("mail.password"), {"required": ["username"]}
    return [
        _if(named, password),
        _if(password, named),
        _if(
            _is("security", Security.NONE),
            {"properties": {"host": {"pattern": _THIS_MACHINE}}},
        ),
    ]


def _directory() -> list[Schema]:
    return [_if(_is("kind", kind), _of_kind(kind)) for kind in DirectoryKind]


def _of_kind(kind: DirectoryKind) -> Schema:
    """Return what [directory] passes if it is of this kind: what it needs, and nothing else's."""
    return {
        "allOf": [_given(f"directory.{name}") for name in DIRECTORY_NEEDS[kind]],
        "propertyNames": {"enum": [n for n in BY_SECTION["directory"] if n in of_directory(kind)]},
    }


_RULES: Final[Mapping[str, Callable[[], list[Schema]]]] = {"mail": _mail, "directory": _directory}


def _has(section: str, name: str, value: Schema) -> Schema:
    """Return what a whole file passes that has such a setting."""
    inside = {"type": "object", "required": [name], "properties": {name: value}}
    return {"required": [section], "properties": {section: inside}}


def _is(name: str, value: str) -> Schema:
    """Return what a section passes that has this value."""
    return {"required": [name], "properties": {name: {"const": str(value)}}}


def _if(condition: Schema, then: Schema) -> Schema:
    return {"if": condition, "then": then}
