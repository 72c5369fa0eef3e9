"""One transaction, or one statement, on a pooled connection, for no longer than its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncpg

from dispatcher.db.errors import AWAY
from dispatcher.db.pool import Connection, Pool
from dispatcher.db.statements import sql

PATIENCE: Final = 5.0  # seconds for one transaction, connecting included
MOST_PATIENCE: Final = 60.0


@asynccontextmanager
async def transaction(pool: Pool, *, seconds: float = PATIENCE) -> AsyncIterator[Connection]:
    """Give a connection in a transaction; after *seconds* it is cut, whatever it does."""
    async with borrowed(pool, seconds=seconds) as connection, _begun(connection):
        yield connection


@asynccontextmanager
async def _begun(connection: Connection) -> AsyncIterator[None]:
    """Begin a transaction and commit it; roll it back where the server has refused something.

    After any other error `borrowed` drops the connection, which is a ROLLBACK too. Not asyncpg's
    own `transaction`: it cannot say how long a client may be silent without one more round trip.
    """
    await connection.execute(sql("begin"))
    try:
        yield
    except (asyncpg.PostgresConnectionError, asyncpg.IdleInTransactionSessionTimeoutError):
        raise
    except asyncpg.PostgresError:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


@asynccontextmanager
async def borrowed(pool: Pool, *, seconds: float = PATIENCE) -> AsyncIterator[Connection]:
    """Give a connection for one statement, which is a transaction by itself; cut as above.

    A frozen server answers nothing: not the statement, not its cancellation, not ROLLBACK, and
    the driver would wait for each of them in turn. So the connection is dropped, and the caller
    sees one of AWAY. The other connections of the pool may lead to the same frozen server: the
    next use of each connects anew. Whether the transaction was committed is then unknown.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    try:
        connection = await pool.acquire(timeout=seconds)
        try:
            cut = loop.call_at(end, connection.terminate)
            try:
                yield connection
            except asyncpg.PostgresError:
                raise
            except AttributeError as error:
                # What asyncpg stumbles over when a connection goes between two of its steps.
                if not _is_gone(connection):
                    raise
                raise asyncpg.ConnectionDoesNotExistError("the connection went away") from error
            except BaseException:
                # Somebody stopped waiting in the middle of a statement. Asked for ROLLBACK then,
                # the connection may refuse, and that would hide that the task was cancelled.
                with suppress(asyncpg.InterfaceError):  # it was cut already
                    connection.terminate()
                raise
            finally:
                cut.cancel()
        finally:
            # asyncpg asks a connection to reset itself; a cut one is just forgotten.
            await pool.release(connection, timeout=max(0.1, end - loop.time()))
    except AWAY:
        await pool.expire_connections()
        raise


def _is_gone(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # it has been taken out of the pool
        return True


class Patience:
    """How long the next transaction may take: longer after each that was cut, up to a minute.

    A frozen server is to be left within seconds, and a slow one is not to be cut for ever.
    """

    def __init__(self, shortest: float = PATIENCE, longest: float = MOST_PATIENCE) -> None:
        self._shortest = shortest
        self._longest = longest
        self.seconds = shortest

    def passed(self) -> None:
        """Note that a transaction came through."""
        self.seconds = self._shortest

    def failed(self) -> None:
        """Note that one did not."""
        self.seconds = min(self.seconds * 2, self._longest)
