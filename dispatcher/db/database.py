"""Connections to PostgreSQL: one pool, one error if it is unavailable, fail-over between hosts."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg

from dispatcher.core.errors import DatabaseUnavailable, StatementRefused
from dispatcher.db.dsn import FileAddress, driver_address, read_address
from dispatcher.db.errors import UNAVAILABLE_ERRORS, explain, is_unavailable
from dispatcher.db.queries import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HOST_TIMEOUT_SECONDS: Final = 1.0  # one of several hosts: a frozen one must not hide the others
ONLY_HOST_TIMEOUT_SECONDS: Final = 10.0  # the only host: there is nothing else to try
CLOSE_TIMEOUT_SECONDS: Final = 2.0  # to close the connections of a pool
STATEMENT_CACHE_SIZE: Final = 100  # statements kept prepared in each connection
TRANSACTION_TIMEOUT_SECONDS: Final = 5.0  # for one transaction, connecting included
MAX_TIMEOUT_SECONDS: Final = 60.0  # of AdaptiveTimeout
COMMAND_TIMEOUT_SECONDS: Final = 60.0  # a frozen host would hold a statement for ever

# A host that loses its power or its cable closes no connection, and PostgreSQL would keep its
# sessions, and the locks they hold, for the two hours that Linux waits. With these it probes after
# 10 seconds of silence, and ends the session after 25. As a statement, because PgBouncer accepts
# none of these when a session begins.
KEEPALIVE_SQL: Final = """
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '25s'
"""

SAME_ON_EACH_HOST: Final = (  # errors after which no other host is tried
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)

# Strings, because only the stubs of asyncpg know these types as generic.
Pool: TypeAlias = "asyncpg.Pool[Any]"
OwnConnection: TypeAlias = "asyncpg.Connection[Any]"
Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"
OnInit: TypeAlias = "Callable[[OwnConnection], Coroutine[Any, Any, None]]"


class FailoverConnector:
    """Connects to the hosts of an address, one at a time, the last good one first.

    asyncpg tries the hosts in turn too, but waits for a frozen one until the time-out of all of
    them has passed, and so never tries the second.
    """

    def __init__(self, dsn: str, *, host_timeout: float = HOST_TIMEOUT_SECONDS) -> None:
        self._dsn = dsn
        address = read_address(dsn)
        self._hosts = list(address.hosts)
        # Of several hosts we want the one that takes writes, unless the address says otherwise.
        self._target = address.target or "read-write"
        self._host_timeout = host_timeout

    def __repr__(self) -> str:
        return f"FailoverConnector({read_address(self._dsn)})"  # the dsn itself holds the password

    async def __call__(self, *_: object, **options: Any) -> OwnConnection:  # noqa: ANN401 - asyncpg's own options, handed through
        """Connect; *options* are those of `asyncpg.connect`.

        Raises the error of the last host if none will do, and at once an error that is the same
        on each host (a wrong password, a missing database).
        """
        if len(self._hosts) < 2:  # noqa: PLR2004 - one or none: no turn to take
            timeout = max(ONLY_HOST_TIMEOUT_SECONDS, self._host_timeout)
            return await self._try(timeout=timeout, **options)
        errors: list[Exception] = []
        for host, port in tuple(self._hosts):
            try:
                connection = await self._try(
                    host=host,
                    port=port,
                    timeout=self._host_timeout,
                    target_session_attrs=self._target,
                    **options,
                )
            except SAME_ON_EACH_HOST:
                raise
            except UNAVAILABLE_ERRORS as error:
                errors.append(error)
            else:
                self._hosts.remove((host, port))
                self._hosts.insert(0, (host, port))
                return connection
        raise errors[-1]

    async def _open(self, **options: Any) -> OwnConnection:  # noqa: ANN401 - as above
        """Connect; with a password that was rotated in the file of the address, if it has one."""
        try:
            connection: OwnConnection = await asyncpg.connect(driver_address(self._dsn), **options)
        except asyncpg.InvalidPasswordError:
            rotated = self._dsn.read_again() if isinstance(self._dsn, FileAddress) else None
            if rotated is None:
                raise
            connection = await asyncpg.connect(driver_address(rotated), **options)
            self._dsn = rotated
        return connection

    async def _try(self, **options: Any) -> OwnConnection:  # noqa: ANN401 - as above
        connection = await self._open(**options)
        try:
            await connection.execute(KEEPALIVE_SQL, timeout=options["timeout"])
        except BaseException:
            connection.terminate()
            raise
        return connection


class OneLineFilter(logging.Filter):
    """Shortens to one line what asyncpg's pool logs with a traceback at each failed reconnect."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten *record*; none is dropped."""
        if record.exc_info and (error := record.exc_info[1]) is not None:
            record.msg = "%s: %s"
            record.args = ("a connection to the database cannot be restored", explain(error, ""))
            record.exc_info = None
        return True


