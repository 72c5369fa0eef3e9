"""Hears of urgent messages. Only a hint: polling finds everything, a little later."""

import asyncio
from collections.abc import Awaitable, Callable

from dispatcher.db.errors import AWAY
from dispatcher.db.pool import OwnConnection

CHANNEL = "dispatcher_urgent"
ALIVE_EVERY = 15.0  # seconds between questions whether the connection still lives
RETRY = 1.0  # seconds until the next try to connect


async def listen_urgent(
    connect: Callable[[], Awaitable[OwnConnection]], urgent: Callable[[str], None]
) -> None:
    """Call *urgent* with the app of every notification, for ever; connects again by itself."""
    while True:
        try:
            connection = await connect()
        except AWAY:
            await asyncio.sleep(RETRY)
            continue
        lost = asyncio.Event()

        def heard(_: object, __: int, ___: str, app: object) -> None:
            urgent(str(app))

        try:
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            await connection.add_listener(CHANNEL, heard)
            while not lost.is_set():
                try:
                    async with asyncio.timeout(ALIVE_EVERY):
                        await lost.wait()
                except TimeoutError:
                    # A host that vanished closes nothing: ask.
                    await connection.execute("SELECT 1", timeout=ALIVE_EVERY)
        except AWAY:
            await asyncio.sleep(RETRY)
        finally:
            connection.terminate()
