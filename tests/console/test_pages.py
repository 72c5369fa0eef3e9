"""The pages of messages and problems, and the actions of forms."""

import asyncio
import json
import re

import pytest
from client import ACTOR
from support.messages import states

from dispatcher.console.render import coded
from dispatcher.core.templates import Template
from dispatcher.db import operator as operator_actions

NUMBER = "+8613112345678"
TOKEN = "0123456789abcdef0123456789abcdef"
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id, params, reference)
    VALUES ($1, 'tpl', $2, $3) RETURNING id
"""


@pytest.fixture
async def message(db) -> int:
    """A queued message in an app that is not paused."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    return await db.fetchval(INSERT, NUMBER, ["837465"], "order 7")


@pytest.fixture
async def unsure(db, message) -> int:
    """The same message, in an unsure request."""
    await db.execute("DELETE FROM dispatcher.queue")
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes,"
        " unsure_at, code, description)"
        " VALUES ($1, 'default', 1, $2, '{1}', 'unsure', 200, now(), 'timeout', 'no answer')",
        TOKEN,
        [message],
    )
    return message


async def audit(db) -> list[tuple[str, str, str, str]]:
    rows = await db.fetch("SELECT actor, action, target, result FROM dispatcher.audit ORDER BY id")
    return [tuple(row) for row in rows]


async def test_a_number_is_masked_until_it_is_revealed(operator, db, message):
    page = await operator.get(f"/console/message/{message}")
    assert NUMBER not in page.text
    assert "837465" not in page.text
    assert "+86131****5678" in page.text
    revealed = await operator.post(f"/console/message/{message}", {"form_token": page.form_token})
    assert NUMBER in revealed.text
    assert "837465" in revealed.text
    assert await audit(db) == [(ACTOR, "reveal", f"message {message}", "")]


async def test_a_message_page_explains_state_and_next_step(operator, db, message):
    page = await operator.get(f"/console/message/{message}")
    assert "No running worker serves its app, default." in page.text
    assert "Start <code>dispatcher run</code> with this app configured" in page.text
    await db.execute("DELETE FROM dispatcher.queue")
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, code)"
        " VALUES ($1, 'rejected', 1, 'E200031')",
        message,
    )
    page = await operator.get(f"/console/message/{message}")
    assert "E200031: Number, sender or app key failed" in page.text  # as it happened


async def test_a_message_is_found_by_number_reference_and_id(operator, message):
    form_token = (await operator.get("/console/search")).form_token
    for text in (NUMBER, "13112345678", "+86 131 1234-5678", "order 7", str(message)):
        answer = await operator.post("/console/search", {"form_token": form_token, "text": text})
        seen = (answer.status, answer.headers.get("Location"))
        assert seen == (303, f"/console/message/{message}"), text


@pytest.mark.usefixtures("unsure")
async def test_a_request_is_found_by_its_token(operator):
    form_token = (await operator.get("/console/search")).form_token
    answer = await operator.post("/console/search", {"form_token": form_token, "text": TOKEN})
    assert answer.headers["Location"] == f"/console/batch/{TOKEN}"


@pytest.mark.usefixtures("message")
async def test_several_messages_are_listed_with_masked_numbers(operator, db):
    await db.fetchval(INSERT, NUMBER, [], None)
    form_token = (await operator.get("/console/search")).form_token
    answer = await operator.post("/console/search", {"form_token": form_token, "text": NUMBER})
    assert "2 messages" in answer.text
    assert answer.text.count("+86131****5678") == 2


async def test_unknown_messages_and_requests_are_not_found(operator):
    form_token = (await operator.get("/console/search")).form_token
    for text in ("+8613800000000", "nobody", "999", TOKEN):
        answer = await operator.post("/console/search", {"form_token": form_token, "text": text})
        assert (answer.status, "Nothing has this number" in answer.text) == (200, True)
    for path in ("message/999", "message/x", "message/" + "9" * 40, "batch/x", f"batch/{TOKEN}"):
        assert (await operator.get(f"/console/{path}")).status == 404


