"""Ask the operator's ping URL after a job, as healthchecks.io and its like expect it.

A success asks the URL itself, a failure the URL with `/fail` after its path. Such a service tells
its people when neither comes any more, as when this whole machine is down. Nothing is sent but the
request: no result, no name of this machine.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import Final

from aggregator.errors import DeliveryError

_SECONDS: Final = 10.0
_PLACE: Final = "{job}"


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the URL is a secret of the operator's, and stays with whom it names."""

    def redirect_request(self, *_request: object, **_more: object) -> None:
        return None


def is_for_each_job(url: str) -> bool:
    """Say whether every job has a check of its own: `{job}` stands in its place."""
    return _PLACE in url


def address(url: str, job: str, *, fine: bool) -> str:
    """Return what is asked after `job`."""
    parts = urllib.parse.urlsplit(url.replace(_PLACE, job))
    path = parts.path if fine else parts.path.rstrip("/") + "/fail"
    return urllib.parse.urlunsplit(parts._replace(path=path))


def ask(url: str) -> None:
    """Ask `url`; DeliveryError, which never names it, if it does not answer that all is well."""
    opener = urllib.request.build_opener(_Straight)
    request = urllib.request.Request(url, headers={"User-Agent": "usage-aggregator"})  # noqa: S310 - the settings take https, or http on this machine
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        raise DeliveryError(f"the ping URL answers {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DeliveryError(f"the ping URL does not answer ({type(error).__name__})") from None
