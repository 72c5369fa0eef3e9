"""The circuit of an app in the database: its state in table `app`, and the end of a probe."""

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
    states = await _read(connection, "circuits", list(places))
    signals = {app: [signal(results[place]) for place in at] for app, at in places.items()}
    unusual = [
        app
        for app, state in states.items()
        if not (state.is_usual and all(isinstance(each, Answered) for each in signals[app]))
    ]
    if not unusual:
        return results, {}
    changed = list(results)
    pauses: dict[str, Pause] = {}
    for app, state in (await _read(connection, "lock_circuits", unusual)).items():
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
    return changed, pauses


async def _read(
    connection: Connection, statement: str, apps: Sequence[str]
) -> dict[str, CircuitState]:
    rows = await connection.fetch(sql(statement), apps)
    return {row["name"]: _state(row) for row in rows}


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
