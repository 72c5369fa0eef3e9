"""Recovers batches: those that dead workers left open, and those that are unsure.

A batch that a dead worker left open becomes unsure. An unsure batch is sent again where the
policy of its app allows that.
"""

import asyncio

import structlog

from dispatcher.db import workers
from dispatcher.db.database import Database
from dispatcher.db.loop import FailingParts, attempt, wait_for_event
from dispatcher.worker.in_flight import InFlight

log = structlog.get_logger(__name__)


async def run_recovery(
    database: Database,
    worker: int,
    in_flight: InFlight,
    *,
    interval: float,
    stop: asyncio.Event,
    failing: FailingParts,
) -> None:
    """Recover batches every *interval* seconds until *stop*.

    Each step is safe to repeat, and for many workers at once. One that fails does not keep the
    others from being tried.
    """

    async def rescue() -> None:
        _log("batches of dead workers marked unsure", await workers.rescue(database, worker))

    async def resend() -> None:
        _log("unsure batches sent again by policy", await workers.resend_unsure(database, worker))

    async def expire() -> None:
        if expired := await workers.expire(database):
            log.info("messages expired while they waited", messages=expired)

    async def release() -> None:
        _log(
            "batches of a lost claim put back",
            await workers.release_unsent(database, worker, in_flight.tokens, in_flight.unconfirmed),
        )

    steps = {
        "requests of dead workers": rescue,
        "unsure requests to be sent again": resend,
        "messages that expire": expire,
        "requests of lost claims": release,
    }
    while not stop.is_set():
        for name, step in steps.items():
            await attempt(
                step,
                unavailable="no recovery: the database is away",
                part=f"recovery ({name})",
                failing=failing,
            )
        await wait_for_event(stop, interval)


def _log(event: str, recovered: tuple[int, int]) -> None:
    batches, messages = recovered
    if batches:
        log.warning(event, batches=batches, messages=messages)
