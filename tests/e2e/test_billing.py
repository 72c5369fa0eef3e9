"""What the dispatcher says it costs is what the provider charges, to the segment.

`./dev test -n 0 tests/e2e/test_billing.py --drill-messages 100000` is the whole drill.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from support.service import app_settings, running
from support.waiting import until

from dispatcher.core.cost import is_mainland
from dispatcher.core.country import country
from dispatcher.core.templates import Template
from dispatcher.db import operator
from dispatcher.db.cost import bill_of
from dispatcher.simulator import Options, ReportOptions, Simulator

TOKEN = "a-token-that-nobody-guesses"
TEXTS = {
    "short": "Your code is ${TXT_20}.",
    "latin": "${TXT_20}" + "a" * 100,  # two segments in the mainland, one elsewhere
    "long": "${TXT_20}" + "a" * 300,
    "marks": "${TXT_20}" + "[" * 75,  # each counts two elsewhere
    "chinese": "${TXT_20}" + "您" * 66,  # the signature makes it two
    "emoji": "${TXT_20}" + "\U0001f600" * 40,
}
STATUSES = {
    "DELIVRD": 60.0, "UNDELIV": 8.0, "EXPIRED": 5.0, "UNKNOWN": 2.0, "MBBLACK": 5.0,
    "SC:0006": 8.0, "E200024": 8.0, "E000628": 4.0,
}  # fmt: skip
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id, params, signature)
    SELECT
        (ARRAY['+86138', '139', '+49151', '+8529', '+1212', '+86137'])[n % 6 + 1]
            || lpad(n::text, 8, '0'),
        ($2::text[])[n % 7 % cardinality($2::text[]) + 1],
        ARRAY[left('variable' || n || '您', n % 19 + 1)],
        CASE WHEN n % 4 > 1 THEN 'Shop' END
    FROM generate_series(1, $1::int) AS n
"""


async def billed(db, mode: str | None) -> dict[str, int]:
    """Return the segments that are charged in *mode*, in mainland China and abroad."""
    await db.execute("UPDATE dispatcher.app SET billing = $1", mode)
    now = datetime.now(UTC)
    bill = await bill_of(db, now - timedelta(days=1), now + timedelta(days=1), country=country)
    charged: Counter[str] = Counter()
    for line in bill.lines.values():
        assert (line.estimated, line.unknown) == (line.reported, 0)
        assert line.open == 0
        charged["mainland" if is_mainland(line.country) else "abroad"] += line.charged
    return dict(charged)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_the_bill_is_the_providers_to_the_segment(db, dsn, drill_messages):
    for name, text in TEXTS.items():
        await operator.define_template(db, "Ana", Template(name, ["TXT_20"]), "", text)
    await db.execute(INSERT, drill_messages, list(TEXTS))
    reports = ReportOptions(
        mix=STATUSES, mix_by="segment", interim=0.1, duplicates=0.1, reorder=True, batch=50
    )
    environ = {"DISPATCHER_REPORT_PATH_TOKEN": TOKEN}
    async with Simulator({"key": "secret"}, options=Options(templates=TEXTS)) as sim:
        settings = app_settings(sim.url, numbers_per_second="none")
        async with running(dsn, **settings, **environ) as service:
            sim.reports.options = ReportOptions(
                **{name: getattr(reports, name) for name in reports.__struct_fields__}
                | {"batch_url": f"{service.url}/reports/{TOKEN}"}
            )
            done = "SELECT count(*) = $1 FROM dispatcher.outcome WHERE state = 'accepted'"
            await until(
                lambda: db.fetchval(done, drill_messages), deadline=600, what="all are accepted"
            )
            await sim.until(lambda: sim.reports.idle)
        assert set(sim.reports.answers) == {"200"}
        ledger = sim.reports.bill.sums(sim.ledger)
    assert await billed(db, "delivered") == ledger["delivered"]
    assert await billed(db, "sent") == ledger["sent"]
    assert ledger["delivered"]["mainland"] < ledger["sent"]["mainland"]
    assert await billed(db, None) == {
        "mainland": ledger["delivered"]["mainland"],
        "abroad": ledger["sent"]["abroad"],
    }
