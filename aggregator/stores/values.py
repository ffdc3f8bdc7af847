"""What a setting's value may be, by its kind, and how a value is written and read as text."""

from __future__ import annotations

import ipaddress
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import idna

from aggregator.model import cron
from aggregator.model.config_table import Kind, Setting
from aggregator.model.settings import DAILY_JOBS, OFF

# What may stand between the angle brackets or alone: a local part, and a domain with a dot or none.
_ADDRESS: Final = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[^\s@<>,;:\"()\[\]\\]{1,253}")
_NAMED: Final = re.compile(r"(?:([^<>\"\r\n]{0,128}?)\s*<([^<>]+)>|([^<>]+))")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
# A name or an IPv4 address, or an IPv6 address in brackets; then a port.
_LISTEN: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
# As systemd takes it for LoadCredential.
_CREDENTIAL: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._@:-]{1,255}")
# Visible ASCII only: everything else has an escape in a URL.
_VISIBLE: Final = re.compile(r"[!-~]+")
_NOT_EMPTY: Final = "must be a text that is not empty"


def fault(setting: Setting, value: Any) -> str | None:
    """Return what is wrong with `value`, such as "must be true or false"; None if nothing is."""
    if setting.kind in _OF_OTHERS:
        return _OF_OTHERS[setting.kind](setting, value)
    if not isinstance(value, str) or not value or not value.isprintable():
        return _NOT_EMPTY
    check = _OF_TEXTS.get(setting.kind)
    return check(setting, value) if check else None


def ping_url_fault(url: str) -> str | None:
    """Return what is wrong with a URL to ask after a job; None if it may be asked."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        good = parts.port is None or parts.port > 0
    except ValueError:
        good, host = False, ""
    if not good or not host or _VISIBLE.fullmatch(url) is None:
        return "must be a URL"
    if parts.username is not None or parts.password is not None:
        return "must be a URL without a name and a password"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "must be a URL of https, or of http on this machine"


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine itself, so that nothing travels."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def host_and_port(listen: str) -> tuple[str, int]:
    """Return host and port of a text such as "[::1]:9109"; ValueError if it is none."""
    found = _LISTEN.fullmatch(listen)
    if found is None or int(found[3]) > 65_535:
        raise ValueError("no host and port")
    return found[1] or found[2], int(found[3])


def shown(value: Any) -> str:
    """Return `value` as TOML writes it."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def as_text(value: Any) -> str:
    """Return the text of which `read` makes `value`."""
    return value if isinstance(value, str) else shown(value)


def read(setting: Setting, text: str) -> Any:
    """Return the value that `text` gives where no TOML file says which type it is.

    A text is taken as it is, everything else as TOML. What does not read stays a text, so that
    `fault` has a word for it.
    """
    either = setting.kind is Kind.ADDRESSES and text.lstrip().startswith("[")
    if setting.kind not in (Kind.WHOLE, Kind.FLAG, Kind.WORDS) and not either:
        return text
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _whole(setting: Setting, value: Any) -> str | None:
    if type(value) is int and setting.least <= value <= setting.most:
        return None
    return f"must be a whole number, {setting.least} to {setting.most}"


def _flag(_setting: Setting, value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _choice(setting: Setting, value: Any) -> str | None:
    good = isinstance(value, str) and value in setting.choices
    return None if good else f"must be one of {', '.join(setting.choices)}"


def _words(_setting: Setting, value: Any) -> str | None:
    if isinstance(value, list) and value and all(_is_word(word) for word in value):
        return None
    return "must be a list of texts: a command and its words"


def _is_word(value: Any) -> bool:
    """Say whether a process can be given `value`: no NUL, and nothing that UTF-8 has not."""
    return isinstance(value, str) and re.fullmatch("[^\0\ud800-\udfff]+", value) is not None


def _addresses(_setting: Setting, value: Any) -> str | None:
    several = [value] if isinstance(value, str) else value
    good = isinstance(several, list) and several
    if good and all(isinstance(one, str) and _is_address(one) for one in several):
        return None
    return "must be an address, or a list of them"


_OF_OTHERS: Final[Mapping[Kind, Callable[[Setting, Any], str | None]]] = {
    Kind.WHOLE: _whole,
    Kind.FLAG: _flag,
    Kind.CHOICE: _choice,
    Kind.WORDS: _words,
    Kind.ADDRESSES: _addresses,
}


def _mailbox(_setting: Setting, value: str) -> str | None:
    found = _NAMED.fullmatch(value)
    if found is not None and _is_address(found[2] or found[3]):
        return None
    return "must be an address, alone or as: Name <address>"


def _language(_setting: Setting, value: str) -> str | None:
    return None if _LANGUAGE.fullmatch(value) else "must be a language tag, such as en"


def _listen(_setting: Setting, value: str) -> str | None:
    try:
        host_and_port(value)
    except ValueError:
        return 'must be like "0.0.0.0:8443" or "[::]:8443"'
    return None


def _loopback(_setting: Setting, value: str) -> str | None:
    try:
        host, _ = host_and_port(value)
        good = ipaddress.ip_address(host).is_loopback
    except ValueError:
        good = False
    return None if good else 'must be like "127.0.0.1:9109" or "[::1]:9109", on this machine only'


def _url(_setting: Setting, value: str) -> str | None:
    return ping_url_fault(value)


def _credential(_setting: Setting, value: str) -> str | None:
    good = _CREDENTIAL.fullmatch(value)
    return None if good else "must be the name of a systemd credential, without a slash"


def _times(setting: Setting, value: str) -> str | None:
    daily = setting.name in DAILY_JOBS
    if value == OFF:
        why = "cannot be off: raw counters are destroyed in time by it (CL-2)"
        return why if daily else None
    try:
        found = cron.parse(value)
    except cron.CronError as error:
        return str(error)
    if daily and not found.is_every_day:
        return "must run every day: raw counters are destroyed in time by it (CL-2)"
    return None


_OF_TEXTS: Final[Mapping[Kind, Callable[[Setting, str], str | None]]] = {
    Kind.MAILBOX: _mailbox,
    Kind.LANGUAGE: _language,
    Kind.LISTEN: _listen,
    Kind.LOOPBACK: _loopback,
    Kind.URL: _url,
    Kind.CREDENTIAL: _credential,
    Kind.TIMES: _times,
}


def _is_address(text: str) -> bool:
    """Say whether mail can go to `text`: its domain is one by IDNA, as mail is sent by it."""
    if not text.isprintable() or _ADDRESS.fullmatch(text) is None:
        return False
    try:
        idna.encode(text.rpartition("@")[2], uts46=True)
    except (idna.IDNAError, UnicodeError):
        return False
    return True
