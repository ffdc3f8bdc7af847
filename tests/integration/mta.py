"""Exim, the mail server of Debian, in a namespace and a folder of its own.

It listens on port 587 of 127.0.0.1 there, takes mail after STARTTLS and a login only, knows the
users of `USERS` at `DOMAIN`, and delivers into a maildir each. All that it writes lies in its
folder, and all that it is told stands in one file there; Debian's own configuration is not read.
"""

from __future__ import annotations

import email
import email.policy
import os
import pwd
from email.message import EmailMessage
from pathlib import Path
from typing import Final

import trustme

from .net import Namespace, Process, wait_for

DOMAIN: Final = "vpn.example"
USERS: Final = ("desk", "ann", "bo", "jörg")
PORT: Final = 587
MAILS_A_CONNECTION: Final = 20
LOGIN: Final = ("notices", "a password of tests")

_ACCOUNT: Final = "Debian-exim"

_CONFIG: Final = """\
primary_hostname = mx.{domain}
exim_user = {account}
exim_group = {account}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
pid_file_path = {folder}/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
smtp_accept_max_per_connection = {most}
keep_environment =
host_lookup =
tls_advertise_hosts = *
tls_certificate = {folder}/server.pem
tls_privatekey = {folder}/server.key
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
smtputf8_advertise_hosts = *
acl_smtp_mail = sender
acl_smtp_rcpt = recipient

begin acl

sender:
  deny
    condition = ${{if eq{{$tls_in_cipher}}{{}}}}
    message = 530 STARTTLS first
  deny
    !authenticated = *
    message = 530 log in first
  accept

recipient:
  # Greylisting, as far as a client sees it: refused for now, until the line is gone.
  defer
    local_parts = lsearch;{folder}/greylist
    message = 450 come back later
  require
    domains = {domain}
    message = 550 no relay
  require
    verify = recipient
    message = 550 no such user
  accept

begin routers

maildir:
  driver = accept
  domains = {domain}
  local_parts = {users}
  transport = maildir

begin transports

maildir:
  driver = appendfile
  directory = {folder}/mail/$local_part_data
  maildir_format
  create_directory
  user = {account}
  group = {account}

begin retry

* * F,1h,1m

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{name}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


class Exim:
    """The daemon. `ca_file` names the CA of its certificate, which is of `localhost`."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        """Prepare it in `folder`, which becomes its own; its account must be able to reach it."""
        self.namespace = namespace
        self.folder = folder
        self.ca_file = str(folder / "ca.pem")
        self._greylist = folder / "greylist"
        self._daemon: Process | None = None
        for name in ("spool", "log", "mail"):
            (folder / name).mkdir()
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.ca_file)
        certificate = ca.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(folder / "server.key")
        for part in certificate.cert_chain_pems:
            part.write_to_path(folder / "server.pem", append=True)
        config = _CONFIG.format(
            domain=DOMAIN,
            folder=folder,
            port=PORT,
            account=_ACCOUNT,
            users=" : ".join(USERS),
            name=LOGIN[0],
            password=LOGIN[1],
            most=MAILS_A_CONNECTION,
        )
        (folder / "exim.conf").write_text(config, "utf-8")
        self._greylist.write_text("")
        owner = pwd.getpwnam(_ACCOUNT)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        # Exim refuses a configuration that its own account could change.
        os.chown(folder / "exim.conf", 0, owner.pw_gid)
        (folder / "exim.conf").chmod(0o640)

    def start(self) -> None:
        """Start it in the foreground; it listens when this returns."""
        words = ["exim4", "-C", self.folder / "exim.conf", "-bdf", "-q1s"]
        self._daemon = self.namespace.popen(words, log="exim.log")
        wait_for(self._listens, lambda: f"exim to listen:\n{self.log()}")

    def stop(self) -> None:
        """End it and all that it has started, at once; its connections are cut."""
        assert self._daemon is not None
        self._daemon.kill()

    def greylist(self, *users: str) -> None:
        """Refuse these recipients for now, from now on, and nobody else."""
        self._greylist.write_text("".join(f"{user}:\n" for user in users))

    def mails(self, user: str) -> list[EmailMessage]:
        """Return what was delivered to a user."""
        found = (self.folder / "mail" / user / "new").glob("*")
        return [
            email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            for path in found
        ]

    def settled(self) -> bool:
        """Say whether it has delivered all that it took: nothing waits, nothing is under way."""
        return not any((self.folder / "spool" / "input").glob("*-H"))

    def log(self) -> str:
        """Return what it logged."""
        return "".join(path.read_text() for path in sorted((self.folder / "log").glob("*")))

    def _listens(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.alive, f"exim ended:\n{self._daemon.text()}\n{self.log()}"
        return f":{PORT} " in self.namespace.run(["ss", "-Hltn"])
