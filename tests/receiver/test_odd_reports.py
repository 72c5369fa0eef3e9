"""Reports that do not fit what was there before: other totals, used ids, messages that are gone."""

import pytest

ONE, TWO = "+8613100000001", "+8613100000002"


async def totals(world) -> dict[str, int]:
    """Return how often each event was told of."""
    found: dict[str, int] = {}
    for _, event, _ in await world.events():
        found[event] = found.get(event, 0) + 1
    return found


async def accepted(world, number=ONE, provider_id="p1", token="t1") -> int:
    (message,) = await world.batch([number], token=token, state="open")
    await world.accept([message], [provider_id], token=token)
    return message


async def test_a_report_of_a_deleted_message_is_kept_and_listed(world, told):
    message = await accepted(world)
    for table, key in (("outcome", "message_id"), ("message", "id"), ("queue", "id")):
        await world.db.execute(f"DELETE FROM dispatcher.{table} WHERE {key} = $1", message)
    await world.store(told("p1", ONE))
    assert (await world.match()).unmatched == 1
    assert await world.why() == {"p1": ("other-number", False)}
    await world.db.execute("DELETE FROM dispatcher.batch")
    await world.store(told("p2", TWO))
    await world.match()
    assert (await world.why())["p2"] == ("unknown-token", True)


async def test_a_report_of_the_first_request_leaves_a_requeue(world, told):
    (message,) = await world.batch([ONE], token="first", state="closed")
    await world.db.execute(
        "INSERT INTO dispatcher.outcome (message_id, batch_id, state, attempts, code)"
        " SELECT $1, id, 'rejected', 1, 'E200031' FROM dispatcher.batch",
        message,
    )
    assert await world.db.fetchval("SELECT dispatcher.requeue(ARRAY[$1::bigint])", message) == 1
    await world.store(told("p1", ONE, token="first"))
    await world.match()
    assert await world.states() == {message: ("queued", None)}
    assert await world.why() == {"p1": ("not-taken", False)}

    await world.db.execute("DELETE FROM dispatcher.queue")
    await world.db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " VALUES ('second', 'default', 1, ARRAY[$1::bigint], '{2}', 1)",
        message,
    )
    await world.accept([message], ["p2"], token="second")
    await world.store(told("p2", ONE, token="second", status="UNDELIV"))
    await world.store(told("p1", ONE, token="first", segment=2, total=2))
    await world.match()
    assert await world.states() == {message: ("undelivered", "p2")}


async def test_a_reused_provider_id_does_not_move_its_first_report(world, told):
    first = await accepted(world)
    await world.store(told("p1", ONE))
    await world.match()
    second = await accepted(world, TWO, "p2", token="t2")
    await world.store(told("p1", TWO, token="t2", status="UNDELIV"))
    await world.match()
    assert await world.states() == {first: ("delivered", "p1"), second: ("accepted", "p2")}
    assert await totals(world) == {"delivered": 1}


async def test_an_interim_report_keeps_its_message(world, told):
    first = await accepted(world)
    second = await accepted(world, TWO, "p2", token="t2")
    await world.store(told("p1", ONE, status="ACCEPTD"))
    await world.match()
    await world.store(told("p1", TWO, token="t2"))
    await world.match()
    assert await world.states() == {first: ("delivered", "p1"), second: ("accepted", "p2")}


@pytest.mark.parametrize(
    ("parts", "state", "told_of"),
    [
        # one after which more segments turn up than it said
        ([(1, 1, "DELIVRD"), (2, 2, "DELIVRD")], "delivered", {"delivered": 2}),
        ([(1, 1, "DELIVRD"), (2, 2, "UNDELIV")], "undelivered", {"delivered": 1, "undelivered": 1}),
        ([(1, 2, "DELIVRD"), (2, 2, "DELIVRD"), (3, 3, "UNDELIV")], "undelivered",
         {"delivered": 1, "undelivered": 1}),
        # a total that shrinks does not make whole what is not
        ([(1, 3, "DELIVRD"), (2, 2, "DELIVRD")], "accepted", {}),
        ([(1, 3, "DELIVRD"), (1, 1, "DELIVRD")], "accepted", {}),
        ([(1, 3, "ACCEPTD"), (1, 1, "DELIVRD")], "accepted", {}),
        # a segment beyond the total counts as the last one
        ([(3, 2, "DELIVRD"), (1, 2, "DELIVRD"), (2, 2, "DELIVRD")], "delivered", {"delivered": 1}),
    ],
)  # fmt: skip
async def test_totals_that_change_never_make_a_message_look_better(
    world, told, parts, state, told_of
):
    message = await accepted(world)
    for segment, total, status in parts:
        whole = max(segment, total)  # as the parser has it
        await world.store(told("p1", ONE, segment=segment, total=whole, status=status))
        await world.match()
    assert await world.states() == {message: (state, "p1")}
    assert await totals(world) == told_of


@pytest.mark.parametrize("end", ["cancelled", "expired", "rejected"])
async def test_a_report_corrects_the_end_of_what_was_given_up(world, told, end):
    """Settled as unsent by hand, and ended before it was sent again: the report knows better."""
    message = await given_up(world, end)
    await world.store(told("p1", ONE))
    await world.match()
    assert await world.states() == {message: ("delivered", "p1")}
    assert await world.why() == {}
    assert [event for _, event, _ in await world.events()][-2:] == ["accepted", "delivered"]
    assert await world.db.fetchval("SELECT dispatcher.requeue($1)", [message]) == 0


async def test_what_the_platform_refused_unsent_stays_cancelled(world, told):
    message = await given_up(world, "cancelled")
    await world.store(told("p1", ONE, status="E000629"))
    await world.match()
    assert await world.states() == {message: ("cancelled", None)}
    assert await world.why() == {"p1": ("not-accepted", False)}  # kept, listed, and in `show`


async def given_up(world, end: str) -> int:
    """Settle a message as unsent, and end it otherwise than accepted; return it."""
    (message,) = await world.batch([ONE])
    await world.db.execute("SELECT dispatcher.settle('t1', 'resend')")
    assert await world.db.fetchval("SELECT dispatcher.cancel($1)", [message]) == 1
    await world.db.execute("UPDATE dispatcher.outcome SET state = $1", end)
    return message