@pytest.mark.usefixtures("message")
async def test_text_of_an_application_is_escaped(operator, db):
    evil = "<script>alert(1)</script>"
    other = await db.fetchval(INSERT, "+8613100000000", [evil], evil)
    page = await operator.get(f"/console/message/{other}")
    revealed = await operator.post(f"/console/message/{other}", {"form_token": page.form_token})
    for text in (page.text, revealed.text):
        assert evil not in text
        assert "&lt;script&gt;" in text


@pytest.mark.usefixtures("message")
async def test_pause_records_operator_and_reason_until_resume(operator, db):
    done = await operator.act("pause", {"app": "default", "reason": "texts look odd"})
    assert "Paused." in done.text
    paused = await db.fetchrow("SELECT paused_by, pause_reason FROM dispatcher.app")
    assert tuple(paused) == ("operator", f"texts look odd ({ACTOR})")
    now = await operator.get("/console/problems")
    assert now.status == 200
    await operator.act("resume", {"app": "default"})
    assert await db.fetchval("SELECT paused_at IS NULL FROM dispatcher.app")
    assert await audit(db) == [
        (ACTOR, "pause", "default", "paused"),
        (ACTOR, "resume", "default", "resumed"),
    ]


async def test_cancel_and_requeue_count_the_messages(operator, db, message):
    first = await operator.act("cancel", {"ids": f"{message}, 999"})
    assert "1 of 2 cancelled" in first.text
    await db.execute("UPDATE dispatcher.outcome SET state = 'rejected'")
    second = await operator.act("requeue", {"ids": str(message)})
    assert "1 of 1 wait again" in second.text
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 1
    assert [entry[1:] for entry in await audit(db)] == [
        ("cancel", "2 messages", "1 of 2 cancelled"),
        ("requeue", f"message {message}", "1 of 1 wait again"),
    ]


@pytest.mark.parametrize(("how", "state"), [("sent", "accepted"), ("resend", "queued")])
async def test_a_lost_message_is_settled_on_its_page(operator, db, message, how, state):
    await db.execute("DELETE FROM dispatcher.queue")
    page = (await operator.get(f"/console/message/{message}")).text
    assert "A fail-over or a restore of the database has lost" in page
    assert f"<code>dispatcher settle {message} sent</code>" in page
    assert f"/console/actions/settle?how={how}&amp;ids={message}" in page
    fields = {"ids": str(message), "how": how}
    assert "1 of 1 settled" in (await operator.act("settle", fields)).text
    assert (await states(db)) == {state: 1}
    assert "0 of 1 settled" in (await operator.act("settle", fields)).text


@pytest.mark.parametrize(("how", "state"), [("sent", "accepted"), ("resend", "queued")])
async def test_an_unsure_request_is_settled_once(operator, db, unsure, how, state):
    assert TOKEN[:12] in (await operator.get("/console/problems")).text
    assert "Settle it" in (await operator.get(f"/console/batch/{TOKEN}")).text
    asked = await operator.act("settle", {"token": TOKEN, "how": how, "ask": "yes"})
    assert f"the request {TOKEN[:12]}…" in asked.text  # a list has many
    await operator.act("settle", {"token": TOKEN, "how": how})
    seen = "SELECT state FROM dispatcher.message_status WHERE id = $1"
    assert await db.fetchval(seen, unsure) == state
    again = await operator.act("settle", {"token": TOKEN, "how": how})
    assert "Not settled" in again.text
    assert await db.fetchval(seen, unsure) == state
    assert [entry[1] for entry in await audit(db)] == ["settle", "settle"]


@pytest.mark.usefixtures("message")
async def test_invalid_actions_are_refused(operator, db):
    for action, fields in (
        ("pause", {}),
        ("cancel", {"ids": "x"}),
        ("cancel", {"ids": "1; DROP TABLE message"}),
        ("cancel", {"ids": " ".join(map(str, range(1, 1002)))}),
        ("requeue", {"ids": "9" * 30}),
        ("settle", {"token": TOKEN, "how": "perhaps"}),
        ("explode", {"app": "default"}),
    ):
        answer = await operator.act(action, fields)
        assert answer.status == 400, (action, fields)
    assert await audit(db) == []


