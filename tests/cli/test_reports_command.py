"""`dispatcher reports`: what cannot be read is listed, and read again after an upgrade."""

import json

READABLE = b"smsMsgId=p1&status=DELIVRD&to=%2B8613112345678"


async def keep(db, body: bytes) -> None:
    await db.execute(
        "INSERT INTO dispatcher.unreadable_push (digest, reason, content_type, body)"
        " VALUES (sha256($1), 'It is a riddle.', 'text/plain', $1)",
        body,
    )


async def test_unreadable_pushes_are_listed_without_their_content(operate, db):
    assert (await operate("reports", "--unreadable")).out == "Every push could be read.\n"
    await keep(db, READABLE)
    listed = (await operate("reports", "--unreadable")).out
    assert "It is a riddle." in listed
    assert "13112345678" not in listed
    assert "1 push of reports cannot be read" in (await operate("status")).out


async def test_their_content_is_there_for_programs(operate, db):
    await keep(db, READABLE)
    (push,) = json.loads((await operate("reports", "--unreadable", "--json")).out)
    assert push["times"] == 1
    assert push["body"]


async def test_replay_stores_what_can_be_read_by_now(operate, db):
    await keep(db, READABLE)
    await keep(db, b"never")
    assert (await operate("reports", "--replay")).out == "1 push read, 1 report or reply stored.\n"
    assert await db.fetchval("SELECT status FROM dispatcher.report") == "DELIVRD"
    done = json.loads((await operate("reports", "--replay", "--json")).out)
    assert done == {"read": 0, "stored": 0}
    assert (
        await operate("reports", "--replay")
    ).out == "0 pushes read, 0 reports and replies stored.\n"


async def test_forget_removes_what_names_the_person(db):
    await keep(db, b"to=008613112345678&x")
    await keep(db, b"to=8613112345679")
    await db.execute("SELECT dispatcher.forget('{+8613112345678,13112345678}')")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.unreadable_push") == 1


async def test_reports_without_a_message_show_no_whole_number(operate, db):
    number = "8613112345678"
    await db.execute(
        """
        INSERT INTO dispatcher.report (provider_id, status, state, recipient)
        VALUES ($1, $1, 'undelivered', '+' || $1), ('p2', 'DELIVRD', 'delivered', NULL)
        """,
        number,
    )
    await db.execute(
        "INSERT INTO dispatcher.unmatched_report (provider_id, segment, reason)"
        " VALUES ($1, 1, 'no-token'), ('p2', 1, 'no-token')",
        number,
    )
    shown = (await operate("reports")).out
    printed = (await operate("reports", "--json")).out
    assert number not in shown + printed
    assert "+86131****5678" in shown
    found = {each["provider_id"]: each for each in json.loads(printed)["unmatched"]}
    (masked,) = found.keys() - {"p2"}
    assert (masked[-4:], found[masked]["status"][-4:]) == ("5678", "5678")
    assert found[masked]["recipient"] == "+86131****5678"
    assert (found["p2"]["status"], found["p2"]["recipient"]) == ("DELIVRD", None)
