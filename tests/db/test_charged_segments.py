"""What of a message is charged, from its answer and its reports, by the account's billing."""

import pytest

from dispatcher.db.reports import register_statuses

CHARGED = """
    SELECT dispatcher.charged_segments(m.mode, $2, r.total, r.delivered, r.uncharged) AS charged,
        dispatcher.open_segments(m.mode, $2, r.total, r.final) AS open
    FROM (SELECT dispatcher.billing_mode($3, $4) AS mode) AS m, dispatcher.report_parts($1) AS r
"""
REPORT = """
    INSERT INTO dispatcher.report (provider_id, segment, total, status, state)
    SELECT 'p', place, $2, status, CASE status WHEN 'DELIVRD' THEN 'delivered'
        WHEN 'ACCEPTD' THEN 'interim' ELSE 'undelivered' END
    FROM unnest($1::text[]) WITH ORDINALITY AS u (status, place)
"""
CHINA, GERMANY = "+8613112345678", "+4915112345678"


@pytest.mark.parametrize(
    ("segments", "total", "statuses", "delivered", "sent"),
    [
        (2, None, [], (0, 2), (2, 0)),  # no report yet
        (None, None, [], (0, 1), (1, 0)),  # nor an answer
        (1, 1, ["ACCEPTD"], (0, 1), (1, 0)),
        (1, 1, ["DELIVRD"], (1, 0), (1, 0)),
        (2, 2, ["DELIVRD", "UNDELIV"], (1, 0), (2, 0)),
        (3, 3, ["DELIVRD", "DELIVRD"], (2, 1), (3, 0)),
        (None, 2, ["DELIVRD"], (1, 1), (2, 0)),
        (3, 1, ["DELIVRD"], (3, 0), (3, 0)),  # one report for the whole message
        (3, 1, ["E000629"], (0, 0), (0, 0)),
        (2, 2, ["E000629", "E000629"], (0, 0), (0, 0)),  # codes of the platform
        (2, 2, ["sc:0006", "DELIVRD"], (1, 0), (1, 0)),
        (1, 1, ["E200099"], (0, 0), (0, 0)),  # one that no table has
        (1, 1, ["SC:9999"], (0, 0), (0, 0)),
        (1, 1, ["MBBLACK"], (0, 0), (1, 0)),  # of a supplier
        (1, 1, ["EXPIRED"], (0, 0), (1, 0)),
        (1, 1, ["MX:0013"], (0, 0), (1, 0)),
    ],
)
async def test_each_way_of_billing_charges_its_segments(  # noqa: PLR0917
    db, database, segments, total, statuses, delivered, sent
):
    await register_statuses(database)
    await db.execute(REPORT, statuses, total or 1)
    for mode, expected in (("delivered", delivered), ("sent", sent)):
        row = await db.fetchrow(CHARGED, "p", segments, mode, CHINA)
        assert tuple(row) == expected, mode


@pytest.mark.parametrize(
    ("number", "billing", "mode"),
    [
        (CHINA, None, "delivered"),
        ("13112345678", None, "delivered"),
        (GERMANY, None, "sent"),
        ("+85291234567", None, "sent"),
        (CHINA, "sent", "sent"),
        (GERMANY, "delivered", "delivered"),
    ],
)
async def test_an_account_is_billed_by_its_setting_else_by_country(db, number, billing, mode):
    assert await db.fetchval("SELECT dispatcher.billing_mode($1, $2)", billing, number) == mode
