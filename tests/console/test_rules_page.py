"""The page Rules, and the actions that define and remove templates."""

import asyncio
from datetime import time
from decimal import Decimal
from html import escape
from urllib.parse import quote

import pytest
from client import ACTOR

from dispatcher.console.backend import SNAPSHOT_MAX_AGE_SECONDS
from dispatcher.core.rules import Limits
from dispatcher.core.templates import Template
from dispatcher.db import cost, rules
from dispatcher.db import operator as actions

TEXT = "Your code is ${NUM_6}, ${TXT_20}."


async def audit(db) -> list[tuple[str, ...]]:
    rows = await db.fetch("SELECT actor, action, target, detail, result FROM dispatcher.audit")
    return [tuple(row) for row in rows]


async def test_the_page_says_when_there_are_no_rules(operator):
    page = (await operator.get("/console/rules")).text
    for word in ("None is defined", "No app has any", "No number is suppressed", "None is set"):
        assert word in page


async def test_the_rules_are_shown_and_numbers_masked(operator, db):
    await actions.set_limits(db, "test", "shop", Limits(per_day=5, daily_limit=1000))
    await actions.suppress(db, "test", ["+8613112345678"], "asked")
    await actions.define_template(db, "test", Template("tpl", ["NUM_6"]), "codes", TEXT)
    await db.execute("INSERT INTO dispatcher.price VALUES ('CN', 0.045, 'CNY')")
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, count)"
        " VALUES (now(), 'shop', 'accepted', '', 417)"
    )
    page = (await operator.get("/console/rules")).text
    for word in ("5 a day to a number, 1,000 a day in all", ">417<", "asked", "NUM_6", "0.045"):
        assert word in page
    assert "+86131****5678" in page
    assert "13112345678" not in page


async def test_a_template_is_confirmed_defined_and_removed(operator, db, database):
    form = {"template_id": "\ufefft\uff50l\u200b ", "text": TEXT, "note": "codes"}
    asked = (await operator.act("template", {**form, "ask": "yes"})).text
    assert "It takes NUM_6, TXT_20. From a few seconds on" in asked
    assert "For example: Your code is 123456, xxxxxxxxxxxxxxxxxxxx." in asked
    assert "That is 1 segment" in asked
    assert not (await rules.read_rules(database)).templates
    assert "Defined." in (await operator.act("template", form)).text
    assert (await rules.read_rules(database)).templates == {
        "tpl": Template("tpl", ["NUM_6", "TXT_20"])
    }
    assert (await db.fetchval("SELECT note || text FROM dispatcher.template")) == "codes" + TEXT
    assert "Removed." in (await operator.act("template-remove", {"template_id": "tpl"})).text
    assert not (await rules.read_rules(database)).templates
    assert await audit(db) == [
        (ACTOR, "template", "tpl", "NUM_6, TXT_20", "defined"),
        (ACTOR, "template", "tpl", "", "removed"),
    ]


async def test_an_invalid_template_is_refused_with_a_reason(operator, db):
    for form, reason in (
        ({"template_id": "", "text": TEXT}, "1 to 32 characters"),
        ({"template_id": "x" * 33, "text": TEXT}, "1 to 32 characters"),
        ({"template_id": "x\u00a01", "text": TEXT}, "1 to 32 characters"),
        ({"template_id": "\u200b", "text": TEXT}, "1 to 32 characters"),
        ({"template_id": "tpl", "text": " "}, "Give the template&#39;s text"),
        ({"template_id": "tpl", "kinds": "NUM_6, ODD"}, "is no kind of variable"),
        ({"template_id": "tpl", "text": "${WORD_6}"}, "is no kind of variable"),
        ({"template_id": "tpl", "text": "${NUM_1}" * 21}, "at most 20 variables"),
    ):
        answer = await operator.act("template", form)
        assert (answer.status, reason in answer.text) == (400, True), form
    assert await audit(db) == []


