"""Hand mails to the operator's mail server, and say of each recipient what became of it (CS-10).

A mail counts as accepted only by the server's final reply. Where that does not come, nobody knows
whether the server has the mail: it is sent again later, as the same mail with the same Message-ID.

Nothing of a reply is kept but its code, and nothing of a mail stands in any error.
"""

from __future__ import annotations

import dataclasses
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Final

from aggregator.mail.connection import Connection, ServerError, SlowError, failure
from aggregator.model.notices import Deferral
from aggregator.model.settings import MailSettings, Security

__all__ = ["Outcome", "ServerError", "Session"]

# One mail, with connecting, greeting and login, takes at most so many time-outs.
_PATIENCE: Final = 4
_FAREWELL_SECONDS: Final = 5.0

# The whole of an address as it stands between the angle brackets; no quoted local part, no literal.
_ADDRESS: Final = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[^\s@<>,;:\"()\[\]\\]{1,253}")

_DONE: Final = 250
_CLOSING: Final = 421
_NO_SUCH_ADDRESS: Final = 553
_LOGGED_IN: Final = (235, 503)
# A refused sender is refused for all mails, and none is at fault; but for one that is too large, or
# whose addresses or headers are beyond ASCII.
_TOO_LARGE: Final = (523, 552)
_TOO_WIDE: Final = (501, 504, 555)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """What became of one mail: every recipient is in exactly one of the three.

    `refused` gives the code of the reply, from 500 on: for good. `deferred` may be tried again.
    """

    accepted: tuple[str, ...]
    refused: Mapping[str, int]
    deferred: Mapping[str, Deferral]


