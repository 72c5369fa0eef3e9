"""A connection for a command, wherever the settings say the database is."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg

from dispatcher.cli.errors import CommandError
from dispatcher.cli.settings import read_settings
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.database import connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS, explain
from dispatcher.postgres.programs import EmbeddedError
from dispatcher.postgres.server import embedded_server, running_server
from dispatcher.settings import Settings

Result = TypeVar("Result")

_TROUBLE: tuple[type[Exception], ...] = (
    *UNAVAILABLE_ERRORS,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


def with_database(work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Return what *work* does with a connection; every trouble of the database is a Failure."""
    with database_address(read_settings()) as dsn:
        return asyncio.run(connected(dsn, work))


@contextmanager
def database_address(settings: Settings, *, make: bool = False) -> Iterator[str]:
    """Give the address of the database, the one past PgBouncer if there is one.

    Without any it is that of the embedded PostgreSQL: the one that runs, or else one that is
    started for this command. Only with *make* it may be a new one.
    """
    address = settings.database_direct_url or settings.database_url
    if address is not None:
        yield address.get_secret_value()
        return
    if not make and not settings.data_dir.exists():
        raise CommandError(
            f"there is no database yet: set DISPATCHER_DATABASE_URL, or begin with `dispatcher"
            f" migrate`, which makes one in {settings.data_dir}."
        )
    try:
        if running := running_server(settings.data_dir):
            yield running
        else:
            with embedded_server(settings.data_dir) as dsn:
                yield dsn
    except EmbeddedError as error:
        raise CommandError(str(error)) from error


@contextmanager
def explained(dsn: str) -> Iterator[None]:
    """Turn the troubles of the database at *dsn* into a Failure of one line."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise CommandError(str(error)) from error
    except _TROUBLE as error:
        raise CommandError(explain(error, dsn)) from error


async def connected(dsn: str, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Return what *work* does with a connection to *dsn*; trouble is a Failure."""
    with explained(dsn):
        try:
            connection = await connect(dsn)
        except ValueError as error:  # an address that is none
            raise CommandError(explain(error, dsn)) from None
        try:
            return await work(connection)
        finally:
            await connection.close(timeout=5)
