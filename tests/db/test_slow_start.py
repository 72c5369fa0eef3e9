"""The rounds of a slow start, as the statements keep them."""

from datetime import UTC, datetime

import pytest

from dispatcher.core.codes import NUMBER, REQUEST, Kind, number_code, request_code
from dispatcher.db.circuit import end_probe
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
    [
        (3, 20, 0.0, 3),
        (0, 27, 10.0, 0),
        (0, 27, 40.0, 5),
        (0, 0, 40.0, 32),
        (0, 31, -86_400.0, 1),
        (0, 31, -0.5, 0),
    ],
    ids=["some left", "all on their way", "five lost", "all lost", "clock set back", "a little"],
)
async def test_what_a_round_lost_with_its_workers_is_claimed_again(
    db, left, answered, claimed_before, allowed
):
    await set_round(db, left=left, answered=answered, claimed_before=claimed_before)
    row = await db.fetchrow(sql("lock_slow_start"), "default", LOST_SECONDS)
    assert (row["slow_start"], row["left"]) == (32, allowed)


# These wait for a time of their own, whether the app is paused or not.
TIMED = {Kind.LATER, Kind.NOT_READY, Kind.QUOTA, Kind.COUNTRY}


async def test_the_end_of_a_pause_makes_due_what_was_refused(db):
    codes = sorted({*NUMBER, *REQUEST, "E999999", "HTTP 418", "quiet-hours", "daily-limit"})
    await let_wait(db, codes, attempts=2, claimed=2)
    await db.execute("SELECT dispatcher.end_refusal_waits('default')")
    due = await db.fetch(
        "SELECT code, attempt FROM dispatcher.queue WHERE due_at <= clock_timestamp()"
    )
    refusals = {
        code
        for code in codes
        if not {number_code(code).kind, request_code(code).kind} & TIMED and code != "000000"
    }
    assert {row["code"]: row["attempt"] for row in due} == dict.fromkeys(refusals, 1)


@pytest.mark.parametrize("claimed", [3, None], ids=["was not counted", "has no request any more"])
async def test_the_end_of_a_pause_returns_only_a_counted_attempt(db, claimed):
    """Else the policy `resend` could send a message more often than its attempts allow."""
    await let_wait(db, ["E000027"], attempts=2, claimed=claimed)
    await db.execute("SELECT dispatcher.end_refusal_waits('default')")
    assert await db.fetchval("SELECT attempt FROM dispatcher.queue") == 2


async def test_a_message_that_ends_a_pause_makes_first_refusals_due(db):
    for attempts in (1, 2):
        await let_wait(db, ["E000027", "E999999"], attempts=attempts, claimed=attempts)
        await db.execute("SELECT dispatcher.end_refusal_waits('default', by_message => true)")
        rows = await db.fetch(
            "DELETE FROM dispatcher.queue RETURNING attempt, due_at <= clock_timestamp() AS due"
        )
        assert [tuple(row) for row in rows] == [(attempts, attempts == 1)] * 2
        await db.execute("DELETE FROM dispatcher.batch")


async def let_wait(db, codes: list[str], *, attempts: int, claimed: int | None) -> None:
    """Let a message wait for an hour for each code; *claimed*: the attempt of its last request."""
    await db.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, code, last_batch)"
        " SELECT n, 'default', 5, clock_timestamp() + interval '1 hour', $2, code, 1"
        " FROM unnest($1::text[]) WITH ORDINALITY AS u (code, n)",
        codes,
        attempts,
    )
    if claimed is not None:
        await db.execute(
            "INSERT INTO dispatcher.batch (id, token, app, worker, message_ids, attempts, bytes)"
            " OVERRIDING SYSTEM VALUE"
            " SELECT 1, 't', 'default', 1, array_agg(id), array_agg($1::smallint), 1"
            " FROM dispatcher.queue",
            claimed,
        )


@pytest.mark.parametrize("by", ["probe", "operator"])
async def test_probe_and_operator_make_due_what_was_refused(db, database, by):
    await db.execute(
        "INSERT INTO dispatcher.app (name, paused_at, paused_by, pause_code)"
        " VALUES ('default', clock_timestamp(), 'worker', 'unknown-results')"
    )
    await db.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, code)"
        " VALUES (1, 'default', 5, clock_timestamp() + interval '1 hour', 2, 'E000000')"
    )
    if by == "probe":
        await end_probe(database, "default", datetime.now(UTC))
    else:
        await db.execute("SELECT dispatcher.resume('default')")
    assert await db.fetchval("SELECT due_at <= clock_timestamp() FROM dispatcher.queue")


def longest(code: str) -> str:
    """Return until when at most an app that is paused for *code* waits for a probe."""
    return "1 day" if request_code(code).kind is Kind.QUOTA else "10 min"


@pytest.mark.parametrize("code", ["E000623", "daily-limit", "E000045", "all-refused", "HTTP 429"])
async def test_a_probe_time_of_a_clock_that_was_ahead_counts_for_nothing(db, code):
    for ahead, due in (("0 s", True), (longest(code), False), ("3 days", True)):
        await db.execute(
            "INSERT INTO dispatcher.app (name, paused_at, paused_by, pause_code, probe_at,"
            " probe_wait, probe_max) VALUES ('default', now(), 'worker', $1,"
            " clock_timestamp() + $2::text::interval, '2 min', '10 min')"
            " ON CONFLICT (name) DO UPDATE SET probe_at = excluded.probe_at",
            code,
            ahead,
        )
        row = await db.fetchrow(sql("app_state"), "default", 0, 9, [0.0] * 10, 0, None, None)
        assert row["probe_due"] is due
        taken = await db.fetchval(sql("take_probe"), "default", 30.0)
        assert (taken is not None) is due
