"""Operators' SQL functions write the audit themselves, for psql as for the console."""

import asyncpg
import pytest

from dispatcher.core.rules import Limits, describe_limits
from dispatcher.db.audit import AuditFilter, page
from dispatcher.db.database import connect

ACTOR = "Ana"


async def audit(db) -> list[tuple[str, ...]]:
    rows = await db.fetch(
        "SELECT actor, action, target, detail, result FROM dispatcher.audit ORDER BY id"
    )
    return [tuple(row) for row in rows]


async def test_a_plain_call_is_audited_as_the_user_of_the_session(db):
    user = await db.fetchval("SELECT session_user")
    await db.execute("SELECT dispatcher.pause('shop', 'texts look odd')")
    await db.execute("SELECT dispatcher.resume('shop')")
    assert await audit(db) == [
        (user, "pause", "shop", "texts look odd", "paused"),
        (user, "resume", "shop", "", "resumed"),
    ]


async def test_the_user_is_that_of_the_session_whatever_role_acts(db, dsn):
    worker = await connect(f"{dsn}&role=dispatcher_worker")
    await worker.execute("SELECT dispatcher.pause('shop', NULL)")
    await worker.close()
    user = await db.fetchval("SELECT session_user")
    assert await audit(db) == [(user, "pause", "shop", "", "paused")]
    reason = await db.fetchval("SELECT pause_reason FROM dispatcher.app")
    assert reason == f"no reason given ({user})"


async def test_messages_are_one_row_a_call_with_the_count(db, rows):
    ids = await rows.messages(3)
    await rows.outcome(ids[0], "rejected", code="E000001")
    await rows.batch([ids[1]], state="unsure")
    await db.execute("DELETE FROM dispatcher.queue WHERE id = $1", ids[0])
    await db.execute("SELECT dispatcher.cancel($1, $2)", ids, ACTOR)
    await db.execute("SELECT dispatcher.cancel(ARRAY[99])")
    await db.execute("SELECT dispatcher.cancel('{}', $1)", ACTOR)
    await db.execute("SELECT dispatcher.requeue($1, $2)", [ids[0]], ACTOR)
    await db.execute("SELECT dispatcher.settle('token1', 'resend', $1)", ACTOR)
    user = await db.fetchval("SELECT session_user")
    assert await audit(db) == [
        (ACTOR, "cancel", "3 messages", "1 2 3", "1 of 3 cancelled"),
        (user, "cancel", "message 99", "", "0 of 1 cancelled"),
        (ACTOR, "cancel", "0 messages", "", "0 of 0 cancelled"),
        (ACTOR, "requeue", f"message {ids[0]}", "", "1 of 1 wait again"),
        (ACTOR, "settle", "batch token1", "resend", "1 wait again"),
    ]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("Ana", {"Ana", "Ana (shared token)"}),
        ("Ana (shared token)", {"Ana (shared token)"}),
        ("Ana（共享令牌）", {"Ana (shared token)"}),
        ("An", set()),
        ("（共享令牌）", set()),
    ],
)
async def test_a_name_is_found_as_each_reader_sees_it(database, db, written, found):
    for actor in ("Ana", "Ana (shared token)", "Ben (shared token)"):
        await db.execute("SELECT dispatcher.pause('shop', '', $1)", actor)
    entries, _ = await page(database, AuditFilter(actor=written), None)
    assert {entry.actor for entry in entries} == found
    everything, _ = await page(database, AuditFilter(), None)
    assert len(everything) == 3


async def test_an_application_that_cancels_is_audited(db, dsn, rows):
    ids = await rows.messages(2)
    app = await connect(f"{dsn}&role=dispatcher_app")
    assert await app.fetchval("SELECT dispatcher.cancel($1)", ids) == 2
    await app.close()
    assert [row[1:] for row in await audit(db)] == [
        ("cancel", "2 messages", "1 2", "2 of 2 cancelled")
    ]