_ONE_LINE: Final = OneLineFilter()  # one object, so that adding it twice adds it once


async def connect(
    dsn: str, *, application_name: str = "dispatcher", command_timeout: float | None = None
) -> OwnConnection:
    """Open one connection to the first host of *dsn* that will do (LISTEN, migrations)."""
    return await FailoverConnector(dsn)(
        server_settings={"application_name": application_name}, command_timeout=command_timeout
    )


async def _no_reset(_: "OwnConnection") -> None:
    """Leave a released connection as it is: no session is changed in this program.

    asyncpg would make the server reset it, one more round trip for each transaction. An open
    transaction is rolled back all the same.
    """


async def create_pool(
    dsn: str,
    *,
    min_size: int = 1,
    max_size: int = 8,
    statement_cache: int = STATEMENT_CACHE_SIZE,
    application_name: str = "dispatcher",
    command_timeout: float | None = COMMAND_TIMEOUT_SECONDS,
    host_timeout: float = HOST_TIMEOUT_SECONDS,
    on_init: "OnInit | None" = None,
) -> Pool:
    """Open a pool on *dsn*; *on_init* is called with every new connection.

    *statement_cache* must be 0 behind a PgBouncer in transaction mode older than 1.21. Only
    application_name is set for the session, because PgBouncer refuses anything else.
    Raises what `dispatcher.db.errors.explain` turns into a line.
    """
    logging.getLogger("asyncpg.pool").addFilter(_ONE_LINE)
    return await asyncpg.create_pool(
        dsn,
        connect=FailoverConnector(dsn, host_timeout=host_timeout),
        min_size=min_size,
        max_size=max_size,
        statement_cache_size=statement_cache,
        command_timeout=command_timeout,
        server_settings={"application_name": application_name},
        init=on_init,
        reset=_no_reset,
    )


