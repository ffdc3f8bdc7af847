"""The forms in which strongSwan's SAs are shown as text, told apart by their content.

`swanctl --list-sas`, the same with `--raw`, with `--raw --pretty`, answers of vici as JSON, and
JSON lines of user, IKE SA, CHILD SA and bytes. Each becomes the fields that vici names. Identities
are free text that a peer may choose, and the first two forms do not quote them safely: a line that
can be read in two ways is not read at all, so that nobody can be charged by a forged name. Only
an account that the operator himself named like `x remote-eap-id=y` could be mistaken there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from aggregator.agent.collectors.json_text import json_values
from aggregator.errors import BadInputError

Fields = Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Sa:
    """One IKE SA, with the fields that vici names; a child that cannot be read is None."""

    fields: Fields
    children: tuple[Fields | None, ...]


_REPLY: Final = re.compile(r"(?m)^list-sas reply \{")
_RAW: Final = re.compile(r"(?m)^list-sa(?: event|s reply) \{")

# How deep SAs may be wrapped in lists and objects.
_DEPTH: Final = 4


def sas(text: str) -> Iterator[Sa | None]:
    """Yield the IKE SAs of a capture, None for a row that cannot be read.

    BadInputError if the text is empty, cut off or none of the known forms.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.strip():
        raise BadInputError("is empty: no SAs, or `swanctl` failed; check its exit code")
    if text.lstrip()[0] in "{[":
        return _of_json(json_values(text))
    if _RAW.search(text):
        return _raw(text)
    return _shown(text)


# -- JSON, and what vici answers ---------------------------------------------------------------


def _of_json(values: Iterable[Any], depth: int = _DEPTH) -> Iterator[Sa | None]:
    for value in values:
        if isinstance(value, list) and depth:
            yield from _of_json(value, depth - 1)
        elif not isinstance(value, dict):
            yield None
        elif {"user", "child", "in", "out"} <= value.keys():
            yield _brief(value)
        elif "child-sas" in value or {"uniqueid", "state"} <= value.keys():
            yield sa_of(value)
        elif depth:
            yield from _of_json(value.values(), depth - 1)
        else:
            yield None


def _brief(row: Mapping[str, Any]) -> Sa:
    names = {"child": "uniqueid", "in": "bytes-in", "out": "bytes-out"}
    child = {names[key]: value for key, value in _scalars(row).items() if key in names}
    user = row["user"]
    return Sa({"remote-id": user} if isinstance(user, str) else {}, (child,))


def sa_of(tree: Mapping[str, Any]) -> Sa:
    """Return the SA of one section of vici, as in `list-sas` and in events."""
    children = tree.get("child-sas")
    if isinstance(children, dict):
        children = list(children.values())
    elif not isinstance(children, list):
        children = [] if children is None else [None]
    return Sa(
        _scalars(tree),
        tuple(_scalars(child) if isinstance(child, dict) else None for child in children),
    )


def _scalars(tree: Mapping[str, Any]) -> Fields:
    return {key: value for key, value in tree.items() if isinstance(value, str)}


# -- swanctl --list-sas --raw, also with --pretty ----------------------------------------------

_EVENT: Final = re.compile(
    r"list-sa event \{.* \{uniqueid=(?P<uniqueid>[0-9]+) version=[0-9]+ state=(?P<state>[A-Z_]+)"
    r" local-host=.* remote-host=(?P<host>\S+)(?: remote-port=[0-9]+)?"
    r" remote-id=(?P<ids>.*?)(?: initiator=yes)? initiator-spi=(?P<spi>[0-9a-f]{16})"
    r" responder-spi=[0-9a-f]{16}(?: .*)? child-sas \{(?P<children>.*)\}\}\}"
)
# What an event holds exactly once, unless an identity pretends to be more than it is.
_ONCE: Final = (" {uniqueid=", " remote-host=", " remote-id=", " initiator-spi=", " child-sas {")
_IDENTITY: Final = re.compile(r"(?P<id>.*?)(?: (?P<key>remote-(?:eap|xauth)-id)=(?P<user>.*))?")
_OTHER_IDENTITY: Final = re.compile(r" remote-(?:eap|xauth)-id=")
_RAW_CHILD: Final = re.compile(r" ?[^{}]* \{(name=[^{}]*)\}")
_RAW_FIELD: Final = re.compile(r" (uniqueid|state|spi-in|bytes-in|bytes-out)=(\S*)")

