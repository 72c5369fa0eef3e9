"""``dispatcher template``, ``suppress`` and ``limit`` set operators' rules."""

import json
from datetime import time

import pytest

from dispatcher.core.rules import Limits
from dispatcher.core.templates import Template
from dispatcher.db import rules


async def test_a_template_is_defined_listed_and_removed(operate, database):
    added = await operate("template", "add", "tpl", "--text", "${NUM_6} bis ${DATE}", "--note", "x")
    assert (added.code, added.out) == (0, "tpl takes 2 variables.\n")
    assert (await rules.read_rules(database)).templates == {
        "tpl": Template("tpl", ["NUM_6", "DATE"])
    }
    assert "NUM_6, DATE" in (await operate("template", "list")).out
    assert (await operate("template", "remove", "tpl")).code == 0
    assert (await operate("template", "remove", "tpl")).code == 1


@pytest.mark.parametrize(
    "arguments",
    [(), ("--text", "x", "--kinds", "DATE"), ("--kinds", "WORD"), ("--text", "${NUM}")],
)
async def test_what_is_no_template_is_refused(operate, database, arguments):
    assert (await operate("template", "add", "tpl", *arguments)).code == 2
    assert not (await rules.read_rules(database)).templates


async def test_a_copied_template_id_is_that_of_lists(operate, db, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("phone,template_id,param_1\n+8613112345678,t1\u200b,x\n", encoding="utf-8")
    for copied in ("\ufeff\u200b t1\u00a0", "\uff541"):
        assert (await operate("template", "add", copied, "--kinds", "NUM_6")).code == 0
        assert await db.fetchval("SELECT array_agg(template_id) FROM dispatcher.template") == ["t1"]
        assert (await operate("enqueue", file, "--dry-run")).out.startswith("0 messages")
        assert (await operate("template", "remove", copied)).code == 0
    for refused in ("t\u00a01", "t\n1", "\u200b", "t" * 33):
        ended = await operate("template", "add", refused, "--kinds", "NUM_6")
        assert (ended.code, "1 to 32 characters, and no blanks." in ended.err) == (2, True)


async def test_numbers_are_suppressed_listed_masked_and_freed(operate, db, tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("number,why\n+8613112345678,asked\n13800000000,asked\n\n+8613112345678,x\n")
    added = await operate("suppress", "+49 151 12345678", "--file", file, "--reason", "asked")
    assert (added.code, added.out) == (0, "3 numbers suppressed, from the next second on.\n")
    listed = (await operate("suppress")).out
    assert "+86131****5678" in listed
    assert "13112345678" not in listed
    freed = await operate("suppress", "--remove", "13112345678")
    assert freed.out == "1 number sent to again.\n"
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 2
    rows = await db.fetch("SELECT action, target, detail, result FROM dispatcher.audit ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("suppress", "4 numbers", "asked", "3 numbers new"),
        ("unsuppress", "1 number", "", "1 number freed"),
    ]


async def test_a_number_is_suppressed_for_promotion_of_an_app(operate, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    scope = ("--app", "shop", "--promotional")
    assert (await operate("suppress", "13112345678", *scope)).code == 0
    assert (await operate("suppress", "13112345678")).code == 0
    listed = (await operate("suppress")).out
    assert ("promotion of shop" in listed, "everything" in listed) == (True, True)
    wrong = await operate("suppress", "13112345678", "--app", "shpo")
    assert (wrong.code, "there is no app shpo" in wrong.err) == (2, True)
    assert (await operate("suppress", "--remove", "13112345678", *scope)).out[0] == "1"
    left = await db.fetch("SELECT app, promotional FROM dispatcher.suppression")
    assert [tuple(row) for row in left] == [("", False)]
    audit = await db.fetch("SELECT target FROM dispatcher.audit ORDER BY id")
    assert [row["target"] for row in audit] == [
        "promotion of shop: 1 number",
        "1 number",
        "promotion of shop: 1 number",
    ]


async def test_a_list_with_one_bad_line_suppresses_the_others(operate, db, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("+8613112345678\nnobody\n")
    ended = await operate("suppress", "--file", file)
    assert (ended.code, "line 2: it holds letters" in ended.err) == (1, True)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 1


async def test_a_file_of_numbers_is_read_as_options_say(operate, db, tmp_path):
    file = tmp_path / "x.csv"
    file.write_bytes("Téléphone,Nom\n+8613112345678,Jérôme\n".encode("cp1252"))
    words = ("suppress", "--file", file, "--encoding", "cp1252")
    done = await operate(*words, "--column", "recipient=Téléphone")
    assert (done.code, done.err) == (0, "")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 1
    for wrong, why in (
        ((*words, "--column", "Nom"), "--column takes pairs such as recipient="),
        ((*words, "--sheet", "1"), "--sheet is for Excel workbooks."),
        (("suppress", "--sheet", "1"), "--encoding, --sheet and --column are for --file."),
        (("suppress", "13112345678", "--column", "recipient=x"), "are for --file."),
    ):
        ended = await operate(*wrong)
        assert (ended.code, why in ended.err) == (2, True), ended.err


async def test_limits_are_set_shown_and_lifted(operate, database):
    said = "default: 15 a minute to a number, 1,000 a day in all, quiet from 21:00 to 08:00\n"
    words = ("limit", "default", "--per-minute", "15", "--daily", "1000", "--quiet")
    assert (await operate(*words, "21:00-08:00")).out == said
    assert (await operate("limit", "default")).out == said
    known = (await rules.read_rules(database)).limits
    assert known == {
        "default": Limits(15, daily_limit=1000, quiet_from=time(21), quiet_until=time(8))
    }
    assert (await operate("limit", "default", "--none")).out == "default: no limits\n"
    assert (await rules.read_rules(database)).limits == {}


@pytest.mark.parametrize("hours", ["21", "21:00", "21:00-21:00", "25:00-08:00", "a-b"])
async def test_hours_that_are_none_are_refused(operate, hours):
    assert (await operate("limit", "default", "--quiet", hours)).code == 2


async def test_lists_of_rules_are_there_for_programs(operate, db):
    await operate("template", "add", "tpl", "--kinds", "NUM_6", "--note", "codes")
    await operate("suppress", "+8613112345678")
    assert json.loads((await operate("template", "list", "--json")).out) == [
        {"template_id": "tpl", "kinds": ["NUM_6"], "note": "codes", "promotional": None}
    ]
    (listed,) = json.loads((await operate("suppress", "--json")).out)
    assert listed["recipient"] == "+86131****5678"
    done = json.loads((await operate("suppress", "+8613112345679", "--json")).out)
    assert done == {"suppressed": 1, "refused_lines": 0}
    done = json.loads((await operate("suppress", "--remove", "+8613112345679", "--json")).out)
    assert done == {"removed": 1, "refused_lines": 0}
    limits = json.loads((await operate("limit", "default", "--daily", "7", "--json")).out)
    assert limits["limits"]["daily_limit"] == 7
    await db.execute("SELECT dispatcher.set_limits('default', 5)")
    limits = json.loads((await operate("limit", "default", "--json")).out)
    assert limits["limits"]["per_minute"] == 5
    assert json.loads((await operate("cost", "--json")).out) == []


async def test_limits_of_an_app_that_does_not_exist_are_refused(operate, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    ended = await operate("limit", "shpo", "--per-minute", "5")
    assert (ended.code, "there is no app shpo: there are shop" in ended.line) == (2, True)
    assert (await operate("limit", "shop", "--per-minute", "5")).code == 0
