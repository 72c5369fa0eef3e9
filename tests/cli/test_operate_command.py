"""Commands of operators, on a real database."""

import json

import pytest

INSERT = """
INSERT INTO dispatcher.message (recipient, template_id, params, reference, send_at)
VALUES ('+8613112345678', 'template', '{062569,secret-word}', 'order-1', $1) RETURNING id
"""
APP = "INSERT INTO dispatcher.app (name, numbers_per_second, rate) VALUES ($1, 500, 250)"


@pytest.fixture
async def message(db) -> int:
    """A message that waits."""
    return await insert(db)


async def insert(db, minutes: int = 0) -> int:
    now = await db.fetchval("SELECT now() + make_interval(mins => $1)", minutes)
    return await db.fetchval(INSERT, now)


async def reject(db, message: int) -> None:
    """Make a waiting message one that the provider rejected."""
    await db.execute("DELETE FROM dispatcher.queue WHERE id = $1", message)
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, code)"
        " VALUES ($1, 'rejected', 1, 'E200028')",
        message,
    )


async def send(db, message: int, state: str, token: str = "the-token") -> None:
    """Make a waiting message part of a batch in *state*."""
    await db.execute("DELETE FROM dispatcher.queue WHERE id = $1", message)
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes,"
        " unsure_at) VALUES ($1, 'default', 1, ARRAY[$2::bigint], '{1}', $3, 200, now())",
        token, message, state,
    )  # fmt: skip


async def state(db, message: int) -> str:
    return await db.fetchval("SELECT state FROM dispatcher.message_status WHERE id = $1", message)


async def test_cancel_cancels_what_waits_and_says_what_was_too_late(operate, db, message):
    late = await insert(db)
    await send(db, late, "open")
    ended = await operate("cancel", message, late)
    assert (ended.code, ended.out) == (1, "1 message cancelled.\n")
    assert f"1 message left alone ({late}: sending)" in ended.line
    ended = await operate("cancel", message, 999)
    assert f"2 messages left alone ({message}: cancelled; 999: unknown)" in ended.line
    assert (await state(db, message), await state(db, late)) == ("cancelled", "sending")


async def test_requeue_queues_a_rejected_message(operate, db, message):
    await reject(db, message)
    ended = await operate("requeue", message)
    assert (ended.code, ended.out, ended.err) == (0, "1 message waiting again.\n", "")
    assert await state(db, message) == "queued"


@pytest.mark.parametrize(("how", "after"), [("sent", "accepted"), ("resend", "queued")])
async def test_settle_settles_an_unsure_batch(operate, db, message, how, after):
    await send(db, message, "unsure")
    ended = await operate("settle", "the-token", how)
    assert (ended.code, ended.err) == (0, "")
    assert await state(db, message) == after


async def test_settle_of_an_unknown_token_says_so(operate):
    ended = await operate("settle", "nonsense", "sent")
    assert ended.code == 1
    assert ended.line.startswith("dispatcher: no unsure batch has the token nonsense")


@pytest.mark.parametrize(("how", "after"), [("sent", "accepted"), ("resend", "queued")])
async def test_settle_settles_many_batches_by_app_code_and_time(operate, db, how, after):
    messages = [await insert(db) for _ in range(4)]
    for number, each in enumerate(messages):
        await send(db, each, "unsure", token=f"token-{number}")
    await db.execute("UPDATE dispatcher.batch SET code = 'HTTP 502'")
    await db.execute("UPDATE dispatcher.batch SET code = 'timeout' WHERE token = 'token-2'")
    await db.execute(
        "UPDATE dispatcher.batch SET unsure_at = '2026-01-01Z' WHERE token = 'token-3'"
    )
    chosen = ("--app", "default", "--code", "HTTP 502", "--since", "2026-06-01")
    asked = await operate("settle", *chosen, how)
    assert asked.code == 1
    assert "2 messages in 2 unsure batches match." in asked.line
    assert {await state(db, each) for each in messages} == {"unsure"}
    ended = await operate("settle", *chosen, "--yes", how)
    assert (ended.code, ended.err) == (0, "")
    assert [await state(db, each) for each in messages] == [after, after, "unsure", "unsure"]


async def test_settle_until_a_time_leaves_later_batches(operate, db):
    messages = [await insert(db) for _ in range(2)]
    for number, each in enumerate(messages):
        await send(db, each, "unsure", token=f"token-{number}")
    await db.execute(
        "UPDATE dispatcher.batch SET unsure_at = '2026-01-01Z' WHERE token = 'token-0'"
    )
    ended = await operate("settle", "--until", "2026-06-01", "--yes", "sent")
    assert (ended.code, ended.err) == (0, "")
    assert [await state(db, each) for each in messages] == ["accepted", "unsure"]


async def test_show_shows_the_first_and_the_last_time(operate, db):
    for send_at, expires_at in (
        ("2000-01-01 00:00Z", "2000-01-01 00:00:00.000001Z"),
        ("9999-12-30 23:59:58Z", "9999-12-30 23:59:59.999999Z"),
    ):
        message = await db.fetchval(
            "INSERT INTO dispatcher.message (recipient, template_id, send_at, expires_at) VALUES"
            f" ('13112345678', 't', '{send_at}', '{expires_at}') RETURNING id"
        )
        ended = await operate("show", message)
        assert (ended.code, ended.err) == (0, "")
        assert send_at[:10] in ended.out
        assert (await operate("show", message, "--json")).code == 0


