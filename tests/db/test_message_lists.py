"""Lists of messages by a filter, and actions on all that a filter chooses."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from asyncpg import PostgresError
from support.messages import states, take_out

from dispatcher.db import message_actions as actions
from dispatcher.db import message_lists as messages
from dispatcher.db.message_lists import MessageFilter, message_page
from dispatcher.db.queries import sql

# Ten messages a state, in two apps, and events as workers, receivers and operators write them.
SEED = """
WITH made AS (
    INSERT INTO dispatcher.message (app, recipient, template_id, reference, queued_at)
    SELECT CASE WHEN n % 2 = 0 THEN 'bank' ELSE 'shop' END,
        CASE WHEN n % 10 = 0 THEN '+44791112' ELSE '+861310000' END || lpad(n::text, 4, '0'),
        'tpl-' || n % 3, 'order ' || n, now() - make_interval(mins => 100 - n)
    FROM generate_series(1, 60) AS n
    RETURNING id, app
), finished AS (
    INSERT INTO dispatcher.outcome (message_id, state, attempts, code, provider_id)
    SELECT id,
        CASE WHEN id <= 10 THEN 'rejected' WHEN id <= 20 THEN 'expired' ELSE 'accepted' END, 1,
        CASE WHEN id <= 10 THEN 'E200031' WHEN id <= 20 THEN 'expired' END,
        CASE WHEN id > 20 THEN 'p' || id END
    FROM made WHERE id <= 40
)
INSERT INTO dispatcher.event (app, event, code, message_ids, message_count)
SELECT app, CASE WHEN id <= 10 THEN 'rejected' WHEN id <= 20 THEN 'expired' ELSE 'accepted' END,
    CASE WHEN id <= 10 THEN 'E200031' WHEN id <= 20 THEN 'expired' ELSE '' END,
    array_agg(id ORDER BY id), count(*)
FROM made WHERE id <= 40 GROUP BY 1, 2, 3
"""
AFTER = """
INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes)
VALUES ('open', 'bank', 1, '{41,42,43,44,45}', '{1,1,1,1,1}', 'open', 100);
INSERT INTO dispatcher.batch
    (token, app, worker, message_ids, attempts, state, bytes, unsure_at, code)
