"""Every limit of one row: what breaks it is refused by that name, what just keeps it passes."""

import re

import asyncpg
import pytest

from dispatcher.core.message import to_e164
from dispatcher.core.number import read_number
from dispatcher.core.templates import check_kinds
from dispatcher.db.migrate import read_migrations
from dispatcher.db.rules import read_rules

GOOD = {"recipient": "+8613112345678", "template_id": "8ff55eac1d0b478ab3c06c3c6a492300"}
NOW = "now()"
SQL = re.compile(r"now\(\)|timestamptz")

REFUSED = [
    ("app_is_a_lower_case_name", {"app": ""}),
    ("app_is_a_lower_case_name", {"app": "Default"}),
    ("app_is_a_lower_case_name", {"app": "a b"}),
    ("app_is_a_lower_case_name", {"app": "-a"}),
    ("app_is_a_lower_case_name", {"app": "a\n"}),
    ("app_is_a_lower_case_name", {"app": "a" * 64}),
    ("sender_has_1_to_21_characters", {"sender": ""}),
    ("sender_has_1_to_21_characters", {"sender": "1" * 22}),
    ("recipient_is_digits_after_an_optional_plus", {"recipient": ""}),
    ("recipient_is_digits_after_an_optional_plus", {"recipient": "+"}),
    ("recipient_is_digits_after_an_optional_plus", {"recipient": "86 13112345678"}),
    ("recipient_is_digits_after_an_optional_plus", {"recipient": "++8613112345678"}),
    ("recipient_is_digits_after_an_optional_plus", {"recipient": "13112345678\n"}),
    ("recipient_is_digits_after_an_optional_plus", {"recipient": "13112345678,132"}),
    ("recipient_is_digits_after_an_optional_plus", {"recipient": "١٣١١١١١١"}),
    ("recipient_has_at_most_21_characters", {"recipient": "1" * 22}),
    ("recipient_has_at_most_21_characters", {"recipient": "+" + "1" * 21}),
    ("recipient_needs_at_least_7_digits", {"recipient": "131000"}),
    ("recipient_needs_at_least_7_digits", {"recipient": "+491511"}),
    ("recipient_begins_with_0_write_plus_and_the_country_code", {"recipient": "008613112345678"}),
    ("recipient_begins_with_0_write_plus_and_the_country_code", {"recipient": "01012345678"}),
    ("recipient_begins_with_0_write_plus_and_the_country_code", {"recipient": "+08613112345678"}),
    ("recipient_begins_with_0_write_plus_and_the_country_code", {"recipient": "0000000"}),
    ("recipient_begins_with_0_write_plus_and_the_country_code", {"recipient": "0"}),
    ("recipient_is_86_and_11_digits_the_plus_is_missing", {"recipient": "8613112345678"}),
    *(
        ("recipient_is_no_number_of_mainland_china_after_plus_86", {"recipient": "+86" + rest})
        for rest in (
            "1311234567",  # ten digits, and only Beijing's begin with 1
            "131123456789",
            "12112345678",
            "013112345678",
            "8613112345678",
            "86131123456",
            "2112345678901",
            "211234567",
            "1511234567890",
        )
    ),
    ("sender_has_no_blanks", {"sender": "1069 1"}),
    ("sender_has_no_blanks", {"sender": "1069\n"}),
    ("template_id_has_no_blanks", {"template_id": " t"}),
    ("template_id_has_no_blanks", {"template_id": "t\r"}),
    ("template_id_has_no_blanks", {"template_id": "t\t1"}),
    ("template_id_has_no_blanks", {"template_id": "t\n"}),
    ("signature_has_no_blank_at_its_ends_and_no_line_break", {"signature": " 签"}),
    ("signature_has_no_blank_at_its_ends_and_no_line_break", {"signature": "签\u3000"}),
    ("signature_has_no_blank_at_its_ends_and_no_line_break", {"signature": "签\n名"}),
    ("template_id_has_1_to_32_characters", {"template_id": ""}),
    ("template_id_has_1_to_32_characters", {"template_id": "t" * 33}),
    ("params_is_a_flat_list_without_nulls", {"params": [None]}),
    ("params_is_a_flat_list_without_nulls", {"params": ["a", None]}),
    ("params_is_a_flat_list_without_nulls", {"params": [["a"], ["b"]]}),
    ("params_has_at_most_20_variables", {"params": ["v"] * 21}),
    ("params_has_at_most_64_kilobytes", {"params": ["v" * 65_537]}),
    ("params_has_at_most_64_kilobytes", {"params": ["签" * 11_000, "字" * 11_000]}),
    ("id_is_between_1_and_10_to_the_18", {"id": 0}),
    ("id_is_between_1_and_10_to_the_18", {"id": 2**63 - 1}),
    ("send_at_is_in_the_years_2000_to_9999", {"send_at": "timestamptz 'infinity'"}),
    ("send_at_is_in_the_years_2000_to_9999", {"send_at": "timestamptz '-infinity'"}),
    ("send_at_is_in_the_years_2000_to_9999", {"send_at": "timestamptz '20000-01-01'"}),
    ("send_at_is_in_the_years_2000_to_9999", {"send_at": "timestamptz '0044-03-15 BC'"}),
    ("expires_at_is_in_the_years_2000_to_9999", {"expires_at": "timestamptz 'infinity'"}),
    ("expires_at_is_in_the_years_2000_to_9999", {"expires_at": "timestamptz '10000-01-01'"}),
    ("signature_has_at_most_32_characters", {"signature": "签" * 33}),
    ("priority_is_0_first_to_9_last", {"priority": -1}),
    ("priority_is_0_first_to_9_last", {"priority": 10}),
    ("expires_at_is_after_send_at", {"expires_at": NOW}),
    ("expires_at_is_after_send_at", {"expires_at": "now() - interval '1 second'"}),
    (
        "expires_at_is_after_send_at",
        {"send_at": "now() + interval '1 hour'", "expires_at": "now() + interval '1 minute'"},
    ),
    ("idempotency_key_has_1_to_200_characters", {"idempotency_key": ""}),
    ("idempotency_key_has_1_to_200_characters", {"idempotency_key": "k" * 201}),
    ("reference_has_at_most_200_characters", {"reference": "r" * 201}),
    ("campaign_has_1_to_100_characters", {"campaign": ""}),
    ("campaign_has_1_to_100_characters", {"campaign": "c" * 101}),
]

