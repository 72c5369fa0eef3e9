"""Settings and a database connection for commands; errors become a CommandError."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.language import _
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.database import connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS, explain, shown_line
from dispatcher.postgres.programs import EmbeddedError
from dispatcher.postgres.server import embedded_server, may_have_server, running_server
from dispatcher.settings import Part, Settings, SettingsError, load_settings

Result = TypeVar("Result")
CLOSE_SECONDS = 5.0  # for the goodbye of a connection

_DATABASE_ERRORS: tuple[type[Exception], ...] = (
    *UNAVAILABLE_ERRORS,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


def with_database(work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Return the result of *work* with a connection; raises CommandError for database errors."""
    with database_address(read_settings()) as dsn:
        return asyncio.run(connected(dsn, work))


@contextmanager
def database_address(settings: Settings, *, make: bool = False) -> Iterator[str]:
    """Give the address of the database, the direct one if PgBouncer is used.

    If none is set it is that of the embedded PostgreSQL: of the running server, or of one that is
    started for this command. *make* allows to create its data.
    """
    url = settings.database_direct_url or settings.database_url
    if url is not None:
        yield url.get_secret_value()
        return
    if not make and not may_have_server(settings.data_dir):
        raise CommandError(
            _(
                "there is no database yet: set DISPATCHER_DATABASE_URL, or begin with"
                " `dispatcher migrate`, which makes one in {data_dir}."
            ).format(data_dir=settings.data_dir)
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
    """Turn errors of the database at *dsn* into a CommandError of one line."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise CommandError(shown_line(str(error))) from error
    except _DATABASE_ERRORS as error:
        raise CommandError(shown_line(explain(error, dsn))) from error


async def connected(dsn: str, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Return the result of *work* with a connection to *dsn*; raises CommandError."""
    with explained(dsn):
        try:
            connection = await connect(dsn)
        except ValueError as error:  # an invalid address
            raise CommandError(shown_line(explain(error, dsn))) from None
        try:
            return await work(connection)
        finally:
            try:
                await connection.close(timeout=CLOSE_SECONDS)
            except TimeoutError:  # the work is done, or has failed with an error of its own
                connection.terminate()


def read_settings(parts: Collection[Part] = ()) -> Settings:
    """Return the settings of the environment for a process that does *parts*.

    Raises CommandError with every mistake in them.
    """
    try:
        return load_settings(os.environ, parts)
    except SettingsError as error:
        raise CommandError(*error.mistakes, code=USED_WRONGLY) from None
