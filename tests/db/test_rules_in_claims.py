"""Rules in the database: set by operators, applied in the transaction of a claim."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, time
from secrets import token_hex

import pytest
from support.claims import arrange

from dispatcher.core.country import country
from dispatcher.core.message import Message
from dispatcher.core.rules import Limits, Rules
from dispatcher.core.templates import Template
from dispatcher.db import operator, rules
from dispatcher.db.claim import claim
from dispatcher.db.database import connect
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.queries import sql
from dispatcher.db.workers import register_app

NOW = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)
NUMBER = "+8613112345678"


def message(number: int, recipient: str = NUMBER) -> Message:
    return Message(number, recipient, "tpl", ["1"], sender="1")


async def applied(db, database, messages: list[Message], app: str = "default") -> dict[int, str]:
    known = await rules.read_rules(database)
    async with db.transaction():
        screen = rules.Screen(app, known, country=country)
        got = await screen.decide(db, messages, NOW.timestamp())
        sent = [message for message in messages if message.id not in got]
        await screen.record_sent(db, sent, NOW.timestamp())
    return {key: each.code for key, each in got.items()}


async def test_what_is_set_is_read(db, database):
    assert await rules.read_rules(database) == Rules()
    limits = Limits(per_day=50, daily_limit=10**10, quiet_from=time(21), quiet_until=time(8))
    await operator.define_template(db, "Ana", Template("tpl", ["NUM_6"]), "codes")
    await operator.define_template(db, "Ana", Template("tpl", ["NUM_4"]), "shorter codes")
    await operator.set_limits(db, "Ana", "default", limits)
    numbers = ["13112345678", NUMBER, "+4915112345678"]
    assert (await operator.suppress(db, "Ana", numbers, "asked")).count == 2
    assert await rules.read_rules(database) == Rules(
        {"tpl": Template("tpl", ["NUM_4"])}, {"default": limits}, suppressing=True
    )
    assert (await operator.drop_template(db, "Ana", "tpl")).count == 1
    assert (await operator.drop_template(db, "Ana", "tpl")).count is None
    await operator.set_limits(db, "Ana", "default", Limits())
    freed = await operator.unsuppress(db, "Ana", ["13112345678", "+4915112345678"])
    assert freed.count == 2
    assert await rules.read_rules(database) == Rules()


UNREADABLE = [
    ("quiet_until => '24:00'", "quiet_hours_are_before_24_00_write_00_00"),
    ("quiet_until => NULL", "quiet_hours_have_both_ends"),
    ("per_minute => 0", "limits_are_positive"),
]


@pytest.mark.parametrize(("limit", "constraint"), UNREADABLE)
async def test_limits_that_cannot_be_read_are_named(db, database, limit, constraint):
    await db.execute(f"ALTER TABLE dispatcher.app_limit DROP CONSTRAINT {constraint}")
    begin = "" if "per" in limit else "quiet_from => '22:00', "
    await db.execute(f"SELECT dispatcher.set_limits('odd', {begin}{limit})")
    await db.execute("SELECT dispatcher.set_limits('shop', per_day => 5)")
    known = await rules.read_rules(database)
    assert known == Rules(limits={"shop": Limits(per_day=5)}, unreadable_limits=frozenset({"odd"}))
    assert [*known.unreadable()] == ["limits of odd"]
    assert await rules.limits(db) == known.limits


@pytest.mark.parametrize("kinds", ["{NUM_6,NULL}", "{{NUM_6,DATE}}", "{NUM_21}", "{x}", "{TXT}"])
async def test_a_template_that_cannot_be_read_is_named(db, database, kinds):
    await db.execute(
        "ALTER TABLE dispatcher.template"
        " DROP CONSTRAINT kinds_are_a_flat_list_of_the_kinds_of_variables"
    )
    insert = "INSERT INTO dispatcher.template (template_id, kinds) VALUES ($1, $2::text::text[])"
    await db.execute(insert, "odd", kinds)
    await db.execute(insert, "good", "{NUM_20,DATE}")
    known = await rules.read_rules(database)
    assert [*known.templates] == ["good"]
    assert [*known.unreadable()] == ["template odd"]
    assert [one.template_id for one, _note in await rules.templates(db)] == ["good"]
    messages = [message(1), Message(2, "+8613800000000", "odd", ["1"], sender="1")]
    assert await applied(db, database, messages) == {2: "unreadable-rule"}


async def test_only_suppressed_numbers_are_held(db, database):
    await operator.suppress(db, "Ana", [NUMBER], "asked")
    messages = [message(1), message(2, "13112345678"), message(3, "+8613800000000")]
    assert await applied(db, database, messages) == {1: "suppressed", 2: "suppressed"}


@pytest.mark.parametrize(
    ("scope", "stopped"),
    [
        ({}, {"shop ad", "shop code", "bank ad", "bank code"}),
        ({"app": "shop"}, {"shop ad", "shop code"}),
        ({"promotional": True}, {"shop ad", "bank ad"}),
        ({"app": "shop", "promotional": True}, {"shop ad"}),
    ],
)
async def test_a_suppression_stops_what_it_is_for(db, database, scope, stopped):
    for app in ("shop", "bank"):
        await register_app(
            database, app, numbers_per_second=None, on_unsure="hold", resend_after=1.0
        )
    await operator.define_template(db, "Ana", Template("ad", [], promotional=True), "")
    assert (await operator.suppress(db, "Ana", [NUMBER, "13112345678"], "", **scope)).count == 1
    sent = [Message(1, "13112345678", "ad", []), Message(2, NUMBER, "code", [])]
    got = {
        f"{app} {'ad' if number == 1 else 'code'}"
        for app in ("shop", "bank")
        for number in await applied(db, database, sent, app)
    }
    assert got == stopped
    other = {"app": "bank", "promotional": True}
    assert (await operator.unsuppress(db, "Ana", [NUMBER], **other)).count == 0
    assert (await operator.unsuppress(db, "Ana", ["13112345678"], **scope)).count == 1
    assert await applied(db, database, sent, "shop") == {}


async def test_an_app_is_promotional_as_it_is_configured(db, database):
    await operator.suppress(db, "Ana", [NUMBER], "", promotional=True)
    for promotional in (False, True, False):
        await register_app(
            database,
            "default",
            numbers_per_second=None,
            on_unsure="hold",
            resend_after=1.0,
            promotional=promotional,
        )
        got = await applied(db, database, [message(1)])
        assert got == ({1: "unsubscribed"} if promotional else {})


async def test_a_number_is_counted_over_claims_and_each_message_once(db, database):
    await operator.set_limits(db, "Ana", "default", Limits(per_minute=2))
    assert await applied(db, database, [message(1), message(2)]) == {}
    assert (
        await applied(db, database, [message(1), message(2)]) == {}
    )  # returned, and claimed again
    assert await applied(db, database, [message(3)]) == {3: "recipient-limit"}
    await db.execute(
        "UPDATE dispatcher.recipient_usage SET sent_at = sent_at - interval '61 seconds'"
    )
    assert await applied(db, database, [message(3)]) == {}


async def test_limits_of_another_app_do_not_count(db, database):
    await operator.set_limits(db, "Ana", "default", Limits(per_minute=1))
    await db.execute(
        "INSERT INTO dispatcher.recipient_usage (message_id, app, recipient, text)"
        " VALUES (9, 'x', $1, 1)",
        NUMBER,
    )
    assert await applied(db, database, [message(1)]) == {}


async def test_a_daily_limit_pauses_the_app_until_the_next_day(db, database):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    await operator.set_limits(db, "Ana", "default", Limits(daily_limit=5))
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count) VALUES"
        " ('2026-11-01 03:00+00', 'default', 'accepted', 2),"
        " ('2026-10-30 03:00+00', 'default', 'accepted', 90)"
    )
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " VALUES ('t', 'default', 1, '{1}', '{1}', 9)"
    )
    assert await applied(db, database, [message(n) for n in range(2, 4)]) == {}
    assert await db.fetchval("SELECT paused_at FROM dispatcher.app") is None
    got = await applied(db, database, [message(n) for n in range(2, 6)])
    assert got == {4: "daily-limit", 5: "daily-limit"}
    row = await db.fetchrow(
        "SELECT pause_code, paused_by, extract(epoch FROM probe_at - now()) / 3600 AS hours"
        " FROM dispatcher.app"
    )
    assert (row["pause_code"], row["paused_by"]) == ("daily-limit", "worker")
    assert 11.9 < row["hours"] < 12.1  # 04:00 UTC is 12:00 UTC+8


@pytest.mark.parametrize(
    ("now", "count"),
    [
        ("2026-07-14T16:00+00:00", 2 + 4),  # the first second of the 15th in UTC+8
        ("2026-07-15T01:00+00:00", 2 + 4),
        ("2026-07-15T15:59+00:00", 2 + 4),
        # Still the 14th there; what is of the 15th was written by a clock that was ahead.
        ("2026-07-14T15:59+00:00", 1 + 8),
        ("2026-07-15T16:00+00:00", 0),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
async def test_the_day_of_a_daily_limit_begins_at_00_00_utc_8(db, now, count, zone):
    await db.execute(f"SET timezone = '{zone}'")
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count) VALUES"
        " ('2026-07-14 15:59+00', 'default', 'accepted', 1),"
        " ('2026-07-14 16:00+00', 'default', 'accepted', 2)"
    )
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes, state,"
        " opened_at) VALUES"
        " ('a', 'default', 1, '{1,2,3,4,5,6,7,8}', '{1,1,1,1,1,1,1,1}', 9, 'unsure',"
        " '2026-07-14 15:00+00'),"
        " ('b', 'default', 1, '{9,10,11,12}', '{1,1,1,1}', 9, 'unsure', '2026-07-14 16:30+00')"
    )
    sent = await rules.sent_today(db, ["default"], datetime.fromisoformat(now))
    assert sent == {"default": count}


async def test_what_a_clock_ahead_sent_counts_for_no_recipient(db, database):
    await db.execute(
        "INSERT INTO dispatcher.recipient_usage (message_id, app, recipient, text, sent_at) VALUES"
        " (1, 'default', $1, 1, now() + interval '2 hours'),"
        " (2, 'default', $1, 1, now() + interval '2 days'),"
        " (3, 'default', $1, 1, now() - interval '2 days'),"
        " (4, 'default', $1, 1, now() - interval '1 hour'),"
        " (5, 'default', $1, 1, now() + interval '20 s')",  # the clock was set back by seconds
        NUMBER,
    )
    [usage] = await db.fetch(sql("recipient_usage"), "default", [NUMBER], [9])
    assert (usage["minute"], usage["hour"], usage["day"]) == (1, 1, 2)
    assert await rules.forget_used(database) == 2
    left = await db.fetch("SELECT message_id FROM dispatcher.recipient_usage ORDER BY 1")
    assert [row["message_id"] for row in left] == [1, 4, 5]


async def test_old_usage_is_found_by_its_index(db):
    await db.execute("SET enable_seqscan = off")
    plan = "\n".join(row[0] for row in await db.fetch("EXPLAIN " + sql("forget_old_usage")))
    assert plan.count("Index Cond: (sent_at") == 2, plan


async def test_what_an_operator_settles_as_sent_counts_for_its_day(db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ($1, 't')", NUMBER
    )
    await db.execute(
        "WITH gone AS (DELETE FROM dispatcher.queue RETURNING id)"
        " INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes, state,"
        " unsure_at) SELECT 'a', 'default', 1, ARRAY[id], '{1}', 9, 'unsure', now() FROM gone"
    )
    assert await rules.sent_today(db, ["default"]) == {"default": 1}
    await db.execute("SELECT dispatcher.settle('a', 'sent')")
    assert await rules.sent_today(db, ["default"]) == {"default": 1}


async def test_of_a_request_answered_in_part_only_the_rest_is_unsure(db):
    """What its answer accepted is counted by its minute already."""
    await db.execute("""
        INSERT INTO dispatcher.event_count (minute, app, event, count)
            VALUES (date_trunc('minute', now()), 'default', 'accepted', 2);
        INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes, state,
            unsure_at, unsure_ids) VALUES ('a', 'default', 1, '{1,2,3}', '{1,1,1}', 9, 'unsure',
            now(), '{3}');
    """)
    assert await rules.sent_today(db, ["default"]) == {"default": 3}


async def test_an_operators_pause_is_kept_by_a_daily_limit(db, database):
    await db.execute("SELECT dispatcher.pause('default', 'lunch', 'Ana')")
    await operator.set_limits(db, "Ana", "default", Limits(daily_limit=1))
    await applied(db, database, [message(1), message(2)])
    assert await db.fetchval("SELECT pause_reason FROM dispatcher.app") == "lunch (Ana)"


async def claimed(database, screen: rules.Screen) -> int:
    """Claim on two slots of ten numbers each; return how many messages are sent."""
    taken = await claim(
        database,
        1,
        ClaimRequest("default", slots=2, per_request=10, sender="s"),
        arrange=arrange,
        token=lambda: token_hex(16),
        screen=screen,
    )
    return sum(len(batch.messages) for batch in taken.batches)


async def limited(db, database, limits: Limits) -> Callable[[], Awaitable[int]]:
    """Set *limits*, and insert 50 messages to one number, which take a request each."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    await operator.set_limits(db, "Ana", "default", limits)
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id)"
        " SELECT $1, 't' FROM generate_series(1, 50)",
        NUMBER,
    )
    known = await rules.read_rules(database)
    return lambda: claimed(database, rules.Screen("default", known, country=country))


