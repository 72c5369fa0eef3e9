"""Behind the intake: reports are matched to messages, and events get their places in the feed."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from msgspec import Struct

log = structlog.get_logger(__name__)


class Matched(Protocol):
    """What one step of matching has done (see `db.matching.Step`)."""

    @property
    def settled(self) -> int:
        """Messages that were unsure, and are accepted."""

    @property
    def closed(self) -> int:
        """Batches of which nothing is unsure any more."""

    @property
    def unmatched(self) -> int:
        """Reports that belong to no message."""

    @property
    def more(self) -> bool:
        """Whether there is probably more to do at once."""


class Steps(Struct, frozen=True):
    """What a round does; each is safe to repeat, and for many processes at once.

    A string says why it could not be done now.
    """

    match: Callable[[], Awaitable[Matched | str]]
    place: Callable[[], Awaitable[int | str]]  # rows of the feed that got their place


async def run_reconcile(steps: Steps, *, every: float, stop: asyncio.Event) -> None:
    """Do a round every *every* seconds until *stop*, and the next at once while there is more."""
    while not stop.is_set():
        matched = await steps.match()
        placed = matched if isinstance(matched, str) else await steps.place()
        match matched, placed:
            case str() as why, _:
                log.warning("reports wait to be matched: the database is away", why=why)
            case _, str() as why:
                log.warning("events wait for their place: the database is away", why=why)
            case done, int():
                _say(done)
                if done.more:
                    continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                await stop.wait()


def _say(done: Matched) -> None:
    if done.settled:
        log.info("messages settled by reports", messages=done.settled, batches_closed=done.closed)
    if done.unmatched:
        log.warning("reports that belong to no message", reports=done.unmatched)
