"""A scene: one app with a provider of its own, and three messages that went into one request."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import asyncpg

from dispatcher.simulator import Simulator

# The one in the middle is the one that a fault means, where it means one; the others are its
# neighbours in the same request.
NUMBERS = ("+8613800000001", "+8613800000002", "+8613800000003")
PARAMS = ("first", "bad", "last")


@dataclass
class Scene:
    """One app and its provider: three messages that went into one request."""

    app: str
    sim: Simulator
    db: asyncpg.Connection

    async def rows(self) -> list[asyncpg.Record]:
        """The states of the three messages, in order."""
        return await self.db.fetch(
            "SELECT * FROM dispatcher.message_status WHERE app = $1 ORDER BY id", self.app
        )

    async def states(self) -> tuple[str, ...]:
        """Their states."""
        return tuple(row["state"] for row in await self.rows())

    async def pause(self) -> asyncpg.Record | None:
        """Return the row of the app if it is paused."""
        return await self.db.fetchrow(
            "SELECT * FROM dispatcher.app WHERE name = $1 AND paused_at IS NOT NULL", self.app
        )

    async def went_together(self) -> bool:
        """Tell whether the first request held all three."""
        return await self.db.fetchval(
            "SELECT cardinality(message_ids) = 3 FROM dispatcher.batch"
            " WHERE app = $1 ORDER BY id LIMIT 1",
            self.app,
        )

    @property
    def accepted(self) -> tuple[int, ...]:
        """How often the ledger has each of the three."""
        counts = self.sim.ledger.counts()
        return tuple(counts[number] for number in NUMBERS)


Play = Callable[..., Awaitable[Mapping[str, Scene]]]


async def quiet(db: asyncpg.Connection) -> bool:
    """Tell whether every app has had a request, and has nothing on its way or to do now."""
    return await db.fetchval(
        "SELECT NOT EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')"
        " AND NOT EXISTS ("
        "  SELECT FROM (SELECT app, due_at FROM dispatcher.queue UNION ALL"
        "    SELECT app, due_at FROM dispatcher.bulk) AS q JOIN dispatcher.app a ON a.name = q.app"
        "  WHERE q.due_at <= clock_timestamp() AND a.paused_at IS NULL)"
        " AND NOT EXISTS ("
        "  SELECT FROM dispatcher.app a"
        "  WHERE NOT EXISTS (SELECT FROM dispatcher.batch b WHERE b.app = a.name))"
    )
