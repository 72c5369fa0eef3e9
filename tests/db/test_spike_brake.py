"""An hour far over an app's own usual pauses it, once."""

import pytest

COUNT = """
    INSERT INTO dispatcher.event_count (minute, app, event, count)
    VALUES (date_trunc('minute', now()) - make_interval(mins => $2), $1, 'accepted', $3)
    ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = excluded.count
"""
BRAKE = "SELECT dispatcher.brake_spikes(ARRAY['old', 'new'], ARRAY[10, 10])"
STATE = "SELECT paused_by, pause_code, pause_reason FROM dispatcher.app WHERE name = 'old'"
DAY = 24 * 60


@pytest.fixture
async def history(db):
    """Two apps: one with a busiest hour of 500 two days ago, one that began today."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('old'), ('new')")
    for minutes, count in ((2 * DAY, 500), (DAY, 100)):
        await db.execute(COUNT, "old", minutes, count)
    await db.execute(COUNT, "new", 90, 10)


async def test_an_hour_far_over_the_usual_pauses_an_app_once(db, history):
    del history
    await db.execute(COUNT, "old", 30, 5_000)
    assert await db.fetchval(BRAKE) == 0
    await db.execute(COUNT, "old", 20, 1)
    assert await db.fetchval(BRAKE) == 1
    paused_by, code, reason = await db.fetchrow(STATE)
    assert (paused_by, code) == ("operator", "spike")
    assert reason.startswith("5001 messages accepted in an hour, and at most 500 in any hour of")
    await db.execute("SELECT dispatcher.resume('old')")
    assert await db.fetchval(BRAKE) == 0  # who resumed it has looked
    await db.execute("UPDATE dispatcher.app SET braked_at = now() - interval '25 hours'")
    assert await db.fetchval(BRAKE) == 1
    actors = await db.fetch("SELECT actor FROM dispatcher.audit WHERE action = 'pause'")
    assert [row[0] for row in actors] == ["spike brake"] * 2


async def test_what_a_clock_ahead_wrote_holds_no_brake(db, history):
    del history
    await db.execute(COUNT, "old", -2 * DAY, 50_000)
    await db.execute(COUNT, "old", 30, 5_000)
    assert await db.fetchval(BRAKE) == 0
    await db.execute(COUNT, "old", 20, 1)
    await db.execute("UPDATE dispatcher.app SET braked_at = now() + interval '1 year'")
    assert await db.fetchval(BRAKE) == 1


async def test_an_app_without_history_or_with_few_messages_goes_on(db, history):
    del history
    await db.execute(COUNT, "new", 30, 50_000)
    await db.execute("UPDATE dispatcher.event_count SET count = 5 WHERE app = 'old'")
    await db.execute(COUNT, "old", 30, 1_000)
    assert await db.fetchval(BRAKE) == 0


async def test_the_usual_is_known_from_counters_by_hour_too(db, history):
    del history
    await db.execute("UPDATE dispatcher.event_count SET minute = minute - interval '5 days'")
    assert await db.fetchval("SELECT dispatcher.roll_up_counts('4 days')") == 3
    await db.execute(COUNT, "old", 30, 5_000)
    assert await db.fetchval(BRAKE) == 0
    await db.execute(COUNT, "old", 20, 1)
    assert await db.fetchval(BRAKE) == 1