async def test_an_action_that_cannot_be_audited_is_not_done(db, message):
    await db.execute("ALTER TABLE dispatcher.audit ADD CHECK (actor <> 'Ana')")
    with pytest.raises(Exception, match="audit_actor_check"):
        await operator_actions.cancel(db, "Ana", [message])
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 1


async def test_a_chart_has_every_step_of_its_span(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count) VALUES"
        " (date_trunc('minute', now() - interval '5 minutes'), 'default', 'accepted', 41),"
        " (date_trunc('minute', now() - interval '5 minutes'), 'other', 'accepted', 1),"
        " (date_trunc('minute', now() - interval '5 minutes'), 'default', 'undelivered', 2),"
        " (date_trunc('minute', now() - interval '5 minutes'), 'default', 'rejected', 3)"
    )
    columns = (await operator.get("/console/chart?span=hour")).text
    seen = json.loads(columns)
    assert {*seen} == {"time", "accepted", "delivered", "deferred", "failed"}
    assert {len(column) for column in seen.values()} == {60}
    assert (sum(seen["accepted"]), sum(seen["failed"])) == (42, 5)
    one = json.loads((await operator.get("/console/chart?span=day&app=default")).text)
    assert (len(one["time"]), sum(one["accepted"]) in (0, 41)) == (96, True)


async def test_a_message_page_shows_text_segments_cost_and_way(operator, db, message):
    await operator_actions.define_template(
        db, "t", Template("tpl", ["NUM_6"]), "", "Your code is ${NUM_6}."
    )
    await db.execute("INSERT INTO dispatcher.price VALUES ('CN', 0.0450, 'CNY')")
    page = await operator.get(f"/console/message/{message}")
    assert "Your code is ${NUM_6}." in page.text
    assert "1, as its text counts" in page.text
    assert "<dd>0.045 CNY</dd>" in page.text
    assert diagram(page.text) == {"queued": "current"}
    revealed = await operator.post(f"/console/message/{message}", {"form_token": page.form_token})
    assert "Your code is 837465." in revealed.text
    assert f'href="/console/messages?same_number_as={message}"' in page.text
    form = {"form_token": page.form_token, "same_number_as": str(message), "action": "suppress"}
    preview = (await operator.post("/console/message-action", form)).headers["Location"]
    assert "Suppress the numbers of 1 message?" in (await operator.get(preview)).text


async def test_the_diagram_shows_the_way_that_was_taken(operator, db, unsure):
    page = await operator.get(f"/console/message/{unsure}")
    assert diagram(page.text) == {"queued": "taken", "sending": "taken", "unsure": "current"}
    await db.execute("SELECT dispatcher.settle($1, 'sent')", TOKEN)
    page = await operator.get(f"/console/message/{unsure}")
    ways = {"queued": "taken", "sending": "taken", "unsure": "taken", "accepted": "current"}
    assert diagram(page.text) == ways


def diagram(text: str) -> dict[str, str]:
    """Return the states that the diagram of a page marks."""
    items = re.findall(r'<li class="row[^>]*taken[^>]*>.*?state-(\w+)', text)
    current = re.findall(r'aria-current="step"><span class="state state-(\w+)', text)
    return {name: "current" if name in current else "taken" for name in items}


@pytest.mark.usefixtures("message")
async def test_codes_are_found_by_words(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, count)"
        " VALUES (date_trunc('minute', now()), 'default', 'rejected', 'E200031', 7)"
    )
    page = await operator.get("/console/codes")
    assert page.text.index("E200031") < page.text.index("E000000")  # what came today is first
    assert '<a href="/console/messages?code=E200031">7</a>' in page.text
    found = await operator.get("/console/codes?q=protocol+SENDER")
    assert "E200031" in found.text
    assert "E000510" not in found.text
    assert "MBBLACK" in (await operator.get("/console/codes?q=block+list")).text
    assert "No code has these words" in (await operator.get("/console/codes?q=zebra")).text


