"""Reports through real processes: the simulator posts them to a running service."""

import pytest
from support.exactness import read_books
from support.messages import insert, states
from support.provider import app_at
from support.waiting import until

from dispatcher.bench.ports import free_port
from dispatcher.core.report_matching import Backlog
from dispatcher.db import reports
from dispatcher.simulator import ReportOptions, read_faults

TOKEN = "a-token-that-nobody-guesses"


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
    by_report = await db.fetchval(
        "SELECT count(*) FROM dispatcher.outcome WHERE code = 'settled-by-report'"
    )
    assert by_report == sum(row["messages"] for row in settled)


@pytest.mark.slow
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
    for answered in sim.reports.acknowledged():
        if answered.status != "ACCEPTD":
            last[answered.sms_msg_id] = answered.status
    rows = await db.fetch("SELECT provider_id, report_status FROM dispatcher.message_status")
    assert {row["provider_id"]: row["report_status"] for row in rows} == last

    async def none_waits() -> bool:
        left = await db.fetchval("SELECT count(*) FROM dispatcher.unmatched_report")
        return left == 0 and await reports.backlog(db) == Backlog(0, 0.0)

    await until(none_waits, deadline=60, what="reports that came before the answer are matched")
    told = await db.fetch(
        "SELECT event, sum(message_count)::int AS n FROM dispatcher.event"
        " WHERE event LIKE '%delivered' GROUP BY event"
    )
    assert sum(row["n"] for row in told) == 600  # each once
