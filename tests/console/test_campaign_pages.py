"""Campaigns in the console: progress, why messages failed, actions, results as a file."""

import asyncio
import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode

import aiohttp
import pytest
from client import ACTOR
from support.messages import states, take_out
from yarl import URL

from dispatcher.console.auth import SESSION_COOKIE
from dispatcher.console.campaign_pages import needs_count, progress
from dispatcher.core.country import country
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.status import AuditEntry
from dispatcher.db import audit, campaigns
from dispatcher.db.campaigns import CampaignCount, CodeCount, CountedCampaign

NAME = "may & june/100%.csv"
MESSAGES = """
INSERT INTO dispatcher.message (app, recipient, template_id, campaign)
SELECT 'shop', CASE WHEN n % 4 = 0 THEN '+44740' ELSE '+861310' END || lpad(n::text, 7, '0'),
    't', $1
FROM generate_series(1, 40) AS n
"""
RESULTS = """
INSERT INTO dispatcher.outcome (message_id, state, attempts, code, provider_id, segments)
SELECT n,
    CASE WHEN n <= 4 THEN 'rejected' WHEN n <= 6 THEN 'expired' WHEN n <= 8 THEN 'cancelled'
        ELSE 'accepted' END,
    1, CASE WHEN n <= 4 THEN 'E200031' END, CASE WHEN n > 8 THEN 'p' || n END,
    CASE WHEN n > 8 THEN 2 END
FROM generate_series(1, 28) AS n;
INSERT INTO dispatcher.report (provider_id, status, state, total)
SELECT 'p' || n, CASE WHEN n <= 20 THEN 'DELIVRD' ELSE 'MBBLACK' END,
    CASE WHEN n <= 20 THEN 'delivered' ELSE 'undelivered' END, 1
FROM generate_series(13, 24) AS n;
INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes)
VALUES ('open', 'shop', 1, '{29,30,31,32}', '{1,1,1,1}', 'open', 100);
INSERT INTO dispatcher.batch
    (token, app, worker, message_ids, attempts, state, bytes, unsure_at, code)
VALUES ('unsure', 'shop', 1, '{33,34,35,36}', '{1,1,1,1}', 'unsure', 100, now(), 'timeout');
INSERT INTO dispatcher.event (app, event, code, message_ids, message_count)
SELECT 'shop', state, coalesce(code, ''), array_agg(message_id), count(*)
FROM dispatcher.outcome GROUP BY state, code;
INSERT INTO dispatcher.event (app, event, code, message_ids, message_count)
SELECT 'shop', r.state, r.status, array_agg(o.message_id), count(*)
FROM dispatcher.report r JOIN dispatcher.outcome o USING (provider_id) GROUP BY r.state, r.status;
INSERT INTO dispatcher.price VALUES ('CN', 0.05, 'CNY'), ('GB', 0.04, 'USD');
"""
BY_STATE = {
    "accepted": 8, "cancelled": 2, "delivered": 8, "expired": 2, "queued": 4, "rejected": 4,
    "sending": 4, "undelivered": 4, "unsure": 4,
}  # fmt: skip