_SECTION: Final = re.compile(r" *(?P<name>\S.*) \{")
_LIST: Final = re.compile(r" *(?P<name>[a-z-]+-(?:ts|vips)|tasks-[a-z]+) = \[")
_VALUE: Final = re.compile(r" *(?P<name>\S+) = (?P<value>.*)")


def _raw(text: str) -> Iterator[Sa | None]:
    replies = len(_REPLY.findall(text))
    if replies != 1:
        raise BadInputError(
            "holds more than one list of SAs; give each its own file"
            if replies
            else "is cut off: the reply that ends it is missing"
        )
    lines = iter(text.split("\n"))
    for line in lines:
        if line == "list-sa event {":
            yield from _of_json([_section(lines)])
        elif line == "list-sas reply {":
            _section(lines)
        elif line.startswith("list-sas reply {") and not line.endswith("}"):
            raise BadInputError("is cut off: the reply that ends it is incomplete")
        elif line and not line.startswith("list-sas reply {"):
            yield _event(line)


def _event(line: str) -> Sa | None:
    """Return the SA of one line; values are not quoted, so it must fit in one way only."""
    found = _EVENT.fullmatch(line)
    if found is None or any(line.count(word) != 1 for word in _ONCE):
        return None
    fields = {
        "uniqueid": found["uniqueid"],
        "state": found["state"],
        "remote-host": found["host"],
        "initiator-spi": found["spi"],
    }
    identity = _IDENTITY.fullmatch(found["ids"])
    if identity is not None and len(_OTHER_IDENTITY.findall(found["ids"])) <= 1:
        fields["remote-id"] = identity["id"]
        if identity["key"]:
            fields[identity["key"]] = identity["user"]
    return Sa(fields, tuple(_raw_children(found["children"])))


def _raw_children(text: str) -> Iterator[Fields | None]:
    at = 0
    while at < len(text):
        found = _RAW_CHILD.match(text, at)
        if found is None:
            yield None
            return
        pairs = _RAW_FIELD.findall(found[1])
        yield dict(pairs) if len(dict(pairs)) == len(pairs) else None
        at = found.end()


def _section(lines: Iterator[str]) -> dict[str, Any]:
    """Return what follows up to the brace that ends this section; one line holds one item."""
    top: dict[str, Any] = {}
    stack = [top]
    for line in lines:
        word = line.strip(" ")
        if word == "}":
            stack.pop()
            if not stack:
                return top
        elif found := _LIST.fullmatch(line):
            while next(lines, "]").strip(" ") != "]":
                pass
        elif found := _VALUE.fullmatch(line):
            stack[-1][found["name"]] = found["value"]
        elif found := _SECTION.fullmatch(line):
            inner: dict[str, Any] = {}
            stack[-1][f"{found['name']}\0{len(stack[-1])}"] = inner
            if found["name"] == "child-sas":
                stack[-1]["child-sas"] = stack[-1].popitem()[1]
            stack.append(inner)
    raise BadInputError("is cut off: a section does not end")


# -- swanctl --list-sas ------------------------------------------------------------------------

