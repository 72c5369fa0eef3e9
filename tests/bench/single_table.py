"""Single table: the usual design of a queue, UPDATE at claim and UPDATE at completion.

Everything but the tables is the dispatcher's: claim loop, request slots, packing, encoding, HTTP
client, parsing of answers, recorder. So only the shape of the tables differs.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from bench.queries import research_query
from dispatcher.bench.send import LOAD_TIMEOUT_SECONDS
from dispatcher.core.message import Batch, Message
from dispatcher.core.outcome import Accepted, Rejected, Resolved
from dispatcher.core.packing import pack
from dispatcher.core.result import BatchResult
from dispatcher.core.signing import AppKey
from dispatcher.core.wire import TOKEN_BYTES
from dispatcher.db.claim import Claimed
from dispatcher.db.database import Database, OwnConnection, Pool, create_pool
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.provider.client import Account, Client
from dispatcher.telemetry import Metrics
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.claim_loop import ClaimLoop, RequestSlots
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.in_flight import InFlight, Lease
from dispatcher.worker.result_queue import ResultQueue
from dispatcher.worker.sender import Sender

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


class SingleTableClaimer(Claimer):
    """Claims from the single table by UPDATE; sets `drained` when it is empty."""

    def __init__(self, database: Database, worker: int, breaker: CircuitBreaker) -> None:
        super().__init__(
            database,
            worker=worker,
            in_flight=InFlight(partial(secrets.token_hex, TOKEN_BYTES)),
            callback=None,
            token_length=2 * TOKEN_BYTES,
            metrics=Metrics(),
            breakers={APP: breaker},
            lease=UnlimitedLease(0.0, monotonic),
            allowed={},
            failing={},
        )
        self.drained = asyncio.Event()
        self.claimed = 0
        self._single_table = database.pool
        self._id = worker

    async def claim(
        self, _: ClaimRequest, slots: int, per_request: int, __: float
    ) -> Claimed | None:
        """Claim from the single table."""
        rows = await self._single_table.fetch(
            research_query("single_table_claim"), APP, slots * per_request, self._id
        )
        if not rows:
            self.drained.set()
        self.claimed += len(rows)
        packed, _too_long = pack(
            [Message(*row) for row in rows], callback=None, token_length=2 * TOKEN_BYTES
        )
        batches = [Batch(0, APP, secrets.token_hex(16), p, monotonic()) for p in packed]
        return Claimed(
            batches, requests=len(packed), senders=1, more=len(rows) == slots * per_request
        )


async def prepare(address: str, endpoint: str, worker: int) -> Callable[[], Awaitable[int]]:
    """Connect; return a function that drains the table and returns how many messages it claimed."""
    pool = await create_pool(address, min_size=2, max_size=4)

    async def drain() -> int:
        key = AppKey("bench", "bench-secret")
        breaker = CircuitBreaker(APP)
        claimer = SingleTableClaimer(Database(address, pool), worker, breaker)
        results = ResultQueue()
        async with Client(
            Account(endpoint, key), clock=lambda: datetime.now(UTC), nonce=secrets.token_hex
        ) as client:
            sender = Sender(
                client=client,
                claimer=claimer,
                results=results,
                breaker=breaker,
                lease=UnlimitedLease(0.0, monotonic),
                stop=asyncio.Event(),
                callback=None,
                max_attempts=20,
            )
            loop = ClaimLoop(
                ClaimRequest(APP),
                urgent=False,
                slots=RequestSlots(CONCURRENCY, reserved=1),
                claimer=claimer,
                sender=sender,
                results=results,
                stop=claimer.drained,
                poll_interval=0.05,
            )
            recorder = asyncio.create_task(_run_recorder(results, pool))
            await loop.run()
            results.close()
            await recorder
        await pool.close()
        return claimer.claimed

    return drain


class UnlimitedLease(Lease):
    """A lease that no heartbeat has to renew."""

    def covers(self, _: float) -> bool:
        """Return True."""
        return True


async def _run_recorder(results: ResultQueue, pool: Pool) -> None:
    last = False
    while not last:
        taken, last = await results.take()
        if taken:
            await _record(pool, taken)
            await results.gather()


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
