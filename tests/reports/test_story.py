"""`dispatcher show` tells a message's whole story, from its insert to why it is where it is."""

import asyncio
import os
import sys

import pytest

ONE = "+8613100000001"


async def show(dsn: str, message: int) -> list[str]:
    """Return what the command prints, without the times."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dispatcher", "show", str(message)),
        env=environ | {"DISPATCHER_DATABASE_URL": dsn},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [" ".join(line.split()) for line in out.decode().splitlines()]


async def deferred_then_lost(world) -> int:
    """A message that was put back once, and whose second request has no answer."""
    (message,) = await world.batch([ONE], token="first", state="closed")
    await world.db.execute(
        "UPDATE dispatcher.batch SET http_status = 200, code = '000000', tries = 2,"
        " description = 'Success', closed_at = clock_timestamp()"
    )
    await world.db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes,"
        " unsure_at, code, description, tries) VALUES ('second', 'default', 1, ARRAY[$1::bigint],"
        " '{2}', 'unsure', 120, clock_timestamp(), 'timeout', 'no answer within 30 s', 1)",
        message,
    )
    return message


async def test_it_tells_of_every_request_and_report_and_why_it_is_undelivered(world, told, dsn):
    message = await deferred_then_lost(world)
    lines = await show(dsn, message)
    assert "state unsure" in lines
    assert any(line.startswith("why Its request may have been sent") for line in lines)

    for status in ("ACCEPTD", "MBBLACK"):
        await world.store(
            told("p1", ONE, token="second", segment=1, total=2, status=status),
            told("p1", ONE, token="second", segment=2, total=2, status="DELIVRD"),
        )
        await world.match()
    lines = await show(dsn, message)
    assert "state undelivered" in lines
    assert "why The number is on a block list." in lines
    assert "code MBBLACK: The number is on a block list." in lines
    assert any(line.startswith("what to do Do not send to this number again") for line in lines)
    story = lines[lines.index("What happened") + 1 :]
    expected = [
        "queued",
        "claimed into request first: attempt 1, 1 message in 100 bytes",
        "request ended: HTTP 200 000000 Success after 2 tries",
        "claimed into request second: attempt 2, 1 message in 120 bytes",
        "unsure: it may have been sent; timeout no answer within 30 s settled by reports after",
        "request ended: timeout no answer within 30 s settled by reports after 1 try",
        "accepted as p1",
        "report: ACCEPTD (interim), segment 1 of 2",
        "report: MBBLACK (undelivered), segment 1 of 2: The number is on a block list.",
        "report: DELIVRD (delivered), segment 2 of 2: Delivered.",
    ]
    for event in expected:
        assert sum(event in line for line in story) == 1, (event, story)


async def test_a_report_of_an_unsure_message_that_counts_for_nothing_is_shown(world, told, dsn):
    (message,) = await world.batch([ONE], state="closed")
    await world.accept([message], ["p1"])
    await world.store(told("p2", ONE))
    await world.match()
    story = " ".join(await show(dsn, message))
    assert "report: DELIVRD (delivered), segment 1 of 1: Delivered. It counts for nothing" in story
    assert "The answer gave the message another provider id." in story


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (None, "It waits for its turn, due at"),
        ("SELECT dispatcher.pause('default', 'on purpose')", "Its app is paused: on purpose"),
        ("UPDATE dispatcher.queue SET code = 'E200015'", "It was put back: Too many messages wait"),
    ],
)
async def test_a_waiting_message_says_what_it_waits_for(db, dsn, act, why):
    message = await db.fetchval(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ($1, 't') RETURNING id", ONE
    )
    if act:
        await db.execute(act)
    assert any(line.startswith(f"why {why}") for line in await show(dsn, message))
