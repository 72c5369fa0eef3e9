"""Reports through real processes: the simulator posts them to a running service."""

import asyncio
import socket

import pytest
from world.books import read_books
from world.messages import insert, states
from world.provider import app_at
from world.waiting import until

from dispatcher.db import reports
from dispatcher.db.errors import AWAY
from dispatcher.db.pool import connect
from dispatcher.simulator import ReportOptions, read_faults

TOKEN = "a-token-that-nobody-guesses"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def reporting(tmp_path) -> dict[str, str]:
    """Settings of a service that takes reports at an address that is known beforehand."""
    listen = f"127.0.0.1:{free_port()}"
    return {
        "listen": listen,
        "data_dir": str(tmp_path / "data"),
        "report_path_token": TOKEN,
        "callback_url": f"http://{listen}/reports/{TOKEN}",
    }


async def all_delivered(db, count: int) -> None:
    async def done() -> bool:
        return await states(db) == {"delivered": count}

    await until(done, deadline=60, what="every message is delivered")


@pytest.mark.parametrize("batch", [0, 50], ids=["forms", "batches"])
async def test_after_lost_answers_every_message_settles_by_itself(
    db, workers, provide, reporting, batch
):
    sim = await provide(reports=ReportOptions(delay=(0.1, 1.0), reorder=True, batch=batch))
    # Accepted, and then the connection is cut: nobody has the answers of the first requests.
    await sim.faults.arm(
        read_faults(
            b'[{"fault": "cut", "first": 3}, {"fault": "half-answer", "after": 3, "times": 1}]'
        )
    )
    ids = await insert(db, 2500)
    await workers.start({"default": app_at(sim.url)}, **reporting)
    await all_delivered(db, len(ids))
    assert sim.ledger.numbers == len(ids)
    assert set(sim.ledger.counts().values()) == {1}
    books = await read_books(db, sim.ledger.rows())
    assert books.problems() == []
    settled = await db.fetch(
        "SELECT state, settled_by, cardinality(message_ids) AS messages FROM dispatcher.batch"
        " WHERE settled_by IS NOT NULL"
    )
    assert {(row["state"], row["settled_by"]) for row in settled} == {("closed", "reports")}
    assert len(settled) == 4
    by_report = await db.fetchval("SELECT count(*) FROM dispatcher.outcome WHERE code = 'report'")
    assert by_report == sum(row["messages"] for row in settled)


async def test_reports_as_badly_as_they_may_come_end_well(db, workers, provide, reporting):
    sim = await provide(
        reports=ReportOptions(
            delay=(0.0, 0.5),
            interim=0.5,
            duplicates=0.5,
            reorder=True,
            before_answer=0.5,
            mix={"DELIVRD": 3, "UNDELIV": 1, "EXPIRED": 1, "MK:0001": 1},
            push_key="push",
            push_secret="secret",
            timeout=60.0,
        )
    )
    await insert(db, 600)
    app = app_at(sim.url, push_key="push", push_secret="secret")
    await workers.start({"default": app}, **reporting)
    await until(
        lambda: sim.ledger.numbers == 600 and sim.reports.idle, deadline=60, what="reports came"
    )
    assert set(sim.reports.answers) == {"200"}

    async def matched() -> bool:
        now = await states(db)
        return now.get("delivered", 0) + now.get("undelivered", 0) == 600

    await until(matched, deadline=60, what="every report is matched")
    last = {}
    for answered in sim.reports.witness():
        if answered.status != "ACCEPTD":
            last[answered.sms_msg_id] = answered.status
    rows = await db.fetch("SELECT provider_id, report_status FROM dispatcher.message_status")
    assert {row["provider_id"]: row["report_status"] for row in rows} == last

    async def none_waits() -> bool:
        left = await db.fetchval("SELECT count(*) FROM dispatcher.unmatched")
        return left == 0 and await reports.backlog(db) == reports.Backlog(0, 0.0)

    await until(none_waits, deadline=60, what="reports that came before the answer are matched")
    told = await db.fetch(
        "SELECT event, sum(size)::int AS n FROM dispatcher.feed"
        " WHERE event LIKE '%delivered' GROUP BY event"
    )
    assert sum(row["n"] for row in told) == 600  # each once


async def test_no_answered_report_is_lost_when_receiver_and_database_are_killed(
    programs, tmp_path, workers, provide, reporting
):
    """1,000 reports a second; the receiver is killed twice, PostgreSQL restarted twice."""
    from dispatcher.db.embedded import embedded_server  # noqa: PLC0415 - this test's own server

    sim = await provide(reports=ReportOptions(connections=16, timeout=20.0))
    seconds, rate = 8, 1000
    server = embedded_server(tmp_path / "pg", programs=programs)
    dsn = server.__enter__()
    try:
        receiver = _receiver(workers, dsn, reporting)
        await _listening(receiver)
        posting = asyncio.create_task(_post(sim, reporting["callback_url"], seconds * rate, rate))
        for _ in range(2):
            await asyncio.sleep(seconds / 8)
            receiver.kill()
            receiver = _receiver(workers, dsn, reporting)
            await _listening(receiver)
            await asyncio.sleep(seconds / 8)
            server.__exit__(None, None, None)
            await asyncio.sleep(0.5)  # reports come, and there is no database
            server = embedded_server(tmp_path / "pg", programs=programs)
            assert server.__enter__() == dsn
        await posting
        await until(lambda: sim.reports.idle, deadline=60, what="every post is answered")
        answered = {(one.sms_msg_id, one.sequence) for one in sim.reports.witness()}
        assert len(answered) > seconds * 100  # a slow machine takes in less, and loses none of it

        async def kept() -> bool:
            try:
                db = await connect(dsn)
                rows = await db.fetch("SELECT provider_id, segment FROM dispatcher.report")
                await db.close()
            except AWAY:
                return False
            return answered <= {tuple(row) for row in rows}

        await until(kept, deadline=60, every=0.5, what="every answered report is in the database")
        spooled = [event for event in receiver.events() if "spooled" in str(event.get("event"))]
        print(len(answered), "answered;", sim.reports.answers, spooled)  # noqa: T201 - the figures
    finally:
        server.__exit__(None, None, None)


def _receiver(workers, dsn: str, reporting: dict[str, str]):
    return workers.launch({}, dsn=dsn, arguments=("--only", "reports"), **reporting)


async def _listening(receiver) -> None:
    await until(
        lambda: any(event.get("event") == "listening" for event in receiver.events()),
        deadline=30,
        what="the receiver listens",
    )


async def _post(sim, callback: str, count: int, rate: int) -> None:
    """Let the simulator report *count* numbers, at *rate* a second."""
    from array import array  # noqa: PLC0415 - this test alone

    from dispatcher.simulator.ledger import Accepted  # noqa: PLC0415 - this test alone

    loop = asyncio.get_running_loop()
    began, size = loop.time(), 100
    for serial in range(count // size):
        numbers = [f"+86138{serial * size + n:08d}" for n in range(size)]
        accepted = Accepted(
            serial, 0.0, f"token{serial}", f"id{serial}", ",".join(numbers), None,
            array("I", [size]), array("L", [0]), array("I", [1]), ("t",),
        )  # fmt: skip
        await sim.reports.accept(accepted, callback)
        await asyncio.sleep(max(0.0, began + (serial + 1) * size / rate - loop.time()))
