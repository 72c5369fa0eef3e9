"""Writes results of requests: outcomes, returns to the queue, pauses; many in one transaction."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Final, cast

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.codes import request_code
from dispatcher.core.delays import Pause, may_concern_one_host
from dispatcher.core.message import Batch
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
from dispatcher.core.result import BatchResult, storable
from dispatcher.db import events
from dispatcher.db.circuit import DEFAULT_CIRCUITS, Circuits, apply_to_circuits
from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.errors import (
    ROW_ERRORS,
    data_error_kind,
    is_data_error,
    stops_all_writes,
)
from dispatcher.db.events import Event, count
from dispatcher.db.queries import sql


async def apply_to_app(
    connection: Connection, worker: int, result: BatchResult, opened_at: datetime
) -> dict[str, str]:
    """Write what the answer means for the app as a whole; its request was opened at *opened_at*.

    An error that may concern this host alone (no connection to the provider, a wrong clock) does
    not pause the app while other hosts send. It is returned if there are others: app, and why.
    """
    app = result.batch.app
    if result.batch.probe and result.tries > 0:
        await connection.execute(sql("probe_answered"), app)
    match result.verdict:
        case ReturnAll(pause=pause):
            there = reaching = False
            if may_concern_one_host(pause.code):
                row = await connection.fetchrow(sql("who_reaches"), app, worker)
                there, reaching = (row["there"], row["reaching"]) if row else (False, False)
            if not reaching:
                await _pause(connection, app, pause, opened_at)
            return {app: pause.reason} if there else {}
        case Resolved(countries=countries, refused=refused, pause=paused):
            for country in countries:
                await connection.execute(
                    sql("pause_country"), app, country.country, country.until_in, country.code
                )
            if paused is not None:
                await _pause(connection, app, paused, opened_at)
            elif result.batch.probe and result.tries > 0:
                await connection.execute(sql("resume_app"), app, refused, opened_at)
        case UnknownResult():
            pass
    return {}


async def _pause(connection: Connection, app: str, pause: Pause, opened_at: datetime) -> None:
    await connection.execute(
        sql("pause_app"),
        app,
        pause.code,
        pause.reason,
        pause.probe_in,
        pause.probe_max,
        pause.until_midnight,
        opened_at,
    )


# A claim that puts messages back holds them for some milliseconds; a person may for hours.
HELD_TRIES: Final = 3
HELD_SECONDS: Final = 0.02

ACCEPTED_COLUMNS = ("message_id", "batch_id", "state", "attempts", "segments", "provider_id")
OUTCOME_COLUMNS = (*ACCEPTED_COLUMNS, "code", "reason")
AcceptedRow = tuple[int, int, str, int, int | None, str | None]
OutcomeRow = tuple[int, int, str, int, int | None, str | None, str | None, str | None]
Return = tuple[str, Deferred, int]  # app, what waits, the batch it was in
Begin = Callable[[], AbstractAsyncContextManager[Connection]]  # begins a transaction


class Recorded(Struct, frozen=True):
    """Which results were written."""

    written: frozenset[str]  # tokens; one that is missing was settled by another process
    # Apps for which this host cannot send, and why, though there are other workers.
    cut_off: dict[str, str]
    opened: dict[str, str] = {}  # apps whose circuit has opened, and why
    lost_answers: dict[str, str] = {}  # apps whose answers only this host loses, and why
    refused: frozenset[int] = frozenset()  # batches of which the database takes no form of a result
    held: frozenset[int] = frozenset()  # batches of which another session holds what is taken back


class Rows(Struct):
    """The rows of one transaction, as they are gathered."""

    accepted: list[AcceptedRow]  # nearly all; they need no code and no reason
    outcomes: list[OutcomeRow]  # the others
    returns: list[Return]
    unsure: list[tuple[int, list[int]]]  # batch, its messages of which nothing is known
    events: Counter[Event]  # counted alone
    ids_by_event: defaultdict[
        Event, list[int]
    ]  # counted, and appended to the event log: message ids
    whole: list[tuple[Event, int, int]]  # the same of batches with one event, and their size
    unsure_again: set[int]  # batches of which a late answer to an earlier one has settled messages


async def record(
    database: Database,
    worker: int,
    results: Sequence[BatchResult],
    *,
    seconds: float = TRANSACTION_TIMEOUT_SECONDS,
    circuits: Circuits = DEFAULT_CIRCUITS,
    lock_timeout: str | None = None,
    waits: bool = False,
) -> Recorded:
    """Write *results*; return which batches were written.

    *lock_timeout*: for how long it waits for a row that another session holds, if not as usual.
    *waits*: also for the messages that are taken back, with one result in the transaction.

    Safe to repeat: a batch that an earlier call has closed is not written again. A result that the
    database refuses for a value is written without that value, or else as unsure, or else returned
    as refused; the others are written as they are. One that takes back messages which another
    session holds is returned as held, to be recorded again. Raises DatabaseUnavailable; the call
    may then have committed.
    """
    begin = partial(database.transaction, seconds=seconds, lock_timeout=lock_timeout)
    recorded = await _record_in_parts(begin, worker, results, circuits, waits=waits)
    for _ in range(HELD_TRIES):
        held = [result for result in results if result.batch.id in recorded.held]
        if not held:
            break
        await asyncio.sleep(HELD_SECONDS)
        again = await _record_in_parts(begin, worker, held, circuits, waits=waits)
        recorded = _joined(replace(recorded, held=frozenset()), again)
    return recorded


async def _record_in_parts(
    begin: Begin, worker: int, results: Sequence[BatchResult], circuits: Circuits, *, waits: bool
) -> Recorded:
    write = partial(_record_together, begin, worker, circuits=circuits, waits=waits)
    try:
        return await write(results)
    except ROW_ERRORS as error:
        if not is_data_error(error):
            raise
        if len(results) == 1:
            return await _record_refused(write, begin, results[0], error)
    middle = len(results) // 2
    first = await _record_in_parts(begin, worker, results[:middle], circuits, waits=waits)
    second = await _record_in_parts(begin, worker, results[middle:], circuits, waits=waits)
    return _joined(first, second)


def _joined(first: Recorded, second: Recorded) -> Recorded:
    return Recorded(
        first.written | second.written,
        first.cut_off | second.cut_off,
        first.opened | second.opened,
        first.lost_answers | second.lost_answers,
        first.refused | second.refused,
        first.held | second.held,
    )


async def _record_refused(
    write: Callable[[Sequence[BatchResult]], Awaitable[Recorded]],
    begin: Begin,
    result: BatchResult,
    error: Exception,
) -> Recorded:
    """Write a result that was refused: without what cannot be stored, or else as unsure."""
    code = "not-recorded"
    reason = f"{request_code(code).meaning} {data_error_kind(error)}"
    unsure = BatchResult(
        result.batch, UnknownResult(code, reason), None, code, reason, 1, result.seconds
    )
    for instead in (storable(result), unsure):
        try:
            recorded = await write([instead])
            if recorded.written or instead is not unsure:
                return recorded
            # It was unsure before: only this answer can settle it.
            async with begin() as connection:
                await connection.execute(
                    sql("mark_not_recorded"), result.batch.id, result.batch.token, code, reason
                )
        except ROW_ERRORS as again:
            if not is_data_error(again) or stops_all_writes(again):
                raise
    return Recorded(frozenset(), {}, refused=frozenset([result.batch.id]))


async def _record_together(
    begin: Begin, worker: int, results: Sequence[BatchResult], *, circuits: Circuits, waits: bool
) -> Recorded:
    write = partial(_record, begin, worker, results, circuits, waits=waits)
    try:
        return await write()
    except asyncpg.UniqueViolationError:
        # A message had an outcome before, as one that was finished and loaded into the queue again.
        # It keeps that; the others get theirs by the slower way.
        return await write(some_settled=True)


async def _record(
    begin: Begin,
    worker: int,
    results: Sequence[BatchResult],
    circuits: Circuits,
    *,
    waits: bool,
    some_settled: bool = False,
) -> Recorded:
    async with begin() as connection:
        await connection.execute(sql("pin_plans"))
        closed, in_question, in_time = await _close(connection, results)
        # The batches are locked from here on: no other transaction settles their messages.
        asked = results if some_settled else _late(results, closed, in_time)
        settled = await _settled(connection, asked) if asked else frozenset()
        circuit = await apply_to_circuits(connection, worker, results, closed, circuits)
        results = circuit.results
        rows = Rows([], [], [], [], Counter(), defaultdict(list), [], set())
        held: set[int] = set()
        for result in results:
            if result.batch.token in closed:
                _gather(result, rows, settled | _requeued(result, in_question))
            elif await _recall(connection, result, rows, waits=waits):
                held.add(result.batch.id)
        if some_settled:
            accepted: list[OutcomeRow] = [(*row, None, None) for row in rows.accepted]
            await append_outcomes(connection, accepted + rows.outcomes)
        else:
            await _copy_outcomes(connection, ACCEPTED_COLUMNS, rows.accepted)
            await _copy_outcomes(connection, OUTCOME_COLUMNS, rows.outcomes)
        await _match_again(connection, results, in_time)
        if rows.returns:
            await _return(connection, rows.returns)
        await _mark_unsure(connection, rows)
        cut_off: dict[str, str] = {}
        for result in results:
            if result.batch.token in closed:
                opened_at = closed[result.batch.token]
                cut_off |= await apply_to_app(connection, worker, result, opened_at)
        for app, opened in circuit.opened.items():
            await _pause(connection, app, opened.pause, opened.at)
        rows.events.update({event: len(ids) for event, ids in rows.ids_by_event.items()})
        for event, _, size in rows.whole:
            rows.events[event] += size
        await count(connection, worker, rows.events)
        await events.append(connection, rows.ids_by_event, rows.whole)
        return Recorded(
            frozenset(closed),
            cut_off,
            {app: opened.pause.reason for app, opened in circuit.opened.items()},
            circuit.lost_answers,
            held=frozenset(held),
        )


async def _mark_unsure(connection: Connection, rows: Rows) -> None:
    """Write what is left unsure, and close the batches of which nothing is, after the outcomes."""
    if rows.unsure:
        await connection.executemany(sql("keep_unsure"), rows.unsure)
        # Reports may have settled before what this answer leaves open.
        batches = [batch for batch, _ in rows.unsure]
        await connection.execute(sql("close_settled"), batches, "reports")
    if rows.unsure_again:
        again = list(rows.unsure_again)
        await connection.execute(sql("close_settled"), again, "late answer")


async def _close(
    connection: Connection, results: Sequence[BatchResult]
) -> tuple[dict[str, datetime], dict[str, list[int]], set[str]]:
    """Close the batches of *results*; return the tokens of those that were, and when each opened.

    The id alone is another request where ids were given out again, and the answers of both may come
    together. Also return what is in question of those of which messages were requeued while they
    were unsure, and which were never unsure.
    """
    rows = await connection.fetch(
        sql("close_batches"),
        [c.batch.id for c in results],
        [_state(c) for c in results],
        [c.http_status for c in results],
        [c.code for c in results],
        [c.description for c in results],
        [c.tries for c in results],
        [not isinstance(c.verdict, UnknownResult) for c in results],
        [c.batch.token for c in results],
    )
    return (
        {row[0]: row[1] for row in rows},
        {row[0]: row[2] for row in rows if row[2] is not None},
        {row[0] for row in rows if row[3]},
    )


async def _match_again(
    connection: Connection, results: Sequence[BatchResult], in_time: Collection[str]
) -> None:
    """Have reports matched again with the ids of late answers: they may have found no message."""
    late = [
        outcome.provider_id
        for result in results
        if result.batch.token not in in_time and isinstance(result.verdict, Resolved)
        for outcome in result.verdict.outcomes
        if isinstance(outcome, Accepted) and outcome.provider_id is not None
    ]
    if late:
        await connection.execute(sql("match_again"), late)


def _requeued(result: BatchResult, in_question: Mapping[str, Sequence[int]]) -> frozenset[int]:
    """Return the messages of which a late answer says nothing new: a report came before it."""
    if result.batch.token not in in_question:
        return frozenset()
    ids = frozenset(message.id for message in result.batch.messages)
    return ids.difference(in_question[result.batch.token])


def _late(
    results: Sequence[BatchResult], closed: Collection[str], in_time: Collection[str]
) -> list[BatchResult]:
    """Return the late answers: reports may have settled messages of theirs before."""
    return [
        result
        for result in results
        if result.batch.token in closed
        and result.batch.token not in in_time
        and not isinstance(result.verdict, UnknownResult)
    ]


async def _settled(connection: Connection, results: Sequence[BatchResult]) -> frozenset[int]:
    ids = [message.id for result in results for message in result.batch.messages]
    return frozenset(row["message_id"] for row in await connection.fetch(sql("have_outcome"), ids))


def _state(result: BatchResult) -> str:
    match result.verdict:
        case UnknownResult():
            return "unsure"
        case Resolved(unsure=[_, *_]):
            return "unsure"  # the answer lacks some numbers: those may have been sent
        case _:
            return "closed"


def _gather(result: BatchResult, rows: Rows, settled: Collection[int]) -> None:
    """Turn one result into rows and counts, except for messages that are *settled* already."""
    batch = result.batch
    match result.verdict:
        case UnknownResult(code=code):
            rows.whole.append(((batch.app, "unsure", code), batch.id, len(batch.messages)))
        case ReturnAll(pause=pause):
            back = [message for message in batch.messages if message.id not in settled]
            rows.events[batch.app, "returned", pause.code] += len(back)
            rows.returns.extend(
                (batch.app, Deferred(message, pause.code, 0.0, counted=False), batch.id)
                for message in back
            )
        case Resolved(outcomes=outcomes, unsure=unsure):
            if unsure:
                open_still = [message.id for message in unsure if message.id not in settled]
                if open_still:
                    rows.ids_by_event[batch.app, "unsure", result.code] += open_still
                rows.unsure.append((batch.id, open_still))
            if not settled and not unsure and set(map(type, outcomes)) == {Accepted}:
                _gather_accepted(cast("list[Accepted]", outcomes), batch, rows)
                return
            for outcome in outcomes:
                if not settled or outcome.message.id not in settled:
                    _gather_outcome(outcome, batch, rows)


def _gather_accepted(outcomes: list[Accepted], batch: Batch, rows: Rows) -> None:
    """Turn the usual answer into rows: nearly every batch, in a third of the time."""
    number = batch.id
    rows.whole.append(((batch.app, "accepted", ""), number, len(outcomes)))
    rows.accepted += [
        (o.message.id, number, "accepted", o.message.attempt, o.segments, o.provider_id)
        for o in outcomes
    ]


def _gather_outcome(outcome: Outcome, batch: Batch, rows: Rows) -> None:
    app = batch.app
    row: OutcomeRow
    match outcome:
        case Accepted(m, provider_id, segments):
            rows.ids_by_event[app, "accepted", ""].append(m.id)
            rows.accepted.append((m.id, batch.id, "accepted", m.attempt, segments, provider_id))
            return
        case Rejected(m, code, reason):
            rows.ids_by_event[app, "rejected", code].append(m.id)
            row = m.id, batch.id, "rejected", m.attempt, None, None, code, reason
        case Expired(m, code, reason):
            rows.ids_by_event[app, "expired", code].append(m.id)
            row = m.id, batch.id, "expired", m.attempt, None, None, code, reason
        case Deferred(code=code):
            rows.events[app, "deferred", code] += 1
            rows.returns.append((app, outcome, batch.id))
            return
    rows.outcomes.append(row)


async def _recall(connection: Connection, result: BatchResult, rows: Rows, *, waits: bool) -> bool:
    """Take back accepted messages that were given up, if they are not sent again yet.

    Return whether some are left that another session held; it *waits* for one of them first.
    """
    outcomes = result.verdict.outcomes if isinstance(result.verdict, Resolved) else []
    accepted = {o.message.id: o for o in outcomes if isinstance(o, Accepted)}
    if not accepted:
        return False
    number, token = result.batch.id, result.batch.token
    if waits:
        await connection.execute(sql("wait_for_given_up"), list(accepted), number, token)
        await connection.execute(sql("hold_queued"), list(accepted))
    found = await connection.fetch(
        sql("recall"), list(accepted), [number] * len(accepted), [token] * len(accepted)
    )
    for row in found:
        _gather_outcome(accepted[row["id"]], result.batch, rows)
        if row["again"] is not None:
            rows.unsure_again.add(row["again"])
    if len(found) == len(accepted):
        return False
    left = await connection.fetchval(sql("recall_left"), list(accepted), number, token)
    return bool(left)


async def _copy_outcomes(
    connection: Connection,
    columns: Sequence[str],
    outcomes: Sequence[AcceptedRow] | Sequence[OutcomeRow],
) -> None:
    if outcomes:
        await connection.copy_records_to_table(
            "outcome", schema_name="dispatcher", records=outcomes, columns=columns
        )


async def append_outcomes(connection: Connection, outcomes: Sequence[OutcomeRow]) -> None:
    """Write outcomes, except of messages that have one."""
    if outcomes:
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
        [deferred.attempts_spent for _, deferred, _ in returns],
        [deferred.message.requeued for _, deferred, _ in returns],
        [batch for _, _, batch in returns],
        [deferred.code or None for _, deferred, _ in returns],
        [deferred.times_throttled for _, deferred, _ in returns],
    )


async def held_batches(database: Database, results: Sequence[BatchResult]) -> frozenset[int]:
    """Return the batches of *results* whose rows another session holds."""
    async with database.transaction() as connection:
        rows = await connection.fetch(sql("held_batches"), [each.batch.id for each in results])
    return frozenset(row["id"] for row in rows)


async def unknown_batches(database: Database, results: Sequence[BatchResult]) -> frozenset[str]:
    """Return the tokens of *results* that no batch of the database has."""
    async with database.transaction() as connection:
        tokens = [result.batch.token for result in results]
        rows = await connection.fetch(sql("unknown_batches"), tokens)
    return frozenset(row["token"] for row in rows)
