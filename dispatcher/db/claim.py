"""Takes due messages out of the queue and bulk rows, and writes their batches: one transaction."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core import rate_limit
from dispatcher.core.claim_cursor import (
    BEGINNING,
    PRIORITY_COUNT,
    ClaimCursor,
    QueuePosition,
)
from dispatcher.core.codes import SET_ASIDE, number_code
from dispatcher.core.message import Batch, Message, RequestDraft
from dispatcher.core.outcome import Deferred, Expired, Outcome, Rejected
from dispatcher.core.prepare import NO_OUTCOMES, PreparedClaim, SlotShare, share_slots
from dispatcher.core.wire import MAX_NUMBERS
from dispatcher.db import events
from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.errors import DATA_ERRORS, data_error_kind
from dispatcher.db.events import Event, count
from dispatcher.db.queries import array_text, sql
from dispatcher.db.rules import Screen

SLOW_START_RECHECK_SECONDS = 0.05  # until a claim looks again whether a round has ended
SLOW_START_CLAIM_MESSAGES = 100  # at least; what is not sent in the round is put back
SLOW_START_LOST_SECONDS = 30.0  # after the request time-out: no answer of the round comes any more
LOOK_AHEAD_MESSAGES = 2000  # that a claim looks at besides, if its own take a request each
POSTPONE_RATIO = 10.0  # of the time for which a request occupies its slot
MIN_SLOT_SECONDS = 0.05
MAX_POSTPONE_SECONDS = 5.0
FORGIVEN_LATENESS_RATIO = 0.1  # of the time until the next grant
MAX_LARGE_BYTES = 4_000_000  # of large variables that one claim reads


class ClaimRequest(Struct, frozen=True):
    """What a worker claims: messages of one app for its free request slots."""

    app: str
    slots: int = 1
    per_request: int = 500  # numbers expected to fit into one request
    first_priority: int = 0
    last_priority: int = 9
    sender: str | None = None
    probe_wait: float = 30.0  # seconds between probes of a paused app, at the least
    all_slots: int = 8  # request slots of the app, free or not
    slot_seconds: float = 0.0  # time that a request occupies its slot
    look_ahead: bool = True  # look at more messages if the first ones take a request each


class Claimed(Struct, frozen=True):
    """What a claim took."""

    batches: list[Batch]
    messages: int = 0  # taken, sent or not
    requests: int = 0  # requests they would fill; more than the batches when slots were short
    senders: int = 0  # among those requests
    postponed: int = 0  # messages that would have taken all slots for requests of their own
    more: bool = False  # as many as asked for: there is probably more
    wait: float | None = None  # seconds until the rate limit allows the next claim
    finished: Sequence[Outcome] = ()  # decided without a request
    probe: bool = False  # send a request without messages, which may end the app's pause


Decided = Mapping[int, Outcome]  # outcomes by the operators' rules, by message id
# Messages, paused countries, numbers in a request at most, what is decided already.
Arrange = Callable[[list[Message], list[str], int, Decided], PreparedClaim]


async def claim(
    database: Database,
    worker: int,
    wanted: ClaimRequest,
    *,
    arrange: Arrange,
    token: Callable[[], str],
    cursor: ClaimCursor | None = None,
    screen: Screen | None = None,
    seconds: float = TRANSACTION_TIMEOUT_SECONDS,
) -> Claimed:
    """Claim messages for *wanted*, decide and pack them with *arrange*, and write their batches.

    Everything happens in one transaction: a message stops waiting only together with the
    batch or the outcome that accounts for it. Raises DatabaseUnavailable; a call that failed
    may have committed, and its batches are then left to the rescue.
    """
    began = monotonic()
    cursor = cursor or ClaimCursor(monotonic)
    since = cursor.start_scan()
    async with database.transaction(seconds=seconds) as connection:
        state = await connection.fetchrow(
            sql("app_state"), wanted.app, wanted.first_priority, wanted.last_priority, since
        )
        if state is None:
            return Claimed([])
        countries = await _lock_country_pauses(connection, state)
        allowed = await _allow(connection, wanted, state)
        if isinstance(allowed, Claimed):
            return allowed
        slots, most, limit = allowed.slots, allowed.most, allowed.limit
        paused, rate, asked_at = state["paused"], allowed.rate, state["asked_at"]
        looking = monotonic()
        cursor = ClaimCursor(monotonic) if paused else cursor  # a probe says nothing of the rest
        taken = await _take_first(
            connection, wanted, limit, since, paused=paused, bulk_due=state["bulk_due"]
        )
        looked = monotonic() - looking
        if not taken.rows:
            cursor.finish_scan(asked_at, taken.last, seconds=looked)
            return Claimed([], more=taken.full)
        decisions = _Decisions(connection, arrange, screen, asked_at, countries)
        arranged = await decisions.add(taken.messages, most)
        share = share_slots(arranged.packed, slots, numbers=most, full=taken.full)
        # Under a daily limit, what is left of it is for the first ones.
        limited = screen is not None and screen.has_daily_limit
        if share.postponed and wanted.look_ahead and not limited:
            more = await _take(
                connection,
                wanted,
                LOOK_AHEAD_MESSAGES,
                since,
                bulk_due=state["bulk_due"],
            )
            taken = taken.with_more(more)
            arranged = await decisions.add(more.messages, most)
            share = share_slots(arranged.packed, slots, numbers=most, full=True)
        now, surplus = share.now, share.returned
        # Use the probe only if something will be sent; an expired message tests nothing.
        if paused and now and not await _takes_probe(connection, wanted, wanted.probe_wait):
            now, surplus = [], now
        batches = await open_batches(
            connection, wanted.app, worker, now, token=token, claimed_at=began, probe=paused
        )
        if screen is not None:
            sent = [message for packed in now for message in packed.messages]
            await screen.record_sent(connection, sent, asked_at)
        if state["slow_start"] and not paused and batches:
            await connection.execute(sql("use_slow_start"), wanted.app, len(batches))
        await _write_decided(connection, wanted.app, worker, arranged.outcomes)
        await _postpone(connection, wanted, share)
        due: dict[int, float] = {}
        back = [*taken.unread, *(m for packed in surplus for m in packed.messages)]
        if back:
            due = {row["id"]: row[0] for row in taken.rows}
            await _put_back(connection, wanted.app, back, due)
        cursor.finish_scan(
            asked_at,
            taken.last,
            returned=[(m.priority, due[m.id]) for m in back],
            seconds=looked,
        )
        wait = None
        if rate is not None and batches:
            batches, wait = await _charge(connection, rate, batches)
        return Claimed(
            batches,
            messages=len(taken.rows),
            requests=len(arranged.packed),
            senders=len({packed.sender for packed in arranged.packed}),
            postponed=sum(len(packed.messages) for packed in share.postponed),
            more=taken.full or bool(back) or bool(share.postponed),
            wait=wait,
            finished=arranged.outcomes,
        )


class DueRows(Struct, frozen=True):
    """Due messages in order, taken from the queue and bulk rows."""

    rows: list[asyncpg.Record]
    full: bool  # there is probably more
    last: QueuePosition | None  # how far the scan came; None: it saw all that is due


async def take_due(
    connection: Connection,
    wanted: ClaimRequest,
    limit: int,
    since: list[float],
    *,
    paused: bool = False,
    untried: bool = False,
    bulk_due: bool,
) -> DueRows:
    """Take at most *limit* due messages, in the order of priorities and due times.

    The queue and the bulk rows take turns: the queue up to the first bulk row, then bulk rows up to
    the next row of the queue. *since* is when to look from, by priority. *paused*: also of an app
    that is paused; *untried*: only what was not refused or deferred before.
    """
    app, first = wanted.app, wanted.first_priority
    rows: list[asyncpg.Record] = []
    while True:
        last, due_at, queue_first = wanted.last_priority, None, True
        if bulk_due:
            head = await connection.fetchrow(sql("lock_bulk"), app, first, last, since)
            if head is not None:
                last, due_at, queue_first = head
        if queue_first:
            rows += await connection.fetch(
                sql("claim"),
                app,
                limit - len(rows),
                first,
                last,
                wanted.sender,
                since,
                paused,
                due_at,
                untried,
            )
        if len(rows) >= limit:
            break
        if due_at is None:
            return DueRows(rows, False, None)
        taken = await connection.fetch(
            sql("claim_bulk"), app, limit - len(rows), last, due_at, wanted.sender, paused
        )
        rows += taken
        if len(rows) >= limit:
            break
        if not taken:  # a pause has come, or these messages are finished
            return DueRows(rows, True, (last, due_at))
        since[last] = max(since[last], due_at)
    return DueRows(rows, True, (rows[-1]["priority"], rows[-1][0]))


class _Allowance(Struct, frozen=True):
    """How much a claim may take."""

    slots: int
    most: int  # numbers in a request
    limit: int  # messages
    rate: float | None  # of the rate limit; None: there is none


async def _allow(
    connection: Connection, wanted: ClaimRequest, state: asyncpg.Record
) -> _Allowance | Claimed:
    """Return what pause, slow start and rate limit allow, or that nothing is claimed now."""
    slots, most, rate, wait = wanted.slots, MAX_NUMBERS, state["rate"], state["wait"]
    if state["paused"]:
        if not state["probe_due"]:
            return Claimed([])
        if state["probed_without_messages"]:
            return Claimed([], probe=await _takes_probe(connection, wanted, 0.0))
    elif state["slow_start"]:
        slots, most = await _lock_slow_start(connection, wanted)
        if slots == 0:
            return Claimed([], wait=SLOW_START_RECHECK_SECONDS)
    if rate is not None:
        rate, wait = await _lock_rate_limit(connection, wanted.app, rate, wait)
        if wait > rate_limit.LEAD_TIME_SECONDS:
            return Claimed([], wait=wait - rate_limit.LEAD_TIME_SECONDS)
        least = rate * wanted.slot_seconds / wanted.all_slots
        most = min(most, rate_limit.grant_size(rate, least=least))
        slots = rate_limit.slots_ahead(rate, most, slots)
    limit = slots * min(most, wanted.per_request)
    if state["paused"]:
        limit = 1
    elif state["slow_start"]:  # what is decided without a request must not wait for its rounds
        limit = max(limit, min(SLOW_START_CLAIM_MESSAGES, slots * wanted.per_request))
    return _Allowance(slots, most, limit, rate)


class _Decisions:
    """Decides and packs the messages of one claim; those of a second look with the first ones."""

    def __init__(
        self,
        connection: Connection,
        arrange: Arrange,
        screen: Screen | None,
        asked_at: float,
        countries: list[str],
    ) -> None:
        self._connection = connection
        self._arrange = arrange
        self._screen = screen
        self._asked_at = asked_at
        self._countries = countries
        self._messages: list[Message] = []
        self._decided: Decided = NO_OUTCOMES

    async def add(self, messages: list[Message], most: int) -> PreparedClaim:
        """Return the requests, of at most *most* numbers, and outcomes of all that was added."""
        self._messages = self._messages + messages if self._messages else messages
        if self._screen is not None and messages:
            self._decided = await self._screen.decide(
                self._connection, self._messages, self._asked_at
            )
        return self._arrange(self._messages, self._countries, most, self._decided)


class _Taken(Struct, frozen=True):
    """What a claim has taken."""

    rows: list[asyncpg.Record]
    messages: list[Message]
    unread: list[Message]  # without their variables: they return to the queue
    full: bool
    last: QueuePosition | None

    def with_more(self, more: "_Taken") -> "_Taken":
        """Return both together."""
        return _Taken(
            self.rows + more.rows,
            self.messages + more.messages,
            self.unread + more.unread,
            more.full,
            more.last,
        )


async def _take(
    connection: Connection,
    wanted: ClaimRequest,
    limit: int,
    since: list[float],
    *,
    paused: bool = False,
    untried: bool = False,
    bulk_due: bool,
) -> _Taken:
    """Take up to *limit* due messages.

    Of those with large variables, at most so many are read as have MAX_LARGE_BYTES together.
    """
    due = await take_due(
        connection, wanted, limit, since, paused=paused, untried=untried, bulk_due=bulk_due
    )
    rows = due.rows
    messages = [Message(*row[2:]) for row in rows]
    large = [row for row in rows if row[1] is not None]
    if not large:
        return _Taken(rows, messages, [], due.full, due.last)
    room = MAX_LARGE_BYTES
    read: list[int] = []
    unread: set[int] = set()
    for row in large:
        room -= row[1]
        if room >= 0 or not read:
            read.append(row["id"])
        else:
            unread.add(row["id"])
    params = dict(await connection.fetch(sql("read_large"), read))
    return _Taken(
        rows,
        [
            replace(m, params=params[m.id]) if m.id in params else m
            for m in messages
            if m.id not in unread
        ],
        [m for m in messages if m.id in unread],
        due.full,
        due.last,
    )


async def _take_first(
    connection: Connection,
    wanted: ClaimRequest,
    limit: int,
    since: list[float],
    *,
    paused: bool,
    bulk_due: bool,
) -> _Taken:
    """Take what a claim begins with: of a paused app, the message that probes it, of any priority.

    First one that was not refused before: those that were, however urgent, may be refused again,
    and the app would stay paused for the others.
    """
    if not paused:
        return await _take(connection, wanted, limit, since, bulk_due=bulk_due)
    wanted = replace(wanted, first_priority=0, last_priority=PRIORITY_COUNT - 1)
    start = [BEGINNING] * PRIORITY_COUNT
    untried = await _take(
        connection, wanted, 1, list(start), paused=True, untried=True, bulk_due=True
    )
    if untried.rows:
        return untried
    return await _take(connection, wanted, 1, start, paused=True, bulk_due=True)


async def _lock_country_pauses(connection: Connection, state: asyncpg.Record) -> list[str]:
    """Return the paused countries of an app; resume() waits for the end of this transaction."""
    if not state["has_paused_countries"]:
        return []
    await connection.execute(sql("lock_app"), state["name"])
    rows = await connection.fetch(sql("paused_countries"), state["name"])
    return [row["country"] for row in rows]


async def set_aside(
    database: Database,
    worker: int,
    wanted: ClaimRequest,
    *,
    arrange: Arrange,
    screen: Screen | None = None,
) -> int | None:
    """Reject the message that the next claim begins with if it cannot be claimed; return its id.

    Returns None, and changes nothing, if it can. A claim that probes a paused app begins with the
    first message that was not refused before. Raises DatabaseUnavailable.
    """
    for untried in (False, True):
        message = await _set_aside(database, worker, wanted, arrange, screen, untried=untried)
        if message is not None:
            return message
    return None


async def _set_aside(
    database: Database,
    worker: int,
    wanted: ClaimRequest,
    arrange: Arrange,
    screen: Screen | None,
    *,
    untried: bool,
) -> int | None:
    async with database.transaction() as connection:
        head = await connection.fetchrow(
            sql("lock_head"), wanted.app, wanted.first_priority, wanted.last_priority, untried
        )
        if head is None:
            return None
        message_id, attempt = head
        await connection.execute("SAVEPOINT message")
        try:
            await _rehearse(connection, wanted, message_id, arrange, screen)
        except DATA_ERRORS as error:
            kind = data_error_kind(error)
        else:
            return None
        await connection.execute("ROLLBACK TO SAVEPOINT message")
        row = number_code(SET_ASIDE)
        reason = f"{row.meaning} {kind}"
        if await connection.fetchval(sql("reject_queued"), message_id, attempt, row.code, reason):
            event = (wanted.app, "rejected", row.code)
            await count(connection, worker, [event])
            await events.append(connection, {event: [message_id]})
        return int(message_id)


async def _rehearse(
    connection: Connection,
    wanted: ClaimRequest,
    message_id: int,
    arrange: Arrange,
    screen: Screen | None,
) -> None:
    """Do with one message what a claim does, without a batch; raises what a claim would."""
    row = await connection.fetchrow(sql("read_head"), message_id, wanted.sender)
    if row is None:
        return
    messages = [Message(*row)]
    decided = NO_OUTCOMES
    if screen is not None:
        asked_at = await connection.fetchval(sql("database_epoch"))
        decided = await screen.decide(connection, messages, asked_at)
    arrange(messages, [], MAX_NUMBERS, decided)
    # One that has its outcome, and waits all the same, was loaded so.
    if await connection.fetchval(sql("have_outcome"), [message_id]):
        raise ValueError("it has an outcome")


async def charge_again(database: Database, batch: Batch) -> None:
    """Charge the rate limit once more for *batch*, which was sent twice."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("lock_pace"), batch.app)
        if row is not None and row["rate"] is not None:
            await _charge(connection, row["rate"], [batch])


