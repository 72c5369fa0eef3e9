"""The list of messages: filters in the address, counts that lead to it, actions on a filter."""

import asyncio
import re
from datetime import UTC, datetime

import pytest
from client import ACTOR
from support.messages import states, take_out

from dispatcher.console import message_pages
from dispatcher.db import console_tokens
from dispatcher.db.queries import sql

NUMBER = "+8613112345678"


@pytest.fixture
async def messages(db) -> list[int]:
    """60 messages that were rejected, and two that wait."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    rows = await db.fetch(
        "INSERT INTO dispatcher.message (recipient, template_id, reference)"
        " SELECT $1, 'tpl', 'order ' || n FROM generate_series(1, 62) AS n RETURNING id",
        NUMBER,
    )
    ids = [row["id"] for row in rows]
    await take_out(db, ids[:60])
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, code)"
        " SELECT n, 'rejected', 1, 'E200031' FROM generate_series(1, 60) AS n"
    )
    await db.execute(
        "INSERT INTO dispatcher.event (app, event, code, message_ids, message_count)"
        " SELECT 'default', 'rejected', 'E200031', array_agg(n), 60"
        " FROM generate_series(1, 60) AS n"
    )
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, count)"
        " VALUES (date_trunc('minute', now()), 'default', 'rejected', 'E200031', 60)"
    )
    return ids


def rows_of(text: str) -> list[int]:
    return [
        int(each) for each in re.findall(r'<a href="/console/message/(\d+)">\d+</a></th>', text)
    ]


@pytest.mark.usefixtures("messages")
async def test_counts_of_problems_lead_to_the_list(operator, monkeypatch):
    monkeypatch.setattr(message_pages, "PAGE_SECONDS", 20.0)  # a busy machine reads slowly
    page = await operator.get("/console/problems")
    address = re.search(r'<td data-label="Day" class="num"><a href="([^"]+)">60</a>', page.text)[1]
    assert address == "/console/messages?state=rejected&amp;code=E200031&amp;app=default"
    first = await operator.get(address.replace("&amp;", "&"))
    assert len(rows_of(first.text)) == 50
    assert "It happened 60 times" in first.text
    older = re.search(r'rel="next" href="([^"]+)"', first.text)[1].replace("&amp;", "&")
    second = await operator.get(older)
    assert sorted(rows_of(first.text) + rows_of(second.text)) == [*range(1, 61)]
    assert 'rel="next"' not in second.text


@pytest.mark.usefixtures("messages")
async def test_counts_of_cards_lead_to_lists(operator):
    home = (await operator.get("/console")).text.replace("&amp;", "&")
    links = set(re.findall(r'href="(/console/messages\?[^"]+)"', home))
    states = {re.search(r"state=(\w+)", link)[1] for link in links}
    assert states == {"queued", "sending", "unsure", "accepted", "delivered", "rejected"}
    for link in links:
        assert (await operator.get(link)).status == 200, link


@pytest.mark.usefixtures("messages")
async def test_a_number_is_never_in_an_address(operator):
    form_token = (await operator.get("/console/messages")).form_token
    form = {"form_token": form_token, "number": "131 1234-5678", "state": "queued", "prefix": "131"}
    answer = await operator.post("/console/messages", form)
    assert answer.headers["Location"] == "/console/messages?state=queued&same_number_as=62"
    page = await operator.get(answer.headers["Location"])
    assert rows_of(page.text) == [62, 61]
    assert NUMBER[3:] not in page.text
    unknown = await operator.post("/console/messages", {**form, "number": "13199999999"})
    assert (unknown.status, "no message to this number" in unknown.text) == (400, True)
    for query in (
        "prefix=%2B861311", "prefix=1311", "prefix=%2B86131&same_number_as=62", "last_digits=45678",
    ):  # fmt: skip
        assert (await operator.get(f"/console/messages?{query}")).status == 400, query
    assert (await operator.get("/console/messages?prefix=131&last_digits=5678")).status == 200


@pytest.mark.usefixtures("messages")
async def test_a_number_is_looked_for_within_a_filter_and_kept_if_it_is_wrong(operator):
    page = await operator.get("/console/messages?state=queued&since=2026-01-01T00:00:30")
    form = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page.text))
    answer = await operator.post("/console/messages", {**form, "number": NUMBER})
    assert answer.headers["Location"].endswith("&since=2026-01-01T00%3A00%3A30%2B00%3A00")
    refused = await operator.post("/console/messages", {**form, "number": "131 1234"})
    assert (refused.status, "This is not a number" in refused.text) == (400, True)
    for value in ("131 1234", "queued", "2026-01-01T00:00:30+00:00"):
        assert f'value="{value}"' in refused.text


async def test_messages_to_a_number_that_no_phone_has_are_found(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('12345678901', 't')"
    )
    form_token = (await operator.get("/console/messages")).form_token
    form = {"form_token": form_token, "number": "12345678901"}
    answer = await operator.post("/console/messages", form)
    assert answer.headers["Location"] == "/console/messages?same_number_as=1"


@pytest.mark.parametrize("action", ["cancel", "requeue"])
async def test_ids_that_cannot_be_read_are_kept(operator, action):
    answer = await operator.act(action, {"ids": "12 x", "ask": "yes"})
    assert (answer.status, "Give ids of messages" in answer.text) == (400, True)
    assert 'name="ids" value="12 x"' in answer.text


@pytest.mark.usefixtures("messages")
async def test_pages_and_actions_of_a_filter_have_its_seconds(operator):
    page = await operator.get("/console/messages?until=2999-01-01T00:00:30")
    for link in re.findall(r'href="(/console/messages\?[^"]*until=[^"]*)"', page.text):
        assert "T00%3A00%3A30%2B00%3A00" in link
    path = await preview(operator, action="cancel", until="2999-01-01T00:00:30")
    shown = '<time datetime="2999-01-01T00:00:30.000+00:00">2999-01-01 00:00:30 UTC</time>'
    assert f"before {shown}" in (await operator.get(path)).text  # in the reader's zone
    assert f"before {shown}" in page.text
    audit = await operator.get("/console/audit?since=2026-01-01T00:00:30")
    assert "audit.csv?since=2026-01-01T00%3A00%3A30%2B00%3A00" in audit.text


@pytest.mark.usefixtures("messages")
async def test_a_filter_that_cannot_be_read_says_why(operator):
    for query in ("state=odd", "since=yesterday", "same_number_as=x", "position=x", "position=1.x"):
        page = await operator.get(f"/console/messages?{query}")
        assert (page.status, "Nothing was done" in page.text) == (400, True), query
    assert (await operator.get("/console/messages?app=&code=&unknown=1")).status == 200


async def preview(operator, **fields: str) -> str:
    form_token = (await operator.get("/console/messages")).form_token
    form = {"form_token": form_token, **fields}
    answer = await operator.post("/console/message-action", form)
    assert answer.status == 303, answer.text
    return answer.headers["Location"]


async def shows(operator, path: str, text: str) -> None:
    """Wait until a page shows a text."""
    async with asyncio.timeout(60):
        while text not in (await operator.get(path)).text:  # noqa: ASYNC110 - a page has no event
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("messages")
async def test_an_action_on_a_filter_is_previewed_and_done(operator, db):
    await db.execute("UPDATE dispatcher.message SET wiped_at = now() WHERE id <= 10")
    path = await preview(operator, action="requeue", code="E200031")
    page = await operator.get(path)
    assert "Requeue 50 messages?" in page.text
    assert "its variables were wiped" in page.text
    assert (await states(db))["queued"] == 2  # nothing is done yet
    for _ in range(2):  # a form that is sent twice does it once
        answer = await operator.post(path, {"form_token": page.form_token})
        assert answer.headers["Location"] == path
    await shows(operator, path, "50 of 50 wait again")
    assert (await states(db))["queued"] == 52
    audit = await db.fetch("SELECT actor, action, target, detail FROM dispatcher.audit")
    assert [tuple(row) for row in audit] == [(ACTOR, "requeue", "50 messages", "code E200031")]


@pytest.mark.usefixtures("messages")
async def test_an_action_goes_on_in_a_process_that_starts_later(operator, db):
    path = await preview(operator, action="cancel", state="queued")
    await db.execute("SELECT dispatcher.start_message_action($1, 'Ben')", int(path.split("/")[-1]))
    await shows(operator, path, "2 of 2 cancelled")


@pytest.mark.usefixtures("messages")
async def test_an_action_that_was_ended_says_so_and_stays_ended(operator, db):
    path = await preview(operator, action="cancel", state="queued")
    await db.execute("SELECT dispatcher.start_message_action($1, 'Ben')", int(path.split("/")[-1]))
    await db.execute(sql("end_old_actions"), datetime.now(UTC), "dispatcher run")
    page = (await operator.get(path)).text
    assert "0 of 2 cancelled" in page
    assert "ended before its last step: the database was restored" in page
    assert "data-renew" not in page
    assert (await states(db))["queued"] == 2
    assert "ended early" in (await operator.get("/console/audit")).text


@pytest.mark.usefixtures("messages")
async def test_actions_on_a_filter_refuse_what_is_wrong(operator):
    form_token = (await operator.get("/console/messages")).form_token
    for form in ({"action": "explode"}, {"action": "cancel", "state": "odd"}, {}):
        answer = await operator.post("/console/message-action", {"form_token": form_token, **form})
        assert answer.status == 400
    assert (await operator.get("/console/message-action/999")).status == 404
    assert (await operator.post("/console/message-action", {"action": "cancel"})).status == 403


@pytest.mark.usefixtures("messages")
async def test_a_browser_keeps_the_columns_it_chose(operator):
    form_token = (await operator.get("/console/messages")).form_token
    form = {"form_token": form_token, "template_id": "yes", "segments": "yes", "odd": "yes"}
    back = f"{operator.url}/console/messages?state=queued"
    answer = await operator.post("/console/messages/columns", form, Referer=back)
    assert answer.headers["Location"] == "/console/messages?state=queued"
    page = await operator.get("/console/messages")
    heads = re.findall(r'<th scope="col"[^>]*>([^<]+)</th>', page.text)
    assert heads == ["Message", "Template", "Segments"]
    assert re.findall(r'data-label="Template" class="code">(\w+)<', page.text)[0] == "tpl"
    await operator.post("/console/messages/columns", {"form_token": form_token}, Referer=back)
    assert 'data-label="State"' in (await operator.get("/console/messages")).text


async def test_chosen_messages_are_cancelled_after_a_confirmation(operator, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    for _ in range(3):
        await db.execute(
            "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('+8613112345678', 't')"
        )
    page = (await operator.get("/console/messages?state=queued")).text
    assert re.findall(r'type="checkbox" name="ids" value="(\d)"', page) == ["3", "2", "1"]
    assert 'formaction="/console/actions/cancel"' in page
    assert 'formaction="/console/actions/requeue"' not in page  # they wait
    asked = await operator.get("/console/actions/cancel?ids=3&ids=1")
    assert "Cancel 2 messages?" in asked.text
    (ids,) = re.findall(r'name="ids" value="([\d ]+)"', asked.text)
    done = await operator.act("cancel", {"ids": ids})
    assert "2 of 2 cancelled" in done.text
    assert await db.fetchval("SELECT array_agg(id) FROM dispatcher.queue") == [2]
    none = await operator.get("/console/actions/cancel")
    assert none.status == 400


async def test_an_operator_who_only_looks_chooses_no_messages(client, db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('+8613112345678', 't')"
    )
    assert (await client.log_in(await console_tokens.add(db, "Ana", "Ben", "see"))).status == 303
    page = (await client.get("/console/messages")).text
    assert "/console/message/1" in page
    assert 'name="ids"' not in page


async def test_the_filter_suggests_the_codes_of_the_day(operator, db):
    await db.execute("""
        INSERT INTO dispatcher.event_count (minute, app, event, code, count) VALUES
            (date_trunc('minute', now()), 'shop', 'rejected', 'E200028', 2),
            (date_trunc('minute', now()), 'bank', 'rejected', 'E200031', 3),
            (date_trunc('minute', now()), 'shop', 'accepted', '', 9)
    """)
    page = (await operator.get("/console/messages")).text
    listed = page.partition('<datalist id="codes">')[2].partition("</datalist>")[0]
    assert re.findall('value="([^"]*)"', listed) == ["E200031", "E200028"]
