"""The usual way, to compare with: one table, UPDATE at claim, UPDATE at completion.

Everything but the tables is the dispatcher's own: lanes, slots, packing, encoding, the HTTP
client, the reading of answers, the recorder. So what differs is the shape of the tables.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from dispatcher.bench.stage import statement
from dispatcher.core.country import country
from dispatcher.core.message import Batch, Message
from dispatcher.core.outcome import Accepted, Rejected, Resolved
from dispatcher.core.packing import pack
from dispatcher.core.result import BatchResult
from dispatcher.core.signing import AppKey
from dispatcher.db.database import Pool, create_pool
from dispatcher.provider.client import Account, Client
from dispatcher.worker.claim_loop import Claim, Lane, RequestSlots, run_lane
from dispatcher.worker.recorder import ResultQueue, run_recorder
from dispatcher.worker.sender import Ways, deliver
from dispatcher.worker.worker import CLAIM_SLOTS, TOKEN_BYTES

APP = "default"
CONCURRENCY = 8
ROW = tuple[int, str, str | None, int | None, str]


async def prepare(address: str, endpoint: str, worker: int) -> Callable[[], Awaitable[int]]:
    """Connect; return what drains the table and returns how many messages it took."""
    pool = await create_pool(address, min_size=2, max_size=4)

    async def drain() -> int:
        key = AppKey("bench", "bench-secret")
        outbox = ResultQueue()
        over = asyncio.Event()
        taken = 0

        async def claim(slots: int, per_request: int, _taken: float) -> Claim:
            nonlocal taken
            rows = await pool.fetch(statement("usual_claim"), APP, slots * per_request, worker)
            if not rows:
                over.set()
            taken += len(rows)
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
                stopping=over.is_set,
                poll=0.05,
                most_slots=CLAIM_SLOTS,
            )
            recorder = asyncio.create_task(run_recorder(outbox, partial(_record, pool)))
            await run_lane(lane)
            outbox.close()
            await recorder
        await pool.close()
        return taken

    return drain


def _ways(client: Client, outbox: ResultQueue) -> Ways:
    async def no_split(*_: object, **__: object) -> list[Batch]:
        return []

    async def no_pace(_: Batch) -> float:
        return monotonic()

    return Ways(
        post=client.post,
        split=no_split,
        hand_over=outbox.put,
        still_ours=lambda _: True,
        now=lambda: datetime.now(UTC),
        jitter=random.random,
        country=country,
        another_time=no_pace,
        callback=None,
        max_attempts=20,
    )


async def _record(pool: Pool, closings: Sequence[BatchResult]) -> None:
    rows: list[ROW] = []
    for closing in closings:
        assert isinstance(closing.verdict, Resolved)  # noqa: S101 - the simulator accepts everything
        for outcome in closing.verdict.outcomes:
            match outcome:
                case Accepted(m, provider_id, segments):
                    rows.append((m.id, "accepted", provider_id, segments, "000000"))
                case Rejected(m, code, _):
                    rows.append((m.id, "rejected", None, None, code))
                case _:
                    raise TypeError(f"not met in this benchmark: {type(outcome).__name__}")
    await pool.execute(
        statement("usual_complete"), *(list(column) for column in zip(*rows, strict=True))
    )
