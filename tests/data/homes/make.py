"""Make the home of a release, and record what that release says to its neighbours.

    git worktree add /tmp/release COMMIT
    PYTHONPATH=/tmp/release python tests/data/homes/make.py VERSION

Run where the release's own dependencies are installed. It writes, beside itself:

VERSION.tar.gz  a rehearsal home: August purged, September begun, with open days, notices that
                wait, two agents (one revoked), and a batch that the door left in the inbox
VERSION.json    what that release told of the home, and every exchange with its door: request,
                status, headers and body; the agent's enrolment file; the keys of September

Nothing is imported from the release: it runs as processes, as an operator runs it.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
NOW: Final = "2026-09-09T12:00:00Z"
LAST_MODIFIED: Final = 1_788_955_200  # the instant NOW
PLACES: Final = {"us-nyc": 30, "de-fra": 22, "is-rkv": 4}
HEAVY: Final = "acct-planted-heavy"
EPOCH: Final = "9f3c2b7a11d04e55"
SEAL: Final = """
import pathlib, sys
from aggregator.agent.enrolment import load_enrolment
from aggregator.agent.keyring import KeyRing
from aggregator.wire import batch
mine = load_enrolment(pathlib.Path(sys.argv[1]))
keys = KeyRing(mine.door_key)
keys.take(pathlib.Path(sys.argv[2]).read_bytes())
key = keys.key(sys.argv[3])
sys.stdout.buffer.write(batch.seal(
    sys.stdin.buffer.read(), key.month, mine.agent, key.key_id, key.public_key, mine.signing_key
))
"""
KEYS: Final = """
import base64, json, pathlib, sys
from aggregator.stores.keys import KeyStore
keys = KeyStore(pathlib.Path(sys.argv[1])).load(sys.argv[2])
print(json.dumps({"key_id": keys.key_id, "private": base64.b64encode(keys.batch).decode()}))
"""


def counters(days: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Yield the records of a small fleet."""
    for day in days:
        for place, users in PLACES.items():
            common = {"day": day, "location": place, "epoch": EPOCH}
            for number in range(users):
                yield _line("usage_counter.1", user=f"acct-{place[:2]}{number:04d}",
                            bytes=rng.randrange(10**8, 10**9), **common)  # fmt: skip
            for country, found in (("DE", 25), ("US", 12)):
                yield _line("connection_flags.1", country=country, asn=3320, app="android",
                            version="11.4.0", users=found, attempts=3 * found,
                            successes=2 * found, **common)  # fmt: skip
        if day == "2026-09-05":
            yield _line("usage_counter.1", user=HEAVY, bytes=5 * 10**12, day=day,
                        location="us-nyc", epoch=EPOCH)  # fmt: skip


def _line(record: str, **fields: Any) -> str:
    return json.dumps({"record": record, **fields}, separators=(",", ":"))


ASKED: Final[Mapping[str, Sequence[str]]] = {
    "usage": ("report", "usage", "--from", "2026-08-30", "--to", "2026-09-30"),
    "monthly": ("report", "usage", "--from", "2026-08-01", "--to", "2026-09-30",
                "--by", "month,location"),
    "connections": ("report", "connections", "--from", "2026-08-30", "--to", "2026-09-30"),
    "status": ("status",),
    "verify": ("audit", "verify"),
    "agents": ("agent", "list"),
    "notices": ("fairuse", "list"),
}  # fmt: skip


