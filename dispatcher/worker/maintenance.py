"""Maintains the tables: makes partitions ahead of need, and drops history in bounded steps."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import monotonic
from typing import Final

import structlog

from dispatcher.db import maintenance
from dispatcher.db.database import Database, open_database
from dispatcher.db.loop import FailingParts, attempt, run_every, wait_for_event
from dispatcher.db.rules import forget_used
from dispatcher.settings import Settings

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 60.0  # 20 million ids ahead last for an hour at 5,000 messages/s

# Times as long as a step took. With half of the time, dropping left `send` 0.76 of its rate on two
# cores; a quarter of it still drops some thirty million messages an hour.
REST_RATIO: Final = 3.0

TURN_SECONDS: Final = 20.0  # of one kind of step, rests included, until the next kind has its turn

Step = Callable[[], Awaitable[int]]  # returns how much it did; 0: nothing is left to do


async def run_maintenance(
    settings: Settings, dsn: str, stop: asyncio.Event, failing: FailingParts
) -> None:
    """Maintain the tables until *stop*, over a separate connection: steps take seconds."""
    async with open_database(
        dsn, max_size=1, statement_cache=settings.statement_cache, retry_refusals=True
    ) as database:
        steps = _steps(settings, database)
        await run_every(
            INTERVAL_SECONDS,
            stop,
            partial(maintain, steps, stop, failing),
            unavailable="no maintenance: the database is away",
        )


def _steps(settings: Settings, database: Database) -> dict[str, Step]:
    """Return the steps that *settings* ask for, by the event that is logged for each."""
    steps: dict[str, Step] = {
        "partitions made": partial(maintenance.make_partitions, database),
        "indexes of full partitions made": partial(maintenance.index_full_partitions, database),
        "numbers of yesterday forgotten": partial(forget_used, database),
        "campaigns paused, with too many failures": partial(maintenance.stop_campaigns, database),
        "messages of cancelled campaigns cancelled": partial(
            maintenance.cancel_campaigns, database
        ),
        "counters added to those by hour": partial(maintenance.roll_up_counts, database),
        "uploads of yesterday deleted": partial(maintenance.drop_uploads, database),
        "apps paused, far over their usual": partial(
            maintenance.brake_spikes,
            database,
            {name: app.spike_factor for name, app in settings.apps.items() if app.spike_factor},
        ),
        "messages of campaigns moved": partial(maintenance.move_campaigns, database),
        "steps of actions on many messages": partial(maintenance.continue_actions, database),
    }
    if (after := settings.wipe_params_after) is not None:
        steps["variables looked at, to be wiped"] = partial(
            maintenance.wipe_params, database, after
        )
    if (retention := settings.retention) is not None:
        steps |= {
            "a new partition begun": partial(
                maintenance.start_partition_early, database, retention
            ),
            "steps of dropping what is over": partial(maintenance.drop_old, database, retention),
            "old rows deleted": partial(maintenance.prune, database, retention),
        }
    return steps


async def maintain(
    steps: Mapping[str, Step], stop: asyncio.Event, failing: FailingParts | None = None
) -> bool:
    """Repeat each of *steps* until it has nothing left to do, or until *stop*.

    None is repeated for over TURN_SECONDS: a long one must not keep the others waiting, as the
    partitions. Returns whether one of them has more to do.

    After each call it rests for REST_RATIO times as long as the call took. A step for which the
    database is unavailable, or which it refuses, does not keep the others from being tried.
    """
    more_to_do = False
    for event, step in steps.items():
        done = 0
        turn_ends = monotonic() + TURN_SECONDS
        while not stop.is_set():
            began = monotonic()
            if began > turn_ends:
                more_to_do = True
                break
            more = await attempt(
                step,
                unavailable="no maintenance: the database is away",
                part=f"maintenance ({event})",
                failing=failing,
            )
            if not more:
                break
            done += more
            await wait_for_event(stop, REST_RATIO * (monotonic() - began))
        if done:
            log.info(event, count=done)
    return more_to_do
