"""The page Rules, and the actions that define and remove templates."""

from dispatcher.core.rules import Limits
from dispatcher.core.templates import Template
from dispatcher.db import operator as actions
from dispatcher.db import rules

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
    form = {"template_id": "tpl", "text": TEXT, "note": "codes"}
    query = "?template_id=tpl&text=Your+code+is+%24%7BNUM_6%7D"
    asked = (await operator.get(f"/console/actions/template{query}")).text
    assert "It takes NUM_6. From a few seconds on" in asked
    assert not (await rules.read_rules(database)).templates
    assert "Defined." in (await operator.act("template", form)).text
    assert (await rules.read_rules(database)).templates == {
        "tpl": Template("tpl", ["NUM_6", "TXT_20"])
    }
    assert (await db.fetchval("SELECT note || text FROM dispatcher.template")) == "codes" + TEXT
    assert "Removed." in (await operator.act("template-remove", {"template_id": "tpl"})).text
    assert not (await rules.read_rules(database)).templates
    assert await audit(db) == [
        ("Ana", "template", "tpl", "NUM_6, TXT_20", "defined"),
        ("Ana", "template", "tpl", "", "removed"),
    ]


async def test_an_invalid_template_is_refused_with_a_reason(operator, db):
    for form, reason in (
        ({"template_id": "", "text": TEXT}, "1 to 32 characters"),
        ({"template_id": "x" * 33, "text": TEXT}, "1 to 32 characters"),
        ({"template_id": "tpl", "text": " "}, "Give the template&#39;s text"),
        ({"template_id": "tpl", "text": "${WORD_6}"}, "is no kind of variable"),
        ({"template_id": "tpl", "text": "${NUM_1}" * 21}, "at most 20 variables"),
    ):
        answer = await operator.act("template", form)
        assert (answer.status, reason in answer.text) == (400, True), form
    assert await audit(db) == []