class Release:
    """The release at work on one home."""

    def __init__(self, folder: Path) -> None:
        """Work in `folder`."""
        self.folder = folder
        self.home = folder / "home"

    def run(self, *words: str | Path, now: str, code: int = 0) -> str:
        """Run one command; it must end with `code`."""
        found = subprocess.run(
            [sys.executable, "-m", "aggregator", "--home", self.home, *words, "--now", now],
            stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
        assert found.returncode == code, (words, found.returncode)
        return found.stdout.decode()

    def python(self, text: str, *words: str | Path, told: bytes = b"") -> bytes:
        """Run a few lines on the release's own modules."""
        command = [sys.executable, "-c", text, *words]
        return subprocess.run(command, input=told, stdout=subprocess.PIPE, check=True).stdout

    def records(self, name: str, days: Sequence[str]) -> Path:
        """Write the records of some days; the same in every run."""
        path = self.folder / name
        rng = random.Random(name)
        path.write_text("".join(f"{line}\n" for line in counters(days, rng)))
        return path

    @contextlib.contextmanager
    def door(self) -> Iterator[http.client.HTTPConnection]:
        """Open its door, in plain HTTP on this machine."""
        command = [sys.executable, "-m", "aggregator", "--home", str(self.home), "--now", NOW,
                   "serve", "--plain"]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                line = process.stderr.readline()
                while "the door is open" not in line:
                    assert line, "the door did not open"
                    line = process.stderr.readline()
                yield http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
            finally:
                process.terminate()


PORT: Final = 18_443


def work(release: Release) -> dict[str, Any]:
    """Bring the home to where it is packed; return all that the release said."""
    home, folder = release.home, release.folder
    release.run("init", now="2026-08-25T00:00:00Z")
    with (home / "config.toml").open("a") as file:
        file.write(f'\n[door]\nlisten = "127.0.0.1:{PORT}"\nmin_free_mib = 1\n'
                   'url = "https://usage.example.net:8443"\n')  # fmt: skip
    for place in ("us-nyc", "de-fra"):
        release.run("agent", "enrol", f"{place}-01", "--location", place,
                    "--out", folder / f"{place}.toml", now="2026-08-25T00:10:00Z")  # fmt: skip
    release.run("agent", "revoke", "de-fra-01", now="2026-08-26T00:00:00Z")
    august = release.records("august.ndjson", ["2026-08-30", "2026-08-31"])
    release.run("ingest", august, "--confirm-clock", now="2026-08-31T20:00:00Z")
    release.run("purge", "--confirm-clock", now="2026-09-03T06:00:00Z")
    september = release.records("september.ndjson", [f"2026-09-0{day}" for day in range(5, 9)])
    release.run("ingest", september, "--confirm-clock", now="2026-09-08T20:00:00Z")
    release.run("keys", "publish", now="2026-09-08T20:10:00Z")
    release.run("run", "daily", "--confirm-clock", now="2026-09-09T01:00:00Z")
    enrolment = folder / "us-nyc.toml"
    records = release.records("waiting.ndjson", ["2026-09-09"]).read_text().splitlines()
    mine = "".join(f"{line}\n" for line in records if '"us-nyc"' in line).encode()
    announced = home / "agents" / "keys.json"
    sealed = release.python(SEAL, enrolment, announced, "2026-09", told=mine)
    exchanges = [*_exchanges(release, enrolment, sealed)]
    told = {
        name: json.loads(release.run(*words, "--json", now=NOW)) for name, words in ASKED.items()
    }
    for of_the_machine in ("home", "disk_free_bytes"):
        told["status"].pop(of_the_machine)
    return {
        "enrolment": enrolment.read_text(),
        "announcement": announced.read_text(),
        "batch": base64.b64encode(sealed).decode(),
        "records": mine.decode().splitlines(),
        "month": {"month": "2026-09", **json.loads(release.python(KEYS, home / "keys", "2026-09"))},
        "exchanges": exchanges,
        "told": told,
    }


def _exchanges(release: Release, enrolment: Path, sealed: bytes) -> Iterator[Mapping[str, Any]]:
    """Yield what the door answers to an agent's requests, good ones and others."""
    token = next(
        line.split('"')[1]
        for line in enrolment.read_text().splitlines()
        if line.startswith("token")
    )
    line, rest = sealed.split(b"\n", 1)
    header = json.loads(line)
    dump = {"separators": (",", ":")}

    def changed(**fields: Any) -> bytes:
        return json.dumps({**header, **fields}, **dump).encode() + b"\n" + rest  # type: ignore[arg-type] # separators

    requests: tuple[tuple[str, str, str, bytes | None, Mapping[str, str]], ...] = (
        ("keys", "GET", "/v1/keys", None, {}),
        ("accepted", "POST", "/v1/batches", sealed, {}),
        ("known", "POST", "/v1/batches", sealed, {}),
        ("newer_version", "POST", "/v1/batches", changed(v=2), {}),
        ("malformed", "POST", "/v1/batches", b"{}\n", {}),
        ("month_over", "POST", "/v1/batches", changed(month="2026-08"), {}),
        ("unknown_key", "POST", "/v1/batches", changed(key="0" * 16), {}),
        ("bad_signature", "POST", "/v1/batches", sealed[:-1] + bytes([sealed[-1] ^ 1]), {}),
        ("wrong_type", "POST", "/v1/batches", sealed, {"Content-Type": "text/plain"}),
        ("unknown_token", "GET", "/v1/keys", None, {"Authorization": "Bearer ua1.nobody"}),
        ("not_found", "GET", "/v2/keys", None, {}),
        ("healthz", "GET", "/healthz", None, {}),
    )
    with release.door() as connection:
        for name, method, path, body, other in requests:
            headers = {"Authorization": f"Bearer {token}",
                       "Content-Type": "application/octet-stream", **other}  # fmt: skip
            connection.request(method, path, body, headers)
            found = connection.getresponse()
            yield {
                "name": name, "method": method, "path": path, "status": found.status,
                "headers": dict(found.getheaders()), "body": found.read().decode(),
            }  # fmt: skip
            time.sleep(0.05)


def packed(home: Path) -> bytes:
    """Return the home as a tar file, packed, the same for the same files."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for path in sorted([home, *home.rglob("*")]):
            name = path.relative_to(home.parent).as_posix()
            if path.name.endswith(".lock"):
                continue
            info = tar.gettarinfo(path, name)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = LAST_MODIFIED
            with path.open("rb") if path.is_file() else contextlib.nullcontext() as file:
                tar.addfile(info, file)
    return gzip.compress(whole.getvalue(), 9, mtime=0)


def main(version: str) -> None:
    """Make both files for the release `version`."""
    os.umask(0o077)
    with tempfile.TemporaryDirectory() as folder:
        release = Release(Path(folder))
        said = work(release)
        os.umask(0o022)
        (HERE / f"{version}.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
        (HERE / f"{version}.tar.gz").write_bytes(packed(release.home))


if __name__ == "__main__":
    main(*sys.argv[1:])
