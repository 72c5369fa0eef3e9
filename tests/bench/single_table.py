"""Single table: the usual design of a queue, UPDATE at claim and UPDATE at completion.

Everything but the tables is the dispatcher's: claim loop, request slots, packing, encoding, HTTP
client, parsing of answers, recorder. So only the shape of the tables differs.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from bench.queries import research_query
from dispatcher.bench.send import LOAD_TIMEOUT_SECONDS
from dispatcher.core.country import country
from dispatcher.core.message import Batch, Message
from dispatcher.core.outcome import Accepted, Rejected, Resolved
from dispatcher.core.packing import pack
from dispatcher.core.result import BatchResult
from dispatcher.core.signing import AppKey
from dispatcher.db.database import OwnConnection, Pool, create_pool
from dispatcher.provider.client import Account, Client
from dispatcher.worker.claim_loop import Claim, Lane, RequestSlots, run_lane
from dispatcher.worker.recorder import ResultQueue, run_recorder
from dispatcher.worker.sender import Ways, deliver
from dispatcher.worker.worker import CLAIM_SLOTS, TOKEN_BYTES

APP = "default"
CONCURRENCY = 8
OutcomeRow = tuple[int, str, str | None, int | None, str]


async def load(connection: OwnConnection, messages: int) -> None:
    """Create the table and insert *messages*, each with its own text."""
    await connection.execute(research_query("single_table_schema"))
    await connection.execute(
        research_query("single_table_load"), messages, True, timeout=LOAD_TIMEOUT_SECONDS
    )
    # Without fresh statistics the plans on this table go wrong; the dispatcher's do not need them.
    await connection.execute("ANALYZE single_table.message")


async def prepare(address: str, endpoint: str, worker: int) -> Callable[[], Awaitable[int]]:
    """Connect; return a function that drains the table and returns how many messages it claimed."""
    pool = await create_pool(address, min_size=2, max_size=4)

    async def drain() -> int:
        key = AppKey("bench", "bench-secret")
        outbox = ResultQueue()
        drained = asyncio.Event()
        claimed = 0

        async def claim(slots: int, per_request: int, _: float) -> Claim:
            nonlocal claimed
            rows = await pool.fetch(
                research_query("single_table_claim"), APP, slots * per_request, worker
            )
            if not rows:
                drained.set()
            claimed += len(rows)
            packed, _too_long = pack(
                [Message(*row) for row in rows], callback=None, token_length=2 * TOKEN_BYTES
            )
            batches = [Batch(0, APP, secrets.token_hex(16), p, monotonic()) for p in packed]
            return Claim(batches, len(packed), 1, more=len(rows) == slots * per_request, wait=None)

        async with Client(
            Account(endpoint, key), clock=lambda: datetime.now(UTC), nonce=secrets.token_hex
        ) as client:
            lane = Lane(
                app=APP,
                urgent=False,
                slots=RequestSlots(CONCURRENCY, kept=1),
                claim=claim,
                deliver=partial(deliver, ways=_ways(client, outbox)),
                room=outbox.room,
                wake=asyncio.Event(),
                stopping=drained.is_set,
                poll=0.05,
                most_slots=CLAIM_SLOTS,
            )
            recorder = asyncio.create_task(run_recorder(outbox, partial(_record, pool)))
            await run_lane(lane)
            outbox.close()
            await recorder
        await pool.close()
        return claimed

    return drain


def _ways(client: Client, outbox: ResultQueue) -> Ways:
    async def no_split(*_: object, **__: object) -> list[Batch]:
        return []

    async def no_rate_limit(_: Batch) -> float:
        return monotonic()

    return Ways(
        post=client.post,
        split=no_split,
        hand_over=outbox.put,
        still_ours=lambda _: True,
        now=lambda: datetime.now(UTC),
        jitter=random.random,
        country=country,
        another_time=no_rate_limit,
        callback=None,
        max_attempts=20,
    )


async def _record(pool: Pool, closings: Sequence[BatchResult]) -> None:
    rows: list[OutcomeRow] = []
    for closing in closings:
        assert isinstance(closing.verdict, Resolved)  # the simulator accepts everything
        for outcome in closing.verdict.outcomes:
            match outcome:
                case Accepted(m, provider_id, segments):
                    rows.append((m.id, "accepted", provider_id, segments, "000000"))
                case Rejected(m, code, _):
                    rows.append((m.id, "rejected", None, None, code))
                case _:
                    raise TypeError(f"unexpected in this benchmark: {type(outcome).__name__}")
    await pool.execute(
        research_query("single_table_complete"),
        *(list(column) for column in zip(*rows, strict=True)),
    )
