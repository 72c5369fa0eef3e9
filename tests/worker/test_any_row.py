"""Rows of anything that the constraints allow: the worker lives, and every row gets its state."""

import itertools
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from support.messages import insert
from support.provider import app_at
from support.waiting import until

COLUMNS = "app, sender, recipient, template_id, params, signature, priority, send_at, expires_at,"
COLUMNS += " idempotency_key, reference"
NOW = datetime.now(UTC)
BEGIN, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, 23, 59, 59, 999_999, UTC)

# PostgreSQL has neither NUL nor lone surrogates; all else is text, whatever it does to a line.
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


def text(longest: int, shortest: int = 0) -> st.SearchStrategy[str]:
    """Return texts up to *longest* characters, the extremes among them."""
    return st.one_of(
        st.text(CHARACTERS, min_size=shortest, max_size=min(longest, 20)),
        st.sampled_from(["\U0010ffff" * longest, "\\" * longest, '"' * longest, "\x01" * longest]),
    )


NUMBERS = st.one_of(
    st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True),
    st.from_regex(r"\+86(1[3-9]|86)[0-9]{9,12}", fullmatch=True),
    st.from_regex(r"\+[1-79][0-9]{6,19}", fullmatch=True),
    st.from_regex(r"[0-9]{1,21}", fullmatch=True),
    st.sampled_from(["0", "+0", "1" * 7, "1" * 21, "+1234567", "+9" + "9" * 19]),
)
TIMES = st.one_of(
    st.sampled_from([BEGIN, END, NOW, NOW - timedelta(days=1), NOW + timedelta(days=1)]),
    st.datetimes(BEGIN.replace(tzinfo=None), END.replace(tzinfo=None), timezones=st.just(UTC)),
)
ROWS = st.tuples(
    st.sampled_from(["default", "other", "0", "a" * 63, "nobody-has_it"]),
    st.none() | text(21, 1),
    NUMBERS,
    text(32, 1),
    st.one_of(
        st.lists(text(40), max_size=20),
        st.sampled_from([["x" * 65_536], ["\U0010ffff" * 16_384], ["\x01" * 60_000], [""] * 20]),
    ),
    st.none() | text(32),
    st.integers(0, 9),
    st.one_of(st.just(NOW - timedelta(hours=1)), TIMES),
    st.none() | TIMES,
    st.none() | text(200, 1),
    st.none() | text(200),
)
ONE_ROUND = 200  # rows


def examples(count: int, turn: int) -> list[tuple[object, ...]]:
    """Return about *count* rows, others in each *turn*."""
    rows = []

    @seed(turn)
    @settings(max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(ROWS)
    def collect(row):
        rows.append(row)

    collect()
    return rows


async def insert_odd(db: asyncpg.Connection, rows: list[tuple[object, ...]]) -> list[int]:
    """Insert those of *rows* that the constraints allow; return their ids."""
    places = ", ".join(f"${n}" for n in range(1, 12))
    statement = f"INSERT INTO dispatcher.message ({COLUMNS}) VALUES ({places}) RETURNING id"
    ids = []
    for row in rows:
        try:
            ids.append(await db.fetchval(statement, *row))
        except (asyncpg.CheckViolationError, asyncpg.UniqueViolationError):
            continue
    return ids


DUE = """
SELECT EXISTS (SELECT FROM dispatcher.queue
        WHERE due_at <= clock_timestamp() AND app IN ('default', 'other'))
    OR EXISTS (SELECT FROM dispatcher.bulk
        WHERE due_at <= clock_timestamp() AND app IN ('default', 'other'))
    OR EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')
"""
WITHOUT_REASON = """
SELECT m.id, m.state, m.code FROM dispatcher.message_status m
WHERE NOT CASE m.state
    WHEN 'accepted' THEN true
    WHEN 'rejected' THEN m.reason <> '' AND m.code <> 'set-aside'
    WHEN 'expired' THEN m.code <> ''
    WHEN 'queued' THEN m.due_at > now() OR m.app NOT IN ('default', 'other')
    ELSE false END
"""


@pytest.fixture
def odd_rows(request) -> int:
    """How many odd rows are inserted."""
    return request.config.getoption("--odd-rows")


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_no_row_that_is_allowed_ends_a_worker(db, workers, provide, odd_rows):
    sim = await provide()
    await db.execute("SELECT dispatcher.suppress(ARRAY['+8613800000000'])")
    await db.execute(
        "SELECT dispatcher.set_limits('other', per_day => 100000, daily_limit => 10000000)"
    )
    await db.execute("SELECT dispatcher.define_template('t', ARRAY['TXT_20'])")
    worker = await workers.start({"default": app_at(sim.url), "other": app_at(sim.url)})
    neighbours: list[int] = []
    inserted = generated = 0

    async def idle() -> bool:
        assert worker.code is None, worker.text()
        return not await db.fetchval(DUE)

    for turn in itertools.count():
        rows = examples(ONE_ROUND, turn)
        generated += len(rows)
        inserted += len(await insert_odd(db, rows[: odd_rows - inserted]))
        neighbours += await insert(db, 10, first=1 + 10 * turn, country="+86139")

        await until(idle, deadline=60, what="nothing is due")
        assert [tuple(row) for row in await db.fetch(WITHOUT_REASON)] == []
        if inserted >= odd_rows:
            break
    assert inserted > generated / 10
    print(f"{inserted} of {generated} rows were allowed")  # noqa: T201 - for the report
    rows = await db.fetch(
        "SELECT DISTINCT state FROM dispatcher.message_status WHERE id = ANY ($1)", neighbours
    )
    assert [row["state"] for row in rows] == ["accepted"]
