"""What the keeping of a worker calls: its steps, as the settings want them."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from dispatcher.db import keeping
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.pool import pooled
from dispatcher.db.rules import forget_used
from dispatcher.keeping import Act, run_keeping
from dispatcher.settings import Settings

EVERY: Final = 60.0  # seconds: 20 million ids ahead last for an hour at 5,000 messages/s


async def upkeep(settings: Settings, dsn: str, stop: asyncio.Event) -> None:
    """Keep the tables in shape until *stop*, over a connection of its own: steps take seconds."""
    async with pooled(
        dsn, min_size=0, max_size=1, statement_cache=settings.statement_cache
    ) as pool:

        def named(act: Callable[[], Awaitable[int]]) -> Act:
            async def step() -> int | str:
                try:
                    with naming_absence(dsn):
                        return await act()
                except DatabaseAwayError as error:
                    return str(error)

            return step

        works = {
            "partitions made": named(partial(keeping.make_partitions, pool)),
            "indexes of full partitions made": named(partial(keeping.index_full_partitions, pool)),
            "numbers of yesterday forgotten": named(partial(forget_used, pool)),
        }
        if settings.wipe_params_after is not None:
            wipe = partial(keeping.wipe_params, pool, settings.wipe_params_after)
            works["variables looked at, to be wiped"] = named(wipe)
        if settings.retention is not None:
            for event, act in (
                ("a new partition begun", keeping.turn_page),
                ("steps of dropping what is over", keeping.drop_old),
                ("old rows deleted", keeping.prune),
            ):
                works[event] = named(partial(act, pool, settings.retention))
        await run_keeping(works, every=EVERY, stop=stop)
