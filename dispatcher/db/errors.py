"""Says which database errors are temporary, and explains each kind in one line."""

import re
import socket
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.language import N_
from dispatcher.core.stored_texts import stored_text
from dispatcher.db.dsn import Address, read_address

# Errors of an unavailable database; the next call, on a new connection, may succeed. Not only
# lost connections: a switch-over shows as a read-only server, as a host that does not match, and
# (seen on a planned switch) as asyncpg's InternalClientError.
UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # 57: shutting down, starting up, cancelled
    asyncpg.InsufficientResourcesError,  # 53: disk full, no memory, no connection left
    asyncpg.TransactionRollbackError,  # 40: a deadlock's loser
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process was frozen: see session.sql
    asyncpg.TransactionTimeoutError,  # 25P04: a setting of the role or the database
    asyncpg.PostgresSystemError,  # 58: its disk or file system fails
    asyncpg.ReadOnlySQLTransactionError,  # SQLSTATE 25006: a primary that became a standby
    # What an operator changes while workers run: a rotated password, a revoked right, a database
    # that is closed or restored. 55000: it takes no connections. XX000: a pooler is full.
    asyncpg.InvalidAuthorizationSpecificationError,  # 28
    asyncpg.InsufficientPrivilegeError,  # 42501
    asyncpg.InvalidCatalogNameError,  # 3D000
    asyncpg.ObjectNotInPrerequisiteStateError,  # 55000
    asyncpg.InternalServerError,  # XX000
    asyncpg.ProgramLimitExceededError,  # 54000: protection against wraparound of transaction ids
    asyncpg.InternalClientError,  # TargetServerAttributeNotMatched is one
    asyncpg.InterfaceError,  # only some of them: see is_unavailable
)

# Errors that the values of one row may cause, however they came into the table: what a statement or
# a conversion refuses, and a page that is damaged. What fails with one of them is narrowed down to
# the row.
DATA_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.DataError,  # 22: out of range, not in the encoding
    asyncpg.IntegrityConstraintViolationError,  # 23
    asyncpg.ProgramLimitExceededError,  # 54
    asyncpg.DataCorruptedError,
    asyncpg.RaiseError,  # P0001: what a trigger of an application refuses
    ValueError,  # of this process: a value that asyncpg or Python cannot convert
    ArithmeticError,
)
ROW_ERRORS: tuple[type[Exception], ...] = (DatabaseUnavailable, *DATA_ERRORS)  # see is_data_error

# What may happen on connecting: whatever a server answers to that may be over a moment later.
CONNECT_ERRORS: tuple[type[Exception], ...] = (
    *UNAVAILABLE_ERRORS,
    asyncpg.PostgresError,
    asyncpg.ClientConfigurationError,
)

# asyncpg's words when a connection was lost between two calls; every other InterfaceError is a
# mistake of the caller, and trying again would only repeat it.
_LOST = ("connection is closed", "connection was closed", "connection has been released")

