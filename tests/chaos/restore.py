"""A backup of the database is restored while the storm goes on, and an operator does what he must.

The backup is made as if two days had passed since: workers know that it is old, those that run by
their last heartbeat, those that start by the newest one. So they pause what waits in it. The
operator cancels what the provider has accepted (operations.md, After a restore), and resumes.
"""

import asyncio
import time
from collections import Counter
from time import monotonic

import asyncpg
from support.exactness import Text, accepted_texts, text_of

from chaos.aim import FAULT_OF, RESTORE
from chaos.application import Application, Cancel
from chaos.database import Database, Server
from chaos.matrix import Period
from chaos.workers import LEASE, TIMEOUT, Blow, Fleet
from dispatcher.simulator import Simulator

AGE = 2 * 86_400.0  # seconds of the backup: a worker that was stopped may be away for a day
PAUSED = 60.0  # seconds until the apps must be paused, on a busy machine
LOOK = 0.2
# What workers claimed before is withheld after a lease; its last requests are answered then.
OVER = LEASE + TIMEOUT

WAITING = """
    SELECT w.id, m.app, m.recipient, m.template_id, m.params
    FROM (
        SELECT id FROM dispatcher.queue
        UNION ALL
        SELECT generate_series(lower(r), upper(r) - 1)
        FROM (SELECT unnest(ids) AS r FROM dispatcher.bulk) AS b
    ) AS w JOIN dispatcher.message m USING (id)
    WHERE w.id <= $1
"""
NOT_PAUSED = f"""
    SELECT DISTINCT w.app FROM ({WAITING}) AS w JOIN dispatcher.app a ON a.name = w.app
    WHERE a.paused_by IS DISTINCT FROM 'operator'
"""


class Restorer:
    """Takes backups, restores them, and cleans up after it."""

    def __init__(
        self, server: Server, fleet: Fleet, application: Application, simulator: Simulator
    ) -> None:
        self.problems: list[str] = []
        self.blows: list[Blow] = []
        self.forgotten: frozenset[Text] = frozenset()  # accepted before the last restore was over
        self.done: Counter[str] = Counter()
        self.periods: list[Period] = []  # from a restore until the operator has resumed
        self._server = server
        self._fleet = fleet
        self._application = application
        self._simulator = simulator
        self._base = Database(server.dsn)
        self._inserted: set[int] = set()  # when the backup was made
        self._cancels: list[Cancel] = []

    async def back_up(self) -> None:
        """Make a backup."""
        async with self._application.working:
            await self._server.order("backup")
            memory = self._application.memory
            self._inserted, self._cancels = set(memory.inserted), list(memory.cancels)

    async def restore(self) -> None:
        """Restore the backup; see that what waits is paused, cancel what was sent, and resume."""
        began = monotonic()
        async with self._application.working:
            await self._server.order(f"restore {AGE}")
            self._fleet.forget()
            self._application.go_back(self._inserted, self._cancels)
            newest = await self._ask("SELECT coalesce(max(id), 0) FROM dispatcher.message")
            lost = self._inserted - {
                row["id"] for row in await self._rows("SELECT id FROM dispatcher.message")
            }
            if lost:
                self.problems.append(f"{len(lost)} messages are not in the backup")
        await self._wait_for_pause(newest)
        await asyncio.sleep(OVER)
        await self._cancel_what_was_sent(newest)
        for row in await self._rows("SELECT name FROM dispatcher.app WHERE paused_by = 'operator'"):
            await self._ask("SELECT dispatcher.resume($1)", row["name"])
        self.done[RESTORE] += 1
        self.periods.append(Period(FAULT_OF[RESTORE], began, monotonic()))
        # Requests that the backup has open are older than they were, and nobody answers them.
        self.blows.append(Blow(None, 0.0, time.time()))

    async def _wait_for_pause(self, newest: int) -> None:
        deadline = monotonic() + PAUSED
        while left := await self._rows(NOT_PAUSED, newest):
            if monotonic() > deadline:
                apps = ", ".join(row["app"] for row in left)
                self.problems.append(f"no worker paused {apps} in a restored backup")
                return
            await asyncio.sleep(LOOK)

    async def _cancel_what_was_sent(self, newest: int) -> None:
        self.forgotten |= accepted_texts(self._simulator.ledger.rows())
        waiting = await self._rows(WAITING, newest)
        sent = [row["id"] for row in waiting if text_of(row) in self.forgotten]
        await self._ask("SELECT dispatcher.cancel($1)", sent)
        self.done["operator: cancelled what was sent"] += len(sent)
        memory = self._application.memory
        memory.cancels = [each for each in memory.cancels if not {*each.ids}.intersection(sent)]

    async def _rows(self, query: str, *values: object) -> list[asyncpg.Record]:
        while True:  # the database may be away
            rows = await self._base.ask(lambda db: db.fetch(query, *values))
            if rows is not None:
                return rows
            await asyncio.sleep(LOOK)

    async def _ask(self, query: str, *values: object) -> int:
        return (await self._rows(query, *values))[0][0]