async def test_the_audit_has_a_filter_pages_and_an_export(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.audit (actor, action, target, detail)"
        " SELECT CASE WHEN n % 2 = 0 THEN 'Ana' ELSE 'Ben' END, 'pause', 'app ' || n, '=1+1'"
        " FROM generate_series(1, 250) AS n"
    )
    path, seen = "/console/audit?actor=Ana", []
    while path:
        page = await operator.get(path)
        seen += re.findall(r"app (\d+)<", page.text)
        older = re.search(r'rel="next" href="([^"]+)"', page.text)
        path = older[1].replace("&amp;", "&") if older else ""
    assert [int(each) for each in seen] == [*range(250, 0, -2)]
    assert "app 17<" in (await operator.get("/console/audit?target=APP+17")).text
    assert "Nothing yet" in (await operator.get("/console/audit?until=2020-01-01")).text
    assert (await operator.get("/console/audit?since=soon")).status == 400
    export = await operator.get("/console/audit.csv?actor=Ben")
    lines = export.text.splitlines()
    assert (len(lines), lines[0].split(",")[:2]) == (126, ["\ufeffcreated_at", "actor"])
    assert lines[1].endswith("Ben,pause,app 249,'=1+1,")  # a spreadsheet runs no formula of it
    assert "attachment" in export.headers["Content-Disposition"]


async def test_an_unknown_address_has_a_page(operator):
    page = await operator.get("/console/nowhere")
    assert (page.status, "There is no such page." in page.text) == (404, True)


async def test_a_refused_template_keeps_what_was_written(operator):
    page = await operator.get(
        "/console/actions/template?template_id=tpl&text=Hi+%24%7BX%7D&note=n1"
    )
    assert (page.status, "is no kind of variable" in page.text) == (400, True)
    for value in ("tpl", "Hi ${X}", "n1"):
        assert f'value="{value}"' in page.text or f">{value}</textarea>" in page.text


async def test_long_lists_of_problems_show_twenty_first(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes,"
        " unsure_at) SELECT lpad(n::text, 32, '0'), 'default', 1, ARRAY[n], '{1}', 'unsure', 1,"
        " now() FROM generate_series(1, 30) AS n"
    )
    page = await operator.get("/console/problems")
    assert page.text.count("how=sent") == 20
    assert "The first 20 of 30" in page.text
    assert (await operator.get("/console/problems?all=yes")).text.count("how=sent") == 30


def test_times_in_sentences_are_marked_as_times():
    assert coded("Paused since 2026-11-29 10:00:00 UTC: <x>") == (
        'Paused since <time datetime="2026-11-29T10:00:00.000+00:00">2026-11-29 10:00:00 UTC'
        "</time>: &lt;x&gt;"
    )


def test_only_text_between_back_ticks_becomes_markup():
    assert (
        coded("run `dispatcher check`, then <b>")
        == "run <code>dispatcher check</code>, then &lt;b&gt;"
    )
    assert coded("`<i>`") == "<code>&lt;i&gt;</code>"
    assert coded("one ` alone") == "one <code> alone</code>"
    assert coded("") == ""


async def test_what_is_stored_of_a_message_is_shown_on_demand(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, params)"
        " VALUES ('+8613112345678', 'tpl', '{837465}')"
    )
    await db.execute(
        "INSERT INTO dispatcher.batch"
        " (token, app, worker, message_ids, attempts, state, bytes, http_status, description)"
        " VALUES ('t1', 'default', 1, '{1}', '{1}', 'closed', 10, 200, 'Success')"
    )
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, provider_id, batch_id)"
        " VALUES (1, 'accepted', 1, 'p1', 1)"
    )
    await db.execute(
        "INSERT INTO dispatcher.report (provider_id, status, state, token, raw)"
        """ VALUES ('p1', 'DELIVRD', 'delivered', 't1', '{"orgCode": "000"}')"""
    )
    await db.execute(
        "INSERT INTO dispatcher.reply (digest, app, number, text, unsubscribed)"
        " VALUES ('d', 'default', '+8613112345678', 'stop it', true)"
    )
    await db.execute(
        "INSERT INTO dispatcher.suppression (recipient, reason, source)"
        " VALUES ('+8613112345678', 'TD', 'reply')"
    )
    page = await operator.get("/console/message/1")
    assert "837465" not in page.text
    assert "stop it" not in page.text
    assert "(reply): everything." in page.text
    form = {"form_token": page.form_token, "raw": "yes"}
    shown = await operator.post("/console/message/1", form)
    for words in ("orgCode", "&#34;description&#34;: &#34;Success&#34;", "837465", "stop it"):
        assert words in shown.text, words
    audit = await db.fetch("SELECT actor, action, target, detail FROM dispatcher.audit")
    assert [tuple(row) for row in audit] == [(ACTOR, "reveal", "message 1", "as stored")]


