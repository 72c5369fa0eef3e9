"""Operators' rules on a running service: what they forbid never reaches the provider."""

from support.service import app_settings, running, until

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
        query = "SELECT code FROM dispatcher.outcome WHERE message_id = $1"
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


async def test_only_to_lets_nobody_else_receive_a_message(dsn, db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id)"
        " SELECT '+86131' || lpad((random() * 99999999)::int::text, 8, '0'), 't'"
        " FROM generate_series(1, 2000)"
    )
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('13812345678', 't')"
    )
    settings = {"only_to": "+8613812345678"}
    async with (
        Simulator({"key": "secret"}) as sim,
        running(dsn, **app_settings(sim.url, **settings)),
    ):
        count = "SELECT count(*) = 2001 FROM dispatcher.outcome"
        await until(lambda: db.fetchval(count), what="all outcomes")
        assert sim.ledger.counts() == {"13812345678": 1}
    states = await db.fetch(
        "SELECT state, code, count(*) FROM dispatcher.outcome GROUP BY 1, 2 ORDER BY 1"
    )
    assert [tuple(row) for row in states] == [
        ("accepted", "000000", 1),
        ("rejected", "only-to", 2000),
    ]
