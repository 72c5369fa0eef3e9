"""What lets time pass keeps what it moves."""

from support.fast_forward import make_older


async def test_counts_of_each_minute_move_past_each_other(db):
    async with db.transaction():  # now() stands still
        await db.execute(
            "INSERT INTO dispatcher.event_count (minute, app, event, count)"
            " SELECT date_trunc('minute', now()) - n * interval '1 minute', 'default', 'accepted',"
            " n FROM generate_series(1, 100) n"
        )
        await make_older(db, 600.0)
        moved = await db.fetchval(
            "SELECT count(*) FROM dispatcher.event_count"
            " WHERE minute = date_trunc('minute', now()) - (count + 10) * interval '1 minute'"
        )
        assert moved == 100
