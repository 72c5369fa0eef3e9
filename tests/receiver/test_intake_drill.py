"""kill -9 of receiver and PostgreSQL under 1,000 reports a second, sent as the provider does.

`./dev test -n 0 -s tests/receiver/test_intake_drill.py --drill-seconds 90` is the whole drill; by
default it takes seconds. The sender's record of what was answered 200 is the witness.
"""

import asyncio
import itertools
from collections import Counter
from time import monotonic
from urllib.parse import urlencode

import pytest
from chaos.database import running_server
from steady_sender import Report, SteadySender
from support.messages import insert
from support.provider import app_at, provider_process
from support.waiting import until

from dispatcher.bench import proc
from dispatcher.bench.ports import free_port
from dispatcher.db.database import connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS

TOKEN = "a-token-that-nobody-guesses"
RATE = 1000  # reports a second
WAVE = 100  # messages of one request
APART = 2.0  # seconds from the end of one blow to the next
BLOWS = (
    "receiver killed",
    "PostgreSQL killed",
    "both killed",
    "PostgreSQL restarted",
    "PostgreSQL killed",
    "receiver killed while PostgreSQL is away",
)

LOAD = """
WITH added AS (
    INSERT INTO dispatcher.message (recipient, template_id)
    SELECT '+86138' || lpad(n::text, 8, '0'), 't' FROM generate_series(0, $1 - 1) AS n
    RETURNING id, substr(recipient, 7)::int AS n
), request AS (
    INSERT INTO dispatcher.batch
        (token, app, worker, message_ids, attempts, state, bytes, closed_at)
    SELECT 'token' || n / $2, 'default', 0, array_agg(id ORDER BY n),
        array_agg(1::smallint), 'closed', 6000, now()
    FROM added GROUP BY n / $2
    RETURNING id, token
)
INSERT INTO dispatcher.outcome (message_id, batch_id, state, attempts, provider_id, code)
SELECT a.id, r.id, 'accepted', 1, 'id' || a.n / $2 || '_' || a.n % $2 + 1, '000000'
FROM added a JOIN request r ON r.token = 'token' || a.n / $2
"""


class Drill:
    """A receiver, its database, and what is done to them."""

    def __init__(self, server, workers, settings: dict[str, str]) -> None:
        self._server = server
        self._workers = workers
        self._settings = settings
        self.receiver = None
        self.blows: Counter[str] = Counter()

    async def start(self) -> None:
        """Start a receiver, and wait until it can be reached."""
        self.receiver = receiver = self._workers.launch(
            {}, dsn=self._server.dsn, arguments=("--only", "reports"), **self._settings
        )
        await until(
            lambda: any(event.get("event") == "listening" for event in receiver.events()),
            deadline=60,
            what="the receiver listens",
        )

    async def kill(self) -> None:
        """kill -9 of the receiver, and another in its place."""
        self.receiver.kill()
        await self.start()

    async def strike(self, blow: str) -> None:
        """Do one thing; return when everything is up again."""
        self.blows[blow] += 1
        match blow:
            case "receiver killed":
                await self.kill()
            case "PostgreSQL restarted":
                await self._server.order("restart")
            case "PostgreSQL killed":
                await self._server.order("crash")
            case "both killed" | "receiver killed while PostgreSQL is away":
                coming = asyncio.create_task(self._server.order("crash"))
                if blow != "both killed":
                    await until(self._spooling, deadline=30, what="reports go to disk")
                await self.kill()
                await coming

    async def _spooling(self) -> bool:
        events = [event.get("event", "") for event in self.receiver.events()]
        return any(event.startswith("reports go to disk") for event in events)


def reported(number: int) -> tuple[Report, bytes]:
    """Return the report of message *number*, and the form that the provider posts."""
    batch, place = divmod(number, WAVE)
    status = "UNDELIV" if number % 4 == 0 else "DELIVRD"
    fields = {
        "sequence": "1", "total": "1", "orgCode": "000", "source": "2", "status": status,
        "updateTime": "2026-11-22T06:31:46Z", "smsMsgId": f"id{batch}_{place + 1}",
        "extend": f"token{batch}", "to": f"+86138{number:08d}",
    }  # fmt: skip
    return (fields["smsMsgId"], 1, status), urlencode(fields).encode()


