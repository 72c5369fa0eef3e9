"""Operators' rules on a running service: what they forbid never reaches the provider."""

from support.messages import finished
from support.service import app_settings, running, until
from support.waiting import until as patient

from dispatcher.core.rules import Limits
from dispatcher.core.templates import Template
from dispatcher.db import operator
from dispatcher.simulator import Simulator

GOOD, SUPPRESSED = "+8613112345678", "+8613100000001"
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id, params)
    VALUES ($1, 'tpl', $2) RETURNING id
"""


async def test_what_is_suppressed_or_does_not_fit_costs_no_request(db, dsn):
    await operator.suppress(db, "Ana", [SUPPRESSED], "asked to be left alone")
    await operator.define_template(db, "Ana", Template("tpl", ["NUM_6"]), "codes")
    ids = {
        "suppressed": await db.fetchval(INSERT, SUPPRESSED, ["123456"]),
        "template-mismatch": await db.fetchval(INSERT, GOOD, ["12345x"]),
        "000000": await db.fetchval(INSERT, GOOD, ["123456"]),
    }
    async with Simulator({"key": "secret"}) as sim, running(dsn, **app_settings(sim.url)):
        count = "SELECT count(*) = 3 FROM dispatcher.outcome"
        await until(lambda: db.fetchval(count), what="three outcomes")
        assert sim.ledger.counts() == {GOOD: 1}
    for code, number in ids.items():
        query = "SELECT code FROM dispatcher.message_status WHERE id = $1"
        assert await db.fetchval(query, number) == code


async def test_an_app_at_its_daily_limit_is_paused_and_loses_nothing(db, dsn):
    await operator.set_limits(db, "Ana", "default", Limits(daily_limit=7))
    for number in range(20):
        await db.fetchval(INSERT, f"+86131000001{number:02d}", [])
    async with Simulator({"key": "secret"}) as sim, running(dsn, **app_settings(sim.url)):
        paused = "SELECT pause_code = 'daily-limit' FROM dispatcher.app"
        await until(lambda: db.fetchval(paused), what="a pause at the daily limit")
        done = "SELECT count(*) = 7 FROM dispatcher.outcome"
        await until(lambda: db.fetchval(done), what="seven outcomes")
        assert sim.ledger.numbers == 7
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 13
    assert await db.fetchval("SELECT max(attempt) FROM dispatcher.queue") == 0


async def test_only_to_lets_nobody_else_receive_a_message(dsn, db, strangers):
    # Random numbers, with and without +86, of the mainland and abroad, and neighbours of the
    # allowed ones: a digit more, a digit less, another country with the same digits.
    await db.execute(
        """
        INSERT INTO dispatcher.message (recipient, template_id, priority)
        SELECT (ARRAY['+8613', '13', '+852', '+4915', '+1202', '+861381234'])[kind]
            || lpad((random() * (10 ^ digits - 1))::bigint::text, digits, '0'), 't', n % 10
        FROM (
            SELECT n, n % 6 + 1 AS kind, (ARRAY[9, 9, 8, 9, 7, 4])[n % 6 + 1] AS digits
            FROM generate_series(1, $1::int) AS n
        ) AS r
        """,
        strangers,
    )
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) SELECT unnest($1::text[]), 't'",
        ["13812345678", "+8613812345678", "+85291234567", "+85391234567", "+4413812345678"],
    )
    settings = {"only_to": "+8613812345678,+8529123*", "numbers_per_second": "none"}
    async with (
        Simulator({"key": "secret"}) as sim,
        running(dsn, **app_settings(sim.url, **settings)),
    ):
        await patient(lambda: finished(db), deadline=120)
        sent = {number.removeprefix("+86") for number in sim.ledger.counts()}
    assert "13812345678" in sent
    assert all(number == "13812345678" or number.startswith("+8529123") for number in sent)
    states = await db.fetch(
        "SELECT o.state, coalesce(o.code, ''),"
        " bool_and(m.recipient ~ '^([+]86)?13812345678$|^[+]8529123')"
        " FROM dispatcher.outcome o JOIN dispatcher.message m ON m.id = o.message_id"
        " GROUP BY 1, 2 ORDER BY 1"
    )
    assert [tuple(row) for row in states] == [
        ("accepted", "", True),
        ("rejected", "only-to", False),
    ]
