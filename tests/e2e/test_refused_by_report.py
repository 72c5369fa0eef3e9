"""A package that is spent after acceptance: the app stops, and what was refused is sent once more.

`./dev test -n 0 tests/e2e/test_refused_by_report.py --drill-messages 100000` is the whole drill.
"""

from collections import Counter

import pytest
from support.messages import idle
from support.service import app_settings, command, running
from support.waiting import until

from dispatcher.simulator import ReportOptions, Simulator

TOKEN = "a-token-that-nobody-guesses"
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id)
    SELECT '+86138' || lpad(n::text, 8, '0'), 't' FROM generate_series(1, $1::int) AS n
"""
DELIVERED = "SELECT count(*) = $1 FROM dispatcher.message_status WHERE state = 'delivered'"
TOLD = "SELECT sum(message_count)::int FROM dispatcher.event WHERE event = 'delivered'"
STATES = "SELECT state, count(*)::int FROM dispatcher.message_status GROUP BY state"
REPORTED = "SELECT count(*) FROM dispatcher.report"
PAUSED = "SELECT paused_by = 'report' AND pause_code = 'E000629' FROM dispatcher.app"


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_what_the_platform_refused_is_sent_again_once(db, dsn, drill_messages):
    url = f"/reports/{TOKEN}"
    environ = {"DISPATCHER_REPORT_PATH_TOKEN": TOKEN}
    async with Simulator({"key": "secret"}) as sim:
        settings = app_settings(sim.url, numbers_per_second="none")
        async with running(dsn, **settings, **environ) as service:
            reports = {"batch_url": service.url + url, "batch": 50}
            sim.reports.options = ReportOptions(mix={"E000629": 1.0}, **reports)
            await db.execute(INSERT, 20)
            await until(lambda: db.fetchval(PAUSED), what="twenty refused reports pause the app")
            assert await db.fetchval(REPORTED) <= 20
            await db.execute("SELECT dispatcher.resume('default')")
            # The reports of all others come while they are on their way.
            sim.reports.options = ReportOptions(
                mix={"E000629": 1.0}, delay=(0.0, 1.0 + drill_messages / 20_000), **reports
            )
            await db.execute(
                "INSERT INTO dispatcher.message (recipient, template_id)"
                " SELECT '+86139' || lpad(n::text, 8, '0'), 't' FROM generate_series(1, $1::int) n",
                drill_messages - 20,
            )
            await until(lambda: db.fetchval(PAUSED), deadline=120, what="the app is paused again")
            sim.reports.options = ReportOptions(mix={"DELIVRD": 1.0}, **reports)
            await until(lambda: idle(db), deadline=120, what="no request is on its way")
            await until(lambda: sim.reports.idle, deadline=300, what="the reports are sent")
            # What was accepted meanwhile is refused too, and the rest waits behind the pause.
            refused = sim.reports.sent
            counted = f"SELECT ({REPORTED}) = $1"
            await until(lambda: db.fetchval(counted, refused), deadline=60, what="all are stored")
            matched = (  # what came before its answer waits in the second
                "SELECT NOT EXISTS (SELECT FROM dispatcher.report_inbox)"
                " AND NOT EXISTS (SELECT FROM dispatcher.unmatched_report)"
            )
            await until(lambda: db.fetchval(matched), deadline=60, what="all are matched")
            states = Counter(dict(await db.fetch(STATES)))
            again = states["undelivered"]
            assert again >= 20
            await command("resume", "default", dsn=dsn)
            out = await command("requeue", "--code", "E000629", "--since", "1h", dsn=dsn)
            assert f"{again:,} messages waiting again" in out, out
            await until(
                lambda: db.fetchval(DELIVERED, drill_messages),
                deadline=600,
                every=0.2,
                what="all are delivered",
            )
            told = f"SELECT ({TOLD}) = $1"
            await until(lambda: db.fetchval(told, drill_messages), deadline=60, what="the feed")
            await until(lambda: sim.reports.idle, deadline=60, what="nothing is under way")
        delivered = sim.reports.bill.sums(sim.ledger)["delivered"]["mainland"]
        counts = sim.ledger.counts()
    assert len(counts) == drill_messages
    assert sum(counts.values()) == drill_messages + again  # each that was refused, once more
    assert max(counts.values()) == 2
    assert delivered == drill_messages  # each once
    assert await db.fetchval(TOLD) == drill_messages
