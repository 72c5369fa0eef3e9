"""`dispatcher replies`, and `find` with a number: what persons answered."""

import json
import time
from urllib.parse import urlencode

import pytest

from dispatcher.core.reply import read_replies
from dispatcher.db.replies import ReceivedReply, store

NUMBER = "+8615512345678"


@pytest.fixture
async def answered(database, db):
    """Two replies of one number, and one of another."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    bodies = [
        urlencode({"from": number, "to": "10690001", "body": text, "smsMsgId": text})
        for number, text in ((NUMBER, "R"), (NUMBER, "odd \x1b[31m"), ("13800000000", "other"))
    ]
    for body in bodies:
        (reply,) = read_replies(body.encode()).replies
        await store(database, [ReceivedReply(reply, "", time.time())], now=time.time())


@pytest.mark.usefixtures("answered")
async def test_replies_are_listed_with_masked_numbers(operate):
    listed = (await operate("replies")).out
    assert ("+86155****5678" in listed, NUMBER in listed) == (True, False)
    assert ("other" in listed, "yes" in listed, "\x1b" in listed) == (True, True, False)
    found = json.loads((await operate("replies", "--json", "--limit", "2")).out)
    assert [one["text"] for one in found] == ["other", "odd \x1b[31m"]


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize(
    "spelling", [NUMBER, "15512345678", "86 155 1234 5678", "0086-15512345678"]
)
async def test_replies_of_a_number_are_found_in_any_spelling(operate, spelling):
    found = json.loads((await operate("replies", spelling, "--json")).out)
    assert [(one["text"], one["app"]) for one in found] == [("odd \x1b[31m", "shop"), ("R", "shop")]
    shown = await operate("find", spelling)
    assert (shown.code, "odd" in shown.out, "other" in shown.out) == (0, True, False)


@pytest.mark.usefixtures("answered")
async def test_whole_numbers_of_replies_are_shown_and_recorded(operate, db):
    assert NUMBER in (await operate("replies", "--full", "--as", "Ana")).out
    row = await db.fetchrow("SELECT actor, action, target FROM dispatcher.audit")
    assert tuple(row) == ("Ana", "export", "replies 3")


async def test_without_replies_it_says_so(operate):
    assert (await operate("replies")).out == "No reply has come.\n"
    assert (await operate("replies", "12")).code == 2
