"""What dead workers left open becomes unsure; what is unsure is settled where policy allows it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

log = structlog.get_logger(__name__)

Counted = tuple[int, int]  # batches, messages
Act = Callable[[], Awaitable[Counted | str]]  # a string: why it could not be done now


class Rounds(Struct, frozen=True):
    """What a round of the rescue does; each is safe to repeat, and for many workers at once."""

    rescue: Act
    resend: Act
    release_unsent: Act


async def run_rescue(rounds: Rounds, *, every: float, stop: asyncio.Event) -> None:
    """Do a round every *every* seconds until *stop*; what cannot be done now waits for the next."""
    while not stop.is_set():
        for event, act in (
            ("batches of dead workers marked unsure", rounds.rescue),
            ("unsure batches sent again by policy", rounds.resend),
            ("batches of a lost claim put back", rounds.release_unsent),
        ):
            match await act():
                case str() as why:
                    log.warning("no rescue: the database is away", why=why)
                    break
                case batches, messages:
                    if batches:
                        log.warning(event, batches=batches, messages=messages)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                await stop.wait()
