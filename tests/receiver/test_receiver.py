"""The receiver over real HTTP: what it takes, what it refuses and how, and that it keeps."""

import asyncio
import json
from datetime import UTC, datetime

import aiohttp
import pytest
from receiving_end import FORM, TOKEN, Receiver, form, receiver, stored

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


BAD = [
    (b"", FORM, 400),
    (b"smsMsgId=p1", FORM, 400),
    (b"smsMsgId=p1&status=%FF", FORM, 400),
    (b"smsMsgId=p1&status=DELIVRD&smsMsgId=p2", FORM, 400),
    (b"smsMsgId=p1&status=DELIVRD&sequence=0", FORM, 400),
    (b"smsMsgId=p1&status=A%00B", FORM, 400),
    (b"smsMsgId=" + b"x" * 200 + b"&status=DELIVRD", FORM, 400),
    (b"a" * 20_000, FORM, 413),
    (b"a" * 10_000_000, FORM, 413),
    (b"[" * 200_000, "application/json", 400),
    (b"{", "application/json", 400),
    (b"[]", "application/json", 400),
    (b'{"statusReportList": []}', "application/json", 400),
    (b'{"statusReportList": [7]}', "application/json", 400),
    (b'{"statusReportList": [{"smsMsgId": {}, "status": []}]}', "application/json", 400),
    (
        json.dumps({"statusReportList": [{"smsMsgId": "p", "status": "D"}] * 51}).encode(),
        "application/json",
        413,
    ),
]


@pytest.mark.parametrize("case", BAD)
async def test_a_malformed_report_is_refused_with_a_reason(dsn, db, tmp_path, case):
    body, content_type, status = case
    async with receiver(dsn, tmp_path) as receives:
        answered, reason = await receives.post(body, content_type)
        assert answered == status
        assert reason.endswith(".")
        assert await receives.post(form("after")) == (200, "Success")
    assert await stored(db) == [("after", 1, "DELIVRD")]


async def test_the_sound_reports_of_a_bad_batch_are_kept(dsn, db, tmp_path):
    batch = {"statusReportList": [{"smsMsgId": "p1", "status": "DELIVRD"}, {"smsMsgId": "p2"}]}
    async with receiver(dsn, tmp_path) as receives:
        status, reason = await receives.post(json.dumps(batch), "application/json")
    assert (status, reason.split(".")[0]) == (400, "1 of 2 reports are malformed")
    assert await stored(db) == [("p1", 1, "DELIVRD")]


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
        async with asyncio.timeout(10):
            while True:
                rows = await db.fetch(
                    "SELECT code, count FROM dispatcher.event_count WHERE event = 'report refused'"
                )
                if {row["code"]: row["count"] for row in rows} == {"malformed": 1, "path": 1}:
                    break
                await asyncio.sleep(0.02)


async def test_a_test_report_is_told_and_creates_nothing(dsn, db, tmp_path):
    heard: asyncio.Queue[str] = asyncio.Queue()
    await db.add_listener("dispatcher_check", lambda *args: heard.put_nowait(args[3]))
    async with receiver(dsn, tmp_path) as receives:
        assert await receives.post(form("word", status="X-CHECK")) == (200, "Test report received")
        async with asyncio.timeout(10):
            assert await heard.get() == "word"
    assert await stored(db) == []
