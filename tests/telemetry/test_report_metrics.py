"""/metrics of a receiver alone: accepted, refused and missing reports."""

import asyncio
from datetime import UTC, datetime

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Histogram
from support.waiting import until
from test_metrics import check_with_promtool, samples

from dispatcher.core.report_matching import Backlog
from dispatcher.core.status import MissingReports, StatusSnapshot
from dispatcher.db.spool import Spool, size
from dispatcher.telemetry import Metrics, ReportMetrics, State

TOKEN = "a-token-that-nobody-guesses"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REPORT = (
    "smsMsgId=p1&status=DELIVRD&extend=t1&to=%2B8613100000001&updateTime=2026-11-22T06%3A31%3A46Z"
)


@pytest.fixture
async def receiver(workers):
    """A running receiver; its address."""
    process = workers.launch({}, arguments=("--only", "reports"), report_path_token=TOKEN)

    def said():
        return next((e for e in process.events() if e.get("event") == "listening"), None)

    at = await until(said, deadline=90, what="it listens")
    return f"http://{at['host']}:{at['port']}"


async def test_a_receiver_counts_accepted_and_refused_reports(receiver, db):
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, count)"
        " VALUES (date_trunc('minute', now() - interval '2 hours'), 'default', 'accepted', 7)"
    )
    async with aiohttp.ClientSession() as session:

        async def post(body: str, token: str = TOKEN) -> int:
            url = f"{receiver}/reports/{token}"
            async with session.post(url, data=body, headers=FORM) as answer:
                return answer.status

        bodies = [REPORT, REPORT, "smsMsgId=p1", "no form", REPORT.replace("p1", "p2")]
        assert [await post(body) for body in bodies] == [200, 200, 200, 200, 200]
        assert await post(REPORT, "wrong") == 404

        async def matched() -> str:
            async with session.get(f"{receiver}/metrics") as answer:
                text = await answer.text()
            found = samples(text).get(("dispatcher_reports_matched_total", ()), 0)
            return text if found >= 2 else ""

        await until(matched, deadline=60, what="both reports are looked at")

        async def unmatched() -> str:
            # They are looked up by their provider ids, a minute apart.
            # What is given up has no such time: each further look would count it again.
            await db.execute(
                "UPDATE dispatcher.unmatched_report SET due_at = clock_timestamp()"
                " WHERE due_at IS NOT NULL"
            )
            async with session.get(f"{receiver}/metrics") as answer:
                text = await answer.text()
            found = samples(text).get(("dispatcher_reports_unmatched_total", ()))
            return text if found == 2 else ""

        text = await until(unmatched, deadline=60, what="they belong to no message")
    seen = samples(text)

    def refused(kind: str, detail: str = "") -> float:
        labels = (("detail", detail), ("kind", kind))
        return seen["dispatcher_report_posts_refused_total", labels]

    assert seen["dispatcher_reports_taken_total", (("place", "database"),)] == 3
    assert seen["dispatcher_reports_taken_total", (("place", "disk"),)] == 0
    assert seen["dispatcher_reports_repeated_total", ()] == 1
    assert seen["dispatcher_reports_unmatched_total", ()] == 2
    assert refused("path") == 1
    assert seen["dispatcher_report_posts_unreadable_total", ()] == 2
    assert refused("signature") == 0
    assert seen["dispatcher_report_keep_duration_seconds_count", ()] == 3
    assert seen["dispatcher_report_carrier_lag_seconds_count", ()] == 3
    assert seen["dispatcher_report_match_wait_seconds_count", ()] >= 1
    app = (("app", "default"),)
    assert seen["dispatcher_reports_awaited", app] == 7
    assert seen["dispatcher_reports_awaited_oldest_seconds", app] > 7000
    assert seen["dispatcher_spool_bytes", (("spool", "reports"),)] == 0
    assert TOKEN not in text
    check_with_promtool(text)


def test_many_values_at_once_count_as_one_after_the_other():
    registry, lags = CollectorRegistry(), [-1.0, 0.0, 0.5, 1.0, 1.5, 259_200.0, 1e9, 2.0, 2.0]
    ReportMetrics(registry).carried(lags)
    one_by_one = Histogram(
        "alone", "", buckets=(1, 2, 5, 10, 30, 60, 300, 1800, 3600, 21_600, 86_400, 259_200),
        registry=registry,
    )  # fmt: skip
    for lag in lags:
        one_by_one.observe(max(0.0, lag))
    together, alone = (
        [
            (sample.name.removeprefix(name), sample.labels, sample.value)
            for family in registry.collect()
            for sample in family.samples
            if sample.name.startswith(name) and not sample.name.endswith("_created")
        ]
        for name in ("dispatcher_report_carrier_lag_seconds", "alone")
    )
    assert together == alone


def test_the_backlog_is_absent_without_a_database():
    metrics = Metrics()
    now = datetime(2026, 11, 1, tzinfo=UTC)
    state = State(metrics.registry, now=lambda: now)
    got = metrics.registry.get_sample_value
    awaiting = [MissingReports("default", 10, 4, 2, 7200.0)]
    state.show(StatusSnapshot(now, [], [], [], awaiting), Backlog(3, 1.5))
    assert got("dispatcher_reports_awaited", {"app": "default"}) == 4
    assert got("dispatcher_reports_awaited_oldest_seconds", {"app": "default"}) == 7200
    assert got("dispatcher_report_backlog") == 3
    assert got("dispatcher_report_backlog_oldest_seconds") == 1.5
    state.show(None)
    assert got("dispatcher_reports_awaited", {"app": "default"}) is None
    assert got("dispatcher_report_backlog") is None


async def test_files_and_bytes_on_disk_are_shown(tmp_path):
    metrics = Metrics()
    state = State(metrics.registry, now=lambda: datetime.now(UTC))
    state.watch_spool("reports", lambda: size(tmp_path, "reports"))
    state.watch_spool("answers", lambda: size(tmp_path / "nothing", "answers"))
    spool = Spool(tmp_path, "reports")
    await asyncio.to_thread(spool.append, [b"x" * 100])
    got = metrics.registry.get_sample_value
    assert got("dispatcher_spool_files", {"spool": "reports"}) == 1
    assert got("dispatcher_spool_bytes", {"spool": "reports"}) == 108
    assert got("dispatcher_spool_bytes", {"spool": "answers"}) == 0
    spool.close()
