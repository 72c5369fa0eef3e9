"""500 spellings of 50 numbers through every entrance: one form each, or a refusal with a reason."""

import csv
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from random import Random

import asyncpg
import pytest
from support.service import app_settings, command, running
from support.waiting import until

from dispatcher.core.country import country
from dispatcher.core.message import Message, NumberResult, Reply, spellings, to_e164
from dispatcher.core.number import DoubtfulNumber, ReadNumber, possible_forms, read_number
from dispatcher.core.outcome import Accepted, EvaluationContext, Resolved, evaluate
from dispatcher.core.packing import pack
from dispatcher.core.rules import Limits
from dispatcher.db import operator, rules, status
from dispatcher.simulator import Simulator

RANDOM = Random(17)
MAINLAND = [f"+861{RANDOM.choice('3456789')}{RANDOM.randrange(10**9):09d}" for _ in range(38)]
ABROAD = [f"+491512{RANDOM.randrange(10**7):07d}" for _ in range(6)]
ABROAD += [f"+6591{RANDOM.randrange(10**6):06d}" for _ in range(6)]
GAPS = ("", "", "", "", " ", "-", ".", "\xa0", "\u2009", "\u2011", "\u3000")
AROUND = ("", "", "", "", "", " ", "\u200b", "\ufeff", "\u202a", "'", '"', "\t")
WIDE = str.maketrans("0123456789+", "".join(map(chr, [*range(0xFF10, 0xFF1A), 0xFF0B])))


def spelled(number: str) -> str:
    """Return *number* as a person or a system may write it."""
    if number.startswith("+86"):
        prefix = RANDOM.choice(("+86", "86", "0086", "", "(+86)", "tel:+86", "+86 (0)", "00 86"))
        digits = number[3:]
    else:
        code, digits = number[:3], number[3:]
        prefix = RANDOM.choice((code, "00" + code[1:], f"({code})", f"tel:{code}", f"+{code[1:]} "))
    gap = RANDOM.choice(GAPS)
    text = f"{prefix}{gap}{digits[:3]}{gap}{digits[3:7]}{gap}{digits[7:]}"
    if RANDOM.random() < 0.2:
        text = text.translate(WIDE)
    around = RANDOM.choice(AROUND)
    return f"{around}{text}{around}"


CASES = [(spelled(number), number) for number in (*MAINLAND, *ABROAD) for _ in range(10)]
MISSING_PLUS = [(number[1:], number) for number in ABROAD[:10]]  # who knows which country
TEXTS = [text for text, _ in CASES]


def test_each_spelling_is_read_as_its_number():
    assert (len(CASES), len({number for _, number in CASES})) == (500, 50)
    assert len(set(TEXTS)) > 300
    read = {text: read_number(text) for text in TEXTS}
    wrong = [text for text, number in CASES if read[text].e164 != number]
    assert wrong == []


def test_what_lacks_its_country_is_refused_with_the_doubt():
    for text, number in MISSING_PLUS:
        read = read_number(text)
        assert isinstance(read, DoubtfulNumber)
        assert f"+{number[1:3]}…: the + is missing" in read.reason


async def test_an_insert_takes_no_spelling_for_another_number(db):
    for text, number in CASES:
        with suppress(asyncpg.CheckViolationError):
            written = await db.fetchval(
                "INSERT INTO dispatcher.message (recipient, template_id) VALUES ($1, 't')"
                " RETURNING dispatcher.e164(recipient)",
                text,
            )
            assert (written, to_e164(written)) == (number, number)
    taken = await db.fetchval("SELECT count(*) FROM dispatcher.message")
    assert 0 < taken < len(CASES)


