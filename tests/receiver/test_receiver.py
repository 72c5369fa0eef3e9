"""The receiver over real HTTP: what it takes, what it refuses and how, and that it keeps."""

import asyncio
import json
from datetime import UTC, datetime

import aiohttp
import pytest
from receiving_end import FORM, TOKEN, Receiver, form, receiver, stored
from support.waiting import until

from dispatcher.db.reports import keep_unreadable, replay_unreadable, unreadable
from dispatcher.receiver.intake import Intake
from dispatcher.receiver.routes import ReportRoutes
from dispatcher.receiver.verification import Signatures
from dispatcher.service.http import serving


async def test_a_report_is_in_the_database_when_it_is_answered(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        assert await receives.post(form(news="x")) == (200, "Success")
        row = await db.fetchrow("SELECT * FROM dispatcher.report")
    assert (row["provider_id"], row["state"], row["token"]) == ("p1", "delivered", "t1")
    assert row["updated_at"] == datetime(2026, 11, 22, 6, 31, 46, tzinfo=UTC)
    assert json.loads(row["raw"])["news"] == "x"


async def test_single_forms_and_batches_come_to_the_same_address(dsn, db, tmp_path):
    batch = {"statusReportList": [{"smsMsgId": f"b{n}", "status": "DELIVRD"} for n in range(50)]}
    async with receiver(dsn, tmp_path) as receives:
        assert (await receives.post(form()))[0] == 200
        assert (await receives.post(json.dumps(batch), "application/json"))[0] == 200
    assert len(await stored(db)) == 51


async def test_posts_that_come_together_share_a_commit(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        answers = await asyncio.gather(*(receives.post(form(f"p{n}")) for n in range(300)))
        assert {status for status, _ in answers} == {200}
        assert len(await stored(db)) == 300
        commits = await db.fetchval("SELECT count(DISTINCT xmin::text) FROM dispatcher.report")
    assert commits < 100


async def test_a_status_moves_forward_only(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        for status in ("ACCEPTD", "UNDELIV", "DELIVRD", "ACCEPTD"):
            await receives.post(form(status=status))
    assert await stored(db) == [("p1", 1, "UNDELIV")]


UNREADABLE = [
    (b"", FORM, "empty"),
    (b"smsMsgId=p1", FORM, "no smsMsgId, or no status"),
    (b"smsMsgId=p1&status=DELIVRD&smsMsgId=p2", FORM, "stands twice"),
    (b"smsMsgId=" + b"x" * 200 + b"&status=DELIVRD", FORM, "no id"),
    (b"a" * 20_000, FORM, "no smsMsgId"),
    (b"\xff\x00\xfe", "application/octet-stream", "no smsMsgId"),
    (b"[" * 200_000, "application/json", "damaged"),
    (b"{", "application/json", "damaged"),
    (b'{"statusReportList": [7]}', "application/json", "no object"),
]


@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_cannot_be_read_is_kept_as_it_came(dsn, db, tmp_path, case):
    body, content_type, why = case
    async with receiver(dsn, tmp_path) as receives:
        for _ in range(2):
            assert await receives.post(body, content_type) == (200, "Success")
        assert await receives.post(form("after")) == (200, "Success")
    assert await stored(db) == [("after", 1, "DELIVRD")]
    row = await db.fetchrow("SELECT * FROM dispatcher.unreadable_push")
    assert (row["body"], row["content_type"], row["times"]) == (body, content_type, 2)
    assert why in row["reason"]


async def test_one_broken_report_costs_no_other_and_all_is_kept(dsn, db, tmp_path):
    batch = {"statusReportList": [{"smsMsgId": "p1", "status": "DELIVRD"}, {"smsMsgId": "p2"}]}
    async with receiver(dsn, tmp_path) as receives:
        assert (await receives.post(json.dumps(batch), "application/json"))[0] == 200
    assert await stored(db) == [("p1", 1, "DELIVRD")]
    row = await db.fetchrow("SELECT * FROM dispatcher.unreadable_push")
    assert (json.loads(row["body"]), row["reason"].split(".")[0]) == (
        batch,
        "1 of 2 reports cannot be read",
    )


async def test_more_reports_than_fifty_are_kept(dsn, db, tmp_path):
    many = [{"smsMsgId": f"p{n}", "status": "DELIVRD"} for n in range(51)]
    async with receiver(dsn, tmp_path) as receives:
        status, _ = await receives.post(json.dumps({"statusReportList": many}), "text/plain")
    assert (status, len(await stored(db))) == (200, 51)


@pytest.mark.slow
async def test_only_size_is_a_limit(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        for size in (300_000, 10_000_000):
            status, reason = await receives.post(b"a" * size)
            assert (status, reason[-1]) == (413, ".")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.unreadable_push") == 0


async def test_one_push_that_cannot_be_stored_stops_no_replay(db):
    for name in ("p1", "odd", "p2"):
        await db.execute(
            "INSERT INTO dispatcher.unreadable_push (digest, reason, content_type, body)"
            " VALUES (sha256($1), 'of an older release', 'text/plain', $1)",
            f"smsMsgId={name}&status=DELIVRD".encode(),
        )
    await db.execute("ALTER TABLE dispatcher.report ADD CHECK (provider_id <> 'odd')")
    assert await replay_unreadable(db, words=()) == (2, 2)
    assert [row[0] for row in await stored(db)] == ["p1", "p2"]
    (left,) = await unreadable(db)
    assert b"odd" in left.body


async def test_what_can_be_read_later_is_replayed(db):
    whole = json.dumps({"statusReportList": [{"smsMsgId": "p1", "status": "DELIVRD"}]}).encode()
    for body in (whole, b"never a report"):
        await db.execute(
            "INSERT INTO dispatcher.unreadable_push (digest, reason, content_type, body)"
            " VALUES (sha256($1), 'of an older release', 'text/plain', $1)",
            body,
        )
    assert await replay_unreadable(db, words=()) == (1, 1)
    assert await stored(db) == [("p1", 1, "DELIVRD")]
    assert await replay_unreadable(db, words=()) == (0, 0)
    (left,) = await unreadable(db)
    assert left.body == b"never a report"


@pytest.mark.slow
async def test_a_slow_sender_is_cut_off_and_others_are_served(database, tmp_path):
    intake = Intake(database, tmp_path)
    reports = ReportRoutes(
        TOKEN,
        database=database,
        intake=intake,
        signatures=Signatures([], lambda: datetime.now(UTC), {}),
        sender_timeout=0.3,
    )
    async with (
        asyncio.TaskGroup() as tasks,
        serving("127.0.0.1", 0, reports.routes()) as (host, port),
        aiohttp.ClientSession() as session,
    ):
        running = tasks.create_task(intake.run())
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            f"POST /reports/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsms".encode()
        )
        await writer.drain()
        assert (await Receiver(f"http://{host}:{port}", session).post(form()))[0] == 200
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        running.cancel()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"within" in answer


async def test_refusals_are_counted_by_kind(dsn, db, tmp_path, monkeypatch):
    monkeypatch.setattr("dispatcher.receiver.receiver.COUNT_INTERVAL_SECONDS", 0.05)
    async with receiver(dsn, tmp_path) as receives:
        await receives.post(b"nonsense")
        await receives.post(form(), path="/reports/wrong")
        async with asyncio.timeout(60):
            while True:
                rows = await db.fetch(
                    "SELECT code, count FROM dispatcher.event_count WHERE event = 'report refused'"
                )
                if {row["code"]: row["count"] for row in rows} == {"unreadable": 1, "path": 1}:
                    break
                await asyncio.sleep(0.02)


async def test_a_test_report_is_told_and_creates_nothing(dsn, db, tmp_path):
    heard: asyncio.Queue[str] = asyncio.Queue()
    await db.add_listener("dispatcher_check", lambda *args: heard.put_nowait(args[3]))
    async with receiver(dsn, tmp_path) as receives:
        assert await receives.post(form("word", status="X-CHECK")) == (200, "Test report received")
        async with asyncio.timeout(60):
            assert await heard.get() == "word"
    assert await stored(db) == []


async def test_events_get_places_while_no_report_is_matched(dsn, db, tmp_path):
    await db.execute("ALTER TABLE dispatcher.unmatched_report RENAME TO old_unmatched")
    message = await db.fetchval("SELECT dispatcher.enqueue('13100000001', 't')")
    async with receiver(dsn, tmp_path) as receives:
        assert (await receives.post(form()))[0] == 200
        await db.execute("SELECT dispatcher.cancel(ARRAY[$1::bigint])", message)
        await until(lambda: db.fetch("SELECT * FROM dispatcher.events()"), what="it has a place")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.report_inbox") == 1


async def test_a_push_that_comes_again_after_it_was_emptied_is_whole(db, database):
    """`forget` leaves the tokens of one alone; else an empty push would be listed for ever."""
    for _ in range(2):
        await keep_unreadable(database, b"odd", "text/plain", "odd", age=0.0, path="reports")
        [push] = await unreadable(db)
        assert push.body == b"odd"
        await db.execute("UPDATE dispatcher.unreadable_push SET body = '', read_at = now()")
        assert await unreadable(db) == []