async def reschedule(database: Database, batch: Batch, late: float) -> float | None:
    """Charge the rate limit once more for *batch*, which is *late* (seconds).

    Returns when it may be sent, on the monotonic clock. Where that is far away, it is now if it is
    late by little, and otherwise None, without a charge: the batch then returns to the queue, so
    that a pause, a cancel and urgent messages reach it.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("lock_pace"), batch.app)
        if row is None or row["rate"] is None:
            return monotonic()
        if row["wait"] > rate_limit.MAX_AHEAD_SECONDS:
            return monotonic() if late <= row["wait"] * FORGIVEN_LATENESS_RATIO else None
        [timed], _ = await _charge(connection, row["rate"], [batch])
        return timed.send_at or monotonic()


async def _lock_rate_limit(
    connection: Connection, app: str, rate: float, wait: float
) -> tuple[float, float]:
    """Lock the app's rate limit if a claim is due; return its rate and the seconds until then."""
    if wait > rate_limit.LEAD_TIME_SECONDS:
        return rate, wait  # not worth the lock
    row = await connection.fetchrow(sql("lock_pace"), app)
    return (row["rate"] or rate, row["wait"]) if row else (rate, wait)


async def _charge(
    connection: Connection, rate: float, batches: list[Batch]
) -> tuple[list[Batch], float]:
    """Charge the rate limit; return *batches* with their times, and seconds to the next claim."""
    lasts = [rate_limit.grant_seconds(rate, len(batch.messages)) for batch in batches]
    asked = monotonic()
    until_next: float = await connection.fetchval(sql("charge_pace"), batches[0].app, sum(lasts))
    first = asked + until_next - sum(lasts)
    timed = [
        replace(batch, send_at=first + sum(lasts[:place])) for place, batch in enumerate(batches)
    ]
    return timed, max(0.0, until_next - rate_limit.LEAD_TIME_SECONDS)


