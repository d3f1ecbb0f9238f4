"""An SQL database by its URL: its transactions, and its errors in words without the password."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool, StaticPool

from resque.errors import InputError, nearest

_KINDS = ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql")
# Where the package to install is not called as the module to import.
_PACKAGES = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary"}

# SQLite's name of an error, or how it begins: what happened, and what to do.
_SQLITE_ERRORS = {
    "SQLITE_BUSY": (
        "is locked: another program has been writing to it for more than {timeout_s:g} s",
        "wait until it is done, or end it",
    ),
    "SQLITE_READONLY": (
        "cannot be written: the file or its folder is read-only",
        "change its permissions, or export the history and import it elsewhere",
    ),
    "SQLITE_FULL": (
        "could not be written: the disk is full",
        "make room; what was there before is unharmed",
    ),
    "SQLITE_NOTADB": (
        "is no SQLite database, or its beginning is damaged",
        "name another file, or restore a copy",
    ),
    "SQLITE_CORRUPT": (
        "is damaged",
        "restore a copy, or save what can be read with `sqlite3 FILE .recover`",
    ),
    "SQLITE_CANTOPEN": ("cannot be opened", "check the path and its permissions"),
    "SQLITE_IOERR": ("could not be read or written", "check the disk"),
}


class Database:
    """A database, opened by URL; every use of it is one transaction on a connection of its own.

    No connection outlives its transaction, so that the object may be used in threads and after a
    fork. Opening one costs microseconds with SQLite and milliseconds with a server, and nobody
    writes updates often.

    Attributes:
        engine: SQLAlchemy's.
        file: of an SQLite database; None for one in memory or on a server.
        timeout_s: seconds to wait for another program that is writing; SQLite only.

    Args:
        url: as SQLAlchemy takes it.
        timeout_s: see above.

    Raises:
        InputError: the URL is none, or its driver is not installed.
    """

    engine: sa.Engine
    file: Path | None
    timeout_s: float

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        parsed = _parsed(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        in_memory = sqlite and parsed.database in (None, "", ":memory:")
        self.file = None
        if sqlite and not in_memory:
            database = str(parsed.database)
            self.file = Path(database.removeprefix("file:")).absolute()
            if not database.startswith("file:"):
                # The same file also after the process has changed its folder.
                parsed = parsed.set(database=os.fspath(self.file))
        self._url = parsed
        self.engine = _engine(parsed, in_memory=in_memory, timeout_s=timeout_s)
        if sqlite:
            _govern_sqlite(self.engine)

    @property
    def secret_url(self) -> str:
        """The URL with its password; never to be printed."""
        return self._url.render_as_string(hide_password=False)

    def __str__(self) -> str:
        # Some drivers take a password among the options, so none of these is shown.
        return self._url.set(query={}).render_as_string(hide_password=True)

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        """Give a connection in a transaction: committed at the end, undone by any exception.

        Args:
            writes: take the right to write at once. Transactions that take it later can meet
                in a deadlock, and SQLite then fails one of them without waiting.

        Raises:
            InputError: the database failed, and why; without the password.
            IntegrityError: another program wrote the same row first.
        """
        try:
            with self.engine.execution_options(writes=writes).begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            # `from None`: the original may carry the password in its own text.
            raise self._explained(error) from None

    def _explained(self, error: SQLAlchemyError) -> InputError:
        original = getattr(error, "orig", None) or error
        code = getattr(original, "sqlite_errorname", None) or ""
        if code.startswith("SQLITE_CANTOPEN") and self.file and not self.file.parent.is_dir():
            return InputError(
                f"There is no folder {str(self.file.parent)!r} to keep {self.file.name!r} in; "
                "make it, or name another place."
            )
        for name, (what, cure) in _SQLITE_ERRORS.items():
            if code.startswith(name):
                happened = what.format(timeout_s=self.timeout_s)
                return InputError(
                    f"The history {self} {happened} ({self._without_secrets(original)}); {cure}."
                )
        return InputError(f"The history {self} failed: {self._without_secrets(original)}.")

    def _without_secrets(self, error: BaseException) -> str:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        options = [] if self.file else [v for v in self._url.query.values() if isinstance(v, str)]
        for secret in filter(None, (str(self._url.password or ""), *options)):
            # Drivers and messages escape what they like.
            ways = ({sign, quote(sign, safe=""), quote_plus(sign)} for sign in secret)
            written = "".join(f"(?:{'|'.join(map(re.escape, signs))})" for signs in ways)
            said = re.sub(written, "***", said, flags=re.IGNORECASE)
        return said.rstrip(".")


def _parsed(url: Any) -> sa.URL:
    text = os.fspath(url) if isinstance(url, os.PathLike) else url
    if not isinstance(text, str) or not text:
        raise InputError(f"A history is named by a URL such as 'sqlite:///resque.db'; got {url!r}.")
    kind, is_url, rest = text.partition("://")
    if not is_url:
        # What has an @ may be an address with a password.
        shown = "" if "@" in text else f"; got {text!r}. For that file say 'sqlite:///{text}'"
        raise InputError(f"A history is named by a URL such as 'sqlite:///resque.db'{shown}.")
    if kind.partition("+")[0] == "sqlite" and rest and not rest.startswith("/"):
        shown = "" if "@" in rest else f": '{kind}:///{rest}'"
        raise InputError(
            f"The URL of an SQLite file has three slashes before a relative path{shown}, and "
            "four before an absolute one."
        )
    try:
        return sa.make_url(text)
    except (ArgumentError, ValueError):
        raise InputError(
            f"This {kind!r} URL cannot be read (it is not shown: it may hold a password); "
            "expected KIND://USER:PASSWORD@HOST:PORT/DATABASE, with signs such as @ and / in the "
            "password written as %40 and %2F."
        ) from None


def _engine(url: sa.URL, *, in_memory: bool, timeout_s: float) -> sa.Engine:
    options: dict[str, Any] = {"poolclass": StaticPool if in_memory else NullPool}
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": timeout_s}
    try:
        return sa.create_engine(url, hide_parameters=True, **options)
    except NoSuchModuleError:
        raise InputError(
            f"No driver is known for {url.drivername!r}; expected one of {', '.join(_KINDS)}, or "
            "a database that brings a driver for SQLAlchemy in a package of its own."
            f"{nearest(url.get_backend_name(), _KINDS)}"
        ) from None
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(str(error.name), str(error.name))
        raise InputError(
            f"A {url.get_backend_name()} database needs the package {package!r}, which is not "
            f"installed: pip install {package}."
        ) from None
    except (ArgumentError, ValueError, TypeError):
        raise InputError(
            f"This {url.drivername!r} URL cannot be used (it is not shown: it may hold a "
            "password); check its options."
        ) from None


def _govern_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _: Any) -> None:
        # Python's driver would begin transactions by its own rules, which leave out CREATE TABLE.
        connection.isolation_level = None
        # What was acknowledged outlives a power cut. FULL alone does not sync the folder after
        # the journal is removed, and a journal that comes back undoes the transaction.
        connection.execute("PRAGMA synchronous = EXTRA")

    @sa.event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
