"""An OpenVPN server over UDP and its users, with throw-away certificates.

The server is 10.98.0.1 inside the tunnel. Its status goes to a file each second and to its
management interface, and its `client-disconnect` program notes the final numbers of each session
for the test, before it calls the agent's hook.
"""

from __future__ import annotations

import datetime as dt
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .net import Client, Process, Star, search_path, wait_for

INSIDE: Final = "10.98.0.1"

_PORT: Final = 1194
_READY: Final = "Initialization Sequence Completed"
_ROOT: Final = Path(__file__).parents[2]

_CONFIG: Final = """\
dev-type tun
dev ovs
topology subnet
proto udp
port {port}
server 10.98.0.0 255.255.255.0
ca {folder}/ca.crt
cert {folder}/server.crt
key {folder}/server.key
dh none
keepalive 5 20
explicit-exit-notify 1
verb 3
status {folder}/status 1
status-version 3
management {folder}/management unix
script-security 2
client-disconnect "{folder}/aggregator-agent openvpn-hook {folder}/hook"
"""

_PROGRAM: Final = """\
#!/bin/sh
printf '%s\\t%s\\n' "$common_name" $((bytes_received + bytes_sent)) >>{folder}/ends
PYTHONPATH={root} exec {python} -m aggregator.agent.cli "$@"
"""


class Session(NamedTuple):
    """One row of the server's status: what tells it apart, and both directions added."""

    name: str
    client_id: str
    since: str
    bytes: int


class Snapshot(NamedTuple):
    """What the server says at one instant: its sessions, and all those that ended."""

    sessions: tuple[Session, ...]
    ends: tuple[tuple[str, int], ...]

    def by_session(self) -> dict[Session, int]:
        """Return the bytes of the sessions that are listed."""
        return {session._replace(bytes=0): session.bytes for session in self.sessions}

    def by_name(self) -> dict[str, int]:
        """Return the bytes of all sessions that ever were, by user."""
        total: Counter[str] = Counter()
        for session in self.sessions:
            total[session.name] += session.bytes
        for name, number in self.ends:
            total[name] += number
        return dict(total)


class Server:
    """The server. `status`, `management` and `hook` are paths for the agent's configuration."""

    def __init__(self, net: Star, folder: Path, names: Sequence[str]) -> None:
        """Write certificates and configurations to `folder`; user i sits at client i."""
        self.namespace = net.server
        self.status = folder / "status"
        self.management = folder / "management"
        self.hook = folder / "hook"
        self._folder = folder
        self._ends = folder / "ends"
        self._daemon: Process | None = None
        self._config = folder / "server.conf"
        _certify(folder, names)
        self._ends.touch()
        program = folder / "aggregator-agent"
        words = {"folder": folder, "root": _ROOT, "python": shlex.quote(sys.executable)}
        program.write_text(_PROGRAM.format(**words))
        program.chmod(0o755)
        self.users = [
            User(client, folder, name, number)
            for number, (client, name) in enumerate(zip(net.clients, names, strict=False))
        ]

    def start(self, more: str = "") -> None:
        """Start it; `more` are further lines of its configuration."""
        self._config.write_text(_CONFIG.format(folder=self._folder, port=_PORT) + more)
        words = ["openvpn", *_without_kernel(), "--config", str(self._config)]
        self._daemon = self.namespace.popen(words)
        self._daemon.wait_for_text(_READY)

    def restart_softly(self) -> None:
        """Let it end all sessions and begin anew, in the same process."""
        assert self._daemon is not None
        mark = self._daemon.mark()
        self._daemon.send_signal(signal.SIGUSR1)
        self._daemon.wait_for_text(_READY, after=mark)

    def stop(self) -> None:
        """Stop it, with all its sessions."""
        assert self._daemon is not None
        self._daemon.stop()

    def kill(self) -> None:
        """End it without a word."""
        assert self._daemon is not None
        self._daemon.kill()

    def told(self) -> Snapshot:
        """Return what its management interface tells."""
        with socket.socket(socket.AF_UNIX) as management:
            management.settimeout(20)
            management.connect(str(self.management))
            management.sendall(b"status 3\n")
            heard = b""
            while b"\nEND\r\n" not in heard:
                more = management.recv(1 << 16)
                assert more, "the management interface closed"
                heard += more
            management.sendall(b"quit\n")
        return Snapshot(_sessions(heard.decode()), self._ended())

    def written(self) -> Snapshot:
        """Return what its status file says; `freshly_written` waits for the next one first."""
        return Snapshot(_sessions(self._file()), self._ended())

    def freshly_written(self) -> None:
        """Wait until the status file was written after this call."""
        asked = int(time.time())
        wait_for(lambda: _time(self._file()) > asked, "a fresh status file")

    def _file(self) -> str:
        def whole() -> str:
            text = self.status.read_text() if self.status.exists() else ""
            return text if text.endswith("END\n") else ""

        return wait_for(whole, "a whole status file")

    def _ended(self) -> tuple[tuple[str, int], ...]:
        rows = (line.split("\t") for line in self._ends.read_text().splitlines())
        return tuple((name, int(number)) for name, number in rows)