async def test_problems_are_grouped_by_what_to_do(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, count) VALUES"
        " (now(), 'shop', 'rejected', 'E200031', 5), (now(), 'bank', 'rejected', 'E200031', 3),"
        " (now(), 'shop', 'undelivered', 'MBBLACK', 2), (now(), 'shop', 'reported', 'DELIVRD', 9)"
    )
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at)"
        " VALUES ('a', 1, '1', '{shop}', '1 min', now()),"
        " ('b', 2, '1', '{shop}', '1 min', now() - interval '10 min')"
    )
    page = (await operator.get("/console/problems")).text
    groups = page.split('class="group"')[1:]
    assert len(groups) == 2
    assert groups[0].count("E200031</a>") == 2
    assert "MBBLACK" in groups[1]
    assert "DELIVRD" not in page
    assert "These sent no heartbeat for too long" in page
    assert "<summary>1 worker alive</summary>" in page


async def test_replies_and_stray_reports_are_no_failed_messages(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, count) VALUES"
        " (now(), 'shop', 'rejected', 'unsubscribed', 5),"
        " (now(), 'shop', 'replied', 'unsubscribed', 71), (now(), '-', 'replied', '', 72),"
        " (now(), '-', 'unmatched report', 'unknown-token', 73),"
        " (now(), '-', 'report refused', 'signature', 74)"
    )
    page = (await operator.get("/console/problems")).text
    counts = re.findall(r'data-label="Day" class="num"><a [^>]*>([^<]*)<', page)
    assert counts == ["5"]
    codes = (await operator.get("/console/codes?q=unsubscribed")).text
    assert (">5<" in codes, ">76<" in codes) == (True, False)
    messages = (await operator.get("/console/messages")).text
    assert ('value="unsubscribed"' in messages, 'value="signature"' in messages) == (True, False)


async def test_pushes_that_cannot_be_read_have_a_page(operator, db):
    assert "Every push could be read" in (await operator.get("/console/problems/unreadable")).text
    await db.execute(
        "INSERT INTO dispatcher.unreadable_push (digest, reason, content_type, body, times)"
        " VALUES ('d', 'The push is empty.', 'text/xml', '<a>13112345678</a>', 7)"
    )
    assert '/console/problems/unreadable">1 push<' in (await operator.get("/console/problems")).text
    page = (await operator.get("/console/problems/unreadable")).text
    assert ("text/xml" in page, ">7<" in page, "13112345678" in page) == (True, True, False)


async def test_the_dashboard_draws_the_last_hour_of_each_app(operator, db):
    await db.execute(  # the minute must not turn meanwhile
        "SELECT pg_sleep(61 - extract(second FROM now())) WHERE extract(second FROM now()) > 45"
    )
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('bank'), ('shop')")
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count)"
        " SELECT date_trunc('minute', now()) - make_interval(mins => n), 'shop',"
        " CASE WHEN n = 7 THEN 'rejected' ELSE 'accepted' END, 10 * n"
        " FROM generate_series(1, 60) AS n"
    )
    page = (await operator.get("/console")).text
    shop = page.partition('aria-label="App shop"')[2].partition("</section>")[0]
    assert "The last hour: 18,230 accepted, 70 failed" in shop
    points = re.search(r'points="([^"]+)"', shop)[1].split()
    assert (len(points), points[0], points[1]) == (60, "0,0.0", "1,0.3")
    assert shop.count("<rect") == 1
    bank = page.partition('aria-label="App bank"')[2].partition("</section>")[0]
    assert ("0 accepted, 0 failed" in bank, "<rect" in bank) == (True, False)