async def test_the_actor_is_the_last_argument_of_each_function(db):
    rows = await db.fetch(
        "SELECT proname AS name, proargnames[pronargs] AS last_in FROM pg_proc "
        "WHERE pronamespace = 'dispatcher'::regnamespace "
        "AND pg_get_function_arguments(oid) ~* 'actor text DEFAULT SESSION_USER'"
    )
    assert {row["name"] for row in rows} >= {"cancel", "suppress", "settle_batches", "forget"}
    assert {row["name"] for row in rows if row["last_in"] != "actor"} == set()


async def test_many_ids_are_listed_up_to_a_limit(db):
    await db.execute("SELECT dispatcher.cancel($1)", list(range(1, 10_002)))
    ((_, _, target, detail, _),) = await audit(db)
    assert target == "10001 messages"
    assert detail.endswith(" 9999 10000 ...")


async def test_a_suppression_for_an_app_that_is_not_there_warns(db):
    warnings = []
    db.add_log_listener(lambda _, message: warnings.append(message.message))
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    for app in ("shop", "shpo"):
        await db.execute("SELECT dispatcher.suppress('{+15550100}', 'asked', $1)", app)
    (warning,) = warnings
    assert warning.startswith("There is no app shpo so far")


async def test_rules_are_audited_without_numbers(db):
    three = "{13112345678, +8613112345678, +15550100}"
    for statement in (
        f"SELECT dispatcher.suppress('{three}', 'asked', '', false, 'Ana')",
        "SELECT dispatcher.unsuppress('{13112345678}', actor => 'Ana')",
        "SELECT dispatcher.define_template('tpl', '{NUM_6,DATE}', actor => 'Ana')",
        "SELECT dispatcher.define_template('tpl', '{}', 'codes', 'a text', NULL, 'Ana')",
        "SELECT dispatcher.drop_template('tpl', 'Ana')",
        "SELECT dispatcher.drop_template('tpl', 'Ana')",
        "SELECT dispatcher.set_price('CN', 0.045, 'CNY', 'Ana')",
    ):
        await db.execute(statement)
    assert await audit(db) == [
        (ACTOR, "suppress", "3 numbers", "asked", "2 numbers new"),
        (ACTOR, "unsuppress", "1 number", "", "1 number freed"),
        (ACTOR, "template", "tpl", "NUM_6, DATE", "defined"),
        (ACTOR, "template", "tpl", "no variables", "defined"),
        (ACTOR, "template", "tpl", "", "removed"),
        (ACTOR, "template", "tpl", "", "there is no such template"),
        (ACTOR, "price", "CN", "0.045 CNY", "set"),
    ]
    assert await db.fetchval("SELECT recipient FROM dispatcher.suppression") == "+15550100"


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        ("", Limits()),
        ("5, 10, 1, 2, 1234567, '21:00', '08:00'", None),
        ("per_day => 10", Limits(per_day=10)),
        ("daily_limit => 20000000000", Limits(daily_limit=20_000_000_000)),
    ],
)
async def test_limits_are_audited_in_the_words_that_are_shown(db, arguments, limits):
    await db.execute(f"SELECT dispatcher.set_limits('shop'{arguments and ', ' + arguments})")
    ((_, action, target, detail, result),) = await audit(db)
    assert (action, target, result) == ("limit", "shop", "set")
    if limits is None:
        row = await db.fetchrow("SELECT * FROM dispatcher.app_limit")
        limits = Limits(*tuple(row)[1:])
    assert detail == describe_limits(limits)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.app_limit") == (detail != "no limits")


async def test_what_cannot_be_audited_is_not_done(db, rows):
    ids = await rows.messages(1)
    await db.execute("ALTER TABLE dispatcher.audit ADD CHECK (actor <> 'Ana')")
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("SELECT dispatcher.cancel($1, 'Ana')", ids)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 1


async def test_numbers_have_one_form(db):
    home = ["13112345678", "+8613112345678", "8613112345678", "008613112345678"]
    numbers = [*home, "+15550100", "0015550100", None]
    forms = await db.fetch("SELECT dispatcher.e164(n) FROM unnest($1::text[]) AS n", numbers)
    assert [row[0] for row in forms] == ["+8613112345678"] * 4 + ["+15550100"] * 2 + [None]
