"""Takes due messages out of the queue and bulk rows, and writes their batches: one transaction."""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from time import monotonic

import asyncpg
from msgspec import Struct

from dispatcher.core import rate_limit
from dispatcher.core.claim_cursor import ClaimCursor
from dispatcher.core.codes import SET_ASIDE, WRITE_REFUSED, number_code
from dispatcher.core.message import Batch, Message, RequestDraft
from dispatcher.core.outcome import Deferred, Expired, Outcome, Rejected
from dispatcher.core.prepare import (
    NO_OUTCOMES,
    PreparedClaim,
    SlotShare,
    postpone,
    share_slots,
)
from dispatcher.core.wire import MAX_NUMBERS
from dispatcher.db import events
from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.due_messages import ClaimRequest, take
from dispatcher.db.errors import DATA_ERRORS, data_error_kind
from dispatcher.db.events import Event, count
from dispatcher.db.pace import charge, lock_rate_limit
from dispatcher.db.queries import array_text, sql
from dispatcher.db.rules import Screen

SLOW_START_RECHECK_SECONDS = 0.05  # until a claim looks again whether a round has ended
SLOW_START_CLAIM_MESSAGES = 100  # at least; what is not sent in the round is put back
SLOW_START_LOST_SECONDS = 30.0  # after the request time-out: no answer of the round comes any more
# A look for a message that probes a paused app may find nothing due. The next one waits ten times
# as long as that took, within these bounds; the longest wait is that between two probes.
EMPTY_PROBE_RATIO = 10
EMPTY_PROBE_SECONDS, MAX_EMPTY_PROBE_SECONDS = 1.0, 5.0
REFUSED_WRITE_SECONDS = 600.0  # that a message waits whose batch or outcome the database refuses
DECIDED_LOOK_MESSAGES = 500  # that a claim of a paused app looks at if the first one is not sent
LOOK_AHEAD_MESSAGES = 2000  # that a claim looks at besides, if its own take a request each


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
    missing: Sequence[int] = ()  # ids that waited, and have no row in the table of messages
    # Send a request without messages, which may end a pause that began before.
    probe: datetime | None = None


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
    heartbeat_at: float | None = None,
    started: float | None = None,
    seconds: float = TRANSACTION_TIMEOUT_SECONDS,
) -> Claimed:
    """Claim messages for *wanted*, decide and pack them with *arrange*, and write their batches.

    Everything happens in one transaction: a message stops waiting only together with the
    batch or the outcome that accounts for it. Raises DatabaseUnavailable; a call that failed
    may have committed, and its batches are then left to the rescue. Nothing is claimed in a
    database that lacks the worker's last heartbeat, *heartbeat_at*, or its row, written when it
    *started*: it has gone back in time, and the next heartbeat decides what follows.
    """
    began = monotonic()
    cursor = cursor or ClaimCursor(monotonic)
    since = cursor.start_scan()
    async with database.transaction(seconds=seconds) as connection:
        state = await connection.fetchrow(
            sql("app_state"),
            wanted.app,
            wanted.first_priority,
            wanted.last_priority,
            since,
            worker,
            heartbeat_at,
            started,
        )
        if state is None:
            return Claimed([])
        countries = await _lock_country_pauses(connection, state)
        allowed = await _allow(connection, wanted, state)
        if isinstance(allowed, Claimed):
            return allowed
        slots, most, limit = allowed.slots, allowed.most, allowed.limit
        paused, rate, asked_at = state["paused"], allowed.rate, state["asked_at"]
        cursor = ClaimCursor(monotonic) if paused else cursor  # a probe says nothing of the rest
        look = partial(
            take, connection, wanted, since=since, paused=paused, bulk_due=state["bulk_due"]
        )
        looking = monotonic()
        taken = await look(limit)
        looked = monotonic() - looking
        if not taken.rows:
            if paused and not taken.full:
                await _delay_probe(connection, wanted.app, looked)
            cursor.finish_scan(asked_at, taken.last, seconds=looked)
            return Claimed([], more=taken.full, missing=taken.missing)
        decisions = _Decisions(connection, arrange, screen, asked_at, countries)
        arranged = await decisions.add(taken.messages, most)
        share = share_slots(arranged.packed, slots, numbers=most, full=taken.full)
        # Under a daily limit, what is left of it is for the first ones.
        limited = screen is not None and screen.has_daily_limit
        ahead = _messages_ahead(share, paused=paused)
        if ahead and wanted.look_ahead and not limited:
            more = await look(ahead)
            taken = taken.with_more(more)
            arranged = await decisions.add(more.messages, most)
            share = share_slots(arranged.packed, slots, numbers=most, full=True)
        now, surplus = share.now, share.returned
        # Use the probe only if something will be sent; an expired message tests nothing.
        if paused and now and not await _take_probe(connection, wanted, wanted.probe_wait):
            now, surplus = [], [*now, *surplus]
        batches = await open_batches(
            connection, wanted.app, worker, now, token=token, claimed_at=began, probe=paused
        )
        if screen is not None:
            await screen.record_sent(
                connection, [message for packed in now for message in packed.messages], asked_at
            )
        if allowed.round_left is not None and batches:
            await connection.execute(
                sql("use_slow_start"), wanted.app, allowed.round_left - len(batches)
            )
        waiting = await _write_decided(connection, wanted.app, worker, arranged.outcomes)
        waiting += postpone(share, slot_seconds=wanted.slot_seconds, all_slots=wanted.all_slots)
        back = [*taken.unread, *(m for packed in surplus for m in packed.messages)]
        due = taken.due_times(back)
        waiting += [Deferred(message, "", 0.0, counted=False) for message in back]
        before = taken.returned([each.message for each in waiting if not each.code])
        await _put_back(connection, wanted.app, waiting, due, before)
        cursor.finish_scan(
            asked_at,
            taken.last,
            returned=[(m.priority, due[m.id]) for m in back],
            seconds=looked,
        )
        wait = None
        if rate is not None and batches:
            batches, wait = await charge(connection, rate, batches)
        return Claimed(
            batches,
            messages=len(taken.rows),
            requests=len(arranged.packed),
            senders=len({packed.sender for packed in arranged.packed}),
            postponed=sum(len(packed.messages) for packed in share.postponed),
            more=taken.full or bool(back) or bool(share.postponed),
            wait=wait,
            finished=arranged.outcomes,
            missing=taken.missing,
        )