async def test_a_daily_limit_is_reached_by_what_is_sent(db, database):
    again = await limited(db, database, Limits(daily_limit=20))
    paused = "SELECT pause_code FROM dispatcher.app"
    sent = await again()
    assert sent == 2
    assert await db.fetchval(paused) is None
    held = "SELECT count(*) FROM dispatcher.queue WHERE code = 'daily-limit'"
    assert await db.fetchval(held) == 0
    for _ in range(200):
        if await db.fetchval(paused):
            break
        sent += await again()
        await asyncio.sleep(0.02)  # what was postponed is due soon
    assert (sent, await db.fetchval(paused)) == (20, "daily-limit")


async def test_only_what_is_sent_counts_for_its_number(db, database):
    again = await limited(db, database, Limits(per_day=40))
    assert await again() == 2
    assert await db.fetchval("SELECT count(*) FROM dispatcher.recipient_usage") == 2


async def test_all_that_one_claim_looks_at_is_one_limit(db, database):
    again = await limited(db, database, Limits(per_day=3))
    assert await again() == 2
    held = "SELECT count(*) FROM dispatcher.queue WHERE code = 'recipient-limit'"
    assert await db.fetchval(held) == 47


async def test_what_was_sent_yesterday_is_forgotten(db, database):
    await operator.set_limits(db, "Ana", "default", Limits(per_day=1))
    await applied(db, database, [message(1)])
    assert await rules.forget_used(database) == 0
    await db.execute(
        "UPDATE dispatcher.recipient_usage SET sent_at = sent_at - interval '25 hours'"
    )
    assert await rules.forget_used(database) == 1


