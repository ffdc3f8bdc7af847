"""Mail servers for tests, which do as they are told and keep what they took.

    with RealServer() as server:                        # aiosmtpd
    with RawServer(folder / "taken") as server:         # sockets: quick, and can misbehave at will
    with ServerProcess(folder / "taken") as server:     # a RawServer that can be killed
        server.replies["RCPT"] = 450                    # a code; a Fault; or Wait, then as usual
        server.recipients["b@example.org"] = 550
        server.replies["END"] = Fault.TAKEN_CUT         # after the content: "END"
        server.every = 7                                # "END" goes by it at each seventh mail
        …
        assert server.message_ids() == […]

`server.settings(...)` are MailSettings for it. Its port is its own from the first moment to the
last, also while it is stopped. Every reply holds `WORDS`, which nobody may repeat.

As a program (`ServerProcess` runs it): python servers.py PORT FILE '{"END": "cut"}' EVERY
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import datetime as dt
import email.parser
import enum
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

WORDS: Final = "moonstone"
"""Stands in every reply."""

_ADDRESS: Final = "127.0.0.1"
_PATIENCE_SECONDS: Final = 30.0
_DRIP_SECONDS: Final = 0.02


class Fault(enum.StrEnum):
    """What to do instead of a reply."""

    CUT = "cut"  # close the connection; a mail is not taken
    TAKEN_CUT = "taken_cut"  # take the mail, then close the connection
    HANG = "hang"  # say nothing until the other side goes away
    DRIP = "drip"  # RawServer: a reply of one endless line, a byte now and then
    DRIP_LINES = "drip_lines"  # RawServer: a reply of endless lines, one now and then
    NOISE = "noise"  # RawServer: a line that is no reply
    DEAF = "deaf"  # RawServer: reply as usual, but read nothing after that
    INJECTED = "injected"  # RawServer: a second reply after the usual one, as an intruder would
    TRUNCATED = "truncated"  # RawServer: a good reply but for the end of its line, then a cut


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Wait so long, then reply as usual."""

    seconds: float


Reply = int | Fault | Wait


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """One mail that was taken: its envelope, its content as sent (dots undone), and the way."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    tls: bool = False
    login: str | None = None
    options: str = ""

    @property
    def message_id(self) -> str:
        """Its Message-ID, without angle brackets."""
        headers = email.parser.BytesHeaderParser().parsebytes(self.content)
        return str(headers["Message-ID"]).strip("<> ")


class Certificates:
    """A CA of tests, the file that names it, and contexts for servers."""

    def __init__(self, folder: Path) -> None:
        import trustme

        self.ca = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)

    def good(self) -> ssl.SSLContext:
        """Return a context with a certificate of `localhost`."""
        return self.context("localhost", _ADDRESS)

    def wrong(self) -> ssl.SSLContext:
        """Return a context with a certificate of another host."""
        return self.context("elsewhere.example")

    def expired(self) -> ssl.SSLContext:
        """Return a context with a certificate of `localhost` that was good long ago."""
        then = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
        return self.context("localhost", _ADDRESS, not_before=then, not_after=then.replace(day=2))

    def context(self, *names: str, **dates: dt.datetime) -> ssl.SSLContext:
        """Return a context with a certificate of these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, **dates).configure_cert(context)
        return context


