"""The `client-disconnect` program of an OpenVPN server: hands the end of a session to the agent.

The operator writes into the server's configuration, one line each:

    script-security 2
    client-disconnect "/usr/local/bin/aggregator-agent openvpn-hook /run/…/openvpn.sock"

No packet passes the server while it waits for that program, so it sends one datagram and ends, and
imports next to nothing. Of all that the server tells it, four values are passed on: the common
name, the start that the status shows as well, and the two byte counts. No address, no duration
(promise CS-6).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Final

NAME: Final = "common_name"
NUMBERS: Final = ("time_unix", "bytes_received", "bytes_sent")
_MAX_DIGITS: Final = 16


def send_hook(environ: Mapping[str, str], socket_path: str) -> bool:
    """Send what `environ` tells of a session that ended to the agent; say whether it was taken.

    Never waits and never fails. If nobody listens, or the queue is full, what the session moved
    since the last reading is lost, and nothing else.
    """
    name = environ.get(NAME, "")
    numbers = {field: environ.get(field, "") for field in NUMBERS}
    if not name or not all(map(_is_number, numbers.values())):
        return False
    message = json.dumps({NAME: name, **{field: int(text) for field, text in numbers.items()}})
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode("ascii"), socket_path)
    except (OSError, ValueError):
        return False
    return True


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


if __name__ == "__main__":
    send_hook(os.environ, "".join(sys.argv[1:2]))
