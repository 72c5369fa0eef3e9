"""What the console and the metrics look up: cheap, whatever the number of messages."""

from dispatcher.core.overview import AppState, Overview, WorkerState
from dispatcher.db.pool import Connection
from dispatcher.db.statements import sql


async def now(connection: Connection) -> Overview:
    """Return the state of apps and workers; the totals are left out, for they cost more."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return Overview(
            [AppState(*row) for row in await connection.fetch(sql("status_apps"))],
            [WorkerState(*row) for row in await connection.fetch(sql("status_workers"))],
            [],
        )
