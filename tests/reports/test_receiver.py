"""The receiver over real HTTP: what it takes, what it refuses and how, and that it keeps."""

import asyncio
import io
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import aiohttp
import pytest

from dispatcher.db import reports
from dispatcher.service.receiver import receiving
from dispatcher.settings import load_settings
from dispatcher.simulator.signature import sdk_date, sign
from dispatcher.web.intake import Intake
from dispatcher.web.push import Signatures
from dispatcher.web.reports import Counts, Door, report_routes
from dispatcher.web.server import serving

TOKEN = "a-token-that-nobody-guesses"
FORM = "application/x-www-form-urlencoded"
KEYS = {"push-key": "push-secret", "push-key-2": "push-secret-2"}
APP = {
    "ENDPOINT": "https://sms.example.com",
    "APP_KEY": "key",
    "APP_SECRET": "secret",
    "PUSH_KEY": "push-key",
    "PUSH_SECRET": "push-secret",
    "PUSH_KEY_2": "push-key-2",
    "PUSH_SECRET_2": "push-secret-2",
}
SIGNED = {f"DISPATCHER_APPS__DEFAULT__{name}": value for name, value in APP.items()}


class Receiver:
    """A receiver, and a client that posts to it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def post(self, body: bytes | str, content_type: str = FORM, *, path=None, **headers):
        """Post *body*; return status and what the answer says."""
        url = self.url + (path or f"/reports/{TOKEN}")
        headers = {"Content-Type": content_type, **headers}
        data = io.BytesIO(body.encode() if isinstance(body, str) else body)
        async with self.session.post(url, data=data, headers=headers) as response:
            return response.status, json.loads(await response.text())["returnCodeDesc"]

    async def signed(self, body: bytes, **how):
        """Post *body* as the provider signs it."""
        return await self.post(body, **signature(body, **how))


def signature(
    body: bytes, *, key="push-key", secret=None, now=None, host="127.0.0.1", **tweak
) -> dict[str, str]:
    """Return the headers of a push as the provider signs it; *tweak* replaces some afterwards."""
    date = sdk_date((now or datetime.now(UTC)).timestamp())
    values = {
        "connection": "keep-alive",
        "content-length": str(len(body)),
        "content-type": FORM,
        "host": host,
        "x-sdk-date": date,
    }
    signed = sign(
        secret or KEYS[key],
        method="POST",
        path=f"/reports/{TOKEN}",
        headers=list(values.items()),
        date=date,
        body=body,
    )
    return {
        "Connection": "keep-alive",
        "Host": host,
        "X-Sdk-Date": date,
        "Authorization": f"SDK-HMAC-SHA256 Access={key},SignedHeaders={';'.join(values)},"
        f"Signature={signed}",
        **tweak,
    }


@asynccontextmanager
async def receiver(dsn: str, folder, **environ: str):
    """Run a receiver on a free port."""
    settings = load_settings(
        {
            "DISPATCHER_DATA_DIR": str(folder),
            "DISPATCHER_REPORT_PATH_TOKEN": TOKEN,
            **{f"DISPATCHER_{name}": value for name, value in environ.items()},
        }
    )
    async with (
        receiving(settings, dsn, asyncio.Event()) as routes,
        serving("127.0.0.1", 0, routes) as (host, port),
        aiohttp.ClientSession() as session,
    ):
        yield Receiver(f"http://{host}:{port}", session)


def form(provider_id: str = "p1", **fields) -> bytes:
    """Encode one report as the provider does."""
    return urlencode(
        {
            "smsMsgId": provider_id,
            "total": "1",
            "sequence": "1",
            "status": "DELIVRD",
            "source": "2",
            "updateTime": "2026-11-22T06:31:46Z",
            "orgCode": "000",
            "extend": "t1",
            "to": "+8613100000001",
            **fields,
        }
    ).encode()


async def stored(db) -> list[tuple[str, int, str]]:
    rows = await db.fetch(
        "SELECT provider_id, segment, status FROM dispatcher.report ORDER BY provider_id, segment"
    )
    return [tuple(row) for row in rows]


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
async def test_what_is_malformed_is_refused_with_a_reason_and_stores_nothing(
    dsn, db, tmp_path, case
):
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


async def test_another_path_is_not_found(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        for path in ("/reports/wrong", f"/reports/{TOKEN}x", f"/reports/{TOKEN[:-1]}"):
            assert (await receives.post(form(), path=path))[0] == 404
    assert await stored(db) == []


async def test_without_a_path_token_there_is_no_receiver(dsn, tmp_path):
    settings = load_settings({"DISPATCHER_DATA_DIR": str(tmp_path)})
    async with receiving(settings, dsn, asyncio.Event()) as routes:
        assert routes == []


@pytest.mark.parametrize("key", KEYS)
async def test_a_push_signed_with_either_live_key_is_taken(dsn, tmp_path, key):
    async with receiver(dsn, tmp_path, **_stripped(SIGNED)) as receives:
        assert await receives.signed(form(), key=key) == (200, "Success")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"secret": "no"}, "signature"),
        ({"key": "nobody", "secret": "no"}, "key"),
        ({"now": datetime.now(UTC) - timedelta(minutes=16)}, "replay"),
        ({"now": datetime.now(UTC) + timedelta(minutes=16)}, "clock"),
        ({"Authorization": ""}, "Authorization"),
        ({"Authorization": "SDK-HMAC-SHA256 Access=push-key"}, "Authorization"),
    ],
)
async def test_a_push_that_is_not_signed_right_is_refused(dsn, db, tmp_path, wrong, reason):
    async with receiver(dsn, tmp_path, **_stripped(SIGNED)) as receives:
        status, said = await receives.signed(form(), **wrong)
        assert (status, reason in said) == (401, True)
        assert (await receives.post(form()))[0] == 401
    assert await stored(db) == []


async def test_a_signature_does_not_fit_another_body(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path, **_stripped(SIGNED)) as receives:
        headers = signature(form("p1"))
        assert (await receives.post(form("p1"), **headers))[0] == 200
        assert (await receives.post(form("p2"), **headers))[0] == 401
    assert await stored(db) == [("p1", 1, "DELIVRD")]


async def test_a_proxy_that_rewrites_host_and_connection_is_seen_through(dsn, tmp_path):
    proxied = _stripped(SIGNED) | {"PUSH_HOST": "sms.example.com", "PUSH_CONNECTION": "keep-alive"}
    async with receiver(dsn, tmp_path, **proxied) as receives:
        rewritten = {"Host": "10.0.0.1:8080", "Connection": "close"}
        assert (await receives.signed(form(), host="sms.example.com", **rewritten))[0] == 200
    async with receiver(dsn, tmp_path, **_stripped(SIGNED)) as receives:
        assert (await receives.signed(form(), host="sms.example.com", **rewritten))[0] == 401


NETWORKS = [
    ({}, {}, 200),
    ({"REPORT_NETWORKS": "127.0.0.0/8"}, {}, 200),
    ({"REPORT_NETWORKS": "provider"}, {}, 403),
    # nobody but a trusted proxy may say who the client is
    ({"REPORT_NETWORKS": "provider"}, {"X-Forwarded-For": "117.78.29.5"}, 403),
    (
        {"REPORT_NETWORKS": "provider", "TRUSTED_PROXIES": "127.0.0.1"},
        {"X-Forwarded-For": "117.78.29.5"},
        200,
    ),
    (
        {"REPORT_NETWORKS": "provider", "TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8"},
        {"X-Forwarded-For": "117.78.29.5, 10.1.2.3"},
        200,
    ),
    (
        {"REPORT_NETWORKS": "provider", "TRUSTED_PROXIES": "127.0.0.1"},
        {"X-Forwarded-For": "117.78.29.5, 9.9.9.9"},
        403,
    ),
    (
        {"REPORT_NETWORKS": "provider", "TRUSTED_PROXIES": "127.0.0.1"},
        {"X-Forwarded-For": "nonsense"},
        403,
    ),
]


@pytest.mark.parametrize(("environ", "headers", "status"), NETWORKS)
async def test_only_listed_networks_may_report(dsn, tmp_path, environ, headers, status):
    async with receiver(dsn, tmp_path, **environ) as receives:
        assert (await receives.post(form(), **headers))[0] == status


async def test_a_slow_sender_is_cut_off_and_others_are_served_meanwhile(pool, tmp_path):
    async def store(arrived):
        await reports.store(pool, [(one.report, 0.0) for one in arrived])

    intake = Intake(store, tmp_path)
    door = Door(TOKEN, intake, Signatures([], lambda: datetime.now(UTC), {}), None, slow_sender=0.3)
    async with (
        asyncio.TaskGroup() as tasks,
        serving("127.0.0.1", 0, report_routes(door, Counts())) as (host, port),
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
    monkeypatch.setattr("dispatcher.service.receiver.COUNT_EVERY", 0.05)
    async with receiver(dsn, tmp_path) as receives:
        await receives.post(b"nonsense")
        await receives.post(form(), path="/reports/wrong")
        async with asyncio.timeout(10):
            while True:
                rows = await db.fetch(
                    "SELECT code, count FROM dispatcher.tally WHERE event = 'report refused'"
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


def _stripped(environ: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("DISPATCHER_"): value for name, value in environ.items()}