class _Allowance(Struct, frozen=True):
    """How much a claim may take."""

    slots: int
    most: int  # numbers in a request
    limit: int  # messages
    rate: float | None  # of the rate limit; None: there is none
    round_left: int | None  # requests in the round of a slow start; None: there is no slow start


async def _allow(
    connection: Connection, wanted: ClaimRequest, state: asyncpg.Record
) -> _Allowance | Claimed:
    """Return what pause, slow start and rate limit allow, or that nothing is claimed now."""
    slots, most, rate, wait = wanted.slots, MAX_NUMBERS, state["rate"], state["wait"]
    round_left = None
    if state["paused"]:
        if not state["probe_due"]:
            return Claimed([])
        if state["probed_without_messages"]:
            return Claimed([], probe=await _take_probe(connection, wanted, 0.0))
    elif state["slow_start"]:
        round_left, most = await _lock_slow_start(connection, wanted)
        slots = min(slots, round_left)
        if slots == 0:
            return Claimed([], wait=SLOW_START_RECHECK_SECONDS)
    if rate is not None:
        rate, wait = await lock_rate_limit(connection, wanted.app, rate, wait)
        if wait > rate_limit.LEAD_TIME_SECONDS:
            return Claimed([], wait=wait - rate_limit.LEAD_TIME_SECONDS)
        slots, most = _within(rate, wanted, slots, most)
    limit = slots * min(most, wanted.per_request)
    if state["paused"]:
        slots, most, limit = 1, 1, 1
    elif state["slow_start"]:  # what is decided without a request must not wait for its rounds
        limit = max(limit, min(SLOW_START_CLAIM_MESSAGES, slots * wanted.per_request))
    return _Allowance(slots, most, limit, rate, round_left)


def _within(rate: float | None, wanted: ClaimRequest, slots: int, most: int) -> tuple[int, int]:
    """Return how many of *slots* and of *most* numbers in a request a rate limit allows."""
    if rate is None:  # it was taken away meanwhile
        return slots, most
    least = rate * wanted.slot_seconds / wanted.all_slots
    most = min(most, rate_limit.grant_size(rate, least=least))
    return rate_limit.slots_ahead(rate, most, slots), most


def _messages_ahead(share: SlotShare, *, paused: bool) -> int:
    """Return how many messages a claim looks at besides its own take.

    Those that probe no paused app, because they are not sent, are not taken one by one, a
    transaction each: it may be a backlog.
    """
    if paused:
        return 0 if share.now else DECIDED_LOOK_MESSAGES
    return LOOK_AHEAD_MESSAGES if share.postponed else 0


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

    One whose batch or outcome alone is refused waits longer. Returns None, and changes nothing, if
    it can. A claim that probes a paused app begins with the first message that was not refused
    before. Raises DatabaseUnavailable.
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
        message_id, attempt, requeued = head
        await connection.execute("SAVEPOINT message")
        try:
            row = await connection.fetchrow(
                sql("read_head"), message_id, wanted.sender, attempt + 1, requeued
            )
            prepared = await _rehearse(connection, row, arrange, screen)
        except DATA_ERRORS as error:
            kind = data_error_kind(error)
        else:
            if not await _is_refused(connection, worker, wanted.app, prepared):
                return None
            await connection.execute(
                sql("postpone_queued"), message_id, REFUSED_WRITE_SECONDS, WRITE_REFUSED
            )
            return int(message_id)
        await connection.execute("ROLLBACK TO SAVEPOINT message")
        row = number_code(SET_ASIDE)
        reason = f"{row.meaning} {kind}"
        if await connection.fetchval(sql("reject_queued"), message_id, attempt, row.code, reason):
            event = (wanted.app, "rejected", row.code)
            await count(connection, worker, [event])
            await events.append(connection, {event: [message_id]})
        return int(message_id)


