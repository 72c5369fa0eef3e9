"""A database whose transactions a machine that stands still for seconds does not end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, Connection, Database

PATIENCE = 60.0  # seconds for a transaction for which a caller names no other time


class PatientDatabase(Database):
    """Cuts no transaction after 5 seconds, as a worker must; nor does PostgreSQL."""

    @asynccontextmanager
    async def acquire(self, *, seconds: float = PATIENCE) -> AsyncIterator[Connection]:
        """Give a connection, as `Database` does."""
        if seconds == TRANSACTION_TIMEOUT_SECONDS:  # which most callers pass on
            seconds = PATIENCE
        async with super().acquire(seconds=seconds) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(
        self, *, seconds: float = PATIENCE, lock_timeout: str | None = None
    ) -> AsyncIterator[Connection]:
        """Give a connection in a transaction, as `Database` does."""
        async with super().transaction(seconds=seconds, lock_timeout=lock_timeout) as connection:
            await connection.execute(
                f"SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE}s'"
            )
            yield connection
