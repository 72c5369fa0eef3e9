"""``dispatcher cost`` shows the cost of a day."""

import pytest

INSERT = """
    WITH m AS (
        INSERT INTO dispatcher.message (recipient, template_id, params)
        SELECT number, 't', '{123456}' FROM unnest($1::text[]) AS number RETURNING id
    ), b AS (
        INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes)
        SELECT $2, 'default', 1, array_agg(id), array_agg(1::smallint), 'closed', 9 FROM m
        RETURNING id, message_ids
    )
    INSERT INTO dispatcher.outcome (message_id, state, attempts, segments, batch_id)
    SELECT unnest(b.message_ids), $3, 1, 2, b.id FROM b
"""
GERMANS = [f"+49151123456{number:02d}" for number in range(3)]


async def test_a_day_is_billed_by_country_and_nothing_twice(operate, db):
    await db.execute(INSERT, ["+8613112345678", "13112345679", *GERMANS], "t1", "accepted")
    await db.execute(INSERT, ["+8613112345670"], "t2", "rejected")
    await operate("template", "add", "t", "--text", "Code ${NUM_6}")
    ended = await operate("cost", "--price", "CN=0.05CNY", "--price", "DE=0.1EUR")
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["default", "CN", "2", "2", "4", "0", "4", "0.05", "CNY", "0.00", "CNY"] in lines
    assert ["default", "DE", "3", "3", "6", "6", "0", "0.1", "EUR", "0.60", "EUR"] in lines
    assert ended.out.splitlines()[-2:] == [
        "Together 0.00 CNY, and up to 0.20 more with the reports to come",
        "Together 0.60 EUR",
    ]
    assert (await operate("cost", "--day", "2020-01-01")).out.startswith("Nothing was accepted")


async def test_a_calling_code_prices_the_line_that_it_is_of(operate, db):
    numbers = ["+6591234567", "+447700900123", "+447400123456", "+447400123457"]
    await db.execute(INSERT, numbers, "t1", "accepted")
    prices = ("--price", "+65=0.03SGD", "--price", "+44=0.05GBP", "--price", "gb=0.04GBP")
    ended = await operate("cost", *prices)
    lines = [line.split() for line in ended.out.splitlines()]
    shown = {line[1]: line[-2:] for line in lines if line[:1] == ["default"]}
    assert shown == {"SG": ["0.06", "SGD"], "+44": ["0.10", "GBP"], "GB": ["0.16", "GBP"]}
    rows = await db.fetch("SELECT country FROM dispatcher.price")
    assert {row["country"] for row in rows} == {"SG", "+44", "GB"}


@pytest.mark.parametrize(
    "words",
    [
        ("--day", "x"),
        ("--price", "CN"),
        ("--price", "China=1"),
        ("--price", "+999=1"),
        ("--price", "+8613=1"),
        ("--price", "CN=-1"),
        ("--price", "CN=1e-99999CNY"),
        ("--price", "CN=nan"),
    ],
)
async def test_what_makes_no_sense_is_refused(operate, words):
    assert (await operate("cost", *words)).code == 2