ALLOWED = [
    {},
    {"app": "0"},
    {"app": "a-b_c9"},
    {"app": "a" * 63},
    {"sender": "1"},
    {"sender": "1" * 21},
    {"recipient": "13112345678"},
    {"recipient": "1234567"},
    {"recipient": "1" * 21},
    {"recipient": "+" + "1" * 20},
    {"recipient": "+4915112345678"},
    {"recipient": "+861012345678"},  # Beijing
    {"recipient": "+862112345678"},  # Shanghai
    {"recipient": "+867551234567"},
    {"recipient": "+8675512345678"},
    {"recipient": "+861064912345678"},  # a thing
    {"recipient": "+6581230000"},
    {"sender": "签" * 21},
    {"template_id": "签" * 32},
    {"signature": "a b"},
    {"template_id": "t"},
    {"template_id": "t" * 32},
    {"params": []},
    {"params": [""]},
    {"params": ["v"] * 20},
    {"signature": ""},
    {"signature": "签" * 32},
    {"priority": 0},
    {"priority": 9},
    {"expires_at": "now() + interval '1 microsecond'"},
    {"idempotency_key": "k"},
    {"idempotency_key": "键" * 200},
    {"reference": ""},
    {"reference": "r" * 200},
]


async def insert(db: asyncpg.Connection, row: dict[str, object]) -> int:
    """Insert *row* over a good one; a time is SQL."""
    row = GOOD | row
    literal = {key for key, value in row.items() if isinstance(value, str) and SQL.search(value)}
    given = [key for key in row if key not in literal]
    places = [f"${given.index(key) + 1}" if key in given else str(row[key]) for key in row]
    statement = (
        f"INSERT INTO dispatcher.message ({', '.join(row)}) VALUES ({', '.join(places)}) "
        "RETURNING id"
    )
    return await db.fetchval(statement, *(row[key] for key in given))