# The first row that fits applies.
_LINES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        asyncpg.InvalidPasswordError,
        N_("PostgreSQL at {at} refuses the password of {user}: correct DISPATCHER_DATABASE_URL."),
    ),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        N_(
            "PostgreSQL at {at} does not let {user} in ({said}): correct DISPATCHER_DATABASE_URL, "
            "or allow it there (CREATE ROLE, pg_hba.conf)."
        ),
    ),
    (
        asyncpg.InvalidCatalogNameError,
        N_(
            "PostgreSQL answers, but has no database {database} ({at}): create it, "
            "or correct DISPATCHER_DATABASE_URL."
        ),
    ),
    (
        asyncpg.InsufficientPrivilegeError,
        N_(
            "PostgreSQL at {at} denies {user} a right ({said}): use a user in the role"
            " dispatcher_worker (to migrate or to forget: dispatcher_owner), or grant it."
        ),
    ),
    (
        (
            asyncpg.UndefinedTableError,
            asyncpg.UndefinedColumnError,
            asyncpg.UndefinedFunctionError,
            asyncpg.InvalidSchemaNameError,
        ),
        N_(
            "The tables of this release are not in {at} ({said}): run `dispatcher migrate`, which "
            "makes them, or correct what of yours is named here."
        ),
    ),
    (
        asyncpg.DiskFullError,
        N_("The disk of PostgreSQL at {at} is full: make room there; what it has is kept."),
    ),
    (
        asyncpg.TooManyConnectionsError,
        N_("PostgreSQL at {at} has no connection left: raise {limit}, or run fewer workers."),
    ),
    (
        (asyncpg.ReadOnlySQLTransactionError, asyncpg.TargetServerAttributeNotMatched),
        N_(
            "No host of {at} takes writes now: each is a standby (wait for the fail-over, or name "
            "the primary in DISPATCHER_DATABASE_URL), or default_transaction_read_only is on for "
            "the database or the user (ALTER DATABASE or ROLE ... RESET it)."
        ),
    ),
    (
        (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError),
        N_(
            "A pooler at {at} mixes up prepared statements, as PgBouncer before 1.21 does in "
            "transaction mode: set DISPATCHER_STATEMENT_CACHE=0, and"
            " DISPATCHER_DATABASE_DIRECT_URL for commands and migrations."
        ),
    ),
    (
        (asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError),
        N_("PostgreSQL at {at} is starting or stopping: it can be used when it is up again."),
    ),
    (
        asyncpg.IdleInTransactionSessionTimeoutError,
        N_(
            "PostgreSQL at {at} ended a transaction in which this process fell silent: it was "
            "frozen, or had no processor for seconds."
        ),
    ),
    (
        asyncpg.LockNotAvailableError,
        N_(
            "Another session holds a lock in PostgreSQL at {at} for seconds: look in "
            "pg_stat_activity for sessions that are idle in a transaction, or whose commit waits "
            "for a synchronous standby (wait_event SyncRep)."
        ),
    ),
    (ssl.SSLError, N_("TLS with PostgreSQL at {at} fails ({why}).")),
    (
        (asyncpg.ClientConfigurationError, ValueError),
        # Not the error's own text, which may hold a piece of the password.
        N_(
            "DISPATCHER_DATABASE_URL cannot be read: it looks like "
            "postgresql://user:password@host:5432/database, and special characters in the password "
            "are written as %-codes."
        ),
    ),
    (
        (OSError, asyncpg.PostgresConnectionError, asyncpg.InternalClientError),
        N_("No PostgreSQL answers at {at} ({why}): start it, or correct DISPATCHER_DATABASE_URL."),
    ),
    (
        asyncpg.DataError,
        N_(
            "PostgreSQL at {at} cannot take a value ({said}): it is out of range, or no text in"
            " UTF-8."
        ),
    ),
    (asyncpg.PostgresError, N_("PostgreSQL at {at} refuses: {said}.")),
)


_OTHER_HOST = N_(
    "The certificate of PostgreSQL at {at} is for another host name: write the host in"
    " DISPATCHER_DATABASE_URL as it stands in the certificate."
)
_NOT_TRUSTED = N_(
    "The certificate of PostgreSQL at {at} is not trusted ({why}): sslrootcert in"
    " DISPATCHER_DATABASE_URL must name a file with the CA that signed it."
)
_NO_AUTHORITY = N_(
    "sslmode in DISPATCHER_DATABASE_URL asks for a certificate that is trusted, and nothing says"
    " whom to trust: add &sslrootcert=FILE, with the CA of PostgreSQL's."
)
_NO_CERTIFICATE = N_(
    "sslrootcert in DISPATCHER_DATABASE_URL names {file}, which is no file with a certificate"
    " (PEM): name that of the CA of PostgreSQL's certificate."
)
_NO_TLS = N_(
    "PostgreSQL at {at} does not speak TLS, and sslmode asks for it: set ssl = on there, or"
    " correct DISPATCHER_DATABASE_URL."
)
_PARAMETER = N_(
    "PostgreSQL at {at} refuses a parameter of DISPATCHER_DATABASE_URL ({said}): take it out of"
    " the address."
)
_VALUE = N_("{parameter} in DISPATCHER_DATABASE_URL must be one of: {values}.")
_OTHER = N_("The database at {at} cannot be used: {kind}.")