class Database:
    """A pool of connections to one database, whose absence raises one error.

    `transaction` and `acquire` raise `DatabaseUnavailable` if the database cannot be used now.
    Other errors of asyncpg are raised unchanged: a statement or its values are wrong.
    """

    def __init__(self, dsn: str, pool: Pool, *, retry_refusals: bool = False) -> None:
        """Use *pool*, which was made for *dsn*.

        With *retry_refusals*, each error of the server raises `StatementRefused`: a missing table
        is temporary too, until an operator corrects it.
        """
        self.dsn = dsn
        self.pool = pool
        self._retry_refusals = retry_refusals
        self._caught: tuple[type[Exception], ...] = UNAVAILABLE_ERRORS
        if retry_refusals:
            self._caught = (*UNAVAILABLE_ERRORS, asyncpg.PostgresError)

    def __repr__(self) -> str:
        return f"Database({read_address(self.dsn)})"  # the dsn itself holds the password

    @asynccontextmanager
    async def transaction(
        self, *, seconds: float = TRANSACTION_TIMEOUT_SECONDS, lock_timeout: str | None = None
    ) -> AsyncIterator[Connection]:
        """Give a connection in a transaction; cut it after *seconds*.

        A statement waits for a lock as long as *lock_timeout*, by default for 4 seconds. Raises
        DatabaseUnavailable: see `acquire`.
        """
        async with self.acquire(seconds=seconds) as connection, _transaction(connection):
            if lock_timeout is not None:
                await connection.execute(sql("lock_timeout"), lock_timeout)
            yield connection

    @asynccontextmanager
    async def acquire(
        self, *, seconds: float = TRANSACTION_TIMEOUT_SECONDS
    ) -> AsyncIterator[Connection]:
        """Give a connection for one statement, which is a transaction by itself; cut as above.

        A frozen server answers nothing: not the statement, not its cancellation, not ROLLBACK, and
        the driver would wait for each of them in turn. So the connection is dropped. The other
        connections of the pool may lead to the same frozen server: the next use of each connects
        anew.

        Raises:
            DatabaseUnavailable: the database cannot be used now. Whether the transaction was
                committed is then unknown.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            connection = await self._connect(seconds)
            try:
                cut = loop.call_at(end, connection.terminate)
                try:
                    yield connection
                except asyncpg.PostgresError:
                    raise
                except AttributeError as error:
                    # asyncpg raises it if a connection is lost between two of its steps.
                    if not _is_gone(connection):
                        raise
                    raise asyncpg.ConnectionDoesNotExistError("the connection went away") from error
                except BaseException:
                    # The task was cancelled in the middle of a statement. A ROLLBACK may be
                    # refused then, and that error would hide the cancellation.
                    with suppress(asyncpg.InterfaceError):  # it was cut already
                        connection.terminate()
                    raise
                finally:
                    cut.cancel()
            finally:
                # asyncpg resets a connection on release; one that was cut is only forgotten.
                await self.pool.release(connection, timeout=max(0.1, end - loop.time()))
        except self._caught as error:
            if isinstance(error, UNAVAILABLE_ERRORS):
                await self.pool.expire_connections()
            if is_unavailable(error):
                raise DatabaseUnavailable(explain(error, self.dsn)) from error
            if not self._retry_refusals:
                raise
            raise StatementRefused(explain(error, self.dsn)) from error

    async def _connect(self, seconds: float) -> "asyncpg.pool.PoolConnectionProxy[Any]":
        """Return a connection of the pool.

        Raises DatabaseUnavailable for any refusal of the server: none of them is the mistake of a
        statement, and each may be gone a moment later.
        """
        try:
            return await self.pool.acquire(timeout=seconds)
        except (asyncpg.PostgresError, asyncpg.ClientConfigurationError) as error:
            if isinstance(error, UNAVAILABLE_ERRORS):
                await self.pool.expire_connections()
            raise DatabaseUnavailable(explain(error, self.dsn)) from error


@asynccontextmanager
async def open_database(
    dsn: str,
    *,
    min_size: int = 0,
    max_size: int,
    statement_cache: int = STATEMENT_CACHE_SIZE,
    retry_refusals: bool = False,
) -> AsyncIterator[Database]:
    """Open a `Database` on *dsn*, and close it within seconds, even if the server is frozen."""
    pool = await create_pool(
        dsn, min_size=min_size, max_size=max_size, statement_cache=statement_cache
    )
    try:
        yield Database(dsn, pool, retry_refusals=retry_refusals)
    finally:
        # A close that is cut off, or meets a broken connection, terminates all of them.
        with suppress(*UNAVAILABLE_ERRORS):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await pool.close()


@asynccontextmanager
async def _transaction(connection: Connection) -> AsyncIterator[None]:
    """Begin a transaction and commit it; roll it back if the server refuses a statement.

    After any other error `Database.acquire` drops the connection, which is a ROLLBACK too. Not
    asyncpg's own `transaction`: it cannot say how long a client may be silent without one more
    round trip.
    """
    await connection.execute(sql("begin"))
    try:
        yield
    except (
        asyncpg.PostgresConnectionError,
        asyncpg.IdleInTransactionSessionTimeoutError,
        asyncpg.TransactionTimeoutError,
    ):
        raise
    except asyncpg.PostgresError:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


def _is_gone(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # it has been taken out of the pool
        return True


# Errors for a value that can never be stored.
_UNSTORABLE: tuple[type[Exception], ...] = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.RaiseError,  # of a trigger of an application
    ValueError,
)


class UnstorableError(Exception):
    """The database refuses a value of what is to be stored, and would again."""


@asynccontextmanager
async def storing(database: Database, *, seconds: float) -> AsyncIterator[Connection]:
    """Give a connection to store what was pushed.

    Raises DatabaseUnavailable, or UnstorableError where the database refuses a value for ever.
    """
    try:
        async with database.acquire(seconds=seconds) as connection:
            yield connection
    except _UNSTORABLE as error:
        raise _unstorable(error) from error
    except DatabaseUnavailable as error:
        refused = error.__cause__
        if isinstance(refused, _UNSTORABLE) and not isinstance(refused, OSError):
            raise _unstorable(refused) from refused
        raise


def _unstorable(error: BaseException) -> UnstorableError:
    return UnstorableError(f"The database refuses it: {type(error).__name__}.")


class AdaptiveTimeout:
    """The time-out of the next transaction: doubled after each that was cut, up to a minute.

    So a frozen server is left within seconds, and a slow one is not cut for ever.
    """

    def __init__(
        self, shortest: float = TRANSACTION_TIMEOUT_SECONDS, longest: float = MAX_TIMEOUT_SECONDS
    ) -> None:
        self._shortest = shortest
        self._longest = longest
        self.seconds = shortest

    def passed(self) -> None:
        """Note that a transaction was committed."""
        self.seconds = self._shortest

    def failed(self) -> None:
        """Note that one did not."""
        self.seconds = min(self.seconds * 2, self._longest)