@pytest.mark.parametrize(("name", "row"), REFUSED)
async def test_a_broken_limit_is_refused_by_its_own_name(db, name, row):
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(db, row)
    # The first constraint by name speaks, where a row breaks several.
    assert refused.value.constraint_name == name
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 0
    assert await db.fetchval("SELECT count(*) FROM dispatcher.bulk") == 0


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        *(
            (
                "kinds_are_a_flat_list_of_the_kinds_of_variables",
                f"SELECT dispatcher.define_template('t', {kinds})",
            )
            for kinds in (
                "'{WEIRD}'",
                "'{num_6}'",
                "'{NUM_}'",
                "'{NUM_0}'",
                "'{NUM_21}'",
                "'{TXT_100}'",
                "'{DATE,DATE_1}'",
                "'{\"DATE,TIME\"}'",
                "'{\"DATE\n\"}'",
                "'{\"\"}'",
                "'{DATE,\"\"}'",
                "'{NULL}'",
                "'{DATE,NULL}'",
                "'{{DATE},{TIME}}'",
            )
        ),
        *(
            (
                "template_id_has_plain_characters_and_no_blanks",
                f"SELECT dispatcher.define_template(E'{template_id}', '{{}}')",
            )
            for template_id in (
                " t",
                "t 1",
                "t\\n",
                "\\u200bt",
                "t\\u00a01",
                "t\\ufeff",
                "\\uff54",
                "t\\u00ad",
                "\\x1at",
                "t\\u2028",
                "t\\u202e1",
            )
        ),
        *(
            (
                "quiet_hours_are_before_24_00_write_00_00",
                f"SELECT dispatcher.set_limits('default', {hours})",
            )
            for hours in (
                "quiet_from => '22:00', quiet_until => '24:00'",
                "quiet_from => '24:00', quiet_until => '08:00'",
            )
        ),
        *(
            ("price_is_from_0_to_1000000", f"SELECT dispatcher.set_price('CN', '{price}')")
            for price in ("NaN", "Infinity", "1e12")
        ),
        *(
            (
                "country_is_two_capital_letters_or_a_calling_code",
                f"SELECT dispatcher.set_price('{country}', 1)",
            )
            for country in ("cn", "China", "86", "+0", "+8613")
        ),
    ],
)
async def test_a_rule_that_no_worker_can_read_is_refused(db, name, statement):
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await db.execute(statement)
    assert refused.value.constraint_name == name


async def test_rules_that_workers_can_read_are_taken(db, database):
    kinds = [f"{kind}_{most}" for kind in ("NUM", "TXT") for most in range(1, 11)]
    more = [f"{kind}_{most}" for kind in ("NUM", "TXT") for most in range(11, 21)]
    others = ["DATE", "TIME", "PHONE", "CHARDIGIT", "DATETIME", "MONEY", "TEXT"]
    for place, each in enumerate((kinds, more, others, [])):
        await db.execute(
            "SELECT dispatcher.define_template($1, $2)", f"t{place}", check_kinds(each)
        )
    await db.execute(
        "SELECT dispatcher.set_limits('default', quiet_from => '00:00', quiet_until => '23:59:59')"
    )
    assert len((await read_rules(database)).templates) == 4


async def test_what_just_keeps_every_limit_passes(db):
    for row in ALLOWED:
        await insert(db, row)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == len(ALLOWED)


async def test_no_limit_is_without_a_row_that_breaks_it(db):
    named = {
        row["conname"]
        for row in await db.fetch(
            "SELECT conname FROM pg_constraint "
            "WHERE conrelid = 'dispatcher.message'::regclass AND contype = 'c'"
        )
    }
    tables, functions = (one.up.statements for one in read_migrations()[:2])
    by_trigger = set(re.findall(r"THEN '(recipient_\w+)'", functions))
    assert len(by_trigger) == 6
    assert named | by_trigger == {name for name, _ in REFUSED}
    assert named == set(
        re.findall(r"CONSTRAINT (\w+)\s+CHECK", tables.partition("PARTITION BY")[0])
    )