class User:
    """One user at a client of the star; comes back by itself when the server ends its session."""

    def __init__(self, client: Client, folder: Path, name: str, number: int) -> None:
        """Take the certificate that was made for user `number`."""
        self.client = client
        self.name = name
        self._process: Process | None = None
        words = (
            f"--dev-type tun --dev ovc --proto udp --remote {client.gateway4} {_PORT} --nobind "
            "--persist-tun --connect-retry 1 2 --explicit-exit-notify 1 --verb 3 "
            f"--ca {folder}/ca.crt --cert {folder}/{number}.crt --key {folder}/{number}.key "
            "--remote-cert-tls server"
        )
        self._words = ["openvpn", "--client", *_without_kernel(), *words.split()]

    def connect(self) -> None:
        """Start the client, and wait until it is connected."""
        self._process = self.client.popen(self._words)
        self._process.wait_for_text(_READY)

    def reconnect(self) -> None:
        """Let the running client begin a new session."""
        mark = self.mark()
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        self.wait_until_back(mark)

    def mark(self) -> int:
        """Return the `mark` for `wait_until_back`, before something ends the session."""
        assert self._process is not None
        return self._process.mark()

    def wait_until_back(self, mark: int) -> None:
        """Wait until it is connected anew since `mark`."""
        assert self._process is not None
        self._process.wait_for_text(_READY, after=mark)

    def disconnect(self) -> None:
        """End the client, which says so to the server."""
        assert self._process is not None
        self._process.stop()

    def kill(self) -> None:
        """End the client without a word."""
        assert self._process is not None
        self._process.kill()


def _sessions(status: str) -> tuple[Session, ...]:
    """Read version 3 of a status: columns are found by its header, separated by tabs."""
    columns: list[str] = []
    found = []
    for line in status.splitlines():
        if line.startswith("HEADER\tCLIENT_LIST\t"):
            columns = line.split("\t")[2:]
        if line.startswith("CLIENT_LIST\t"):
            row = dict(zip(columns, line.split("\t")[1:], strict=True))
            both = int(row["Bytes Received"]) + int(row["Bytes Sent"])
            since = row["Connected Since (time_t)"]
            found.append(Session(row["Common Name"], row["Client ID"], since, both))
    return tuple(sorted(session for session in found if session.name != "UNDEF"))


def _time(status: str) -> int:
    line = next(line for line in status.splitlines() if line.startswith("TIME\t"))
    return int(line.split("\t")[2])


@cache
def _without_kernel() -> tuple[str, ...]:
    """Return the option that keeps a newer OpenVPN from using a kernel module."""
    done = subprocess.run(
        ["openvpn", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": search_path()},
    )
    return ("--disable-dco",) if "--disable-dco" in done.stdout else ()


def _certify(folder: Path, names: Sequence[str]) -> None:
    """Write a certificate authority, and the server's and the users' certificates."""
    authority = ec.generate_private_key(ec.SECP256R1())
    _write(folder / "ca", authority, _certificate("ca", authority, authority, None))
    purposes = {"server": ("server", ExtendedKeyUsageOID.SERVER_AUTH)}
    for number, name in enumerate(names):
        purposes[str(number)] = (name, ExtendedKeyUsageOID.CLIENT_AUTH)
    for file, (name, purpose) in purposes.items():
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder / file, key, _certificate(name, key, authority, purpose))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    purpose: x509.ObjectIdentifier | None,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=purpose is None, path_length=None), critical=True)
        .add_extension(_usage(is_authority=purpose is None), critical=True)
    )
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(authority, hashes.SHA256())


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.with_suffix(".key").touch(mode=0o600)
    path.with_suffix(".key").write_bytes(private)
