"""An open transaction of a person holds a row: only the reports that need it wait."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from support.waiting import until

from dispatcher.core.report_status import APP_STATUSES
from dispatcher.db import report_matching
from dispatcher.db.database import connect

ONE, TWO, THREE = "+8613100000001", "+8613100000002", "+8613100000003"
REFUSED = min(APP_STATUSES)
# What a person has begun, and the status of the report that needs the row.
HELD = {
    "suppression": (
        f"SELECT dispatcher.suppress('{{{ONE}}}', app => 'default', promotional => true)",
        "MBBLACK",
    ),
    "app": ("SELECT dispatcher.pause('default', 'looking at it')", REFUSED),
    "outcome": ("SELECT FROM dispatcher.outcome FOR UPDATE", "DELIVRD"),
    "summary": ("SELECT FROM dispatcher.report_summary FOR UPDATE", "DELIVRD"),
}


@pytest.fixture
async def person(dsn, monkeypatch) -> AsyncIterator[asyncpg.Connection]:
    """A session of a person, with a transaction that stays open."""
    monkeypatch.setattr(report_matching, "LOCK_TIMEOUT", "100ms")
    connection = await connect(dsn)
    await connection.execute("BEGIN")
    yield connection
    await connection.close()


@pytest.mark.parametrize("kind", HELD)
async def test_only_the_reports_that_need_a_held_row_wait(world, told, person, kind):
    statement, status = HELD[kind]
    await world.db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    first, second, third = await world.batch([ONE, TWO, THREE])
    await world.db.execute("SELECT dispatcher.settle('t1', 'sent')")  # without provider ids
    total = 2 if kind == "summary" else 1
    if kind == "summary":
        await world.store(told("p1", ONE, segment=1, total=2))
        await world.match()
    held = told("p1", ONE, status=status, segment=total, total=total)
    if kind == "outcome":
        statement = f"SELECT FROM dispatcher.outcome WHERE message_id = {first} FOR UPDATE"
    await person.execute(statement)
    await world.store(told("p2", TWO), held, told("p3", THREE))
    await report_matching.match(world.database, suppress_blocked=True)
    states = await world.states()
    assert (states[second], states[third]) == (("delivered", "p2"), ("delivered", "p3"))
    assert await world.why() == {"p1": ("locked", True)}
    await person.execute("ROLLBACK")
    await world.hurry()
    await report_matching.match(world.database, suppress_blocked=True)
    assert await world.why() == {}
    assert (await world.states())[first][1] == "p1"
    events = [name for message, name, _ in await world.events() if message == first]
    assert events == ["accepted", "delivered" if status == "DELIVRD" else "undelivered"]
    if kind == "suppression":
        assert await world.db.fetchval("SELECT recipient FROM dispatcher.suppression") == ONE
    if kind == "app":
        assert await world.db.fetchval("SELECT report_refusals FROM dispatcher.app") == 1


async def test_what_a_person_holds_many_of_ends_a_step_in_time(world, told, person, monkeypatch):
    """The others are matched, though those that wait would take minutes one by one."""
    monkeypatch.setattr(report_matching, "MAX_LOCKED_SECONDS", 2.0)
    numbers = [f"+86131{n:08d}" for n in range(64)]
    ids = await world.batch([*numbers, TWO])
    await world.accept(ids, [f"p{n}" for n in range(65)])
    await person.execute(
        "SELECT dispatcher.suppress($1, app => 'default', promotional => true)", numbers
    )
    await world.store(
        *(told(f"p{n}", number, status="MBBLACK") for n, number in enumerate(numbers)),
        told("p64", TWO),
    )
    step = await report_matching.match(world.database, suppress_blocked=True)
    assert (step.reports, len(await world.why())) == (65, 64)
    assert (ids[-1], "delivered", "DELIVRD") in await world.events()


@pytest.mark.parametrize("table", ["report_inbox", "unmatched_report"])
async def test_a_report_whose_own_row_is_held_is_taken_later(world, told, person, table):
    first, second = await world.batch([ONE, TWO], state="open")
    await world.store(told("p1", ONE))
    if table == "unmatched_report":
        await world.match()
        await world.hurry()
    await world.accept([first, second], ["p1", "p2"])
    await person.execute(f"SELECT FROM dispatcher.{table} FOR UPDATE")
    await world.store(told("p2", TWO))
    assert (await world.match()).reports == 1
    assert await world.events() == [(second, "delivered", "DELIVRD")]
    await person.execute("ROLLBACK")

    async def matched() -> bool:
        return (await world.match()).reports == 1

    await until(matched)
    assert (first, "delivered", "DELIVRD") in await world.events()


@pytest.mark.parametrize("held_by", ["a lock", "an insert"])
async def test_a_later_report_of_a_held_one_stops_no_matching(world, told, person, held_by):
    """A person holds its unmatched row, or has begun to requeue its message, which inserts one."""
    await world.db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    first, second = await world.batch([ONE, TWO])
    ids = ["p1", "p2"] if held_by == "an insert" else [None, "p2"]
    if held_by == "an insert":
        await world.accept([first, second], ids)
    await world.store(told("p1", ONE, state="interim", status="ACCEPTD", token="t0"))
    if held_by == "a lock":
        await world.match()
        assert (await world.why()).keys() == {"p1"}
        await person.execute("SELECT FROM dispatcher.unmatched_report FOR UPDATE")
    else:
        await person.execute(
            "INSERT INTO dispatcher.unmatched_report (provider_id, segment, reason)"
            " VALUES ('p1', 1, 'requeued')"
        )
        await person.execute(HELD["suppression"][0])
    await world.store(
        told("p1", ONE, status="MBBLACK", token="t0" if held_by == "a lock" else "t1"),
        told("p2", TWO),
    )
    for _ in range(2):
        await report_matching.match(world.database, suppress_blocked=True)
    assert (await world.states())[second] == ("delivered", "p2")
    waiting = await world.db.fetch("SELECT provider_ids, statuses FROM dispatcher.report_inbox")
    assert [tuple(row) for row in waiting] == [(["p1"], ["MBBLACK"])]
    await person.execute("ROLLBACK")
    await report_matching.match(world.database, suppress_blocked=True)
    assert not await world.db.fetch("SELECT FROM dispatcher.report_inbox")
    if held_by == "an insert":
        assert (await world.states())[first] == ("undelivered", "p1")
