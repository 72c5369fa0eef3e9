"""The made year of history is one that the keeper knows, and it leaves by keys."""

import pytest

from dispatcher.bench.stage import statement
from dispatcher.bench.year import MONTHS, make_year, sizes

MESSAGES = 12_000
READ_WHOLE = (
    "SELECT relname FROM pg_stat_xact_user_tables WHERE schemaname = 'dispatcher'"
    " AND relname IN ('report', 'report_sum', 'idempotency') AND seq_scan > 0"
)


@pytest.fixture
async def year(dsn, db):
    said = []
    await make_year(dsn, MESSAGES, said.append)
    assert len(said) == MONTHS + 1
    return db


async def test_every_month_has_a_partition_with_its_indexes(year):
    assert await year.fetchval(statement("keep_left")) == MONTHS
    assert await year.fetchval("SELECT count(*) FROM dispatcher.message") == MESSAGES
    told = "SELECT count(*) FROM dispatcher.message_status WHERE state = 'lost'"
    assert await year.fetchval(told) == 0
    assert await year.fetchval("SELECT dispatcher.index_step()") is None
    there = await sizes(year)
    assert min(there[name].indexes for name in ("message", "outcome", "report")) > 0


async def test_a_month_leaves_by_keys_and_no_table_is_read_whole(year):
    reports = "SELECT count(*) FROM dispatcher.report"
    before = await year.fetchval(reports)
    async with year.transaction():
        said = [await year.fetchval("SELECT dispatcher.drop_step('7 days')") for _ in range(2)]
        assert await year.fetch(READ_WHOLE) == []
    assert said == ["pruned 1_to_5000001", "dropped 1_to_5000001"]
    assert await year.fetchval(statement("keep_left")) == MONTHS - 1
    assert before * 0.9 < await year.fetchval(reports) < before
    for table in ("report", "idempotency"):
        left = f"SELECT count(*) FROM dispatcher.{table}"
        share = await year.fetchval(left) / (before if table == "report" else MESSAGES / 5)
        assert share == pytest.approx(11 / 12, rel=0.01)