# Every line and its parts, so that they can be translated where they are shown.
_FORMS: Final = (
    *(line for _kinds, line in _LINES),
    *(
        _OTHER_HOST,
        _NOT_TRUSTED,
        _NO_AUTHORITY,
        _NO_CERTIFICATE,
        _NO_TLS,
        _PARAMETER,
        _VALUE,
        _OTHER,
    ),
    N_("user {name}"),
    N_("the user"),
    N_("timed out"),
    N_("connection refused"),
    N_("no such socket"),
    N_("No route to host"),  # as the operating system says it
    N_("Network is unreachable"),
    N_("Connection reset by peer"),
    N_("unknown host name"),
    N_("no reason given"),
    N_("the connection broke"),
    N_("the CONNECTION LIMIT of its user (ALTER ROLE)"),
    N_("the CONNECTION LIMIT of the database (ALTER DATABASE)"),
    N_("its max_connections"),
)


def shown_line(line: str) -> str:
    """Return a line of `explain` in the reader's language."""
    return stored_text(line, _FORMS)


def is_unavailable(error: BaseException) -> bool:
    """Tell whether *error* means that the database is unavailable, not that a call is wrong."""
    if isinstance(error, asyncpg.InterfaceError):
        return any(words in str(error) for words in _LOST)
    return isinstance(error, UNAVAILABLE_ERRORS)


def is_data_error(error: BaseException) -> bool:
    """Tell whether the values of one row may have caused *error*."""
    cause = _cause(error)
    return isinstance(cause, DATA_ERRORS) and not isinstance(
        cause, asyncpg.ClientConfigurationError
    )


def is_locked(error: BaseException) -> bool:
    """Tell whether *error* means that another session has held a lock for seconds."""
    return isinstance(_cause(error), asyncpg.LockNotAvailableError)


def stops_all_writes(error: BaseException) -> bool:
    """Tell whether *error*, met by a write without any value of a row, means that none is taken."""
    return isinstance(_cause(error), asyncpg.ProgramLimitExceededError)


def data_error_kind(error: BaseException) -> str:
    """Return what kind of error *error* is, without any value of a row."""
    cause = _cause(error)
    state = f" {cause.sqlstate}" if isinstance(cause, asyncpg.PostgresError) else ""
    return type(cause).__name__ + state


def _cause(error: BaseException) -> BaseException:
    """Return what DatabaseUnavailable was raised for, or *error* itself."""
    return (isinstance(error, DatabaseUnavailable) and error.__cause__) or error


def as_unavailable(error: Exception, dsn: str) -> DatabaseUnavailable:
    """Return DatabaseUnavailable for *error*, or raise *error* itself if a call is wrong."""
    if not is_unavailable(error):
        raise error
    return DatabaseUnavailable(explain(error, dsn))


def explain(error: BaseException, dsn: str) -> str:
    """Return one line for people: what is wrong with the database at *dsn*, and what to do.

    It holds neither the password nor any value of a row.
    """
    at = read_address(dsn)
    if line := explain_tls(error, dsn, at):
        return line
    if isinstance(error, _PARAMETER_ERRORS) and error.severity_en == "FATAL":
        return _PARAMETER.format(at=at, said=_said_of_parameter(error))
    if isinstance(error, asyncpg.ClientConfigurationError):
        for parameter, values in _VALUES.items():
            if re.match(f"`?{parameter}\\b", str(error)):
                return _VALUE.format(parameter=parameter, values=values)
    for kinds, line in _LINES:
        if isinstance(error, kinds):
            return line.format(
                at=at,
                database=repr(at.database),
                user=f"user {at.user!r}" if at.user else "the user",
                said=_said(error) if isinstance(error, asyncpg.PostgresError) else "",
                why=_why_unreachable(error),
                limit=_connection_limit(error),
            )
    return _OTHER.format(at=at, kind=type(error).__name__)