def attempts_spent(deferred: Deferred) -> int:
    """Return how many attempts a message has behind it when it goes back to the queue."""
    return deferred.message.attempt - (0 if deferred.counted else 1)


async def open_batches(
    connection: Connection,
    app: str,
    worker: int,
    packed: Sequence[RequestDraft],
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
        [message.id for each in messages for message in each if message.requeued],
    )
    return [
        Batch(row[0], app, name, each, claimed_at, probe)
        for row, name, each in zip(ids, tokens, packed, strict=True)
    ]


async def _takes_probe(connection: Connection, wanted: ClaimRequest, shortest: float) -> bool:
    """Take the right to probe a paused app, unless another claim was faster.

    The next probe waits at least for *shortest* seconds.
    """
    probe = await connection.fetchval(sql("take_probe"), wanted.app, shortest)
    return probe is not None


async def _lock_slow_start(connection: Connection, wanted: ClaimRequest) -> tuple[int, int]:
    """Lock the app's slow start; return how many requests it allows, and of how many numbers."""
    lost_after = wanted.probe_wait + SLOW_START_LOST_SECONDS
    row = await connection.fetchrow(sql("lock_slow_start"), wanted.app, lost_after)
    if row is None or row["slow_start"] is None:
        return wanted.slots, MAX_NUMBERS  # it has just ended
    return min(wanted.slots, row["left"]), row["slow_start"]


