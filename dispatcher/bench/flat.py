"""Whether `send` and the claim stay as fast, whatever lies around what is due."""

import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

from msgspec import Struct

from dispatcher.bench.results import Results, in_turn, percentile
from dispatcher.bench.send import APP, LOAD_TIMEOUT, Variant, send
from dispatcher.bench.stage import Stage, make_indexes, statement
from dispatcher.core.claim_cursor import ClaimCursor
from dispatcher.db.admin import resume
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.statements import sql

CLAIM = 500  # rows of one claim that is timed
CLAIMS = 100
VARIANT = Variant("send", 2)
WARM_UP = (
    20_000  # messages sent before each run: a worker's first look is at all that was ever taken
)
SEED_AT_ONCE = 500_000  # messages of one seeding statement


class Scene(Struct, frozen=True):
    """What lies around the messages that are sent."""

    name: str
    finished: int = 0  # messages with an outcome
    scheduled: int = 0  # messages for tomorrow
    due: int = 0  # messages besides, of a lower priority, that stay
    held: float = 0.0  # seconds that a snapshot was held under load before it is measured


def scenes(million: int, held: float) -> tuple[Scene, ...]:
    """Return all scenes, with *million* messages to a million."""
    return (
        Scene("fresh"),
        Scene("1 million finished", finished=million),
        Scene("10 million finished", finished=10 * million),
        Scene("1 million for tomorrow", scheduled=million),
        Scene("1 million due", due=million),
        Scene("a snapshot held", held=held),
    )


async def measure(
    stage: Stage,
    *,
    rounds: int,
    messages: int,
    million: int,
    held: float,
    say: Callable[[str], None],
) -> Results:
    """Measure each scene *rounds* times, in databases that stay and are sent to again and again."""
    results = Results(
        "flat",
        {"rounds": rounds, "messages": messages, "million": million, "snapshot held (s)": held},
    )
    async with stage.prepared(), AsyncExitStack() as stack:
        addresses = {}
        for scene in scenes(million, held):
            address = await stack.enter_async_context(stage.database())
            addresses[scene.name] = (scene, address)
            say(f"making: {scene.name}")
            await _seed(address, scene)
            if scene.held:
                await stack.enter_async_context(_snapshot(address))
                await _under_load(stage, address, scene.held, messages)
        for number in range(rounds):
            for name in in_turn(addresses, number):
                scene, address = addresses[name]
                rate = await _send(stage, address, messages, more=scene.due > 0)
                results.add(name, "messages per second", rate)
                took = await _claims(address)
                results.add(name, f"claim of {CLAIM}, median", statistics.median(took) * 1e3, "ms")
                results.add(name, f"claim of {CLAIM}, 99 %", percentile(took, 0.99) * 1e3, "ms")
                say(f"round {number + 1} of {rounds}: {name}: {rate:,.0f} messages/s")
    for name in addresses:
        if name != "fresh":
            results.compare("messages per second", name, "fresh")
    return results


async def _seed(address: str, scene: Scene) -> None:
    connection = await connect(address)
    try:
        await connection.execute("ALTER TABLE dispatcher.message DISABLE TRIGGER fill_queue")
        for first in range(0, scene.finished, SEED_AT_ONCE):
            many = min(SEED_AT_ONCE, scene.finished - first)
            await connection.execute(statement("make_partitions"), timeout=LOAD_TIMEOUT)
            await connection.execute(statement("load_finished"), many, timeout=LOAD_TIMEOUT)
        await connection.execute("ALTER TABLE dispatcher.message ENABLE TRIGGER fill_queue")
        # What was done long ago where there is such a history, and once.
        await make_indexes(connection)
        await connection.execute("VACUUM (ANALYZE)", timeout=LOAD_TIMEOUT)
        for many, priority, due_in in ((scene.scheduled, 5, 86_400.0), (scene.due, 9, 0.0)):
            if many:
                await connection.execute(
                    statement("load_messages"), many, True, priority, due_in, timeout=LOAD_TIMEOUT
                )
    finally:
        await connection.close()


@asynccontextmanager
async def _snapshot(address: str) -> AsyncIterator[None]:
    """Hold a snapshot, as a long report or a forgotten session would."""
    connection = await connect(address)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT FROM dispatcher.queue LIMIT 1")
        yield
    finally:
        await connection.close()


async def _under_load(stage: Stage, address: str, seconds: float, messages: int) -> None:
    end = monotonic() + seconds
    while monotonic() < end:
        await _send(stage, address, messages)


async def _send(stage: Stage, address: str, messages: int, *, more: bool = False) -> float:
    connection = await connect(address)
    try:
        sample = await send(
            stage, address, connection, VARIANT, messages, more=more, warm_up=WARM_UP
        )
        return messages / sample.seconds
    finally:
        await connection.close()


async def _claims(address: str) -> list[float]:
    """Load a little, and return how long each claim of it took; nothing of it is sent."""
    connection = await connect(address)
    floor = ClaimCursor(monotonic)
    try:
        await connection.execute(
            statement("load_messages"), CLAIM * CLAIMS, True, 5, 0.0, timeout=LOAD_TIMEOUT
        )
        await resume(connection, APP)
        return [await _claim(connection, floor) for _ in range(CLAIMS)]
    finally:
        await connection.close()


async def _claim(connection: OwnConnection, floor: ClaimCursor) -> float:
    async with connection.transaction():
        state = await connection.fetchrow(sql("app_state"), APP)
        assert state is not None  # noqa: S101 - the benchmark has made the app
        began = monotonic()
        rows = await connection.fetch(sql("claim"), APP, CLAIM, 0, 8, None, floor.begin(), False)
        took = monotonic() - began
        last = (rows[-1]["priority"], rows[-1][0]) if len(rows) == CLAIM else None
        floor.end(state["asked_at"], last, seconds=took)
        return took