async def _is_refused(
    connection: Connection, worker: int, app: str, prepared: PreparedClaim
) -> bool:
    """Tell whether the database refuses the batch or the outcome of one message, *prepared* alone.

    Not its batch if an empty one is refused too. Such a message is not rejected: a trigger or a
    constraint of an application may refuse many, and be corrected.
    """
    token = f"rehearsed-by-{worker}"
    write = partial(
        open_batches, connection, app, worker, token=lambda: token, claimed_at=monotonic()
    )
    for alone in prepared.packed:
        empty = RequestDraft(alone.sender, [], alone.size)
        if not await _is_taken(connection, write([alone])):
            return await _is_taken(connection, write([empty]))
    decided = _write_decided(connection, app, worker, prepared.outcomes)
    return not await _is_taken(connection, decided)


async def _is_taken(connection: Connection, write: Awaitable[object]) -> bool:
    """Return whether the database takes what *write* writes, and undo it."""
    try:
        await write
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except DATA_ERRORS:
        taken = False
    else:
        taken = True
    await connection.execute("ROLLBACK TO SAVEPOINT message")
    return taken


async def _rehearse(
    connection: Connection, row: asyncpg.Record | None, arrange: Arrange, screen: Screen | None
) -> PreparedClaim:
    """Do with one message what a claim does, without a batch; raises what a claim would."""
    if row is None:
        return PreparedClaim([], [])
    messages = [Message(*row)]
    decided = NO_OUTCOMES
    if screen is not None:
        asked_at = await connection.fetchval(sql("database_epoch"))
        decided = await screen.decide(connection, messages, asked_at)
    prepared = arrange(messages, [], MAX_NUMBERS, decided)
    # One that has its outcome, and waits all the same, was loaded so.
    if await connection.fetchval(sql("have_outcome"), [messages[0].id]):
        raise ValueError("it has an outcome")
    return prepared


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


async def _take_probe(
    connection: Connection, wanted: ClaimRequest, shortest: float
) -> datetime | None:
    """Take the right to probe a paused app; return when, None if another claim was faster.

    The next probe waits at least for *shortest* seconds.
    """
    taken: datetime | None = await connection.fetchval(sql("take_probe"), wanted.app, shortest)
    return taken


async def _delay_probe(connection: Connection, app: str, looked: float) -> None:
    """Let the next look for a probe wait; the last one took *looked* seconds and found nothing."""
    delay = max(EMPTY_PROBE_SECONDS, EMPTY_PROBE_RATIO * looked)
    await connection.execute(sql("delay_probe"), app, min(delay, MAX_EMPTY_PROBE_SECONDS))


async def _lock_slow_start(connection: Connection, wanted: ClaimRequest) -> tuple[int, int]:
    """Lock the app's slow start; return how many requests it allows, and of how many numbers."""
    lost_after = wanted.probe_wait + SLOW_START_LOST_SECONDS
    row = await connection.fetchrow(sql("lock_slow_start"), wanted.app, lost_after)
    if row is None or row["slow_start"] is None:
        return wanted.slots, MAX_NUMBERS  # it has just ended
    return row["left"], row["slow_start"]


async def _write_decided(
    connection: Connection, app: str, worker: int, outcomes: Sequence[Outcome]
) -> list[Deferred]:
    """Write outcomes that needed no request; return those that must wait."""
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
    return waiting


async def _put_back(
    connection: Connection,
    app: str,
    waiting: Sequence[Deferred],
    due: Mapping[int, float],
    before: Mapping[int, tuple[int | None, str | None]],
) -> None:
    """Return messages to the queue: to their place where *due* has one, else after their wait.

    What *before* has keeps the batch and the code that it had returned with.
    """
    if not waiting:
        return
    messages = [each.message for each in waiting]
    kept = [before.get(each.message.id, (None, each.code or None)) for each in waiting]
    await connection.execute(
        sql("return_claimed"),
        app,
        [m.id for m in messages],
        [m.priority for m in messages],
        [due.get(m.id) for m in messages],
        [each.wait for each in waiting],
        [each.attempts_spent for each in waiting],
        [m.requeued for m in messages],
        [batch for batch, _ in kept],
        [code for _, code in kept],
        [each.times_throttled for each in waiting],
    )