ALL_TOLD = (
    "SELECT (SELECT coalesce(sum(message_count), 0) FROM dispatcher.event"
    " WHERE event IN ('delivered', 'undelivered')) = (SELECT count(*) FROM dispatcher.report)"
    " AND NOT EXISTS (SELECT FROM dispatcher.unmatched_report)"
)
ALL_REPLIES_TOLD = (
    "SELECT (SELECT coalesce(sum(message_count), 0) FROM dispatcher.event)"
    " = (SELECT count(*) FROM dispatcher.reply)"
)


async def kept(dsn: str, answered: dict[tuple[str, int], str]) -> bool:
    """Tell whether every answered report is in the database, with its status, and matched."""
    try:
        db = await connect(dsn)
        rows = await db.fetch("SELECT provider_id, segment, status FROM dispatcher.report")
        waiting = await db.fetchval("SELECT count(*) FROM dispatcher.report_inbox")
        await db.close()
    except UNAVAILABLE_ERRORS:
        return False
    stored = {(provider_id, segment): status for provider_id, segment, status in rows}
    return not waiting and answered.items() <= stored.items()


def replied(number: int) -> tuple[Report, bytes]:
    """Return the reply of person *number*, every fourth of which unsubscribes."""
    text = "R" if number % 4 == 0 else f"text {number}"
    fields = {
        "from": f"+86138{number:08d}", "to": "106900010001", "body": text,
        "smsMsgId": f"reply{number}",
    }  # fmt: skip
    return (fields["smsMsgId"], 1, text), urlencode(fields).encode()


async def replies_kept(dsn: str, answered: dict[tuple[str, int], str]) -> bool:
    """Tell whether every answered reply is in the database, with its text."""
    try:
        db = await connect(dsn)
        rows = await db.fetch("SELECT provider_id, text FROM dispatcher.reply")
        await db.close()
    except UNAVAILABLE_ERRORS:
        return False
    return answered.items() <= {(provider_id, 1): text for provider_id, text in rows}.items()


@pytest.mark.timeout(3600)
async def test_no_answered_reply_is_lost_in_kills(tmp_path, workers, drill_seconds):
    port = free_port()
    settings = {
        "listen": f"127.0.0.1:{port}",
        "data_dir": str(tmp_path / "data"),
        "report_path_token": TOKEN,
    }
    count = int(drill_seconds * RATE)
    async with running_server(tmp_path / "server") as server:
        db = await connect(server.dsn)
        await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
        await db.close()
        drill = Drill(server, workers, settings)
        await drill.start()
        sender = SteadySender(port, f"/replies/{TOKEN}/shop")
        sending = asyncio.create_task(sender.send(count, RATE, replied))
        for blow in itertools.cycle(BLOWS):
            await asyncio.sleep(APART)
            if sending.done():
                break
            await drill.strike(blow)
        rate = await sending
        answered = sender.witness
        await until(
            lambda: replies_kept(server.dsn, answered),
            deadline=120,
            every=0.5,
            what="every answered reply is in the database",
        )
        db = await connect(server.dsn)
        await until(lambda: db.fetchval(ALL_REPLIES_TOLD), what="each reply has one event")
        stored = await db.fetchval("SELECT count(*) FROM dispatcher.reply")
        left = await db.fetchval(
            "SELECT count(*) FROM dispatcher.reply r WHERE r.text = 'R' AND NOT EXISTS ("
            " SELECT FROM dispatcher.suppression s"
            " WHERE s.recipient = r.number AND s.promotional)"
        )
        await db.close()
        print(f"\n{rate:.0f} replies/s sent: {dict(sender.answers)}; {dict(drill.blows)}")  # noqa: T201 - the figures
        print(f"{len(answered)} answered 200, {stored} stored, each with its event, 0 lost")  # noqa: T201 - the figures
        assert len(answered) > count / 10  # a slow machine takes in less, and loses none of it
        assert left == 0
        assert set(sender.answers) <= {"200", "refused", "cut"}
    assert drill.blows


