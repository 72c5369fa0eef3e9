"""Circuit and flow control of an app in the database: what results of requests say about it."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.circuit import (
    HELD_SECONDS,
    Answered,
    CircuitLimits,
    CircuitState,
    SlowStart,
    change,
    signal,
)
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


async def apply_to_circuits(
    connection: Connection,
    results: Sequence[BatchResult],
    closed: Collection[int],
    circuits: Circuits,
) -> tuple[Sequence[BatchResult], dict[str, Pause]]:
    """Write what *results* say about their apps; return them, and the pauses of apps to write.

    A result of which the message must wait is returned changed. Nothing is written while all is
    as usual: then it costs one statement that reads.
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, result in enumerate(results):
        if result.batch.id in closed:
            places[result.batch.app].append(place)
    if not places:
        return results, {}
    states = await connection.fetch(sql("circuits"), list(places))
    signals = {app: [signal(results[place]) for place in at] for app, at in places.items()}
    unusual = [
        row["name"]
        for row in states
        if not (
            _state(row).is_usual
            and row["window_seconds"] is None
            and all(isinstance(each, Answered) for each in signals[row["name"]])
            and not any(_throttled(results[place]) for place in places[row["name"]])
        )
    ]
    if not unusual:
        return results, {}
    changed = list(results)
    pauses: dict[str, Pause] = {}
    for row in await connection.fetch(sql("lock_circuits"), unusual):
        app, state = row["name"], _state(row)
        new = change(
            state,
            signals[app],
            circuits.limits.get(app, CircuitLimits()),
            unknown_share_is_high=app in circuits.mostly_unknown,
        )
        if new.pause is not None:
            pauses[app] = new.pause
        elif new.state != state:
            await connection.execute(sql("set_circuit"), app, *_columns(new.state))
        for held in new.held:
            place = places[app][held]
            changed[place] = _held(results[place])
        await _apply_flow_control(connection, row, [results[place] for place in places[app]])
    return changed, pauses


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


def _held(result: BatchResult) -> BatchResult:
    """Return *result* with its refused message waiting instead of rejected."""
    outcomes: list[Outcome] = [
        Deferred(message, result.code, HELD_SECONDS, counted=False)
        for message in result.batch.messages
    ]
    return replace(result, verdict=Resolved(outcomes, refused=True))


async def end_probe(database: Database, app: str) -> None:
    """End the pause of *app*: the API has answered a request without messages."""
    async with database.transaction() as connection:
        await connection.execute(sql("resume_app"), app, False)
