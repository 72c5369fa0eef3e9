"""Takes due messages out of the queue and writes their batches, in one transaction."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from msgspec import Struct

from dispatcher.core.admit import Arranged
from dispatcher.core.message import Batch, Message, Packed
from dispatcher.core.outcome import Deferred, Expired, Outcome, Rejected
from dispatcher.db import feed
from dispatcher.db.arrays import array_text
from dispatcher.db.floor import Floor
from dispatcher.db.pool import Connection, Pool
from dispatcher.db.session import PATIENCE, transaction
from dispatcher.db.statements import sql
from dispatcher.db.tally import Event, count

PACE_CREDIT = 0.01  # seconds a late claim does not lose; more would pass the pace in a second
PACE_GRANT = 0.1  # seconds' worth of numbers in one claim of a paced app


class Wanted(Struct, frozen=True):
    """What a worker asks for: messages of one app for its free request slots."""

    app: str
    slots: int = 1
    per_request: int = 500  # numbers expected to fit into one request
    first_priority: int = 0
    last_priority: int = 9
    sender: str | None = None
    probe_wait: float = 30.0  # seconds between probes of a paused app, at the least


class Claimed(Struct, frozen=True):
    """What a claim brought."""

    batches: list[Batch]
    messages: int = 0  # taken from the queue, whatever became of them
    requests: int = 0  # requests they would fill; more than the batches when slots were short
    senders: int = 0  # among those requests
    more: bool = False  # as many as asked for: there is probably more
    wait: float | None = None  # seconds until the app's pace allows the next claim
    finished: Sequence[Outcome] = ()  # decided without a request


Arrange = Callable[[list[Message], list[str]], Arranged]


async def claim(
    pool: Pool,
    worker: int,
    wanted: Wanted,
    *,
    arrange: Arrange,
    token: Callable[[], str],
    floor: Floor | None = None,
    seconds: float = PATIENCE,
) -> Claimed:
    """Claim messages for *wanted*, sort them out with *arrange*, and write their batches.

    Everything happens in one transaction: a message leaves the queue only together with the
    batch or the outcome that says where it went. Raises asyncpg's errors; a call that failed may
    have committed, and its batches are then left to the rescue.
    """
    began = monotonic()
    floor = floor or Floor()
    async with transaction(pool, seconds=seconds) as connection:
        state = await connection.fetchrow(sql("app_state"), wanted.app)
        if state is None:
            return Claimed([])
        paused, probe_due, rate, countries, asked_at = state[:5]
        limit = wanted.slots * wanted.per_request
        if paused:
            if not probe_due:
                return Claimed([])
            limit = 1
        if rate is not None:
            wait = await connection.fetchval(sql("lock_pace"), wanted.app)
            if wait > 0:
                return Claimed([], wait=wait)
            limit = min(limit, max(1, round(rate * PACE_GRANT)))
        looking = monotonic()
        rows = await connection.fetch(
            sql("claim"),
            wanted.app,
            limit,
            wanted.first_priority,
            wanted.last_priority,
            wanted.sender,
            floor.begin(),
        )
        looked = monotonic() - looking
        last = (rows[-1]["priority"], rows[-1][0]) if len(rows) >= limit else None
        if not rows:
            floor.end(asked_at, last, seconds=looked)
            return Claimed([])
        arranged = arrange([Message(*row[1:]) for row in rows], countries)
        now, surplus = arranged.packed[: wanted.slots], arranged.packed[wanted.slots :]
        # Only for a message that goes out: one that has expired finds nothing out.
        if paused and now and not await _takes_probe(connection, wanted):
            now, surplus = [], now
        batches = await open_batches(
            connection, wanted.app, worker, now, token=token, claimed_at=began, probe=paused
        )
        await _write_decided(connection, wanted.app, worker, arranged.outcomes)
        due: dict[int, float] = {}
        if surplus:
            due = {row["id"]: row[0] for row in rows}
            await _put_back(connection, wanted.app, surplus, due)
        floor.end(
            asked_at,
            last,
            put_back=[(m.priority, due[m.id]) for packed in surplus for m in packed.messages],
            seconds=looked,
        )
        if rate is not None:
            numbers = sum(len(batch.messages) for batch in batches)
            await connection.execute(sql("charge_pace"), wanted.app, float(numbers), PACE_CREDIT)
        return Claimed(
            batches,
            messages=len(rows),
            requests=len(arranged.packed),
            senders=len({packed.sender for packed in arranged.packed}),
            more=len(rows) >= limit or bool(surplus),
            finished=arranged.outcomes,
        )


def attempts_spent(deferred: Deferred) -> int:
    """Return how many attempts a message has behind it when it goes back to the queue."""
    return deferred.message.attempt - (0 if deferred.counted else 1)


async def open_batches(
    connection: Connection,
    app: str,
    worker: int,
    packed: Sequence[Packed],
    *,
    token: Callable[[], str],
    claimed_at: float,
    probe: bool = False,
    parent: int | None = None,
) -> list[Batch]:
    """Write one open batch for each of *packed*, in the caller's transaction."""
    if not packed:
        return []
    tokens = [token() for _ in packed]
    messages = [each.messages for each in packed]
    ids = await connection.fetch(
        sql("open_batches"),
        app,
        worker,
        tokens,
        [array_text([message.id for message in each]) for each in messages],
        [array_text([message.attempt for message in each]) for each in messages],
        [each.size for each in packed],
        parent,
    )
    return [
        Batch(row[0], app, name, each, claimed_at, probe)
        for row, name, each in zip(ids, tokens, packed, strict=True)
    ]