@pytest.mark.parametrize("rows", [3, 25, 700])
async def test_one_misread_number_refuses_the_whole_statement(db, rows):
    numbers = [f"+861311234{n:04d}" for n in range(rows)]
    numbers[-1] = "8613112345679"
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await db.execute(
            "INSERT INTO dispatcher.message (recipient, template_id)"
            " SELECT n, 't' FROM unnest($1::text[]) AS n",
            numbers,
        )
    error = refused.value
    assert (error.table_name, error.column_name) == ("message", "recipient")
    assert error.constraint_name == "recipient_is_86_and_11_digits_the_plus_is_missing"
    assert error.constraint_name in str(error)
    assert error.detail == f"It is row {rows} of the statement."
    assert "8613112345679" not in str(error)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 0
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 0
    assert await db.fetchval("SELECT count(*) FROM dispatcher.bulk") == 0


async def test_a_misread_number_in_a_copy_is_named_by_its_row(db):
    numbers = [f"+861311234{n:04d}" for n in range(100)]
    numbers[41], numbers[77] = "131 1234 5678", "0049151123456"
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await db.copy_records_to_table(
            "message",
            schema_name="dispatcher",
            columns=["recipient", "template_id"],
            records=[(number, "t") for number in numbers],
        )
    assert refused.value.constraint_name == "recipient_is_digits_after_an_optional_plus"
    assert refused.value.detail == "It is row 42 of the statement."
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 0


async def test_what_is_usual_breaks_no_rule_and_is_read_as_it_is(db):
    # The short check stands before the rules: it may pass nothing that they refuse.
    numbers = [row.get("recipient", GOOD["recipient"]) for _, row in REFUSED]
    numbers += [row.get("recipient", GOOD["recipient"]) for row in ALLOWED]
    numbers += [
        f"{head}{'1' * n}" for head in ("", "+", "+86", "+8613", "13", "+87") for n in range(22)
    ]
    usual = "SELECT n FROM unnest($1::text[]) AS n WHERE dispatcher.is_usual_recipient(n)"
    passed = [row["n"] for row in await db.fetch(usual, numbers)]
    assert {"+8613112345678", "13112345678", "+4915112345678"} <= {*passed}
    for number in passed:
        if number.startswith("+") and not number.startswith("+86"):
            assert re.fullmatch("[+][1-9][0-9]{6,19}", number)
        else:
            assert read_number(number).e164 == to_e164(number)


async def test_a_list_refuses_the_numbers_that_are_refused_alone(db):
    # Of a list only the beginnings and lengths are compared row by row, the digits all together.
    numbers = [row.get("recipient", GOOD["recipient"]) for _, row in REFUSED]
    numbers += [row.get("recipient", GOOD["recipient"]) for row in ALLOWED]
    for sound in ("+8613112345678", "13112345678", "+4915112345678", "+861012345678", "1068"):
        numbers.append(sound)
        for mark in ("+", ",", "-", ".", "/", " ", "\n", ":", "x", "\u0663", "\uff13", "\u516b"):
            numbers += [
                mark + sound, sound + mark, mark + sound[1:], sound[0] + mark + sound[2:],
                sound[:-1] + mark, sound[:5] + mark + sound[6:],
            ]  # fmt: skip
    alone = await db.fetch(
        "SELECT n, dispatcher.misread_recipient(n) AS rule FROM unnest($1::text[]) AS n", numbers
    )
    others = [f"+861311234{n:04d}" for n in range(24)]
    passed = 0
    for number, rule in alone:
        refused = None
        try:
            async with db.transaction():
                await db.execute(
                    "INSERT INTO dispatcher.message (recipient, template_id)"
                    " SELECT n, 't' FROM unnest($1::text[]) AS n",
                    [*others, number],
                )
        except asyncpg.CheckViolationError as error:
            refused = error.constraint_name
        assert refused == rule, number
        passed += refused is None
    assert 5 <= passed < len(alone) - 100


async def test_an_erased_message_of_a_dump_is_loaded(db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, wiped_at) VALUES ('0', 't', now())"
    )
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 1


@pytest.mark.parametrize("column", ["recipient", "template_id", "params", "priority", "send_at"])
async def test_a_null_is_refused_where_the_provider_needs_a_value(db, column):
    with pytest.raises(asyncpg.NotNullViolationError) as refused:
        await insert(db, {column: None})
    assert refused.value.column_name == column
