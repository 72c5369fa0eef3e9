"""`dispatcher show`: a message's timeline, and the explanation of its state."""

import pytest

ONE = "+8613100000001"

BLOCKED = "Number on a block list: has unsubscribed or complained to the ministry."


@pytest.fixture
def show(operate):
    async def lines(message: int) -> list[str]:
        """Return what the command prints, with single blanks."""
        ended = await operate("show", message)
        assert ended.code == 0, ended.err
        return [" ".join(line.split()) for line in ended.out.splitlines()]

    return lines


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


async def test_show_lists_every_request_and_report(world, told, show):
    message = await deferred_then_lost(world)
    lines = await show(message)
    assert "state unsure" in lines
    assert any(line.startswith("why Its request may have been sent") for line in lines)

    for status in ("ACCEPTD", "MBBLACK"):
        await world.store(
            told("p1", ONE, token="second", segment=1, total=2, status=status),
            told("p1", ONE, token="second", segment=2, total=2, status="DELIVRD"),
        )
        await world.match()
    lines = await show(message)
    assert "state undelivered" in lines
    assert f"why {BLOCKED}" in lines
    assert f"code MBBLACK: {BLOCKED}" in lines
    assert any(line.startswith("what to do Take the number off promotion") for line in lines)
    begin = next(n for n, line in enumerate(lines) if line.startswith("What happened"))
    timeline = lines[begin + 1 :]
    expected = [
        "Queued: for the app default",
        "Claimed into request first: attempt 1, 1 message in 100 bytes",
        "Request answered: HTTP 200, 000000, Success, after 2 tries",
        "Returned to the queue: to be sent again",
        "Claimed into request second: attempt 2, 1 message in 120 bytes",
        "Unsure: it may have been sent, timeout, no answer within 30 s, after 1 try",
        "Settled: by reports",
        "Accepted by the provider: as p1, settled by a report",
        "Report ACCEPTD: interim, segment 1 of 2",
        f"Report MBBLACK: undelivered, segment 1 of 2: {BLOCKED}",
        "Report DELIVRD: delivered, segment 2 of 2: Arrived on the handset.",
    ]
    for event in expected:
        assert sum(event in line for line in timeline) == 1, (event, "\n".join(timeline))


async def test_show_lists_an_unmatched_report_with_its_reason(world, told, show):
    (message,) = await world.batch([ONE], state="closed")
    await world.accept([message], ["p1"])
    await world.store(told("p2", ONE))
    await world.match()
    story = " ".join(await show(message))
    assert (
        "Report DELIVRD: delivered, segment 1 of 1: Arrived on the handset. It counts for nothing"
        in story
    )
    assert "The answer gave the message another provider id." in story


WORKER = (
    "INSERT INTO dispatcher.worker (host, pid, version, apps, lease)"
    " VALUES ('h', 1, '1', '{default}', '1 minute')"
)
PAUSED = (
    "INSERT INTO dispatcher.app (name, paused_at, paused_by, pause_code, pause_reason)"
    " VALUES ('default', now(), 'worker', 'E000101', 'The key is not right.')"
)
WAITING = [
    # statements, the explanation, what to do
    ([], "No running worker serves its app, default.", "Start `dispatcher run` with this app"),
    ([WORKER], "It is due and waits for its turn.", None),
    (
        [WORKER, "UPDATE dispatcher.queue SET due_at = '2036-11-22 12:00Z'"],
        "It is not to be sent before 2036-11-22 12:00:00 UTC.",
        None,
    ),
    (
        [WORKER, "SELECT dispatcher.pause('default', 'on purpose')"],
        "Its app is paused by an operator since",
        "Ask who paused it; `dispatcher resume default`",
    ),
    (
        [
            WORKER,
            PAUSED,
        ],
        "Its app is paused by a worker since",
        "It is tried again by itself; `dispatcher resume default`",
    ),
    (
        [WORKER, "UPDATE dispatcher.queue SET code = 'E200015'"],
        "It was returned to the queue: Too many messages wait",
        "Nothing: it is sent again later",
    ),
]


@pytest.mark.parametrize(("acts", "why", "to_do"), WAITING)
async def test_show_explains_what_a_message_waits_for(db, show, acts, why, to_do):
    message = await db.fetchval(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ($1, 't') RETURNING id", ONE
    )
    for act in acts:
        await db.execute(act)
    lines = await show(message)
    assert any(line.startswith(f"why {why}") for line in lines), lines
    told = [line for line in lines if line.startswith("what to do ")]
    assert bool(told) == bool(to_do)
    assert not to_do or to_do in " ".join(lines)


ENDED = [
    # state, code and reason of its outcome, why it is so, and what happened
    ("cancelled", None, None, "It was cancelled while it waited.", "Cancelled"),
    (
        "expired",
        "expired",
        None,
        "Its time was over before it could be sent.",
        "Expired: expired: Its time was over before it could be sent.",
    ),
    (
        "rejected",
        "template-mismatch",
        "Variable 1 is no NUM_6.",
        "Its variables do not fit the template, as it is defined here.",
        "Rejected: template-mismatch: Variable 1 is no NUM_6.",
    ),
    (
        "rejected",
        "suppressed",
        None,
        "Its number is on the list of numbers never to send to. Why it is there: asked for it.",
        "Rejected: suppressed: Its number is on the list of numbers never to send to.",
    ),
    (
        "rejected",
        "E999999",
        None,
        "An unknown code: E999999.",
        "Rejected: E999999: An unknown code: E999999.",
    ),
]


@pytest.mark.parametrize("case", ENDED, ids=lambda case: str(case[1]))
async def test_show_explains_a_finished_message(world, show, case):
    state, code, reason, why, happened = case
    (message,) = await world.batch([ONE], state="closed")
    await world.db.execute("DELETE FROM dispatcher.batch")
    await world.db.execute(
        "INSERT INTO dispatcher.suppression (recipient, reason) VALUES ($1, 'asked for it')", ONE
    )
    await world.db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, code, reason)"
        " VALUES ($1, $2, 0, $3, $4)",
        message,
        state,
        code,
        reason,
    )
    lines = await show(message)
    assert f"why {why}" in lines
    story = lines[next(n for n, line in enumerate(lines) if line.startswith("What happened")) :]
    assert any(line.endswith(f" {happened}") for line in story), story


async def test_a_request_code_is_not_a_message_code(world, show):
    first, second = await world.batch([ONE, "+8613100000002"], state="closed")
    await world.db.execute(
        "UPDATE dispatcher.batch SET http_status = 400, code = 'E000510', tries = 1,"
        " description = 'The SMS fails to be sent.', closed_at = clock_timestamp()"
    )
    await world.accept([first], ["p1"])
    text = " ".join(await show(first))
    assert "E000510, The SMS fails to be sent, after 1 try, each number has a result" in text
    assert "Accepted by the provider: as p1" in text
    await world.db.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, last_batch, code)"
        " SELECT $1, 'default', 5, now(), 1, id, 'E200015' FROM dispatcher.batch",
        second,
    )
    lines = await show(second)
    returned = "Returned to the queue: E200015: Too many messages wait"
    assert any(returned in line for line in lines), lines
    assert not any(line.startswith("reason ") for line in lines)