@pytest.mark.slow
async def test_who_is_suppressed_in_one_spelling_is_reached_in_none(db, dsn, tmp_path):
    listed, suppressed = tmp_path / "list.csv", tmp_path / "suppressed.txt"
    with listed.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("recipient", "template_id"), *((text, "t") for text in TEXTS)])
    some = (*MAINLAND[::2], *ABROAD[::2])
    suppressed.write_text("\n".join(spelled(number).strip("\t") for number in some), "utf-8")
    out = await command("enqueue", listed, dsn=dsn)
    assert "500 messages enqueued." in out, out
    written = await db.fetch("SELECT dispatcher.e164(recipient) AS number FROM dispatcher.message")
    assert Counter(row["number"] for row in written) == Counter(number for _, number in CASES)
    out = await command("suppress", "--file", suppressed, dsn=dsn)
    assert out.startswith("25 numbers suppressed"), out
    async with Simulator({"key": "secret"}) as sim, running(dsn, **app_settings(sim.url)):
        done = "SELECT count(*) = 500 FROM dispatcher.outcome"
        await until(lambda: db.fetchval(done), what="all outcomes")
        reached = {to_e164(number) for number in sim.ledger.counts()}
    assert reached == {*MAINLAND, *ABROAD} - set(some)
    for text, number in RANDOM.sample(CASES, 5):
        found = await command("find", text, "--json", dsn=dsn)
        assert found.count('"id"') == 10, (text, found)
        out = await command("forget", text, "--yes", dsn=dsn)
        assert out.startswith(("10 messages erased", "0 messages erased")), out
        assert await status.find_in(db, "recipient", number) == []


async def test_limits_of_a_recipient_count_every_spelling(db, database):
    await operator.set_limits(db, "Ana", "default", Limits(per_day=1))
    written = [form for number in MAINLAND for form in spellings(number)]
    messages = [Message(n, form, "t", []) for n, form in enumerate(written, 1)]
    known = await rules.read_rules(database)
    async with db.transaction():
        screen = rules.Screen("default", known, country=country)
        held = await screen.decide(db, messages, datetime.now(UTC).timestamp())
    assert sorted(held) == [message.id for message in messages[1::2]]


async def test_operators_functions_take_each_spelling_or_none(db):
    number = "+8613112345678"
    plain = (number, "13112345678", "8613112345678", "008613112345678")
    for text in plain:
        await db.execute(
            "INSERT INTO dispatcher.message (recipient, template_id)"
            " VALUES ('+8613112345678', 't'), ('13112345678', 't')"
        )
        assert await db.fetchval("SELECT dispatcher.suppress(ARRAY[$1])", text) == 1
        listed = await db.fetch("SELECT recipient FROM dispatcher.suppression")
        assert [row["recipient"] for row in listed] == [number]
        assert await db.fetchval("SELECT dispatcher.unsuppress(ARRAY[$1])", text) == 1
        erased = "SELECT cardinality(erased) FROM dispatcher.forget(ARRAY[$1])"
        assert await db.fetchval(erased, text) == 2
    for text in ("131-1234-5678", "+86013112345678", "1311234567", "0", "", "+86 13112345678"):
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await db.execute("SELECT dispatcher.suppress(ARRAY[$1])", text)
        assert refused.value.constraint_name.startswith("recipient_")
        # Rows of before may have any number of five digits or more.
        assert await db.fetchval("SELECT dispatcher.unsuppress(ARRAY[$1])", text) == 0
        if text in ("+86013112345678", "1311234567"):
            assert await db.fetchval(erased, text) == 0
        else:
            with pytest.raises(asyncpg.CheckViolationError, match="5 digits or more"):
                await db.fetchval(erased, text)


def packed():
    written = [form for number in (*MAINLAND, *ABROAD) for form in spellings(number)]
    messages = [Message(n, form, "t", [], sender="1") for n, form in enumerate(written, 1)]
    requests, too_long = pack(messages, callback=None, token_length=32)
    assert too_long == []
    return requests


def test_no_request_has_a_number_in_two_spellings():
    for request in packed():
        numbers = Counter(to_e164(message.recipient) for message in request.messages)
        assert max(numbers.values()) == 1


def test_an_answer_and_a_report_name_their_number_in_any_spelling():
    by_number = {number: text for text, number in CASES}
    for text, number in CASES:
        assert number in possible_forms(text), text
    context = EvaluationContext(
        elapsed=0.0, max_attempts=3, now=datetime.now(UTC), jitter=lambda: 0.5, country=country
    )
    for request in packed():
        results = [
            NumberResult(by_number[to_e164(one.recipient)], "000000", f"id-{one.id}", 1)
            for one in reversed(request.messages)
        ]
        verdict = evaluate(request, Reply(200, "000000", "Success", results), context)
        assert isinstance(verdict, Resolved)
        assert {(one.message.id, one.provider_id) for one in verdict.outcomes} == {
            (one.id, f"id-{one.id}") for one in request.messages
        }
        assert all(isinstance(one, Accepted) for one in verdict.outcomes)


def test_a_spelling_that_was_read_is_read_again_as_itself():
    for _, number in CASES:
        assert read_number(number) == ReadNumber(number)