VALUES ('unsure', 'bank', 1, '{46,47,48,49,50}', '{1,1,1,1,1}', 'unsure', 100, now(), 'timeout');
INSERT INTO dispatcher.report (provider_id, status, state)
SELECT 'p' || n, 'MBBLACK', 'undelivered' FROM generate_series(21, 30) AS n;
INSERT INTO dispatcher.event (app, event, code, message_ids, message_count)
SELECT 'bank', 'undelivered', 'MBBLACK', array_agg(n), 10 FROM generate_series(21, 30) AS n;
"""


@pytest.fixture
async def seeded(db):
    await db.execute(SEED)
    await take_out(db, [*range(1, 51)])
    await db.execute(AFTER)
    return db


async def listed(database, **fields) -> list[int]:
    """Return the ids of the whole list, read page by page."""
    ids, position = [], None
    while True:
        page = await message_page(database, MessageFilter(**fields), position, seconds=10)
        ids += [each.id for each in page.messages]
        position = page.next_position
        if position is None:
            return ids


@pytest.mark.usefixtures("seeded")
async def test_each_state_is_listed(database):
    for state, expected in (
        ("rejected", range(1, 11)),
        ("expired", range(11, 21)),
        ("undelivered", range(21, 31)),
        ("accepted", range(31, 41)),
        ("sending", range(41, 46)),
        ("unsure", range(46, 51)),
        ("queued", range(51, 61)),
        ("delivered", ()),
        ("cancelled", ()),
    ):
        assert sorted(await listed(database, state=state)) == [*expected], state
    assert await listed(database) == [*range(60, 0, -1)]


async def test_a_lost_message_is_listed_and_requeued(database, db, rows):
    first, second, third = await rows.messages(3)
    await db.execute("DELETE FROM dispatcher.queue WHERE id = ANY ($1)", [first, third])
    assert await listed(database, state="lost") == [third, first]
    assert await listed(database, state="queued") == [second]
    assert await messages.count(database, MessageFilter(state="lost")) is None
    action = await done(database, db, "cancel", state="lost")
    assert [(each.state, each.messages) for each in action.counts if each.left_alone] == [
        ("lost", 2)
    ]
    action = await done(database, db, "requeue", state="lost")
    assert (action.messages, action.changed) == (2, 2)
    assert await listed(database, state="queued") == [third, second, first]


@pytest.mark.usefixtures("seeded")
async def test_filters_narrow_a_list_in_every_source(database):
    now = datetime.now(UTC)
    assert sorted(await listed(database, code="E200031")) == [*range(1, 11)]
    assert sorted(await listed(database, code="MBBLACK")) == [*range(21, 31)]
    assert await listed(database, app="bank") == [*range(60, 0, -2)]
    assert sorted(await listed(database, state="rejected", app="shop")) == [1, 3, 5, 7, 9]
    assert await listed(database, state="queued", template="tpl-0") == [60, 57, 54, 51]
    assert await listed(database, prefix="+44") == [60, 50, 40, 30, 20, 10]
    assert await listed(database, prefix="131") == [n for n in range(60, 0, -1) if n % 10]
    assert await listed(database, last_digits="0017") == [17]
    assert await listed(database, state="expired", last_digits="17") == [17]
    assert await listed(database, same_number_as=17) == [17]
    assert await listed(database, same_number_as=17, state="rejected") == []
    assert await listed(database, same_number_as=9999) == []
    assert await listed(database, reference="order 42", state="sending") == [42]
    since, until = now - timedelta(minutes=60.5), now - timedelta(minutes=57.5)
    assert await listed(database, since=since, until=until) == [42, 41, 40]
    assert await listed(database, state="unsure", since=now) == []


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("indexed", [False, True])
async def test_a_campaign_is_listed_from_its_first_message(database, db, indexed):
    if indexed:
        await db.execute(
            "CREATE INDEX message_1_to_5000001_campaign"
            " ON dispatcher.message_1_to_5000001 (campaign, id) WHERE campaign IS NOT NULL"
        )
    await db.execute(
        "INSERT INTO dispatcher.campaign (name, first_id, created_at)"
        " VALUES ('may', 5, now() - interval '1 day')"
    )
    await db.execute("UPDATE dispatcher.message SET campaign = 'may' WHERE id % 5 = 0")
    await take_out(db, [*range(51, 61)])
    await db.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at, campaign)"
        " SELECT id, app, priority, now(), campaign FROM dispatcher.message WHERE id > 50"
    )
    assert await listed(database, campaign="may") == [*range(60, 0, -5)]
    assert sorted(await listed(database, campaign="may", state="rejected")) == [5, 10]
    assert await listed(database, campaign="may", state="queued") == [60, 55]
    assert await listed(database, campaign="may", state="unsure") == [50]
    assert await listed(database, campaign="may", last_digits="0020") == [20]
    assert await listed(database, campaign="june") == []


async def test_pages_of_many_have_each_message_once(database, db):
    await db.execute(
        "WITH made AS (INSERT INTO dispatcher.message (recipient, template_id)"
        " SELECT 13100000000 + n, 't' FROM generate_series(1, 330) AS n RETURNING id)"
        " INSERT INTO dispatcher.event (app, event, message_ids, message_count)"
        " SELECT 'default', 'cancelled', array_agg(id), count(*) FROM made GROUP BY id % 2"
    )
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts)"
        " SELECT id, 'cancelled', 1 FROM dispatcher.message WHERE id % 3 = 0"
    )
    await take_out(db, [*range(3, 331, 3)])
    assert await listed(database) == [*range(330, 0, -1)]
    cancelled = await listed(database, state="cancelled")
    assert sorted(cancelled) == [*range(3, 331, 3)]  # each once, over three pages of two events
    queued = await listed(database, state="queued")
    assert queued == [n for n in range(330, 0, -1) if n % 3]


@pytest.mark.usefixtures("seeded")
async def test_a_page_that_reads_too_long_says_where_to_go_on(database, monkeypatch):
    monkeypatch.setattr(messages, "FIRST_PIECE_ROWS", 7)
    monkeypatch.setattr(messages, "MAX_PIECE_ROWS", 7)
    monkeypatch.setattr(messages, "CHECKED_MESSAGES", 3)
    position, ids, pages = None, [], 0
    while pages < 100:
        page = await message_page(database, MessageFilter(app="shop"), position, seconds=0)
        ids += [each.id for each in page.messages]
        position, pages = page.next_position, pages + 1
        if position is None:
            break
        assert not page.complete
    assert ids == [*range(59, 0, -2)]
    assert pages > 8


@pytest.mark.usefixtures("seeded")
async def test_counts_are_exact_where_they_are_known(database, db):
    assert await messages.count(database, MessageFilter(state="queued")) == 10
    assert await messages.count(database, MessageFilter(state="sending", app="bank")) == 5
    assert await messages.count(database, MessageFilter(state="unsure", app="shop")) == 0
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, count) VALUES"
        " (now(), 'bank', 'rejected', 'E200031', 5), (now(), 'shop', 'rejected', 'E1', 7)"
    )
    assert await messages.count(database, MessageFilter(state="rejected")) == 12
    assert await messages.count(database, MessageFilter(state="rejected", code="E1")) == 7
    assert await messages.count(database, MessageFilter(state="rejected", prefix="+86")) is None
    assert await messages.count(database, MessageFilter()) is None


async def done(database, db, action: str, **fields) -> actions.MessageAction:
    """Preview an action, start it, and do all of its steps."""
    words = ("the filter", "state=x")
    wanted = await actions.preview(database, "Ana", action, MessageFilter(**fields), words)
    assert await actions.start(db, "Ben", wanted)
    assert not await actions.start(db, "Cem", wanted)
    while await actions.step(db, wanted):
        pass
    return await actions.message_action(database, wanted)


async def test_an_action_does_what_its_preview_says(database, seeded):
    await seeded.execute("UPDATE dispatcher.message SET wiped_at = now() WHERE id IN (3, 4)")
    action = await done(database, seeded, "requeue", code="E200031")
    counts = {(each.app, each.left_alone): each.messages for each in action.counts}
    assert counts == {
        ("bank", None): 4,
        ("shop", None): 4,
        ("bank", actions.WIPED): 1,
        ("shop", actions.WIPED): 1,
    }
    assert (action.messages, action.changed, action.position) == (8, 8, 8)
    assert action.finished_at is not None
    assert sorted(await listed(database, state="rejected")) == [3, 4]
    audit = await seeded.fetch("SELECT actor, action, target, detail, result FROM dispatcher.audit")
    assert [tuple(row) for row in audit] == [
        ("Ben", "requeue", "8 messages", "the filter", f"started as action {action.id}")
    ]


@pytest.mark.parametrize(("limit", "complete"), [(10, False), (1000, True)])
async def test_a_preview_says_whether_it_found_all(database, seeded, monkeypatch, limit, complete):
    monkeypatch.setattr(actions, "MAX_ACTION_MESSAGES", limit)
    monkeypatch.setattr(actions, "CHECKED_MESSAGES", 5)
    action = await done(database, seeded, "cancel", app="bank")
    assert action.complete is complete


async def test_cancel_leaves_alone_what_does_not_wait(database, seeded):
    action = await done(database, seeded, "cancel", app="bank")
    assert (action.messages, action.changed) == (5, 5)
    assert sum(each.messages for each in action.counts) == 30
    assert sorted(await listed(database, state="cancelled")) == [52, 54, 56, 58, 60]


async def test_what_came_after_the_preview_is_not_touched(database, db, rows):
    before = await rows.messages(3)
    wanted = await actions.preview(database, "A", "cancel", MessageFilter(state="queued"), ("", ""))
    await rows.messages(2)
    await db.execute("SELECT dispatcher.cancel($1)", before[:1])
    assert await actions.start(db, "A", wanted)
    assert not await actions.step(db, wanted)
    action = await actions.message_action(database, wanted)
    assert (action.messages, action.changed) == (3, 2)
    assert (await states(db))["queued"] == 2


async def test_a_request_is_settled_only_as_a_whole(database, seeded):
    action = await done(database, seeded, "settle-sent", state="unsure", template="tpl-1")
    assert {(each.left_alone, each.messages) for each in action.counts} == {
        (actions.PARTLY_CHOSEN, 1)  # one of each app
    }
    assert (action.messages, action.changed) == (0, 0)
    assert len(await listed(database, state="unsure")) == 5
    action = await done(database, seeded, "settle-resend", state="unsure")
    assert (action.messages, action.targets, action.changed) == (5, 1, 5)
    assert len(await listed(database, state="queued")) == 15


async def test_suppressing_counts_new_numbers_only(database, seeded):
    await seeded.execute("UPDATE dispatcher.message SET recipient = '0' WHERE id = 5")
    await seeded.execute("SELECT dispatcher.suppress('{+8613100000001}')")
    action = await done(database, seeded, "suppress", state="rejected")
    assert (action.messages, action.changed) == (9, 8)
    assert [each.messages for each in action.counts if each.left_alone == actions.ERASED] == [1]


async def test_a_cut_action_goes_on_where_it_was(database, db, rows):
    await rows.messages(4500)
    wanted = await actions.preview(database, "A", "cancel", MessageFilter(state="queued"), ("", ""))
    assert not await actions.step(db, wanted)  # it was not started
    assert await actions.start(db, "A", wanted)
    progress = []
    while await actions.step(db, wanted):
        progress.append((await actions.message_action(database, wanted)).position)
    assert progress == [2000, 4000]
    assert (await actions.message_action(database, wanted)).changed == 4500
    assert await db.fetchval("SELECT count(*) FROM dispatcher.audit") == 1


async def test_a_worker_may_do_it_and_a_reader_not(database, seeded):
    wanted = await actions.preview(database, "A", "cancel", MessageFilter(), ("", ""))
    await seeded.execute("SET ROLE dispatcher_worker")
    assert await actions.start(seeded, "A", wanted)
    assert not await actions.step(seeded, wanted)
    await seeded.execute("SET ROLE dispatcher_reader")
    with pytest.raises(PostgresError, match="permission denied"):
        await actions.step(seeded, wanted)
    await seeded.execute("RESET ROLE")


def test_lists_and_actions_choose_by_the_same_conditions():
    listed, chosen = (sql(name) for name in ("fitting_messages", "chosen_messages"))
    where = listed.partition("WHERE s.id = ANY")[2]
    assert where.count("IS NULL OR") == 11
    assert chosen.endswith(where)


HISTORY = """
INSERT INTO dispatcher.message (app, recipient, template_id)
SELECT 'default', '+86138' || lpad(n::text, 8, '0'), 't' FROM generate_series(1, 30000) AS n
"""
PLANS = [  # statement, arguments, the most pages that it may look at
    ("message_piece", "9223372036854775807, 500" + ", NULL" * 7, 60),
    ("queue_piece", "9223372036854775807, 500, NULL, NULL, NULL", 600),
    ("request_piece", "9223372036854775807, 50, NULL, NULL, 'unsure'", 200),
    ("event_piece", "9223372036854775807, 500, '{rejected}', NULL, NULL, 1000", 600),
    ("fitting_messages", f"'{ {*range(100, 150)} }'" + ", NULL" * 11, 1500),
    ("chosen_messages", f"'{ {*range(100, 150)} }'" + ", NULL" * 11, 1500),
    ("message_at", "15000", 60),
    ("message_bounds", "", 120),
    ("live_counts", "NULL", 1200),
    ("campaign_page", "NULL, NULL, 31, NULL", 800),
    ("campaign_piece", "9223372036854775807, 50, 'may'", 200),
    ("recipient_piece", "9223372036854775807, 1000, '{+8613800000007,13800000007}'", 60),
    ("reference_piece", "9223372036854775807, 1000, 'order 7'", 60),
    ("last_hour", "", 100),
    ("delivery_sample", "'-infinity', 'infinity', 500, 50", 60),
    ("sampled_messages", f"'{ {*range(100, 5100)} }'", 20_000),
    ("sampled_outcomes", f"'{ {*range(100, 5100)} }'", 20_000),
    ("show_batches", "100, 'default', '-infinity', '2020-01-01'", 60),
]
PLANS_WITH_STATISTICS = [
    ("reference_piece", "9223372036854775807, 50, 'of a whole list'", 60),
]


async def test_statements_read_little_of_a_long_history(db):
    await db.execute(HISTORY)
    await db.execute(
        "INSERT INTO dispatcher.event (app, event, message_ids, message_count)"
        " SELECT 'default', 'rejected', ARRAY[n], 1 FROM generate_series(1, 30000) AS n"
    )
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes)"
        " SELECT n::text, 'default', 1, ARRAY[n], '{1}', 'closed', 1"
        " FROM generate_series(1, 30000) AS n"
    )
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts)"
        " SELECT n, 'accepted', 1 FROM generate_series(1, 30000) AS n"
    )
    await db.execute(
        "INSERT INTO dispatcher.campaign (name, first_id)"
        " SELECT 'c' || n, 1 FROM generate_series(1, 300) AS n"
    )
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count)"
        " SELECT date_trunc('minute', now()) - make_interval(mins => n), 'default', 'accepted', 1"
        " FROM generate_series(1, 5000) AS n"
    )
    await db.execute(
        "CREATE INDEX message_1_to_5000001_campaign"
        " ON dispatcher.message_1_to_5000001 (campaign, id) WHERE campaign IS NOT NULL"
    )
    await db.execute(
        "CREATE INDEX ON dispatcher.message_1_to_5000001 (recipient);"
        "CREATE INDEX ON dispatcher.message_1_to_5000001 (reference, id)"
        " WHERE reference IS NOT NULL"
    )
    await db.execute(
        "UPDATE dispatcher.message SET campaign = 'may', reference = 'order ' || id WHERE id < 600;"
        "UPDATE dispatcher.message SET reference = 'of a whole list' WHERE id BETWEEN 600 AND 15000"
    )
    await db.execute(
        "INSERT INTO dispatcher.event (app, event, message_ids, message_count)"
        " SELECT 'default', 'delivered', ARRAY[n], 1 FROM generate_series(29000, 30000) AS n"
    )
    types = {
        "message_piece": "bigint, int, text, text, text, text, timestamptz, timestamptz, text",
        "queue_piece": "bigint, int, text, text, text",
        "request_piece": "bigint, int, text, text, text",
        "event_piece": "bigint, int, text[], text, text, int",
        "fitting_messages": "bigint[], text[], text, text, text, text[], text, text, text,"
        " timestamptz, timestamptz, text",
        "chosen_messages": "bigint[], text[], text, text, text, text[], text, text, text,"
        " timestamptz, timestamptz, text",
        "message_at": "bigint",
        "live_counts": "text",
        "campaign_page": "timestamptz, text, int, text",
        "campaign_piece": "bigint, int, text",
        "recipient_piece": "bigint, int, text[]",
        "reference_piece": "bigint, int, text",
        "delivery_sample": "timestamptz, timestamptz, int, int",
        "sampled_messages": "bigint[]",
        "sampled_outcomes": "bigint[]",
        "show_batches": "bigint, text, timestamptz, timestamptz",
    }
    for analyzed in (False, True):  # with the statistics of empty tables, and with true ones
        if analyzed:
            await db.execute("ANALYZE")
        for mode in ("force_custom_plan", "force_generic_plan"):
            await db.execute(f"SET plan_cache_mode = {mode}")
            for name, arguments, most in PLANS + PLANS_WITH_STATISTICS * analyzed:
                given = f"({types[name]})" if name in types else ""
                await db.execute(f"PREPARE planned {given} AS {sql(name)}")
                call = f"EXECUTE planned{f'({arguments})' if arguments else ''}"
                rows = await db.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT TEXT) {call}")
                await db.execute("DEALLOCATE planned")
                plan = "\n".join(row[0] for row in rows).partition("Planning:")[0]
                counts = re.findall(r"Buffers: shared (?:hit=(\d+))?(?: ?read=(\d+))?", plan)
                assert counts, f"{name}: {plan}"
                pages = max(sum(int(each or 0) for each in found) for found in counts)
                assert pages <= most, f"{name}, {mode}, analyzed {analyzed}: {pages}\n{plan}"


async def test_requeue_takes_what_the_platform_refused(database, seeded):
    await seeded.execute(
        "INSERT INTO dispatcher.carrier_status (status, state, meaning, resendable)"
        " VALUES ('MBBLACK', 'undelivered', 'refused', true) ON CONFLICT (status)"
        " DO UPDATE SET resendable = true"
    )
    action = await done(database, seeded, "requeue", state="undelivered")
    assert (action.messages, action.changed) == (10, 10)
    assert len(await listed(database, state="queued")) == 20
