"""A strongSwan server and its users, with ESP in userspace: no kernel module is needed.

The server is 10.96.0.1 inside the tunnels. The IKE identity of a user is the name of a device; the
account is the EAP identity.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from .net import Client, Namespace, Process, Star, Word, wait_for

INSIDE: Final = "10.96.0.1"
DEVICE: Final = "ipsec0"

_SECRET: Final = "a secret of tests"
_PLUGINS: Final = (
    "random nonce aes sha1 sha2 hmac kdf md4 md5 openssl gcm curve25519 des kernel-libipsec "
    "kernel-netlink socket-default vici updown eap-identity eap-mschapv2"
)
_SA: Final = re.compile(
    r"uniqueid=\d+ version=2 .*?remote-id=(?P<id>\S+) (?:remote-eap-id=(?P<eap>\S+) )?"
    r".*?child-sas \{(?P<children>.*)\}\}\}"
)
_CHILD: Final = re.compile(
    r"uniqueid=(\d+) reqid=\S+ state=(\w+) .*?spi-in=(\w+) .*?bytes-in=(\d+) .*?bytes-out=(\d+)"
)

_IKE: Final = re.compile(r"initiator-spi=(\w+)")
_VIRTUAL: Final = re.compile(r"inet (10\.96\.1\.[0-9]+)")

_DAEMON: Final = """\
charon-systemd {{
  load = {plugins}
  start-scripts {{ }}
  user = root
  delete_rekeyed_delay = 2
  filelog {{
    stdout {{
      default = 1
      flush_line = yes
    }}
  }}
  plugins {{
    vici {{
      socket = unix://{folder}/vici
    }}
    kernel-libipsec {{
      allow_peer_ts = yes
    }}
  }}
}}
swanctl {{
  socket = unix://{folder}/vici
}}
"""

_SERVER: Final = """\
connections {{
  users {{
    version = 2
    local_addrs = %any
    proposals = aes256-sha256-x25519
    pools = pool
    encap = yes
    rekey_time = 0
    local {{
      auth = psk
      id = vpn.test
    }}
    remote {{
      auth = eap-mschapv2
      eap_id = %any
    }}
    children {{
      net {{
        local_ts = {inside}/32
        esp_proposals = aes256gcm16
        rekey_time = 0
      }}
    }}
  }}
}}
pools {{
  pool {{
    addrs = 10.96.1.0/24
  }}
}}
secrets {{
  ike {{
    id = vpn.test
    secret = "{secret}"
  }}
{users}}}
"""

_EAP: Final = """\
  eap-{number} {{
    id = "{name}"
    secret = "{secret}"
  }}
