"""Rules in the database: set by operators, applied in the transaction of a claim."""

from datetime import UTC, datetime, time

import pytest

from dispatcher.core.country import country
from dispatcher.core.message import Message
from dispatcher.core.rules import Limits, Rules
from dispatcher.core.templates import Template
from dispatcher.db import rules

NOW = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)
NUMBER = "+8613112345678"


def message(number: int, recipient: str = NUMBER) -> Message:
    return Message(number, recipient, "tpl", ["1"], sender="1")


async def applied(db, database, messages: list[Message]) -> dict[int, str]:
    known = await rules.read_rules(database)
    async with db.transaction():
        got = await rules.apply_rules(db, "default", messages, known, now=NOW, country=country)
    return {key: each.code for key, each in got.items()}


async def test_what_is_set_is_read(db, database):
    assert await rules.read_rules(database) == Rules()
    limits = Limits(per_day=50, ceiling=10**10, quiet_from=time(21), quiet_until=time(8))
    await rules.define_template(db, Template("tpl", ["NUM_6"]), "codes")
    await rules.define_template(db, Template("tpl", ["NUM_4"]), "shorter codes")
    await rules.set_limits(db, "default", limits)
    assert await rules.suppress(db, ["13112345678", NUMBER, "+4915112345678"], "asked") == 2
    assert await rules.read_rules(database) == Rules(
        {"tpl": Template("tpl", ["NUM_4"])}, {"default": limits}, suppressing=True
    )
    assert await rules.drop_template(db, "tpl")
    assert not await rules.drop_template(db, "tpl")
    await rules.set_limits(db, "default", Limits())
    assert await rules.unsuppress(db, ["13112345678", "+4915112345678"]) == 2
    assert await rules.read_rules(database) == Rules()


async def test_only_suppressed_numbers_are_held(db, database):
    await rules.suppress(db, [NUMBER], "asked")
    messages = [message(1), message(2, "13112345678"), message(3, "+8613800000000")]
    assert await applied(db, database, messages) == {1: "suppressed", 2: "suppressed"}


async def test_a_number_is_counted_over_claims_and_each_message_once(db, database):
    await rules.set_limits(db, "default", Limits(per_minute=2))
    assert await applied(db, database, [message(1), message(2)]) == {}
    assert (
        await applied(db, database, [message(1), message(2)]) == {}
    )  # put back, and claimed again
    assert await applied(db, database, [message(3)]) == {3: "too-often"}
    await db.execute("UPDATE dispatcher.sent_to SET at = at - interval '61 seconds'")
    assert await applied(db, database, [message(3)]) == {}


async def test_limits_of_another_app_do_not_count(db, database):
    await rules.set_limits(db, "default", Limits(per_minute=1))
    await db.execute(
        "INSERT INTO dispatcher.sent_to (message_id, app, recipient, text) VALUES (9, 'x', $1, 1)",
        NUMBER,
    )
    assert await applied(db, database, [message(1)]) == {}


async def test_a_ceiling_pauses_the_app_until_the_next_day(db, database):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    await rules.set_limits(db, "default", Limits(ceiling=5))
    await db.execute(
        "INSERT INTO dispatcher.tally (minute, app, event, count) VALUES"
        " (date_trunc('minute', now()), 'default', 'accepted', 2),"
        " (date_trunc('minute', now() - interval '2 days'), 'default', 'accepted', 90)"
    )
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " VALUES ('t', 'default', 1, '{1}', '{1}', 9)"
    )
    assert await applied(db, database, [message(n) for n in range(2, 4)]) == {}
    assert await db.fetchval("SELECT paused_at FROM dispatcher.app") is None
    got = await applied(db, database, [message(n) for n in range(2, 6)])
    assert got == {4: "ceiling", 5: "ceiling"}
    row = await db.fetchrow(
        "SELECT pause_code, paused_by, extract(epoch FROM probe_at - now()) / 3600 AS hours"
        " FROM dispatcher.app"
    )
    assert (row["pause_code"], row["paused_by"]) == ("ceiling", "worker")
    assert 11.9 < row["hours"] < 12.1  # 04:00 UTC is 12:00 UTC+8


async def test_an_operators_pause_is_kept_by_a_ceiling(db, database):
    await db.execute("SELECT dispatcher.pause('default', 'lunch')")
    await rules.set_limits(db, "default", Limits(ceiling=1))
    await applied(db, database, [message(1), message(2)])
    assert await db.fetchval("SELECT pause_reason FROM dispatcher.app") == "lunch"


async def test_what_was_sent_yesterday_is_forgotten(db, database):
    await rules.set_limits(db, "default", Limits(per_day=1))
    await applied(db, database, [message(1)])
    assert await rules.forget_used(database) == 0
    await db.execute("UPDATE dispatcher.sent_to SET at = at - interval '25 hours'")
    assert await rules.forget_used(database) == 1


@pytest.mark.parametrize("number", ["abc", "", "+", "+86 131"])
async def test_what_is_no_number_is_not_suppressed(db, number):
    with pytest.raises(Exception, match="suppressed_number_is_plus_and_digits"):
        await rules.suppress(db, [number], "")
