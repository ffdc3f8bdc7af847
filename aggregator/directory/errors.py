"""What can go wrong with a directory: a closed list, so that no value ever gets into an error."""

from __future__ import annotations

import enum
from typing import Final

from aggregator.errors import DeliveryError
from aggregator.model.settings import DirectoryKind


class DirectoryError(DeliveryError):
    """The directory of accounts did not answer, or not with rows that can be trusted."""


class Trouble(enum.Enum):
    """What happened, and what to do; `{n}` is a number or the name of an exception's class."""

    NOT_FOUND = ("was not found", "check {where}")
    NOT_READABLE = ("cannot be read", "check {where}, and who may read it")
    NOT_RUN = ("cannot be run", "check {where}, and who may run it")
    NO_FILE = ("is not a plain file", "check {where}")
    TIMED_OUT = ("timed out after {n} s", "see why it is slow, or raise directory.timeout_seconds")
    EMPTY = ("is empty", "see whether its last export failed")
    NO_ACCOUNTS = ("names no account", "see whether its last export failed")
    NO_COLUMN = ('has no column "account"', "name its columns account, address, …")
    LACKS_COLUMN = ('has no column "{n}", which a rule or mail.to_user needs', "add it to {where}")
    COLUMN_TWICE = ("has a column twice that is needed once", "leave one of the two out")
    MALFORMED = ("is malformed in row {n} (a header is row 0)", "correct that row")
    BAD_OBJECT = ("is malformed in row {n}", "correct that row: one JSON object with an account")
    NOT_TEXT = ("is not UTF-8 in row {n} (a header is row 0)", "write it as UTF-8")
    TOO_LONG = ("has a line over 1 MB in row {n} (a header is row 0)", "correct that row")
    NO_URL = ("cannot be asked: {where} gives no URL that leads anywhere", "correct it")
    PLAIN_HTTP = ("would travel readable: its URL is not https", "use https in {where}")
    PASSWORD_IN_URL = ("has a password in its URL", "use directory.token_file instead")
    BAD_TOKEN = ("cannot be asked: its token cannot be sent", "check what directory.token_… names")
    BAD_CA_FILE = (
        "cannot be asked: the file of authorities cannot be used",
        "check directory.ca_file",
    )
    UNREACHABLE = ("cannot be reached", "check {where} and the network")
    TLS = ("does not prove who it is over TLS", "check its certificate, or set directory.ca_file")
    STATUS = ("answered with status {n}", "check {where} and its token")
    REDIRECTED = ("sends to another place", "put the place where the accounts are in {where}")
    NOT_HTTP = ("does not answer as HTTP has it", "check {where}")
    ENCODED = ("answered with a content encoding, unasked", "let it answer without")
    NO_LENGTH = ("tells neither the length nor chunks", "let it answer with a Content-Length")
    CUT = ("was cut off before its end", "see why it breaks off")
    EXIT_STATUS = ("ended with status {n}", "run the command by hand")
    NO_DRIVER = ("needs a database driver that is not installed", "install the one of {where}")
    NO_ROWS = ("has a query that gives no rows", "let directory.query be a SELECT")
    DATABASE = ("got {n} from the database", "try directory.query by hand")
    NO_SECRET = ("needs a secret that cannot be read or is empty", "check {n}")
    UNEXPECTED = ("could not be read: {n}", "please report this")


_WHERE: Final = {
    DirectoryKind.CSV: "directory.path",
    DirectoryKind.SQL: "directory.url",
    DirectoryKind.HTTP: "directory.url",
    DirectoryKind.COMMAND: "directory.command",
}


class BrokenError(Exception):
    """A source cannot go on: one of `Trouble`, and its number or name; it never leaves here."""

    def __init__(self, trouble: Trouble, n: int | str = "") -> None:
        super().__init__(trouble.name)
        self.trouble = trouble
        self.n = n


def told(kind: DirectoryKind, trouble: Trouble, n: int | str) -> DirectoryError:
    """Return the error of one line that tells of `trouble` with a directory of `kind`."""
    what, remedy = (text.format(n=n, where=_WHERE[kind]) for text in trouble.value)
    return DirectoryError(f"the directory of accounts ({kind}) {what}; {remedy}")
