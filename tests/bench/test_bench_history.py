"""Maintenance accepts the generated history, and drops its months by key."""

import pytest

from dispatcher.bench.retention import MONTHS, make_history, table_sizes
from dispatcher.bench.statements import query

MESSAGES = 12_000
SEQUENTIAL_SCANS = (
    "SELECT relname FROM pg_stat_xact_user_tables WHERE schemaname = 'dispatcher'"
    " AND relname IN ('report', 'report_summary', 'idempotency') AND seq_scan > 0"
)


@pytest.fixture
async def year(dsn, db):
    progress = []
    await make_history(dsn, MESSAGES, progress.append)
    assert len(progress) == MONTHS + 1
    return db


async def test_every_month_has_a_partition_with_its_indexes(year):
    assert await year.fetchval(query("count_history_months")) == MONTHS
    assert await year.fetchval("SELECT count(*) FROM dispatcher.message") == MESSAGES
    lost = "SELECT count(*) FROM dispatcher.message_status WHERE state = 'lost'"
    assert await year.fetchval(lost) == 0
    assert await year.fetchval("SELECT dispatcher.index_step()") is None
    there = await table_sizes(year)
    assert min(there[name].indexes for name in ("message", "outcome", "report")) > 0


async def test_a_month_is_dropped_by_key_without_a_sequential_scan(year):
    reports = "SELECT count(*) FROM dispatcher.report"
    before = await year.fetchval(reports)
    async with year.transaction():
        steps = [await year.fetchval("SELECT dispatcher.drop_step('7 days')") for _ in range(4)]
        assert await year.fetch(SEQUENTIAL_SCANS) == []
    assert steps[2:] == ["pruned 1_to_5000001", "dropped 1_to_5000001"]
    assert await year.fetchval(query("count_history_months")) == MONTHS - 1
    assert before * 0.9 < await year.fetchval(reports) < before
    for table in ("report", "idempotency"):
        left = f"SELECT count(*) FROM dispatcher.{table}"
        share = await year.fetchval(left) / (before if table == "report" else MESSAGES / 5)
        assert share == pytest.approx(11 / 12, rel=0.01)
