"""Circuit and flow control of an app in the database: what results of requests say about it."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.circuit import (
    HELD_SECONDS,
    Answered,
    Change,
    CircuitLimits,
    CircuitState,
    SlowStart,
    change,
    signal,
)
from dispatcher.core.codes import UNKNOWN_RESULTS
from dispatcher.core.delays import Pause
from dispatcher.core.outcome import Deferred, Outcome, Resolved
from dispatcher.core.rate_limit import FlowControl, FlowWindow, add_to_window, end_window
from dispatcher.core.result import BatchResult
from dispatcher.db.database import Connection, Database
from dispatcher.db.queries import sql


class Circuits(Struct, frozen=True):
    """When circuits open, by app."""

    limits: Mapping[str, CircuitLimits] = MappingProxyType({})
    mostly_unknown: Collection[str] = ()  # of these, the worker had mostly unknown results lately


DEFAULT_CIRCUITS = Circuits()


class Opened(Struct, frozen=True):
    """A circuit that opens."""

    pause: Pause
    at: datetime  # when the last request was opened that says so


class Applied(Struct):
    """What results mean for the circuits of their apps."""

    results: list[BatchResult]  # some of them changed
    opened: dict[str, Opened]  # by app; to be written
    lost_answers: dict[str, str]  # apps whose answers only this host loses, and why


async def apply_to_circuits(
    connection: Connection,
    worker: int,
    results: Sequence[BatchResult],
    closed: Mapping[str, datetime],
    circuits: Circuits,
) -> Applied:
    """Write what *results* say about their apps; return what else follows.

    *closed* has the tokens of the batches whose results count, and when each was opened. What was
    opened before the last pause of its app ended says nothing about the app now. A result of which
    the message must wait, or need not wait any more, is returned changed. Nothing is written while
    all is as usual: then it costs one statement that reads.
    """
    applied = Applied(list(results), {}, {})
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, result in enumerate(results):
        if result.batch.token in closed:
            places[result.batch.app].append(place)
    if not places:
        return applied
    states = await connection.fetch(sql("circuits"), list(places))
    unusual = [
        row["name"]
        for row in states
        if not (
            _state(row).is_usual
            and row["window_seconds"] is None
            and all(_is_usual(results[place]) for place in places[row["name"]])
        )
    ]
    if unusual:
        for row in await connection.fetch(sql("lock_circuits"), unusual):
            await _apply(
                connection,
                row,
                places[row["name"]],
                applied,
                worker=worker,
                closed=closed,
                circuits=circuits,
            )
    return applied


def _is_usual(result: BatchResult) -> bool:
    verdict = result.verdict
    return (
        isinstance(verdict, Resolved)
        and not verdict.throttled
        and not verdict.countries
        and isinstance(signal(result), Answered)
    )


async def _apply(
    connection: Connection,
    row: asyncpg.Record,
    places: Sequence[int],
    applied: Applied,
    *,
    worker: int,
    closed: Mapping[str, datetime],
    circuits: Circuits,
) -> None:
    """Write what the results at *places* say about the app of *row*, which is locked."""
    app, state, results = row["name"], _state(row), applied.results
    fresh: list[int] = []
    for place in places:
        if closed[results[place].batch.token] >= row["pause_ended_at"]:
            fresh.append(place)
        else:
            results[place] = _without_country_pauses(results[place])
    new = change(
        state,
        [signal(results[place]) for place in fresh],
        circuits.limits.get(app, CircuitLimits()),
        unknown_share_is_high=app in circuits.mostly_unknown,
    )
    if await _concerns_this_host(connection, worker, app, state, new.pause):
        applied.lost_answers[app] = new.pause.reason if new.pause else ""
        new = Change(replace(new.state, unknown=0))
    if new.pause is not None:
        opened_at = max(closed[results[place].batch.token] for place in fresh)
        applied.opened[app] = Opened(new.pause, opened_at)
    elif new.state != state:
        await connection.execute(sql("set_circuit"), app, *_columns(new.state))
    held = {fresh[place] for place in new.held}
    for place in places:
        if place in held:
            results[place] = _held(results[place], state.pause_code)
        elif not (results[place].batch.probe and state.pause_code):
            results[place] = _without_pause_if_refused(results[place])
    await _apply_flow_control(connection, row, [results[place] for place in places])


async def _concerns_this_host(
    connection: Connection, worker: int, app: str, before: CircuitState, pause: Pause | None
) -> bool:
    """Return whether only this host loses answers: others send, so the app's circuit stays closed.

    In a slow start few requests are sent, and nothing can be said of the others.
    """
    if pause is None or pause.code != UNKNOWN_RESULTS or before.slow_start is not None:
        return False
    if not await connection.fetchval(sql("others_send"), app, worker):
        return False
    await connection.execute(sql("cut_off"), app, worker)
    return True


async def _apply_flow_control(
    connection: Connection, row: asyncpg.Record, results: Sequence[BatchResult]
) -> None:
    """Add *results* to the window of the app of *row*, and slow the app down at its end."""
    answered = [each for each in results if isinstance(each.verdict, Resolved) and each.tries]
    before = None
    if row["window_seconds"] is not None:
        before = FlowWindow(
            row["window_seconds"],
            row["window_numbers"],
            row["window_refused"],
            row["window_after_cut"],
        )
    elif row["just_slowed"]:
        return  # these were sent at the rate before
    window = add_to_window(
        before,
        numbers=sum(len(each.batch.messages) for each in answered),
        refused=sum(map(_throttled, answered)),
    )
    if window is not None and window.is_over:
        before_it = FlowControl(row["base_share"], row["cut_share"], row["cut_factor"])
        flow, factor = end_window(before_it, window)
        if flow != before_it or factor != 1.0:
            await connection.execute(
                sql("slow_down"),
                row["name"],
                factor,
                window.accepted_per_second,
                flow.base,
                flow.cut_share,
                flow.cut_factor,
            )
        window = None
    if window != before:
        numbers, refused = (window.numbers, window.refused) if window else (0, 0)
        await connection.execute(
            sql("set_window"), row["name"], window is not None, numbers, refused
        )


def _throttled(result: BatchResult) -> int:
    return result.verdict.throttled if isinstance(result.verdict, Resolved) else 0


def _state(row: asyncpg.Record) -> CircuitState:
    slow_start = None
    if row["slow_start"] is not None:
        slow_start = SlowStart(
            row["slow_start"], row["slow_start_left"], row["slow_start_answered"]
        )
    return CircuitState(
        row["unknown_streak"], tuple(row["refused_texts"]), slow_start, row["pause_code"]
    )


def _columns(state: CircuitState) -> tuple[int, list[int], int | None, int, int]:
    round_ = state.slow_start
    if round_ is None:
        return state.unknown, list(state.refused), None, 0, 0
    return (
        state.unknown,
        list(state.refused),
        round_.requests,
        round_.left,
        round_.answered,
    )


def _held(result: BatchResult, paused_for: str | None) -> BatchResult:
    """Return *result* with its refused message waiting instead of rejected.

    It pauses an app that is *paused_for* the same code, which would otherwise resume.
    """
    pause = result.verdict.pause if isinstance(result.verdict, Resolved) else None
    if pause is not None and pause.code != paused_for:
        pause = None
    outcomes: list[Outcome] = [
        Deferred(message, result.code, HELD_SECONDS, counted=False)
        for message in result.batch.messages
    ]
    return replace(result, verdict=Resolved(outcomes, refused=True, pause=pause))


def _without_pause_if_refused(result: BatchResult) -> BatchResult:
    """Return *result* so that one refused message pauses no app: the circuit opens if it must."""
    verdict = result.verdict
    if not isinstance(verdict, Resolved) or not verdict.refused or verdict.pause is None:
        return result
    return replace(result, verdict=replace(verdict, pause=None))


def _without_country_pauses(result: BatchResult) -> BatchResult:
    """Return *result* so that its countries are not paused, and its messages to them are due."""
    verdict = result.verdict
    if not isinstance(verdict, Resolved) or not verdict.countries:
        return result
    codes = {pause.code for pause in verdict.countries}
    outcomes: list[Outcome] = [
        replace(one, wait=0.0) if isinstance(one, Deferred) and one.code in codes else one
        for one in verdict.outcomes
    ]
    return replace(result, verdict=replace(verdict, outcomes=outcomes, countries=[]))


async def stopped_apps(
    database: Database, worker: int, apps: Collection[str]
) -> tuple[dict[str, str], set[str]]:
    """Return which of *apps* workers have paused, and why; and which *worker* alone cannot send."""
    async with database.acquire() as connection:
        rows = await connection.fetch(sql("stopped_apps"), list(apps), worker)
    paused = {row["name"]: row["pause_reason"] for row in rows if row["paused"]}
    return paused, {row["name"] for row in rows if row["cut_off"]}


async def end_probe(database: Database, app: str, probed_at: datetime) -> None:
    """End the pause of *app* if it began before *probed_at*: the API has answered the probe."""
    async with database.transaction() as connection:
        await connection.execute(sql("end_probe"), app, probed_at)