"""

_CLIENT: Final = """\
connections {{
  home {{
    version = 2
    remote_addrs = {gateway}
    proposals = aes256-sha256-x25519
    vips = 0.0.0.0
    encap = yes
    rekey_time = 0
    local {{
      auth = eap-mschapv2
      id = {device}
      eap_id = "{name}"
    }}
    remote {{
      auth = psk
      id = vpn.test
    }}
    children {{
      net {{
        remote_ts = {inside}/32
        esp_proposals = aes256gcm16
        rekey_time = 0
      }}
    }}
  }}
}}
secrets {{
  ike {{
    id = vpn.test
    secret = "{secret}"
  }}
  eap {{
    id = "{name}"
    secret = "{secret}"
  }}
}}
"""


class Child(NamedTuple):
    """A CHILD SA as the server lists it: from the user, and to the user."""

    name: str
    unique_id: str
    spi: str
    received: int
    sent: int


class Charon:
    """A daemon with its own configuration and socket."""

    def __init__(self, namespace: Namespace, folder: Path, connections: str) -> None:
        """Write its configuration to `folder`, which is made."""
        self.namespace = namespace
        self.vici = folder / "vici"
        self._daemon: Process | None = None
        self._folder = folder
        folder.mkdir()
        # What is sent by the kernel itself would be counted by the device.
        namespace.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])
        words = {"folder": folder, "plugins": _PLUGINS}
        (folder / "strongswan.conf").write_text(_DAEMON.format(**words))
        (folder / "swanctl.conf").write_text(connections)

    def start(self) -> None:
        """Start it with its configuration."""
        # Its pid file has a fixed name: each gets a /run of its own.
        words = ["unshare", "--mount", "sh", "-c"]
        words.append("mount -t tmpfs none /run && exec charon-systemd")
        self._daemon = self.namespace.popen(words, env=self._env)
        wait_for(self._answers, lambda: f"charon answers:\n{self._text()}")
        self.swanctl("--load-all", "--file", self._folder / "swanctl.conf")

    def stop(self) -> None:
        """Stop it in good order: it says farewell to its peers."""
        assert self._daemon is not None
        self._daemon.stop()

    def kill(self) -> None:
        """End it without a word."""
        assert self._daemon is not None
        self._daemon.kill()

    def swanctl(self, *words: Word, check: bool = True) -> str:
        """Run `swanctl` on it."""
        settings = [f"{name}={value}" for name, value in self._env.items()]
        return self.namespace.run(["env", *settings, "swanctl", *words], check=check)

    def device(self) -> int:
        """Return the bytes of all packets that went through its tunnel device, both ways."""
        words = ["ip", "-s", "-j", "link", "show", "dev", DEVICE]
        stats = json.loads(self.namespace.run(words))[0]["stats64"]
        return int(stats["rx"]["bytes"] + stats["tx"]["bytes"])

    @property
    def _env(self) -> dict[str, str]:
        return {
            "STRONGSWAN_CONF": str(self._folder / "strongswan.conf"),
            "SWANCTL_DIR": str(self._folder),
        }

    def _answers(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.alive, self._text()
        return "uptime" in self.swanctl("--stats", check=False)

    def _text(self) -> str:
        return "" if self._daemon is None else self._daemon.text()


class User(Charon):
    """One user at a client of the star."""

    def __init__(self, client: Client, folder: Path, name: str, number: int) -> None:
        """Configure user `number`, whose account is `name`."""
        gateway = client.gateway6 if number == 2 else client.gateway4
        words = {"gateway": gateway, "device": f"device-{number}", "name": name}
        connections = _CLIENT.format(**words, inside=INSIDE, secret=_SECRET)
        super().__init__(client, folder / f"user-{number}", connections)
        self.name = name

    def connect(self) -> None:
        """Begin a session."""
        self.swanctl("--initiate", "--child", "net", "--timeout", 50)

    def disconnect(self) -> None:
        """End the session, and say so."""
        self.swanctl("--terminate", "--ike", "home", "--timeout", 50)

    def forget(self) -> None:
        """Forget the session, if there still is one: its server has."""
        self.swanctl("--terminate", "--ike", "home", "--force", check=False)
        wait_for(lambda: "home" not in self.swanctl("--list-sas"), "no session at a user")

    def address(self) -> str:
        """Return the address that the server gave it, inside the tunnel."""
        found = _VIRTUAL.search(self.namespace.ip("-4 -o addr show"))
        assert found is not None
        return found[1]

    def rekey(self, what: str) -> None:
        """Change the keys of the `child` or of the `ike` SA."""
        self.swanctl("--rekey", f"--{what}", {"child": "net", "ike": "home"}[what])


class Server(Charon):
    """The server, and its users."""

    def __init__(self, net: Star, folder: Path, names: Sequence[str]) -> None:
        """Configure a server, and a user for each of the first clients."""
        eap = "".join(
            _EAP.format(number=number, name=name, secret=_SECRET)
            for number, name in enumerate(names)
        )
        connections = _SERVER.format(inside=INSIDE, secret=_SECRET, users=eap)
        super().__init__(net.server, folder / "server", connections)
        net.server.ip(f"addr add {INSIDE}/32 dev lo")
        self.users = [
            User(client, folder, name, number)
            for number, (client, name) in enumerate(zip(net.clients, names, strict=False), start=1)
        ]

    def keys(self, name: str, what: str) -> set[str]:
        """Return what the `child` or `ike` SAs of a user are known by now."""
        if what == "child":
            return {child.spi for child in self.children() if child.name == name}
        rows = self.swanctl("--list-sas", "--raw").splitlines()
        return {spi for row in rows if f"-id={name} " in row for spi in _IKE.findall(row)}

    def children(self) -> tuple[Child, ...]:
        """Return all CHILD SAs that it lists, with their numbers of this instant."""
        found = []
        for line in self.swanctl("--list-sas", "--raw").splitlines():
            sa = _SA.search(line)
            assert sa is not None or "child-sas" not in line, "a list of SAs in another form"
            for row in _CHILD.finditer(sa["children"] if sa else ""):
                unique_id, _state, spi, received, sent = row.groups()
                name = (sa["eap"] or sa["id"]) if sa else ""
                found.append(Child(name, unique_id, spi, int(received), int(sent)))
        return tuple(sorted(found))