@pytest.mark.parametrize(
    "words", [("sent",), ("token", "sent", "--app", "default"), ("--app", "default", "sold")]
)
async def test_settle_says_how_it_is_used(operate, words):
    ended = await operate("settle", *words)
    assert ended.code == 2


async def test_settle_of_no_batch_says_so(operate):
    ended = await operate("settle", "--code", "HTTP 502", "sent")
    assert ended.code == 1
    assert ended.line.startswith("dispatcher: no unsure batch matches")


async def test_pause_and_resume_hold_an_app_and_let_it_go(operate, db):
    await db.execute(APP, "shop")
    assert (await operate("pause", "shop", "--reason", "new templates")).code == 0
    seen = await operate("status")
    assert "shop is paused by an operator" in seen.out
    assert "new templates" in seen.out
    assert (await operate("resume", "shop")).code == 0
    assert await db.fetchval("SELECT paused_at IS NULL FROM dispatcher.app")


@pytest.mark.parametrize("name", ["pause", "resume"])
async def test_a_misspelt_app_is_not_paused_in_silence(operate, db, name):
    await db.execute(APP, "shop")
    ended = await operate(name, "shpo")
    assert ended.code == 1
    assert ended.line == "dispatcher: no app is called shpo: known are shop."
    assert await db.fetchval("SELECT count(*) FROM dispatcher.app") == 1


async def test_status_shows_waiting_messages_and_unknown_apps(operate, db):
    await db.execute(APP, "shop")
    for minutes in (-5, 60):
        await insert(db, minutes)
    ended = await operate("status")
    assert (ended.code, ended.err) == (0, "")
    assert "default: no worker has ever had this app" in ended.out
    assert "No worker is running" in ended.out

    seen = json.loads((await operate("status", "--json")).out)
    default, shop = seen["apps"]
    assert (default["name"], default["known"], default["waiting"]) == ("default", False, 2)
    assert default["oldest_due_at"] is not None
    assert (shop["name"], shop["rate"], shop["waiting"]) == ("shop", 250, 0)


async def test_status_counts_no_further_than_ten_thousand(operate, db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id)"
        " SELECT '+86131' || lpad(n::text, 8, '0'), 'template' FROM generate_series(1, 10500) n"
    )
    assert "over 10,000" in (await operate("status")).out
    (app,) = json.loads((await operate("status", "--json")).out)["apps"]
    assert app["waiting"] == 10_001


async def test_status_shows_totals_from_the_counters(operate, db):
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, count) VALUES"
        " (now(), 'default', 'accepted', '000000', 1200),"
        " (now() - interval '2 hours', 'default', 'accepted', '000000', 34),"
        " (now() - interval '2 days', 'default', 'accepted', '000000', 5000)"
    )
    (line,) = [line for line in (await operate("status")).out.splitlines() if "accepted" in line]
    assert line.split() == ["default", "accepted", "000000", "1,200", "1,234"]


async def test_status_shows_workers_and_the_dead_among_them(operate, db):
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at) VALUES"
        " ('alive', 1, '0', '{default}', '60 s', now()),"
        " ('dead', 2, '0', '{default}', '60 s', now() - interval '5 minutes'),"
        " ('forgotten', 3, '0', '{default}', '60 s', now() - interval '5 days')"
    )
    seen = (await operate("status")).out
    assert "No worker is running" not in seen
    assert "5 min ago: dead" in seen
    assert "forgotten" not in seen


async def test_show_hides_number_and_variables(operate, db, message):
    await send(db, message, "unsure")
    await db.execute("UPDATE dispatcher.batch SET code = 'timeout', description = 'no answer'")
    ended = await operate("show", message)
    assert (ended.code, ended.err) == (0, "")
    for expected in ("unsure", "+86131****5678", "2 variables", "order-1", "request the-token"):
        assert expected in ended.out
    for hidden in ("+8613112345678", "062569", "secret-word"):
        assert hidden not in ended.out
    whole = (await operate("show", message, "--full")).out
    assert "+8613112345678" in whole
    assert "062569 | secret-word" in whole


async def test_show_explains_a_rejected_message(operate, db, message):
    await reject(db, message)
    out = (await operate("show", message)).out
    assert "E200028: The variables do not fit the template." in out
    assert "what to do" in out


async def test_show_lists_the_reports(operate, db, message):
    await db.execute("DELETE FROM dispatcher.queue")
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, code, provider_id)"
        " VALUES ($1, 'accepted', 1, '000000', 'uuid_1')",
        message,
    )
    await db.execute(
        "INSERT INTO dispatcher.report (provider_id, segment, total, status, state)"
        " VALUES ('uuid_1', 1, 1, 'DELIVRD', 'delivered')"
    )
    out = (await operate("show", message)).out
    assert "delivered" in out
    assert "Report DELIVRD: delivered, segment 1 of 1" in out


async def test_show_of_no_message_exits_with_1(operate):
    ended = await operate("show", 987654321)
    assert (ended.code, ended.line) == (1, "dispatcher: there is no message 987654321.")


async def test_settle_settles_a_message_that_a_fail_over_lost(operate, db, message):
    await db.execute("DELETE FROM dispatcher.queue")
    ended = await operate("settle", str(message), "sent")
    assert (ended.code, ended.out) == (0, f"Message {message} accepted.\n")
    state = "SELECT state FROM dispatcher.message_status WHERE id = $1"
    assert await db.fetchval(state, message) == "accepted"
    again = await operate("settle", str(message), "sent")
    assert again.code == 1
    assert f"message {message} is not lost" in again.err
