"""Accepted messages without a report: the sign of a wrong callback address."""

from dispatcher.db.reports import MissingReports, awaiting

ONE, TWO, THREE = "+8613100000001", "+8613100000002", "+8613100000003"


async def accept_long_ago(world, hours: float, numbers: list[str], token: str = "t1") -> None:
    """Write messages as accepted some hours ago, with their counter, as a worker does."""
    ids = await world.batch(numbers, token=token, state="open")
    await world.accept(ids, [f"p{number[-1]}" for number in numbers], token=token)
    at = await world.db.fetchval(
        "UPDATE dispatcher.outcome SET created_at = now() - make_interval(secs => $2)"
        " WHERE message_id = ANY ($1) RETURNING created_at",
        ids,
        hours * 3600.0,
    )
    await world.db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count)"
        " VALUES (date_trunc('minute', $1::timestamptz), 'default', 'accepted', $2)",
        at,
        len(ids),
    )


async def test_it_counts_what_has_no_report_and_how_old_the_oldest_is(world, told):
    await accept_long_ago(world, 5, [ONE, TWO])
    await accept_long_ago(world, 0.1, [THREE], token="t2")
    (app,) = await awaiting(world.db)
    assert (app.accepted, app.waiting, app.overdue) == (3, 3, 2)
    assert 5 * 3600 <= app.oldest_seconds < 5 * 3600 + 120

    await world.store(told("p1", ONE), told("p2", TWO, status="UNDELIV"))
    await world.match()
    (app,) = await awaiting(world.db)
    assert (app.accepted, app.waiting, app.overdue) == (3, 1, 0)
    assert app.oldest_seconds < 600


async def test_each_message_counts_once_however_many_reports_it_has(world, told):
    await accept_long_ago(world, 2, [ONE, TWO])
    for status in ("ACCEPTD", "DELIVRD"):
        for segment in (1, 2):
            await world.store(told("p1", ONE, segment=segment, total=2, status=status))
            await world.match()
    (app,) = await awaiting(world.db)
    assert (app.waiting, app.overdue) == (1, 1)


async def test_reports_are_not_awaited_after_the_report_period(world):
    await accept_long_ago(world, 90, [ONE])
    assert await awaiting(world.db) == []


COUNTED = (
    "INSERT INTO dispatcher.event_count (minute, app, event, code, count) VALUES"
    " (date_trunc('minute', now() - make_interval(mins => $1)), 'default', $2, $3, $4)"
)


async def test_what_is_overdue_since_the_last_report_is_counted_alone(db):
    for minutes, accepted, reported in (
        (300, 1000, 950), (90, 10, 0), (80, 20, 1), (75, 30, 0), (70, 40, 0), (20, 50, 0),
    ):  # fmt: skip
        await db.execute(COUNTED, minutes, "accepted", "", accepted)
        if reported:
            await db.execute(COUNTED, minutes, "reported", "", reported)
    await db.execute(COUNTED, 70, "settled", "sent", 500)
    await db.execute(COUNTED, -600, "reported", "", 1)  # while the clock was ahead
    (app,) = await awaiting(db)
    assert app.since_last == 30 + 40
    await db.execute(COUNTED, 20, "reported", "", 1)
    (app,) = await awaiting(db)
    assert app.since_last == 0


async def test_what_reports_settled_is_not_waited_for(world, told):
    await world.batch([ONE])
    await world.store(told("p1", ONE))
    await world.match()
    assert await awaiting(world.db) == [MissingReports("default", 1, 0, 0, None)]


async def test_what_an_operator_settled_as_sent_is_waited_for(world, told):
    await world.batch([ONE, TWO])
    await world.db.execute("SELECT dispatcher.settle('t1', 'sent')")
    await world.store(told("p1", ONE))
    await world.match()
    (app,) = await awaiting(world.db)
    assert (app.accepted, app.waiting) == (2, 1)


async def test_the_command_shows_it_and_lists_unmatched_reports(world, told, operate):
    await accept_long_ago(world, 2, [ONE])
    await world.store(told("p9", "+8613112345678", token="nobody's"))
    await world.match()
    ended = await operate("reports")
    assert ended.code == 0, ended.err
    out = ended.out
    assert "default" in out
    assert "p9 (1)" in out
    assert "No request had its token, and no accepted message has its provider id." in out
    assert "+8613112345678" not in out
