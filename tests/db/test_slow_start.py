"""The rounds of a slow start, as the statements keep them."""

import pytest

from dispatcher.db.queries import sql

LOST_SECONDS = 33.0


async def set_round(db, *, left: int, answered: int, claimed_before: float) -> None:
    """Let the app `default` be in a round of 32 requests, the last claimed some seconds ago."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    await db.execute(
        "UPDATE dispatcher.app SET slow_start = 32, slow_start_left = $1, slow_start_answered = $2,"
        " slow_start_at = clock_timestamp() - make_interval(secs => $3)",
        left,
        answered,
        claimed_before,
    )


@pytest.mark.parametrize(
    ("left", "answered", "claimed_before", "allowed"),
    [(3, 20, 0.0, 3), (0, 27, 10.0, 0), (0, 27, 40.0, 5), (0, 0, 40.0, 32)],
    ids=["some left", "all on their way", "five lost", "all lost"],
)
async def test_what_a_round_lost_with_its_workers_is_claimed_again(
    db, left, answered, claimed_before, allowed
):
    await set_round(db, left=left, answered=answered, claimed_before=claimed_before)
    row = await db.fetchrow(sql("lock_slow_start"), "default", LOST_SECONDS)
    assert (row["slow_start"], row["left"]) == (32, allowed)