class _Server:
    """What all servers have: a port of their own, orders, and what they took."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.recipients: dict[str, Reply] = {}
        self.every = 1
        self.commands: Counter[str] = Counter()
        self.greeted_by: list[str] = []
        self._mails: list[Taken] = []
        # Bound for good and never listening: nobody else gets the port while a server is stopped.
        self._reservation = _bound(0)
        self.port: int = self._reservation.getsockname()[1]
        self._ends = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()
        self._reservation.close()

    def start(self) -> None:
        """Listen; may be called again after `stop`."""
        raise NotImplementedError

    def stop(self) -> None:
        """Cut all connections, and refuse further ones."""
        raise NotImplementedError

    @property
    def mails(self) -> list[Taken]:
        """What it took, in order."""
        return self._mails

    def message_ids(self) -> list[str]:
        """Return the Message-ID of each mail it took, in order."""
        return [mail.message_id for mail in self.mails]

    def settings(self, **changes: Any) -> Any:
        """Return MailSettings for this server, in the clear unless `changes` say otherwise."""
        from aggregator.model.settings import MailSettings, Security

        usual = {
            "host": "localhost",
            "port": self.port,
            "security": Security.NONE,
            "sender": "Alerts <alerts@vpn.example>",
            "desk": ("desk@vpn.example",),
            "timeout_seconds": 20,
        }
        return MailSettings(**{**usual, **changes})

    def _order(self, step: str, recipient: str = "") -> Reply | None:
        """Return what to do at a step, if it is not the usual; counts the steps."""
        self.commands[step] += 1
        if step == "END":
            self._ends += 1
            if self._ends % self.every:
                return None
        if step == "RCPT" and recipient in self.recipients:
            return self.recipients[recipient]
        return self.replies.get(step)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((_ADDRESS, port))
    return sock


class RealServer(_Server):
    """aiosmtpd in a thread. No drip, no noise, and orders only for MAIL, RCPT, END, RSET, QUIT."""

    def __init__(
        self,
        *,
        starttls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        utf8: bool = True,
        size: int = 1 << 24,
    ) -> None:
        """Offer STARTTLS or speak TLS at once; demand a login over TLS if one is given."""
        super().__init__()
        self._starttls, self._tls, self._login = starttls, tls, login
        self._utf8, self._size = utf8, size
        self._controller: Any = None

    def start(self) -> None:
        import aiosmtpd.controller
        import aiosmtpd.smtp

        class Controller(aiosmtpd.controller.Controller):
            def _create_server(self) -> Any:
                return self.loop.create_server(
                    self._factory_invoker,
                    host=self.hostname,
                    port=self.port,
                    ssl=self.ssl_context,
                    reuse_port=True,
                )

        def check(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> Any:
            name, password = self._login or ("", "")
            good = (given.login, given.password) == (name.encode(), password.encode())
            return aiosmtpd.smtp.AuthResult(success=good, handled=False, auth_data=given)

        self._controller = Controller(
            _Handler(self),
            hostname=_ADDRESS,
            port=self.port,
            ssl_context=self._tls,
            tls_context=self._starttls,
            require_starttls=self._starttls is not None,
            server_hostname="mx.example",
            ident=WORDS,
            enable_SMTPUTF8=self._utf8,
            data_size_limit=self._size,
            auth_required=self._login is not None,
            authenticator=check,
            ready_timeout=_PATIENCE_SECONDS,
        )
        self._controller.start()

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None


class _Handler:
    """What aiosmtpd asks about each command."""

    def __init__(self, server: RealServer) -> None:
        self._server = server

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, smtp: Any, session: Any, envelope: Any, name: str, lines: list[str]
    ) -> list[str]:
        session.host_name = name
        self._server.greeted_by.append(name)
        self._server.commands["EHLO"] += 1
        return lines

    async def handle_MAIL(  # noqa: N802
        self, smtp: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        envelope.mail_from, envelope.mail_options = address, options
        return await self._reply(smtp, "MAIL")

    async def handle_RCPT(  # noqa: N802
        self, smtp: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        reply = await self._reply(smtp, "RCPT", address)
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, smtp: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        data = getattr(session.auth_data, "login", None)
        mail = Taken(
            envelope.mail_from,
            tuple(envelope.rcpt_tos),
            envelope.content,
            tls=smtp.transport.get_extra_info("sslcontext") is not None,
            login=None if data is None else data.decode(),
            options=" ".join(envelope.mail_options),
        )
        return await self._reply(smtp, "END", take=lambda: self._server.mails.append(mail))

    async def handle_RSET(self, smtp: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        return await self._reply(smtp, "RSET")

    async def handle_QUIT(self, smtp: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        return await self._reply(smtp, "QUIT")

    async def _reply(
        self, smtp: Any, step: str, recipient: str = "", take: Callable[[], None] = lambda: None
    ) -> str:
        order = self._server._order(step, recipient)
        if isinstance(order, Wait):
            await asyncio.sleep(order.seconds)
            order = None
        if order is Fault.TAKEN_CUT:
            take()
        if isinstance(order, Fault):
            if order is not Fault.HANG:
                smtp.transport.abort()
            # Until the end of the connection cancels this.
            await asyncio.Event().wait()
        code = order or (221 if step == "QUIT" else 250)
        if code // 100 == 2:
            take()
        return f"{code} {WORDS}"


class RawServer(_Server):
    """An SMTP server on sockets, a thread a connection: quick, and free to break every rule.

    Each mail is written to `record`, if one is given, before it is acknowledged.
    """

    def __init__(
        self,
        record: Path | None = None,
        *,
        starttls: ssl.SSLContext | None = None,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        features: tuple[str, ...] = ("8BITMIME", "SMTPUTF8", "SIZE 16777216"),
        mechanisms: str = "CRAM-MD5 PLAIN LOGIN",
        port: int | None = None,
    ) -> None:
        """Offer STARTTLS or speak TLS at once; demand a login if one is given, also without TLS."""
        super().__init__()
        self.port = self.port if port is None else port
        self.starttls, self.tls, self.login = starttls, tls, login
        self.features, self.mechanisms = features, mechanisms
        self.stopped = threading.Event()
        self._record = record
        self._file: IO[str] | None = None
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        self.stopped.clear()
        if self._record is not None:
            self._file = self._record.open("a", encoding="utf-8")
        self._listener = _bound(self.port)
        self._listener.listen(16)
        self._run(self._listen, self._listener)

    def stop(self) -> None:
        self.stopped.set()
        if self._listener is None:
            return
        with self._lock:
            sockets = [self._listener, *self._sockets]
        for sock in sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join(_PATIENCE_SECONDS)
        self._listener.close()
        self._listener = None
        if self._file is not None:
            self._file.close()

    def take(self, mail: Taken) -> None:
        """Keep a mail; it stands in the file, if there is one, when this returns."""
        with self._lock:
            self.mails.append(mail)
            if self._file is not None:
                fields = dataclasses.asdict(mail)
                fields["content"] = base64.b64encode(mail.content).decode()
                self._file.write(json.dumps(fields) + "\n")
                self._file.flush()

    def _run(self, work: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(sock,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self, listener: socket.socket) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.append(sock)
            self._run(self._converse, sock)

    def _converse(self, sock: socket.socket) -> None:
        talk = _Talk(self, sock)
        try:
            talk.run()
        except (_EndError, OSError):
            pass  # the other side went away, or an order said so
        finally:
            with self._lock:
                self._sockets.remove(sock)
            talk.close()


class _EndError(Exception):
    """The connection is over."""


class _Talk:
    """One connection to a RawServer."""

    def __init__(self, server: RawServer, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = server
        self._sock = sock
        self._buffer = b""
        self._login: str | None = None
        self._sender = self._options = ""
        self._recipients: list[str] = []

    def close(self) -> None:
        # With what the client still sends unread, this resets the connection: a cut.
        self._sock.close()

    def run(self) -> None:
        if self._server.tls is not None:
            self._wrap(self._server.tls)
        self._reply("GREETING", 220)
        while True:
            command, _, argument = self._line().partition(" ")
            command = command.upper()
            known = {
                "EHLO": self._ehlo, "HELO": self._ehlo, "STARTTLS": self._starttls,
                "AUTH": self._auth, "MAIL": self._mail, "RCPT": self._rcpt, "DATA": self._data,
                "RSET": self._rset, "QUIT": self._quit,
            }.get(command)  # fmt: skip
            if known is None:
                self._say(500)
            else:
                known(argument)

    def _ehlo(self, argument: str) -> None:
        server = self._server
        server.greeted_by.append(argument)
        features = list(server.features)
        if server.starttls is not None and not isinstance(self._sock, ssl.SSLSocket):
            features.append("STARTTLS")
        if server.login is not None:
            features.append(f"AUTH {server.mechanisms}")
        self._reply("EHLO", 250, features)

    def _starttls(self, argument: str) -> None:
        if self._reply("STARTTLS", 220) == 220:
            assert self._server.starttls is not None
            self._wrap(self._server.starttls)

    def _auth(self, argument: str) -> None:
        mechanism, _, first = argument.partition(" ")
        if mechanism == "PLAIN":
            _, name, password = _decoded(first or self._challenge()).split("\0")
        else:
            name = _decoded(first or self._challenge())
            password = _decoded(self._challenge())
        if (name, password) != self._server.login:
            self._say(535)
        elif self._reply("AUTH", 235) == 235:
            self._login = name

    def _challenge(self) -> str:
        self._say(334)
        return self._line()

    def _mail(self, argument: str) -> None:
        if self._server.login is not None and self._login is None:
            self._say(530)
        elif self._reply("MAIL", 250) // 100 == 2:
            self._sender, self._options = _path(argument)
            self._recipients = []

    def _rcpt(self, argument: str) -> None:
        recipient = _path(argument)[0]
        if self._reply("RCPT", 250, recipient=recipient) // 100 == 2:
            self._recipients.append(recipient)

    def _data(self, argument: str) -> None:
        if self._reply("DATA", 354 if self._recipients else 503) != 354:
            return
        mail = Taken(
            self._sender,
            tuple(self._recipients),
            self._content(),
            isinstance(self._sock, ssl.SSLSocket),
            self._login,
            self._options,
        )
        self._recipients = []
        self._reply("END", 250, take=lambda: self._server.take(mail))

    def _rset(self, argument: str) -> None:
        self._recipients = []
        self._reply("RSET", 250)

    def _quit(self, argument: str) -> None:
        self._reply("QUIT", 221)
        raise _EndError

    def _reply(
        self,
        step: str,
        usual: int,
        more: list[str] | None = None,
        *,
        recipient: str = "",
        take: Callable[[], None] = lambda: None,
    ) -> int:
        """Reply as ordered; return the code. A mail is taken if it is accepted, or if ordered."""
        order = self._server._order(step, recipient)
        if isinstance(order, Wait):
            self._server.stopped.wait(order.seconds)
            order = None
        if order is Fault.TAKEN_CUT:
            take()
        if order is Fault.INJECTED:
            # In one block, so that both are there when the first is read.
            self._sock.sendall(f"{usual} {WORDS}\r\n250 {WORDS}\r\n".encode())
            return usual
        if isinstance(order, Fault):
            self._misbehave(order, usual)
        code = usual if order is None else order
        if code // 100 == 2:
            take()
        self._say(code, more if code == usual else None)
        return code

    def _misbehave(self, fault: Fault, usual: int) -> None:
        send = self._sock.sendall
        if fault is Fault.HANG:
            while self._sock.recv(4096):
                pass
        elif fault is Fault.DEAF:
            self._say(usual)
            self._server.stopped.wait()
        elif fault is Fault.DRIP:
            send(b"%d-" % usual)
            while not self._server.stopped.wait(_DRIP_SECONDS):
                send(b"x")
        elif fault is Fault.DRIP_LINES:
            while not self._server.stopped.wait(_DRIP_SECONDS):
                send(b"%d-x\r\n" % usual)
        elif fault is Fault.NOISE:
            send(f"{WORDS}\r\n".encode())
        elif fault is Fault.TRUNCATED:
            send(b"%d" % usual)
            self._sock.shutdown(socket.SHUT_RDWR)
        raise _EndError

    def _say(self, code: int, more: list[str] | None = None) -> None:
        lines = [WORDS, *(more or [])]
        marks = ["-"] * (len(lines) - 1) + [" "]
        text = "".join(f"{code}{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True))
        self._sock.sendall(text.encode())

    def _wrap(self, context: ssl.SSLContext) -> None:
        # The bytes of the handshake come after the reply: none of them is in the buffer.
        self._sock = context.wrap_socket(self._sock, server_side=True)

    def _line(self) -> str:
        return self._until(b"\r\n").decode("utf-8")

    def _content(self) -> bytes:
        if not self._buffer:
            self._more()
        # So that the first line, too, has the end of a line before it.
        self._buffer = b"\r\n" + self._buffer
        text = self._until(b"\r\n.\r\n") + b"\r\n"
        return text.replace(b"\r\n..", b"\r\n.")[2:]

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _more(self) -> None:
        chunk = self._sock.recv(1 << 16)
        if not chunk:
            raise _EndError
        self._buffer += chunk


def _path(argument: str) -> tuple[str, str]:
    """Return the address and the options of `FROM:<a@b> SIZE=1`."""
    path, _, options = argument.partition(" ")
    return path.partition("<")[2].rstrip(">"), options


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


class ServerProcess(_Server):
    """A RawServer as a process of its own, to be killed; mails are read from its file.

    Orders are for the next `start`: of `replies`, codes and faults; and `every`.
    """

    def __init__(self, record: Path) -> None:
        """Keep what is taken in the file `record`."""
        super().__init__()
        self._record = record
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._record.exists():
            whole = self._record.read_bytes()
            self._record.write_bytes(whole[: whole.rfind(b"\n") + 1])
        orders = json.dumps(self.replies)
        words = [sys.executable, __file__, str(self.port), str(self._record), orders]
        self._process = subprocess.Popen(
            [*words, str(self.every)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """End it at once, as a power cut would; may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def stop(self) -> None:
        self.kill()

    @property
    def mails(self) -> list[Taken]:
        """What it took, before all kills as well."""
        if not self._record.exists():
            return []
        lines = self._record.read_text("utf-8").splitlines(keepends=True)
        # A line without its end was torn by a kill, or is being written: not acknowledged.
        return [_taken(json.loads(line)) for line in lines if line.endswith("\n")]


def _taken(fields: Mapping[str, Any]) -> Taken:
    content = base64.b64decode(fields["content"])
    return Taken(**{**fields, "recipients": tuple(fields["recipients"]), "content": content})


def _main(port: str, record: str, orders: str, every: str) -> None:
    """Serve until standard input ends, as it does when the test is gone."""
    server = RawServer(Path(record), port=int(port))
    for step, reply in json.loads(orders).items():
        server.replies[step] = reply if isinstance(reply, int) else Fault(reply)
    server.every = int(every)
    with server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _main(*sys.argv[1:])