_IKE: Final = re.compile(
    r"\S.*: #(?P<uniqueid>[0-9]+), (?P<state>[A-Z_]+), IKEv[0-9], "
    r"(?P<spi>[0-9a-f]{16})(?:_i\*? |:)[0-9a-f]{16}(?:_r\*?)?"
)
_CHILD: Final = re.compile(
    r"  \S.*: #(?P<uniqueid>[0-9]+), reqid [^ ,]+, (?:cpu [^ ,]+, )?(?P<state>[A-Z_]+), .*"
)
_TRAFFIC: Final = re.compile(
    r"    (?P<way>in |out) (?P<spi>[0-9a-f]{8})(?:/[0-9a-f]+)?(?: \([^()]*\))?, +"
    r"(?P<bytes>[0-9]+) bytes, +[0-9]+ packets(?:, +-?[0-9]+s ago)?"
)
_HOST: Final = r"' @ (?P<host>[^\s'\[\]]+)(?:\[[0-9]+\])?"
_VIPS: Final = r"(?: \[[0-9A-Fa-f:. ]*\])?"
_OPENER: Final = re.compile(rf"(?=({_HOST} (?:EAP|XAuth): '))")
_BY_OWN_NAME: Final = re.compile(rf"  remote '(?P<user>.*){_HOST}{_VIPS}")
_BY_OTHER_NAME: Final = re.compile(rf"  remote '.*?{_HOST} (?:EAP|XAuth): '(?P<user>.*)'{_VIPS}")


def _shown(text: str) -> Iterator[Sa | None]:
    lines = [line for line in text.split("\n") if line.strip()]
    if not text.endswith("\n"):
        raise BadInputError("is cut off: its last line does not end")
    blocks: list[list[str]] = []
    for line in lines:
        if not line.startswith(" ") or not blocks:
            blocks.append([])
        blocks[-1].append(line)
    if not any(_IKE.fullmatch(block[0]) for block in blocks):
        raise BadInputError("is not the output of `swanctl --list-sas`")
    if not _is_whole(blocks[-1]):
        raise BadInputError("is cut off: its last SA is incomplete")
    for block in blocks:
        yield _block(block)


def _is_whole(block: list[str]) -> bool:
    """Say whether the last SA goes on to its last line, as far as that can be told."""
    found = _IKE.fullmatch(block[0])
    if found is None:
        return True
    if block[-1].startswith("    "):
        return block[-1].startswith("    remote ")
    if found["state"] == "ESTABLISHED" and not any(
        line.startswith("  established ") for line in block
    ):
        return False
    return any(line.startswith("  remote ") for line in block) and not _CHILD.fullmatch(block[-1])


def _block(block: list[str]) -> Sa | None:
    found = _IKE.fullmatch(block[0])
    if found is None:
        return None
    fields = {
        "uniqueid": found["uniqueid"],
        "state": found["state"],
        "initiator-spi": found["spi"],
    }
    parts = _parts(block[1:])
    peers = [line for line in parts[0] if line.startswith("  remote '")]
    if len(peers) == 1:
        fields |= _peer(peers[0])
    children = [_child(part) for part in parts[1:]]
    if any(line.startswith("    ") for line in parts[0]):
        # Their own heading is damaged.
        children.append(None)
    return Sa(fields, tuple(children))


def _parts(lines: Iterable[str]) -> list[list[str]]:
    """Return the lines of the SA itself, then those of each child."""
    parts: list[list[str]] = [[]]
    for line in lines:
        own = line.startswith("    ")
        if not own and (_CHILD.fullmatch(line) or len(parts) > 1):
            parts.append([])
        parts[-1].append(line)
    return parts


def _child(part: list[str]) -> Fields | None:
    found = _CHILD.fullmatch(part[0])
    if found is None:
        return None
    fields = {"uniqueid": found["uniqueid"], "state": found["state"]}
    for line in part[1:]:
        way = _TRAFFIC.fullmatch(line)
        if way is None:
            continue
        name = f"bytes-{way['way'].rstrip()}"
        if name in fields:
            return None
        fields[name] = way["bytes"]
        if name == "bytes-in":
            fields["spi-in"] = way["spi"]
    return fields


def _peer(line: str) -> Fields:
    """Return the identity and the host of a peer; nothing if the line can be read in two ways.

    Neither a host nor a virtual address holds a quote, so the last quote ends the last identity,
    and what follows it tells whether that is the peer's own or the one of EAP or XAuth.
    """
    found = _BY_OWN_NAME.fullmatch(line)
    if found is not None:
        return {"remote-id": found["user"], "remote-host": found["host"]}
    found = _BY_OTHER_NAME.fullmatch(line)
    if found is None or len(_OPENER.findall(line)) != 1:
        return {}
    return {"remote-eap-id": found["user"], "remote-host": found["host"]}