async def test_every_page_can_ask_for_the_number_of_problems(operator, db):
    assert json.loads((await operator.get("/console/fresh")).text)["trouble"] == 1  # no worker
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at)"
        " VALUES ('a', 1, '1', '{shop}', '1 min', now())"
    )
    await asyncio.sleep(1.1)
    assert json.loads((await operator.get("/console/fresh")).text)["trouble"] == 0


async def test_charts_reach_back_a_month(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count) VALUES"
        " (now() - interval '5 days', 'shop', 'accepted', 7),"
        " (now() - interval '20 days', 'shop', 'rejected', 5)"
    )
    assert await db.fetchval("SELECT dispatcher.roll_up_counts('4 days')") == 2
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count)"
        " VALUES (now() - interval '2 days', 'shop', 'accepted', 1)"
    )
    week = json.loads((await operator.get("/console/chart?span=week")).text)
    assert (len(week["time"]), sum(week["accepted"]), sum(week["failed"])) == (168, 8, 0)
    month = json.loads((await operator.get("/console/chart?span=month")).text)
    assert (len(month["time"]), sum(month["accepted"]), sum(month["failed"])) == (120, 8, 5)


async def test_delivery_is_shown_by_app_template_and_country(operator, db):
    async with db.transaction():  # now() stands still
        await db.execute(
            "INSERT INTO dispatcher.message (app, recipient, template_id)"
            " SELECT 'shop', '+86131' || lpad(n::text, 8, '0'), 'tpl'"
            " FROM generate_series(1, 60) AS n"
        )
        await db.execute(
            "INSERT INTO dispatcher.outcome (message_id, state, attempts, created_at)"
            " SELECT n, 'accepted', 1, now() - CASE WHEN n <= 30 THEN interval '10 s'"
            " ELSE interval '5 h 2 s' END FROM generate_series(1, 60) AS n"
        )
        await db.execute(
            "INSERT INTO dispatcher.event (app, event, message_ids, message_count, created_at)"
            " SELECT 'shop', 'delivered', array_agg(n), 30, now() - interval '5 h'"
            " FROM generate_series(31, 60) AS n UNION ALL"
            " SELECT 'shop', CASE WHEN n <= 9 THEN 'undelivered' ELSE 'delivered' END,"
            " array_agg(n), 9, now() FROM generate_series(1, 30) AS n GROUP BY n <= 9"
        )
    page = (await operator.get("/console/delivery")).text
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)[1:]
    assert len(rows) == 3
    for row in rows:
        found = re.findall(r"<t[hd].*?</t[hd]>", row)
        cells = [re.sub("<[^>]+>", "", cell).strip() for cell in found]
        assert cells[2:8] == ["30", "70.0 %", "100.0 %", "10.0 s", "10.0 s", "2.0 s"]
        assert cells[8] == "fewer delivered slower"


async def test_without_reports_delivery_says_so(operator):
    assert "No report came" in (await operator.get("/console/delivery")).text


async def test_to_load_a_result_again_does_nothing(operator, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    form = {"form_token": (await operator.get("/console/search")).form_token, "app": "shop"}
    done = await operator.post("/console/actions/pause", form)
    assert done.status == 303
    for _ in range(2):
        page = await operator.get(done.headers["Location"])
        assert (page.status, "Pause shop: done" in page.text) == (200, True)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.audit") == 1
    address = done.headers["Location"]
    for other in (address[:-1], address.replace("result=", "result=x"), "/console/done", form):
        path = other if isinstance(other, str) else f"/console/done?result={form['form_token']}"
        assert (await operator.get(path)).status == 404, path


async def test_the_result_of_an_action_with_a_long_name_is_shown(operator, db):
    name = "短" * 100
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign)"
        " VALUES ('+8613112345678', 't', $1)",
        name,
    )
    done = await operator.act("campaign-pause", {"campaign": name, "reason": "因" * 200})
    assert (done.status, f"Pause the campaign {name}: done" in done.text) == (200, True)


