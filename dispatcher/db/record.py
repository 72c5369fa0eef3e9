"""Writes how requests ended: outcomes, returns to the queue, pauses; one transaction for many."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import cast

import asyncpg
from msgspec import Struct

from dispatcher.core.delays import may_concern_one_host
from dispatcher.core.message import Batch, RequestDraft
from dispatcher.core.outcome import (
    Accepted,
    Deferred,
    Expired,
    Outcome,
    Rejected,
    Resolved,
    ReturnAll,
    UnknownResult,
)
from dispatcher.core.result import BatchResult
from dispatcher.db import events
from dispatcher.db.claim import attempts_spent, open_batches
from dispatcher.db.database import PATIENCE, Connection, Pool, transaction
from dispatcher.db.events import Event, count
from dispatcher.db.queries import sql


async def apply_to_app(connection: Connection, worker: int, closing: BatchResult) -> dict[str, str]:
    """Write what the answer means for the app as a whole.

    What may be the trouble of this host alone (no way to the provider, a wrong clock) is no reason
    to stop the others while they send. It is returned if there are others: app, and why.
    """
    app = closing.batch.app
    match closing.verdict:
        case ReturnAll(pause=pause):
            there = reaching = False
            if may_concern_one_host(pause.code):
                row = await connection.fetchrow(sql("who_reaches"), app, worker)
                there, reaching = (row["there"], row["reaching"]) if row else (False, False)
            if not reaching:
                await connection.execute(
                    sql("pause_app"), app, pause.code, pause.reason, pause.probe_in, pause.probe_max
                )
            return {app: pause.reason} if there else {}
        case Resolved(slow_down=slow_down, country=country):
            if country is not None:
                await connection.execute(
                    sql("pause_country"), app, country.country, country.until_in, country.code
                )
            if slow_down:
                await connection.execute(sql("slow_down"), app)
            if closing.batch.probe:
                await connection.execute(sql("resume_app"), app)
        case UnknownResult():
            pass
    return {}


OUTCOME_COLUMNS = (
    "message_id",
    "batch_id",
    "state",
    "attempts",
    "segments",
    "provider_id",
    "code",
    "reason",
)
OK = "000000"
OutcomeRow = tuple[int, int, str, int, int | None, str | None, str | None, str | None]
Return = tuple[str, Deferred, int]  # app, what waits, the batch it was in


class Recorded(Struct, frozen=True):
    """What came of writing closings."""

    written: frozenset[int]  # batches; one that is missing was settled by another process
    # Apps for which this host cannot send, and why, though there are other workers.
    cut_off: dict[str, str]


class Rows(Struct):
    """The rows of one transaction, as they are gathered."""

    outcomes: list[OutcomeRow]
    returns: list[Return]
    unsure: list[tuple[int, list[int]]]  # batch, the messages of it that nothing is known of
    events: Counter[Event]  # counted alone
    told: defaultdict[Event, list[int]]  # counted, and told to the feed: which messages
    whole: list[tuple[Event, int, int]]  # the same of batches of one fate, and their size


async def record(
    pool: Pool, worker: int, closings: Sequence[BatchResult], *, seconds: float = PATIENCE
) -> Recorded:
    """Write *closings*; return which batches were written.

    Safe to repeat: a batch that an earlier call has closed is not written again. Raises asyncpg's
    errors.
    """
    try:
        return await _record(pool, worker, closings, seconds)
    except asyncpg.UniqueViolationError:
        # A report or an operator has settled messages of an unsure batch before this late answer.
        # A message with an outcome keeps it; the others get theirs by the slower way.
        return await _record(pool, worker, closings, seconds, some_settled=True)


async def _record(
    pool: Pool,
    worker: int,
    closings: Sequence[BatchResult],
    seconds: float,
    *,
    some_settled: bool = False,
) -> Recorded:
    async with transaction(pool, seconds=seconds) as connection:
        await connection.execute(sql("pin_plans"))
        closed = await _close(connection, closings)
        # The batches are locked from here on: nobody else settles anything of them.
        settled = await _settled(connection, closings) if some_settled else frozenset()
        rows = Rows([], [], [], Counter(), defaultdict(list), [])
        for closing in closings:
            if closing.batch.id in closed:
                _gather(closing, rows, settled)
            else:
                await _recall(connection, closing, rows)
        if rows.outcomes:
            write = _append_outcomes if some_settled else _copy_outcomes
            await write(connection, rows.outcomes)
        if rows.returns:
            await _return(connection, rows.returns)
        if rows.unsure:
            await connection.executemany(sql("keep_unsure"), rows.unsure)
            # Reports may have settled before what this answer leaves open.
            batches = [batch for batch, _ in rows.unsure]
            await connection.execute(sql("close_settled"), batches, "reports")
        cut_off: dict[str, str] = {}
        for closing in closings:
            if closing.batch.id in closed:
                cut_off |= await apply_to_app(connection, worker, closing)
        rows.events.update({event: len(ids) for event, ids in rows.told.items()})
        for event, _, size in rows.whole:
            rows.events[event] += size
        await count(connection, worker, rows.events)
        await events.append(connection, rows.told, rows.whole)
        return Recorded(closed, cut_off)


async def _close(connection: Connection, closings: Sequence[BatchResult]) -> frozenset[int]:
    rows = await connection.fetch(
        sql("close_batches"),
        [c.batch.id for c in closings],
        [_state(c) for c in closings],
        [c.http_status for c in closings],
        [c.code for c in closings],
        [c.description for c in closings],
        [c.tries for c in closings],
        [not isinstance(c.verdict, UnknownResult) for c in closings],
    )
    return frozenset(row[0] for row in rows)


async def _settled(connection: Connection, closings: Sequence[BatchResult]) -> frozenset[int]:
    ids = [message.id for closing in closings for message in closing.batch.messages]
    return frozenset(row["message_id"] for row in await connection.fetch(sql("have_outcome"), ids))


def _state(closing: BatchResult) -> str:
    match closing.verdict:
        case UnknownResult():
            return "unsure"
        case Resolved(unsure=[_, *_]):
            return "unsure"  # the answer lacks some numbers: those may have been sent
        case _:
            return "closed"


def _gather(closing: BatchResult, rows: Rows, settled: Collection[int]) -> None:
    """Turn one closing into rows and counts, but for messages that are *settled* already."""
    batch = closing.batch
    match closing.verdict:
        case UnknownResult(code=code):
            rows.whole.append(((batch.app, "unsure", code), batch.id, len(batch.messages)))
        case ReturnAll(pause=pause):
            back = [message for message in batch.messages if message.id not in settled]
            rows.events[batch.app, "put back", pause.code] += len(back)
            rows.returns.extend(
                (batch.app, Deferred(message, pause.code, 0.0, counted=False), batch.id)
                for message in back
            )
        case Resolved(outcomes=outcomes, unsure=unsure):
            if unsure:
                open_still = [message.id for message in unsure]
                rows.told[batch.app, "unsure", closing.code] += open_still
                rows.unsure.append((batch.id, open_still))
            if not settled and not unsure and set(map(type, outcomes)) == {Accepted}:
                _gather_accepted(cast("list[Accepted]", outcomes), batch, rows)
                return
            for outcome in outcomes:
                if not settled or outcome.message.id not in settled:
                    _gather_outcome(outcome, batch, rows)


def _gather_accepted(outcomes: list[Accepted], batch: Batch, rows: Rows) -> None:
    """Turn the usual answer into rows: nearly every batch, and a third of the time of the rest."""
    number = batch.id
    rows.whole.append(((batch.app, "accepted", ""), number, len(outcomes)))
    rows.outcomes += [
        (o.message.id, number, "accepted", o.message.attempt, o.segments, o.provider_id, OK, None)
        for o in outcomes
    ]


def _gather_outcome(outcome: Outcome, batch: Batch, rows: Rows) -> None:
    app = batch.app
    row: OutcomeRow
    match outcome:
        case Accepted(m, provider_id, segments):
            rows.told[app, "accepted", ""].append(m.id)
            row = m.id, batch.id, "accepted", m.attempt, segments, provider_id, OK, None
        case Rejected(m, code, reason):
            rows.told[app, "rejected", code].append(m.id)
            row = m.id, batch.id, "rejected", m.attempt, None, None, code, reason
        case Expired(m, code, reason):
            rows.told[app, "expired", code].append(m.id)
            row = m.id, batch.id, "expired", m.attempt, None, None, code, reason
        case Deferred(code=code):
            rows.events[app, "deferred", code] += 1
            rows.returns.append((app, outcome, batch.id))
            return
    rows.outcomes.append(row)


async def _recall(connection: Connection, closing: BatchResult, rows: Rows) -> None:
    """Take back what was given up for lost and queued again, if it is not on its way yet."""
    outcomes = closing.verdict.outcomes if isinstance(closing.verdict, Resolved) else []
    accepted = {o.message.id: o for o in outcomes if isinstance(o, Accepted)}
    if accepted:
        found = await connection.fetch(sql("recall_resent"), list(accepted), closing.batch.id)
        for row in found:
            _gather_outcome(accepted[row["id"]], closing.batch, rows)


async def _copy_outcomes(connection: Connection, outcomes: list[OutcomeRow]) -> None:
    await connection.copy_records_to_table(
        "outcome", schema_name="dispatcher", records=outcomes, columns=OUTCOME_COLUMNS
    )


async def _append_outcomes(connection: Connection, outcomes: list[OutcomeRow]) -> None:
    await connection.execute(
        sql("append_outcomes"), *(list(column) for column in zip(*outcomes, strict=True))
    )


async def _return(connection: Connection, returns: list[Return]) -> None:
    await connection.execute(
        sql("return_to_queue"),
        [app for app, _, _ in returns],
        [deferred.message.id for _, deferred, _ in returns],
        [deferred.message.priority for _, deferred, _ in returns],
        [deferred.wait for _, deferred, _ in returns],
        [attempts_spent(deferred) for _, deferred, _ in returns],
        [deferred.message.requeued for _, deferred, _ in returns],
        [batch for _, _, batch in returns],
        [deferred.code or None for _, deferred, _ in returns],
    )


async def split(
    pool: Pool,
    worker: int,
    batch: Batch,
    parts: Sequence[RequestDraft],
    *,
    code: str,
    description: str,
    http_status: int | None,
    tries: int,
    token: Callable[[], str],
) -> list[Batch]:
    """Close *batch*, which was refused as a whole, and open one batch for each of *parts*.

    Returns no batch if another worker has taken this one over in the meantime: its messages are
    then not this worker's to send.
    """
    async with transaction(pool) as connection:
        row = await connection.fetchval(
            sql("close_for_split"), batch.id, http_status, code, description, tries
        )
        if row is None:
            return []
        return await open_batches(
            connection,
            batch.app,
            worker,
            parts,
            token=token,
            claimed_at=batch.claimed_at,
            parent=batch.id,
        )