async def _takes_probe(connection: Connection, wanted: Wanted) -> bool:
    """Take the right to probe a paused app, unless another claim was faster."""
    probe = await connection.fetchval(sql("take_probe"), wanted.app, wanted.probe_wait)
    return probe is not None


async def _put_back(
    connection: Connection, app: str, surplus: Sequence[Packed], due: Mapping[int, float]
) -> None:
    """Put back what found no free slot, to its place: others that came later stay behind it."""
    messages = [message for packed in surplus for message in packed.messages]
    await connection.execute(
        sql("unclaim"),
        app,
        [m.id for m in messages],
        [m.priority for m in messages],
        [due[m.id] for m in messages],
        [m.attempt - 1 for m in messages],
        [m.requeued for m in messages],
    )


async def _write_decided(
    connection: Connection, app: str, worker: int, outcomes: Sequence[Outcome]
) -> None:
    """Write outcomes that needed no request, and put back what must wait."""
    finished: list[tuple[int, str, int, str, str]] = []
    waiting: list[Deferred] = []
    for outcome in outcomes:
        match outcome:
            case Deferred():
                waiting.append(outcome)
            case Expired(message):
                finished.append((message.id, "expired", message.attempt - 1, "expired", ""))
            case Rejected(message, code, reason):
                finished.append((message.id, "rejected", message.attempt - 1, code, reason))
            case _:
                raise TypeError(f"no request was made, so nothing can be {type(outcome).__name__}")
    if finished:
        await connection.execute(sql("write_outcomes"), *map(list, zip(*finished, strict=True)))
        told: defaultdict[Event, list[int]] = defaultdict(list)
        for row in finished:
            told[app, row[1], row[3]].append(row[0])
        await count(connection, worker, Counter({event: len(ids) for event, ids in told.items()}))
        await feed.append(connection, told)
    if waiting:
        await connection.execute(
            sql("enqueue_again"),
            app,
            [w.message.id for w in waiting],
            [w.message.priority for w in waiting],
            [w.wait for w in waiting],
            [attempts_spent(w) for w in waiting],
            [w.message.requeued for w in waiting],
            [None] * len(waiting),
            [w.code or None for w in waiting],
        )