@pytest.mark.timeout(3600)
async def test_a_thousand_replies_a_second_come_in_beside_sending(tmp_path, workers, drill_seconds):
    """One process sends 500 messages a second and takes 1,000 replies a second meanwhile."""
    port = free_port()
    settings = {
        "listen": f"127.0.0.1:{port}",
        "data_dir": str(tmp_path / "data"),
        "report_path_token": TOKEN,
    }
    count = int(drill_seconds * RATE)
    async with running_server(tmp_path / "server") as server, provider_process() as sim:
        db = await connect(server.dsn)
        await insert(db, count)  # twice what the pace of the app allows meanwhile
        app = {"default": app_at(sim.url, numbers_per_second=RATE // 2)}
        worker = await workers.start(app, dsn=server.dsn, **settings)
        sent = "SELECT count(*) FROM dispatcher.outcome WHERE state = 'accepted'"
        await until(
            lambda: any(event.get("event") == "listening" for event in worker.events()),
            what="the receiver listens",
        )
        await until(lambda: db.fetchval(sent), what="the first messages are out")
        before, began, used = await db.fetchval(sent), monotonic(), proc.seconds(worker.pid)
        sender = SteadySender(port, f"/replies/{TOKEN}/default")
        rate = await sender.send(count, RATE, replied)
        seconds, used = monotonic() - began, proc.seconds(worker.pid) - used
        pace = (await db.fetchval(sent) - before) / seconds
        whole = "SELECT count(*) = $1 FROM dispatcher.reply"
        # Those that came while a commit took too long are stored from the disk.
        await until(lambda: db.fetchval(whole, count), what="each reply is stored")
        await db.close()
    print(  # noqa: T201 - the figures
        f"\n{rate:.0f} replies/s kept for {seconds:.0f} s, {pace:.0f} messages/s sent meanwhile;"
        f" answers {dict(sender.answers)}; {used / seconds:.2f} processors of the process"
    )
    assert sender.answers == {"200": count}
    assert rate > RATE / 4  # as fast as a machine with other work can; none was refused
    assert pace > RATE / 10  # the app may send five times that: a machine with other work


@pytest.mark.timeout(3600)
async def test_no_answered_report_is_lost_in_kills(tmp_path, workers, drill_seconds):
    port = free_port()
    settings = {
        "listen": f"127.0.0.1:{port}",
        "data_dir": str(tmp_path / "data"),
        "report_path_token": TOKEN,
    }
    count = int(drill_seconds * RATE)
    async with running_server(tmp_path / "server") as server:
        db = await connect(server.dsn)
        await db.execute(LOAD, count, WAVE)
        await db.execute("ANALYZE")
        await db.close()
        drill = Drill(server, workers, settings)
        await drill.start()
        sender = SteadySender(port, f"/reports/{TOKEN}")
        sending = asyncio.create_task(sender.send(count, RATE, reported))
        for blow in itertools.cycle(BLOWS):
            await asyncio.sleep(APART)
            if sending.done():
                break
            await drill.strike(blow)
        rate = await sending
        answered = sender.witness
        await until(
            lambda: kept(server.dsn, answered),
            deadline=120,
            every=0.5,
            what="every answered report is in the database",
        )
        db = await connect(server.dsn)
        # In one look, and perhaps later: what was cut off may still come from disk.
        await until(lambda: db.fetchval(ALL_TOLD), what="each report has one event")
        stored = await db.fetchval("SELECT count(*) FROM dispatcher.report")
        await db.close()
        print(f"\n{rate:.0f} reports/s sent: {dict(sender.answers)}; {dict(drill.blows)}")  # noqa: T201 - the figures
        print(f"{len(answered)} answered 200, {stored} stored, each with its event, 0 lost")  # noqa: T201 - the figures
        assert len(answered) > count / 10  # a slow machine takes in less, and loses none of it
        assert set(sender.answers) <= {"200", "refused", "cut"}
        spool = tmp_path / "data" / "spool"
        await until(lambda: not list(spool.glob("*")), deadline=30, what="nothing is left on disk")
    assert drill.blows