@pytest.fixture
async def apps(db) -> None:
    """Two apps that workers have named."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('bank'), ('shop')")


@pytest.mark.usefixtures("apps")
async def test_limits_are_confirmed_set_changed_and_removed(operator, db):
    form = {"app": "shop", "per_day": "5", "quiet_from": "21:00", "quiet_until": "08:00"}
    asked = await operator.act("limits", {**form, "ask": "yes"})
    assert "5 a day to a number, quiet from 21:00 to 08:00" in asked.text
    assert await rules.limits(db) == {}
    await operator.act("limits", form)
    assert await rules.limits(db) == {
        "shop": Limits(per_day=5, quiet_from=time(21), quiet_until=time(8))
    }
    filled = (await operator.get("/console/rules?app=shop")).text
    for value in ('name="per_day" value="5"', 'name="quiet_from" value="21:00"'):
        assert value in filled
    await operator.act("limits", {"app": "shop"})
    assert await rules.limits(db) == {}
    assert [row[1:] for row in await audit(db)] == [
        ("limit", "shop", "5 a day to a number, quiet from 21:00 to 08:00", "set"),
        ("limit", "shop", "no limits", "set"),
    ]


@pytest.mark.usefixtures("apps")
async def test_rules_that_cannot_be_are_refused_and_keep_their_form(operator, db):
    for action, form, reason in (
        ("limits", {"app": "ship", "per_day": "5"}, "There is no app ship; there are: bank, shop."),
        ("limits", {"app": "shop", "per_day": "0"}, "A limit is a whole number"),
        ("limits", {"app": "shop", "per_day": "5.5"}, "A limit is a whole number"),
        ("limits", {"app": "shop", "per_day": "99999999999"}, "A limit is a whole number"),
        ("limits", {"app": "shop", "per_day": "12345678901"}, "A limit is a whole number"),
        ("limits", {}, "Name the app."),
        ("limits", {"app": "shop", "quiet_from": "21:00"}, "Quiet hours have a beginning"),
        (
            "limits",
            {"app": "shop", "quiet_from": "21:00", "quiet_until": "21:00"},
            "at another time",
        ),
        ("price", {"country": "China", "price": "1"}, "two letters"),
        ("price", {"country": "+999", "price": "1"}, "or is a calling code"),
        ("price", {"country": "CN", "price": "x"}, "A price is a number"),
        ("price", {"country": "CN", "price": "NaN"}, "A price is a number"),
        ("price", {"country": "CN", "price": "-1"}, "A price is a number"),
        ("price", {"country": "CN", "price": "1e-99999"}, "A price is a number"),
        ("price", {"country": "CN", "price": "1", "currency": "C1"}, "letters only"),
        ("suppress", {"numbers": ""}, "Give a number"),
        ("suppress", {"numbers": "12"}, "This is not a number"),
        ("suppress", {"numbers": "13112345678", "app": "ship"}, "There is no app ship"),
    ):
        for ask in ({}, {"ask": "yes"}):
            answer = await operator.act(action, {**form, **ask})
            assert (answer.status, reason in answer.text) == (400, True), form
            written = next((value for name, value in form.items() if name != "app"), "")
            assert not written or f'"{written}"' in answer.text or f">{written}<" in answer.text
    assert await audit(db) == []


async def test_a_price_is_set_and_replaced(operator, db):
    form = {"country": "cn", "price": "0.045", "currency": "cny"}
    assert "costs 0.045 CNY" in (await operator.act("price", {**form, "ask": "yes"})).text
    await operator.act("price", form)
    await operator.act("price", {**form, "price": "0.05"})
    assert await cost.prices(db) == {"CN": (Decimal("0.05"), "CNY")}


@pytest.mark.usefixtures("apps")
async def test_numbers_are_suppressed_found_and_freed(operator, db):
    numbers = "131 1234 5678\n+44 7400 000000, 12\n\n8613112345679"
    form = {"numbers": numbers, "app": "shop", "promotional": "yes", "reason": "asked"}
    asked = await operator.act("suppress", {**form, "ask": "yes"})
    assert "Suppress 3 numbers?" in asked.text
    assert "not sent promotion of shop" in asked.text
    assert "Line 2 is left out" in asked.text
    assert "+86131****5678, +4474****0000, +86131****5679" in asked.text
    assert f'name="reason" value="{form["reason"]}"' in asked.text
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 0
    assert "3 numbers new." in (await operator.act("suppress", form)).text
    rows = await db.fetch("SELECT app, promotional, reason FROM dispatcher.suppression")
    assert {tuple(row) for row in rows} == {("shop", True, "asked")}
    form_token = (await operator.get("/console/rules")).form_token
    found = await operator.post(
        "/console/rules", {"form_token": form_token, "number": "13112345678"}
    )
    assert "+86131****5678 is suppressed:" in found.text
    assert "promotion of shop" in found.text
    assert "+4474****0000" not in found.text
    other = await operator.post(
        "/console/rules", {"form_token": form_token, "number": "13112345670"}
    )
    assert "+86131****5670 is not suppressed." in other.text
    freed = {"numbers": "+8613112345678"}
    assert (
        "Send to 1 number again?"
        in (await operator.act("unsuppress", {**freed, "ask": "yes"})).text
    )
    assert "1 number freed." in (await operator.act("unsuppress", freed)).text
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 2
    for row in await audit(db):
        assert "131" not in "".join(row)


async def test_a_number_that_no_phone_has_is_found_and_freed(operator, db):
    # The number of a row can be suppressed whatever it is, by a button of its message.
    await db.execute("INSERT INTO dispatcher.suppression (recipient) VALUES ('+8612345678901')")
    form_token = (await operator.get("/console/rules")).form_token
    form = {"form_token": form_token, "number": " 12345678901"}
    found = await operator.post("/console/rules", form)
    assert "+86123****8901 is suppressed:" in found.text
    asked = await operator.act("unsuppress", {"numbers": "+8612345678901\nwords", "ask": "yes"})
    assert "Send to 1 number again?" in asked.text
    assert "Line 2 is left out" in asked.text
    assert "1 number freed." in (await operator.act("unsuppress", {"numbers": "12345678901"})).text
    gone = await operator.post("/console/rules", form)
    assert (gone.status, "This is not a number: it looks like +1" in gone.text) == (400, True)
    assert 'name="number" value="12345678901"' in gone.text


@pytest.mark.usefixtures("apps")
async def test_the_app_of_one_form_is_not_chosen_in_another(operator):
    # A suppression for every app must not become one of the app whose limits are changed.
    page = (await operator.get("/console/rules?app=shop")).text
    refused = (await operator.act("suppress", {"numbers": "12", "app": "bank"})).text
    for text, chosen, other in ((page, "limit", "suppress"), (refused, "suppress", "limit")):
        forms = {
            name: text.partition(f'<select id="{name}-app"')[2].partition("</select>")[0]
            for name in (chosen, other)
        }
        assert " selected>" in forms[chosen]
        assert " selected>" not in forms[other]


async def test_the_settings_decide_how_numbers_are_read(operator, backend):
    fixed_line = {"numbers": "010 6552 1234"}
    assert (await operator.act("suppress", fixed_line)).status == 400
    backend.other_mainland = True
    assert "1 number new." in (await operator.act("suppress", fixed_line)).text


async def test_a_list_too_long_for_a_form_is_refused(operator):
    numbers = "\n".join(f"+86131{n:08d}" for n in range(10_001))
    answer = await operator.act("suppress", {"numbers": numbers})
    assert (answer.status, "A form takes 10,000 numbers" in answer.text) == (400, True)


async def test_a_form_that_is_too_long_is_refused_with_a_page(operator):
    numbers = "\n".join(f"+86131{n:08d}  a name" for n in range(12_000))
    answer = await operator.act("suppress", {"numbers": numbers})
    assert (answer.status, "A form takes 256 KB; for more" in answer.text) == (413, True)
    assert "Content-Security-Policy" in answer.headers


async def test_a_template_is_changed_in_its_filled_form(operator, db):
    await operator.act(
        "template", {"template_id": "tpl", "text": TEXT, "promotional": "yes", "note": "sale"}
    )
    page = (await operator.get("/console/rules?template=tpl")).text
    assert f">{TEXT}</textarea>" in page
    assert '<option value="yes" selected>' in page
    await operator.act("template", {"template_id": "tpl", "kinds": "NUM_6 TXT_20"})
    row = await db.fetchrow("SELECT kinds, text, promotional FROM dispatcher.template")
    assert tuple(row) == (["NUM_6", "TXT_20"], None, True)  # as it was


async def test_pauses_and_circuits_are_shown(operator, db):
    await db.execute(
        "INSERT INTO dispatcher.app (name, paused_at, paused_by, pause_code, pause_reason)"
        " VALUES ('bank', now(), 'worker', 'unknown-results', 'three in a row'),"
        " ('shop', NULL, NULL, NULL, NULL)"
    )
    page = (await operator.get("/console/rules")).text
    for words in ("circuit open", "three in a row", "resume bank", "pause shop"):
        assert words in page


MANY = """
INSERT INTO dispatcher.app (name, paused_at, paused_by)
    SELECT 'app-' || n, CASE WHEN n = 25 THEN now() END, CASE WHEN n = 25 THEN 'operator' END
    FROM generate_series(10, 40) AS n;