class Session:
    """Sends mails over one connection, made at the first mail and made anew after a cut."""

    def __init__(self, settings: MailSettings, password: str | None = None) -> None:
        """Send by `settings`; `password` is what settings.password names, read by the caller."""
        self._settings = settings
        self._password = password
        self._context: ssl.SSLContext | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take leave of the server; a mail after that connects again."""
        connection = self._connection
        if connection is None:
            return
        connection.until = time.monotonic() + _FAREWELL_SECONDS
        try:
            connection.docmd("QUIT")
        except (SlowError, OSError):
            # Every mail has got its reply, or has none, before: a farewell changes nothing.
            pass
        finally:
            self._drop()

    def send(
        self, sender: str, recipients: Iterable[str], content: bytes, utf8: bool = False
    ) -> Outcome:
        """Hand over one mail and return what became of it; ServerError if no mail can be now.

        `sender` is the address for the envelope, also as: Name <address>. `content` is all of the
        mail; `utf8` says that its headers hold UTF-8. Takes at most four time-outs of the settings.
        """
        tally = _Tally(recipients)
        tally.settle(_NO_SUCH_ADDRESS, [one for one in tally.open if not _is_address(one)])
        if not tally.open:
            return tally.outcome()
        try:
            self._send(_Mail.of(sender, tally.open, content, utf8), tally)
        except SlowError:
            self._drop()
            tally.defer(Deferral.SLOW)
        except OSError:
            self._drop()
            tally.defer(Deferral.CUT)
        except BaseException:
            # The connection stands in the middle of something: nothing else may follow there.
            self._drop()
            raise
        return tally.outcome()

    def _send(self, mail: _Mail, tally: _Tally) -> None:
        until = time.monotonic() + _PATIENCE * self._settings.timeout_seconds
        connection, code = self._begin(mail, tally, until)
        if code // 100 == 2:
            code = _name_recipients(connection, tally)
        if code // 100 == 2 and tally.open:
            code = connection.hand_over(mail.content)
        tally.settle(code, list(tally.open))
        # A mail that was begun and not accepted is taken back, before another one is begun.
        if code == _CLOSING or (not tally.accepted and connection.docmd("RSET")[0] != _DONE):
            self._drop()

    def _begin(self, mail: _Mail, tally: _Tally, until: float) -> tuple[Connection, int]:
        """Name the sender; return the connection and the reply's code.

        A server may close a connection that was idle or has carried many mails. Then, and only
        then, the mail is begun once more on a new one: nothing of it had been sent.
        """
        used = self._connection is not None
        connection = self._connect(until)
        try:
            code = self._name_sender(connection, mail, tally)
        except OSError:
            if not used:
                raise
            code = _CLOSING
        if used and code == _CLOSING:
            self._drop()
            connection = self._connect(until)
            code = self._name_sender(connection, mail, tally)
        return connection, code

    def _name_sender(self, connection: Connection, mail: _Mail, tally: _Tally) -> int:
        if not connection.has_extn("smtputf8"):
            if not mail.sender.isascii():
                raise ServerError(
                    "takes no sender beyond ASCII; check mail.from", Deferral.SETTINGS
                )
            tally.settle(_NO_SUCH_ADDRESS, [one for one in tally.open if not one.isascii()])
            if not tally.open:
                return _DONE
        code = connection.ask("MAIL", f"FROM:<{mail.sender}>{_options(connection, mail)}")
        own = code in _TOO_LARGE or (mail.wide and code in _TOO_WIDE)
        if code // 100 == 5 and not own:
            words = f"takes nothing from this sender (code {code}); check mail.from and the login"
            raise ServerError(words, Deferral.SETTINGS)
        return code

    def _connect(self, until: float) -> Connection:
        if self._connection is None:
            self._connection = self._open(until)
        self._connection.until = until
        return self._connection

    def _open(self, until: float) -> Connection:
        settings = self._settings
        connection = None
        try:
            context = self._tls() if settings.security is Security.TLS else None
            connection = Connection(settings, context, until)
            self._protect(connection)
            self._log_in(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, (SlowError, OSError, UnicodeError)):
                raise failure(error) from None
            raise
        return connection

    def _protect(self, connection: Connection) -> None:
        """Encrypt what is not yet encrypted; nothing leaves this machine in the clear."""
        connection.ehlo_or_helo_if_needed()
        if self._settings.security is Security.STARTTLS:
            connection.encrypt(self._tls())
            # What was offered in the clear may have been forged.
            connection.ehlo_or_helo_if_needed()
        elif self._settings.security is Security.NONE and not connection.is_local():
            raise ServerError(
                'is another machine, which mail.security = "none" does not reach; set "starttls"',
                Deferral.TLS,
            )

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                context = ssl.create_default_context(cafile=self._settings.ca_file)
            except OSError:
                raise ServerError(
                    "cannot be verified: mail.ca_file is not there, or holds no certificates",
                    Deferral.SETTINGS,
                ) from None
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context = context
        return self._context

    def _log_in(self, connection: Connection) -> None:
        name, password = self._settings.username, self._password
        if name is None:
            return
        if not password:
            raise ServerError("needs a password too; set mail.password_file", Deferral.SETTINGS)
        offered = connection.esmtp_features.get("auth", "").upper().split()
        usable = [one for one in ("PLAIN", "LOGIN") if one in offered]
        if not usable:
            raise ServerError("offers no login by PLAIN or LOGIN; check mail.port", Deferral.LOGIN)
        for way in usable:
            code = connection.log_in(way, name, password)
            if code in _LOGGED_IN:
                return
        words = f"refuses the login (code {code}); correct mail.username or its password"
        raise ServerError(words, Deferral.LOGIN)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Mail:
    """One mail as it travels; `wide` says that its addresses or headers are beyond ASCII."""

    sender: str
    content: bytes
    wide: bool

    @classmethod
    def of(cls, sender: str, recipients: Iterable[str], content: bytes, utf8: bool) -> _Mail:
        named = re.search(r"<([^<>]*)>", sender)
        bare = sender.strip() if named is None else named[1]
        if not _is_address(bare):
            raise ServerError(
                "cannot be given a sender: mail.from is no address", Deferral.SETTINGS
            )
        # A lone CR or LF is the end of a line to some servers, and so could end the mail early.
        unix = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = unix.removesuffix(b"\n").replace(b"\n", b"\r\n") + b"\r\n"
        wide = utf8 or not all(map(str.isascii, (bare, *recipients)))
        return cls(bare, lines, wide)


class _Tally:
    """What becomes of each recipient of one mail; `open` are those of whom nothing is known yet."""

    def __init__(self, recipients: Iterable[str]) -> None:
        self.open = dict.fromkeys(recipients)
        self.accepted: list[str] = []
        self._refused: dict[str, int] = {}
        self._deferred: dict[str, Deferral] = {}

    def settle(self, code: int, whom: Iterable[str]) -> None:
        """Note that `code` is the reply for `whom`, who are open."""
        for one in whom:
            del self.open[one]
            if code // 100 == 2:
                self.accepted.append(one)
            elif code // 100 == 5:
                self._refused[one] = code
            else:
                self._deferred[one] = Deferral.REFUSED_FOR_NOW

    def defer(self, reason: Deferral) -> None:
        """Note that there was no reply for those who are open."""
        self._deferred.update(dict.fromkeys(self.open, reason))
        self.open.clear()

    def outcome(self) -> Outcome:
        return Outcome(
            tuple(self.accepted), MappingProxyType(self._refused), MappingProxyType(self._deferred)
        )


def _name_recipients(connection: Connection, tally: _Tally) -> int:
    """Name all who are open; those refused are settled. Return 421 if the server closes, or 250."""
    for one in list(tally.open):
        code = connection.ask("RCPT", f"TO:<{one}>")
        if code == _CLOSING:
            return code
        if code // 100 != 2:
            tally.settle(code, [one])
    return _DONE


def _options(connection: Connection, mail: _Mail) -> str:
    """Return what is told of a mail with its sender, as far as the server can be told."""
    options = ""
    if connection.has_extn("size"):
        options += f" SIZE={len(mail.content)}"
    if mail.wide and connection.has_extn("smtputf8"):
        options += " SMTPUTF8"
    if (mail.wide or not mail.content.isascii()) and connection.has_extn("8bitmime"):
        options += " BODY=8BITMIME"
    return options


def _is_address(text: str) -> bool:
    return text.isprintable() and _ADDRESS.fullmatch(text) is not None