# What a server answers to a parameter of the address that it cannot set.
_PARAMETER_ERRORS: Final = (
    asyncpg.UndefinedObjectError,  # 42704: it knows no such parameter
    asyncpg.CantChangeRuntimeParamError,  # 55P02: `ssl` of JDBC, for one
    asyncpg.InvalidParameterValueError,  # 22023
)
# The values of parameters that the driver checks.
_VALUES: Final = {
    "sslmode": "disable, allow, prefer, require, verify-ca, verify-full",
    "sslnegotiation": "postgres, direct",
    "target_session_attrs": "any, primary, standby, read-write, read-only, prefer-standby",
}


def _said_of_parameter(error: asyncpg.PostgresError) -> str:
    """Return the server's words, or the parameter alone where they quote its value."""
    if not isinstance(error, asyncpg.InvalidParameterValueError):
        return _said(error)
    named = re.search('"([A-Za-z0-9_.]+)"', str(error))
    return f"{named[1] if named else type(error).__name__}, {error.sqlstate}"


# Where in PostgreSQL's source the limit was found to be reached; its words may be translated.
_CONNECTION_LIMITS: Final = {
    "InitializeSessionUserId": "the CONNECTION LIMIT of its user (ALTER ROLE)",
    "CheckMyDatabase": "the CONNECTION LIMIT of the database (ALTER DATABASE)",
}


def _connection_limit(error: BaseException) -> str:
    """Return the name of the limit that left no connection."""
    found_in = getattr(error, "server_source_function", None) or ""
    return _CONNECTION_LIMITS.get(found_in, "its max_connections")


def _said(error: asyncpg.PostgresError) -> str:
    """Return the server's first line and its code; neither DETAIL nor what may quote a value."""
    code = error.sqlstate or "no code"
    if code.startswith("22"):  # data exceptions quote the data
        return f"{type(error).__name__}, {code}"
    return f"{error.args[0] if error.args else type(error).__name__}, {code}"


def _why_unreachable(error: BaseException) -> str:
    for kind, why in (
        (TimeoutError, "timed out"),
        (ConnectionRefusedError, "connection refused"),
        (FileNotFoundError, "no such socket"),
        (socket.gaierror, "unknown host name"),
    ):
        if isinstance(error, kind):
            return why
    if isinstance(error, ssl.SSLError):
        return error.reason or "no reason given"
    return getattr(error, "strerror", None) or "the connection broke"


# Of X509_V_ERR_*: the certificate names another host, or another address.
_OTHER_NAME: Final = (62, 64)


def explain_tls(error: BaseException, dsn: str, at: Address) -> str | None:
    """Return the line if *error* is an error of TLS, else None."""
    match error:
        case ssl.SSLCertVerificationError(verify_code=code) if code in _OTHER_NAME:
            return _OTHER_HOST.format(at=at)
        case ssl.SSLCertVerificationError(verify_message=why):
            return _NOT_TRUSTED.format(at=at, why=why)
        case asyncpg.ClientConfigurationError() if "root certificate file" in str(error):
            return _NO_AUTHORITY
        case ssl.SSLError(reason="NO_CERTIFICATE_OR_CRL_FOUND") | FileNotFoundError() if (
            file := _authority(dsn)
        ) and (isinstance(error, ssl.SSLError) or not Path(file).exists()):
            return _NO_CERTIFICATE.format(file=file)
        case ConnectionError() if "rejected SSL upgrade" in str(error):
            return _NO_TLS.format(at=at)
        case _:
            return None


def _authority(dsn: str) -> str | None:
    try:
        return parse_qs(urlsplit(dsn).query).get("sslrootcert", [None])[-1]
    except ValueError:
        return None