INSERT INTO dispatcher.app_limit (app, per_day)
    SELECT 'app-' || n, 5 FROM generate_series(10, 40) AS n;
INSERT INTO dispatcher.template (template_id, kinds, note, text)
    SELECT 'tpl-' || n, '{NUM_6}', 'of team ' || n, 'Code ${NUM_6} of shop ' || n
    FROM generate_series(10, 40) AS n;
INSERT INTO dispatcher.suppression (recipient)
    SELECT '+86131123456' || n FROM generate_series(10, 40) AS n;
"""


async def test_a_page_of_many_rules_is_short_and_has_a_search(operator, db):
    await db.execute(MANY)
    page = (await operator.get("/console/rules")).text
    assert page.count("<tbody>") == 4
    assert page.count("<tr>") == 4 * (1 + 20)
    assert page.count("The first 20 of 31.") == 4
    assert page.index("resume app-25") < page.index("pause app-10")  # what is paused comes first
    whole = (await operator.get("/console/rules?all=yes")).text
    assert whole.count("<tr>") == 4 * (1 + 31)
    assert "Show all" not in whole
    await db.execute("TRUNCATE dispatcher.template, dispatcher.app_limit, dispatcher.app")
    await asyncio.sleep(SNAPSHOT_MAX_AGE_SECONDS)  # of what the page shows of apps
    assert 'name="q"' not in (await operator.get("/console/rules")).text


@pytest.mark.parametrize(
    ("text", "found", "others"),
    [
        ("TPL-33", ["tpl-33"], ["tpl-34", "change app-33"]),
        ("team 34", ["tpl-34"], ["tpl-33"]),
        ("shop 35", ["tpl-35"], ["tpl-33"]),
        ("app-36", ["change app-36", "pause app-36"], ["change app-35", "tpl-36"]),
        ("<none>", ["None has this text."], ["tpl-36", "change app-36"]),
    ],
)
async def test_rules_are_found_by_a_part_of_them(operator, db, text, found, others):
    await db.execute(MANY)
    page = (await operator.get(f"/console/rules?q={quote(text)}")).text
    assert [each for each in found if each not in page] == []
    assert [each for each in others if each in page] == []
    assert f'name="q" value="{escape(text)}"' in page


async def test_the_daily_limits_show_what_was_sent(operator, db):
    await db.execute("""
        INSERT INTO dispatcher.app (name) VALUES ('shop'), ('bank');
        INSERT INTO dispatcher.app_limit (app, daily_limit) VALUES ('shop', 9000), ('bank', 5);
        INSERT INTO dispatcher.event_count (minute, app, event, code, count) VALUES
            (date_trunc('minute', now()), 'shop', 'accepted', '', 7000),
            (date_trunc('minute', now()), 'shop', 'rejected', '', 100),
            (date_trunc('minute', now()), 'shop', 'settled', 'sent', 2),
            (now() - interval '2 days', 'shop', 'accepted', '', 500);
        INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes)
            VALUES (repeat('0', 32), 'shop', 1, '{1,2}', '{1,1}', 'open', 1);
        INSERT INTO dispatcher.batch
            (token, app, worker, message_ids, attempts, state, bytes, unsure_at)
            VALUES (repeat('1', 32), 'shop', 1, '{3}', '{1}', 'unsure', 1, now());
    """)
    assert await rules.sent_today(db, ["shop", "bank"]) == {"shop": 7005, "bank": 0}
    page = (await operator.get("/console/rules")).text
    assert '<td data-label="Sent today" class="num">7,005</td>' in page


@pytest.mark.parametrize("template_id", ["a b", " ", "a\u3000b", "a\tb", "x" * 33])
async def test_a_template_has_an_id_that_a_message_can_have(operator, db, template_id):
    answer = await operator.act("template", {"template_id": template_id, "text": "x"})
    assert (answer.status, "and no blanks" in answer.text) == (400, True)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.template") == 0