async def test_what_is_sent_again_meanwhile_is_not_forgotten(db, dsn, database):
    await operator.set_limits(db, "Ana", "default", Limits(per_day=1))
    await applied(db, database, [message(1)])
    await db.execute(
        "UPDATE dispatcher.recipient_usage SET sent_at = sent_at - interval '25 hours'"
    )
    claiming = await connect(dsn)
    async with claiming.transaction():
        await claiming.execute("UPDATE dispatcher.recipient_usage SET sent_at = clock_timestamp()")
        forgetting = asyncio.create_task(rules.forget_used(database))
        await asyncio.wait({forgetting}, timeout=0.5)
        assert not forgetting.done()
    assert await forgetting == 0
    await claiming.close()


@pytest.mark.parametrize("number", ["abc", "", "+", "+86 131"])
async def test_what_is_no_number_is_not_suppressed(db, number):
    with pytest.raises(Exception, match='breaks the rule "recipient_'):
        await operator.suppress(db, "Ana", [number], "")


@pytest.mark.parametrize("number", ["447911123456", "10086", "+8610086"])
async def test_a_doubtful_number_that_rows_have_is_freed_and_erased(db, number):
    kept = await db.fetchval("SELECT dispatcher.e164($1)", number)
    await db.execute(
        "INSERT INTO dispatcher.suppression (recipient, reason) VALUES ($1, 'Ana called')", kept
    )
    assert (await operator.forget(db, "Ana", number)).suppressed
    assert not await db.fetchval("SELECT reason FROM dispatcher.suppression")
    assert (await operator.unsuppress(db, "Ana", [number])).count == 1
    with pytest.raises(Exception, match='breaks the rule "recipient_'):
        await operator.suppress(db, "Ana", [number], "")


@pytest.mark.parametrize("number", ["abc", "", "+", "+86 131", "1234"])
async def test_what_is_part_of_any_text_is_not_erased(db, number):
    await db.execute(
        "INSERT INTO dispatcher.unreadable_push (digest, body, content_type, reason)"
        " VALUES ('d', '+86 131 1234 abc', 'text/plain', 'r')"
    )
    with pytest.raises(Exception, match="5 digits or more"):
        await db.execute("SELECT dispatcher.forget($1)", [number])
    assert await db.fetchval("SELECT count(*) FROM dispatcher.unreadable_push") == 1