@pytest.fixture
async def campaign(db) -> str:
    """A campaign with messages in every state."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    await db.execute(MESSAGES, NAME)
    await take_out(db, [*range(1, 37)])
    await db.execute(RESULTS)
    return "name=may+%26+june%2F100%25.csv"


async def counted(operator, path: str) -> str:
    """Return a page once the campaign on it is counted."""
    async with asyncio.timeout(60):
        while "being counted" in (page := (await operator.get(path)).text):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return page


@pytest.mark.usefixtures("campaign")
async def test_a_count_agrees_with_the_view(db):
    assert await states(db) == BY_STATE
    count = await campaigns.count(db, NAME, country=country)
    assert dict(sorted(count.states().items())) == BY_STATE
    rows = await db.fetch(
        "SELECT state, code, count(*) FROM dispatcher.message_status GROUP BY state, code"
    )
    assert {(one.state, one.code, one.messages) for one in count.codes} == {
        tuple(row) for row in rows
    }
    assert (count.segments, count.recent) == (40, 20)
    assert count.cost == {"CNY": Decimal("0.60"), "USD": Decimal("0.40")}
    kept = await db.fetchval("SELECT counted FROM dispatcher.campaign")
    assert '"recent": 20' in kept


async def test_a_campaign_shows_progress_reasons_and_cost(operator, campaign):
    overview = await counted(operator, "/console/campaigns")
    assert f'href="/console/campaign?{campaign.replace("+", "%20")}"' in overview.replace(
        "may%20%26%20june/", "may%20%26%20june%2F"
    )
    page = await counted(operator, f"/console/campaign?{campaign}")
    assert "40 messages" in page
    assert re.search(r'<progress max="40" value="28"', page)
    assert "0.6 CNY, 0.4 USD" in page
    for code in ("E200031", "MBBLACK"):
        assert code in page
    links = re.findall(r'href="(/console/messages\?[^"]+)">([\d,]+)', page)
    assert len(links) >= len(BY_STATE) + 3
    for link, number in links:
        listed = await operator.get(link.replace("&amp;", "&"))
        assert listed.text.count('data-label="Recipient"') == int(number), link
        assert f"{number} message" in listed.text
        assert "as counted" in listed.text


async def test_a_campaign_is_paused_resumed_and_cancelled(operator, campaign, db):
    del campaign
    state = "SELECT state || coalesce(' ' || reason, '') FROM dispatcher.campaign"
    for change, shown, then in (
        ("pause", "Paused.", "paused why"),
        ("resume", "Resumed.", "running"),
        ("cancel", "Cancelled: nothing more of it is claimed.", "cancelled why"),
        ("resume", "Not done: campaign", "cancelled why"),
    ):
        fields = {"campaign": NAME, "reason": "why"}
        answer = await operator.act(f"campaign-{change}", fields)
        assert shown in answer.text, answer.text
        assert await db.fetchval(state) == then
    rows = await db.fetch("SELECT actor, action FROM dispatcher.audit ORDER BY id")
    assert [tuple(row) for row in rows] == [(ACTOR, "pause"), (ACTOR, "resume"), (ACTOR, "cancel")]


async def test_names_that_differ_by_a_blank_are_two(operator, db):
    await db.executemany(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign, reference)"
        " VALUES ('+8613112345678', 't', $1, $1)",
        [("May",), ("May ",), (" ",)],
    )
    rows = await db.fetch("SELECT reference, id FROM dispatcher.message ORDER BY id")
    ids = dict(map(tuple, rows))
    await operator.act("campaign-pause", {"campaign": "May "})
    paused = await db.fetch("SELECT name FROM dispatcher.campaign WHERE state = 'paused'")
    assert [row["name"] for row in paused] == ["May "]
    form_token = (await operator.get("/console/messages")).form_token
    for field in ("campaign", "reference"):
        for name, wanted in ids.items():
            form = {"form_token": form_token, "action": "cancel", "state": "queued", field: name}
            action = (await operator.post("/console/message-action", form)).headers["Location"]
            await operator.get(action)
            found = await db.fetchval(
                "SELECT targets FROM dispatcher.message_action ORDER BY id DESC LIMIT 1"
            )
            assert found == [wanted], (field, name)
    for name in ("May", "May "):
        form = {"form_token": form_token, "text": name}
        answer = await operator.post("/console/search", form)
        assert answer.headers["Location"] == f"/console/message/{ids[name]}"


async def test_a_campaign_that_is_being_moved_is_shown_so(operator, campaign, db):
    await db.execute("SELECT dispatcher.move_campaign($1, priority => 1)", NAME)
    for page in ("/console/campaigns", f"/console/campaign?{campaign}"):
        shown = (await operator.get(page)).text
        assert ">moving<" in shown


async def test_what_was_rejected_of_a_campaign_is_requeued(operator, campaign, db):
    page = await counted(operator, f"/console/campaign?{campaign}")
    for state in ("rejected", "expired", "undelivered"):
        assert f"Requeue those {state} …" in page
    token = re.search(r'name="form_token" value="([^"]+)"', page)[1]
    form = {"form_token": token, "campaign": NAME, "state": "rejected", "action": "requeue"}
    answer = await operator.post("/console/message-action", form)
    path = answer.headers["Location"]
    assert "Requeue 4 messages?" in (await operator.get(path)).text
    await operator.post(path, {"form_token": token})
    async with asyncio.timeout(60):
        while "4 of 4 wait again" not in (await operator.get(path)).text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    left = await db.fetch("SELECT state FROM dispatcher.message_status WHERE id <= 6 ORDER BY id")
    assert [row[0] for row in left] == ["queued"] * 4 + ["expired"] * 2


async def test_results_are_exported_and_whole_numbers_audited(operator, campaign, db):
    path = f"/console/campaign.csv?{campaign}"
    masked = await operator.get(path)
    rows = list(csv.DictReader(io.StringIO(masked.text.lstrip("\ufeff"))))
    assert len(rows) == 40
    assert rows[0]["recipient"] == "+86131****0001"
    assert rows[0]["campaign"] == NAME
    assert rows[0]["code"] == "E200031"
    assert await db.fetchval("SELECT count(*) FROM dispatcher.audit") == 0
    form_token = (await operator.get("/console/search")).form_token
    whole = await operator.post(path, {"form_token": form_token})
    assert "+8613100000001" in whole.text
    audit = await db.fetchrow("SELECT actor, action, target FROM dispatcher.audit")
    assert tuple(audit) == (ACTOR, "export", f"campaign={NAME}")


@pytest.mark.parametrize("apps", [("shop",), ("shop", "bank")])
async def test_advice_names_the_settings_of_the_only_app(operator, db, campaign, apps):
    await db.execute(
        "INSERT INTO dispatcher.app (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", apps
    )
    await db.execute("UPDATE dispatcher.outcome SET code = 'no-sender' WHERE state = 'rejected'")
    page = await counted(operator, f"/console/campaign?{campaign}")
    named = "SHOP" if len(apps) == 1 else "&lt;NAME&gt;"
    assert f"DISPATCHER_APPS__{named}__SENDER" in page


@pytest.mark.usefixtures("campaign")
async def test_a_reader_that_stalls_holds_up_no_other_export(operator, campaign, monkeypatch):
    gave_up = asyncio.Event()

    async def endless(_connection, on_rows, **_filter) -> None:
        try:
            while True:
                await on_rows([["x" * 1000] * 14] * 100)
        finally:
            gave_up.set()

    path = f"/console/campaign.csv?{campaign}"
    with monkeypatch.context() as patched:
        patched.setattr(campaigns, "export", endless)
        patched.setattr("dispatcher.console.campaign_pages.READER_SECONDS", 0.2)
        patched.setattr("dispatcher.console.campaign_pages._TIME_COLUMNS", ())
        async with operator.session.get(operator.url + path) as stalled:
            assert stalled.status == 200
            async with asyncio.timeout(60):
                await gave_up.wait()
                with pytest.raises(aiohttp.ClientError):
                    await stalled.read()
    async with asyncio.timeout(60):
        assert len((await operator.get(path)).text.splitlines()) == 41


@pytest.mark.usefixtures("campaign")
@pytest.mark.parametrize("path", [f"campaign.csv?{urlencode({'name': NAME})}", "audit.csv"])
async def test_an_export_that_the_database_ends_is_no_whole_file(operator, monkeypatch, path):
    async def one_row(_connection, on_rows, **_filter) -> None:
        await on_rows([["1", *[""] * 13]])
        raise DatabaseUnavailable("it restarts")

    async def one_page(_database, _filter, before) -> tuple[list[AuditEntry], int]:
        if before is not None:
            raise DatabaseUnavailable("it restarts")
        return [], 1

    monkeypatch.setattr(campaigns, "export", one_row)
    monkeypatch.setattr(audit, "page", one_page)
    # As nginx asks: of such an answer the end is the end of the connection.
    jar = operator.session.cookie_jar.filter_cookies(URL(operator.url + "/console"))
    cookie = jar[SESSION_COOKIE].OutputString()
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(operator.url).port)
    writer.write(f"GET /console/{path} HTTP/1.0\r\nCookie: {cookie}\r\n\r\n".encode())
    assert "200 OK" in (await reader.readline()).decode()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_an_unknown_campaign_is_said_to_be_missing(operator):
    for path in ("campaign?name=x", "campaign", "campaign.csv?name=x"):
        assert (await operator.get(f"/console/{path}")).status == 404, path
    assert (await operator.get("/console/campaigns?before=odd")).status == 400
    assert "There is no campaign yet" in (await operator.get("/console/campaigns")).text


async def test_older_campaigns_are_a_page_away(operator, db, monkeypatch):
    monkeypatch.setattr(campaigns, "PAGE_CAMPAIGNS", 2)
    monkeypatch.setattr("dispatcher.console.campaign_pages.PAGE_CAMPAIGNS", 2)
    await db.execute(
        "INSERT INTO dispatcher.campaign (name, first_id, created_at)"
        " SELECT 'c' || n, 1, '2026-11-01 10:00:00.123456+00' FROM generate_series(1, 5) AS n"
    )
    shown, path = [], "/console/campaigns"
    while path:
        page = (await operator.get(path)).text
        shown += re.findall(r'name=(c\d)"', page.partition("</tbody>")[0])
        found = re.search(r'rel="next" href="([^"]+)"', page)
        path = found and found[1].replace("&amp;", "&")
    assert list(dict.fromkeys(shown)) == ["c5", "c4", "c3", "c2", "c1"]


NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def of(*, age: float = 0, begun: float = 3600, waits: bool = False, **states: int):
    """Return a campaign that was counted *age* seconds ago."""
    at = NOW - timedelta(seconds=age)
    codes = [CodeCount(state, None, number) for state, number in states.items()]
    count = CampaignCount(codes, 0, 600, None, {}, 0.5)
    return CountedCampaign(
        "c", "running", None, None, None, "Ana", at - timedelta(seconds=begun), None, None, count,
        at, waits, partly_removed=False,
    )  # fmt: skip


def test_counting_is_as_frequent_as_it_is_useful():
    assert not needs_count(of(age=4, waits=True, queued=1), NOW)  # ten times what it took
    assert needs_count(of(age=6, waits=True, queued=1), NOW)
    assert not needs_count(of(age=6, accepted=1), NOW)
    assert needs_count(of(age=61, accepted=1), NOW)
    assert not needs_count(of(age=61, delivered=1), NOW)
    assert needs_count(of(age=601, delivered=1), NOW)


def test_the_end_follows_from_the_rate_since_the_beginning():
    assert progress(of(queued=60, accepted=600)).ends_in == 60.0
    assert progress(of(begun=60, queued=60, accepted=600)).ends_in == 6.0
    assert progress(of(accepted=600)).ends_in is None


def test_a_campaign_with_a_lost_message_is_not_finished():
    assert progress(of(accepted=9)).finished_all
    one_lost = progress(of(accepted=9, lost=1))
    assert (one_lost.finished, one_lost.total, one_lost.finished_all) == (9, 10, False)


async def move(operator, **fields: str):
    """Send the form of a move; return what it asks, or why it cannot be."""
    return await operator.act("campaign-move", {"campaign": NAME, "ask": "yes", **fields})


@pytest.mark.usefixtures("campaign")
async def test_a_campaign_is_moved_after_a_confirmation(operator, db):
    fields = {"send_at": "2099-01-31 09:00", "zone": "Asia/Shanghai", "spread": "4h"}
    asked = await move(operator, **fields, priority="7")
    due = ' datetime="2099-01-31T01:00:00.000+00:00">2099-01-31 01:00:00 UTC<'  # for the reader
    for shown in ("Move the campaign may &amp; june", due, "4 h", "is 7."):
        assert shown in asked.text
    assert await db.fetchval("SELECT state FROM dispatcher.campaign") == "running"
    done = await operator.act("campaign-move", {"campaign": NAME, **fields, "priority": "7"})
    assert "Moving: workers move what waits." in done.text
    moving = await db.fetchrow("SELECT state, move_wait, move_priority FROM dispatcher.campaign")
    assert tuple(moving) == ("moving", 4 * 3600 / 4, 7)
    await campaigns.move_all(db, NAME)
    due = await db.fetch("SELECT due_at FROM dispatcher.queue ORDER BY due_at")
    assert due[0]["due_at"] == datetime(2099, 1, 31, 1, tzinfo=UTC)
    assert due[-1]["due_at"] - due[0]["due_at"] == timedelta(hours=3)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "Say to when it moves"),
        ({"spread": "4h"}, "Say to when it moves"),
        ({"priority": "2", "per_hour": "10"}, "Say to when it moves"),
        ({"send_at": "2099-01-31 09:00"}, "name its time zone"),
        ({"send_at": "0001-01-01T00:00+14:00"}, "name its time zone"),
        ({"send_at": "9999-12-31T23:00+00:00"}, "name its time zone"),
        ({"send_at": "3000-01-01 00:00", "zone": "UTC"}, "The time is after the year 2999"),
        ({"send_at": "soon", "zone": "Asia/Shanghai"}, "The time is no time"),
        ({"send_at": "2099-01-31 09:00", "zone": "Shanghai"}, "There is no time zone"),
        ({"send_at": "2099-01-31 09:00", "zone": "Etc/GMT-8"}, "has its sign reversed"),
        ({"send_at": "2099-01-31 09:00", "zone": "UTC", "spread": "x"}, "Spread takes"),
        (
            {"send_at": "2099-01-31 09:00", "zone": "UTC", "spread": "4h", "per_hour": "9"},
            "Give a number of messages an hour, or",
        ),
        ({"priority": "10"}, "A priority is a digit"),
        ({"priority": "\N{SUPERSCRIPT TWO}"}, "A priority is a digit"),
    ],
)
async def test_a_move_that_cannot_be_says_why(operator, fields, why):
    refused = await move(operator, **fields)
    assert refused.status == 400
    assert why in refused.text
    for name, value in fields.items():
        assert re.search(f'name="{name}" value="{re.escape(value)}"', refused.text), name


async def test_a_campaign_that_moves_can_be_paused(operator, campaign, db):
    await db.execute("SELECT dispatcher.move_campaign($1, priority => 1)", NAME)
    page = await operator.get(f"/console/campaign?{campaign}")
    assert "/console/actions/campaign-pause" in page.text
    done = await operator.act("campaign-pause", {"campaign": NAME, "reason": "wrong text"})
    assert "Paused." in done.text
    assert await db.fetchval("SELECT state FROM dispatcher.campaign") == "paused"


@pytest.mark.usefixtures("campaign")
async def test_the_result_of_an_action_is_in_chinese(operator):
    chinese = {"Accept-Language": "zh-CN"}
    done = await operator.act("campaign-cancel", {"campaign": NAME, "reason": "x"}, **chinese)
    assert "已取消：不再领取其中的短信。" in done.text
    again = await operator.act("campaign-resume", {"campaign": NAME}, **chinese)
    assert "未执行：群发任务" in again.text