async def test_a_dashboard_of_many_apps_shows_problems_first(operator, db):
    await db.execute("""
        INSERT INTO dispatcher.app (name, paused_at, paused_by)
        SELECT 'app-' || n, CASE WHEN n > 60 THEN now() END, 'operator'
        FROM generate_series(10, 85) AS n;
        INSERT INTO dispatcher.worker (host, pid, version, apps, lease)
        SELECT 'h', 1, '1', array_agg('app-' || n), '1 hour' FROM generate_series(10, 85) AS n;
    """)
    page = (await operator.get("/console")).text
    assert page.count('<section class="card"') == 30
    assert "The first 30 of 76." in page
    for app in range(61, 86):
        assert f"<h2>app-{app}</h2>" in page, app
    assert page.count('<li class="finding') == 20
    assert "The first 20 of 25." in page
    assert 'data-live="/console/live"' in page
    assert "<option>app-60</option>" in page  # of the charts
    whole = (await operator.get("/console?all=yes")).text
    assert whole.count('<section class="card"') == 76
    assert whole.count('<li class="finding') == 25
    assert "The first" not in whole
    assert 'data-live="/console/live?all=yes"' in whole
    actions = (await operator.get("/console/actions")).text
    assert actions.count("<li><strong>") == 20
    assert "Resume app-61" in actions
    everything = (await operator.get("/console/actions?all=yes")).text
    assert everything.count("<li><strong>") == 76


@pytest.mark.parametrize(
    ("action", "fields", "title", "result"),
    [
        ("cancel", {"ids": "999"}, "Cancel message 999", "0 of 1 cancelled."),
        ("requeue", {"ids": "998 999"}, "Requeue 2 messages", "0 of 2 wait again."),
        (
            "settle",
            {"token": "0" * 32, "how": "sent"},
            "Settle the request",
            "Not settled: the batch",
        ),
        (
            "campaign-pause",
            {"campaign": "x"},
            "Pause the campaign x",
            "Not done: there is no campaign",
        ),
        (
            "template-remove",
            {"template_id": "t"},
            "Remove the template t",
            "There is no such template.",
        ),
        ("unsuppress", {"numbers": "+8613112345678"}, "Send to 1 number again", "0 numbers freed."),
    ],
)
async def test_an_action_without_effect_is_not_called_done(operator, action, fields, title, result):
    page = (await operator.act(action, fields)).text
    assert title in page
    assert result in page
    assert ": nothing was changed</h1>" in page
    assert ": done</h1>" not in page


@pytest.mark.parametrize("action", ["pause", "resume"])
async def test_an_unknown_app_is_neither_paused_nor_resumed(operator, db, action):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    for answer in (
        await operator.get(f"/console/actions/{action}?app=shpo"),
        await operator.act(action, {"app": "shpo"}),
    ):
        assert (answer.status, "There is no app shpo; there are: shop." in answer.text) == (
            400,
            True,
        )
    assert await db.fetchval("SELECT array_agg(name) FROM dispatcher.app") == ["shop"]
    assert await db.fetchval("SELECT count(*) FROM dispatcher.audit") == 0


async def test_a_thousand_ids_are_taken_at_once(operator):
    page = (await operator.get("/console/actions")).text
    form = page.partition('action="/console/actions/requeue"')
    assert form[0].endswith('<form class="ids" method="post" ')  # an address has no room for them
    sent = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[2]))
    ids = " ".join(map(str, range(10**17, 10**17 + 1000)))
    asked = await operator.post("/console/actions/requeue", {**sent, "ids": ids})
    assert (asked.status, "Requeue 1,000 messages?" in asked.text) == (200, True)
    done = await operator.act("requeue", {"ids": ids})
    assert "0 of 1000 wait again." in done.text
    more = await operator.post("/console/actions/requeue", {**sent, "ids": f"{ids} 7"})
    assert (more.status, "1,000 at most" in more.text) == (400, True)