async def _put_back(
    connection: Connection, app: str, messages: Sequence[Message], due: Mapping[int, float]
) -> None:
    """Return what found no free slot to its place in the queue."""
    await connection.execute(
        sql("return_claimed"),
        app,
        [m.id for m in messages],
        [m.priority for m in messages],
        [due[m.id] for m in messages],
        [0.0] * len(messages),
        [m.attempt - 1 for m in messages],
        [m.requeued for m in messages],
        [None] * len(messages),
    )


async def _postpone(connection: Connection, wanted: ClaimRequest, share: SlotShare) -> None:
    """Return what is postponed to later places, one after the other.

    A tenth of the slots suffices for messages that are due at that distance; all of them, where
    no others were seen. Where there are many they are due sooner, and are postponed again: if
    nothing else is due by then, they have all slots.
    """
    if not share.postponed:
        return
    slot = max(wanted.slot_seconds, MIN_SLOT_SECONDS) / wanted.all_slots
    if any(len(packed.messages) > 1 for packed in share.now):
        slot *= POSTPONE_RATIO
    distance = min(slot, MAX_POSTPONE_SECONDS / len(share.postponed))
    # What is one request now is due at one time, and can be one again.
    placed = [
        (message, distance * place)
        for place, packed in enumerate(share.postponed, 1)
        for message in packed.messages
    ]
    messages = [message for message, _ in placed]
    await connection.execute(
        sql("return_claimed"),
        wanted.app,
        [m.id for m in messages],
        [m.priority for m in messages],
        [None] * len(messages),
        [seconds for _, seconds in placed],
        [m.attempt - 1 for m in messages],
        [m.requeued for m in messages],
        [None] * len(messages),
    )


async def _write_decided(
    connection: Connection, app: str, worker: int, outcomes: Sequence[Outcome]
) -> None:
    """Write outcomes that needed no request, and return what must wait to the queue."""
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
        ids_by_event: defaultdict[Event, list[int]] = defaultdict(list)
        for row in finished:
            ids_by_event[app, row[1], row[3]].append(row[0])
        await count(
            connection, worker, Counter({event: len(ids) for event, ids in ids_by_event.items()})
        )
        await events.append(connection, ids_by_event)
    if waiting:
        await connection.execute(
            sql("return_claimed"),
            app,
            [w.message.id for w in waiting],
            [w.message.priority for w in waiting],
            [None] * len(waiting),
            [w.wait for w in waiting],
            [attempts_spent(w) for w in waiting],
            [w.message.requeued for w in waiting],
            [w.code or None for w in waiting],
        )
