"""Which message a report belongs to, and what it settles."""

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.messages import take_out
from support.waiting import until

from dispatcher.core.message import to_e164
from dispatcher.core.report_status import APP_STATUSES, PART_STATUSES
from dispatcher.db import message_lists, operator, report_lookup, report_matching, rules
from dispatcher.db import status as db_status
from dispatcher.db.database import connect
from dispatcher.db.queries import sql
from dispatcher.db.reports import keep_unreadable
from dispatcher.db.workers import resend_unsure

TOKEN_1 = "0123456789abcdef" * 2
ONE, TWO, THREE = "+8613100000001", "+8613100000002", "+8613100000003"


async def test_a_report_settles_only_its_message_of_a_batch(world, told):
    first, second = await world.batch([ONE, TWO])
    await world.store(told("p1", ONE))
    step = await world.match()
    assert (step.settled, step.closed) == (1, 0)
    assert await world.states() == {first: ("delivered", "p1"), second: ("unsure", None)}
    assert await world.batch_state() == ("unsure", None)


async def test_the_last_report_closes_its_batch(world, told):
    await world.batch([ONE, TWO])
    await world.store(told("p1", ONE))
    await world.match()
    await world.store(told("p2", TWO, status="UNDELIV"))
    assert (await world.match()).closed == 1
    assert await world.batch_state() == ("closed", "reports")


async def test_a_settled_message_says_why_it_is_accepted(world, told):
    await world.batch([ONE])
    await world.store(told("p1", ONE, status="ACCEPTD"))
    await world.match()
    row = await world.db.fetchrow("SELECT * FROM dispatcher.message_status")
    assert (row["state"], row["code"]) == ("accepted", "settled-by-report")
    assert "report" in row["reason"]


async def test_status_shows_the_carriers_code_and_its_meaning(world, told):
    from dispatcher.db.reports import register_statuses  # noqa: PLC0415

    await register_statuses(world.database)
    await world.batch([ONE, TWO])
    await world.store(told("p1", ONE, status="MBBLACK"), told("p2", TWO, status="SGIP:77"))
    await world.match()
    rows = await world.db.fetch("SELECT * FROM dispatcher.message_status ORDER BY id")
    assert [(row["state"], row["code"]) for row in rows] == [
        ("undelivered", "MBBLACK"),
        ("undelivered", "SGIP:77"),
    ]
    assert rows[0]["reason"].startswith("Number on a block list")
    assert rows[1]["reason"] is None


@pytest.mark.parametrize(
    ("asked", "reported"),
    [("13100000001", ONE), (ONE, "13100000001"), ("13100000001", "13100000001")],
)
async def test_a_mainland_number_is_known_in_either_form(world, told, asked, reported):
    (message,) = await world.batch([asked])
    await world.store(told("p1", reported))
    await world.match()
    assert await world.states() == {message: ("delivered", "p1")}


async def test_a_report_before_the_answer_waits_for_it(world, told):
    (message,) = await world.batch([ONE], state="open")
    await world.store(told("p1", ONE))
    assert (await world.match()).settled == 0
    assert await world.why() == {"p1": ("still-open", True)}
    await world.accept([message], ["p1"])
    await world.hurry()
    await world.match()
    assert await world.why() == {}
    assert await world.events() == [(message, "delivered", "DELIVRD")]


@pytest.mark.parametrize(("ahead", "left"), [("10 minutes", 1), ("1 day", 0)])
async def test_a_wait_that_a_clock_ahead_has_written_ends(world, told, ahead, left):
    (message,) = await world.batch([ONE], state="open")
    await world.store(told("p1", ONE))
    await world.match()
    await world.accept([message], ["p1"])
    await world.db.execute(
        f"UPDATE dispatcher.unmatched_report SET due_at = now() + interval '{ahead}'"
    )
    await world.match()
    assert len(await world.why()) == left


async def test_what_a_report_settles_is_in_question_no_more(world, told):
    """It is counted as accepted; its request stays unsure for the others."""
    await world.batch([ONE, TWO, THREE])
    assert await rules.sent_today(world.db, ["default"]) == {"default": 3}
    await world.store(told("p1", ONE), told("p2", TWO))
    await world.match()
    assert (await world.batch_state())[0] == "unsure"
    assert await rules.sent_today(world.db, ["default"]) == {"default": 3}
    assert await operator.count_unsure(world.db, operator.UnsureBatches()) == (1, 1)
    assert [each.messages for each in await db_status.unsure(world.database)] == [1]
    assert (await db_status.batch(world.database, "t1")).batch["in_question"] == 1
    assert (
        await message_lists.count(world.database, message_lists.MessageFilter(state="unsure")) == 1
    )


async def test_a_report_from_before_the_batch_was_unsure_settles_it(world, told):
    (message,) = await world.batch([ONE], state="open")
    await world.store(told("p1", ONE))
    await world.match()
    await world.db.execute("UPDATE dispatcher.batch SET state = 'unsure', unsure_at = now()")
    await world.hurry()
    assert (await world.match()).closed == 1
    assert await world.states() == {message: ("delivered", "p1")}


async def test_of_two_ids_for_one_number_the_first_settles(world, told):
    (message,) = await world.batch([ONE])
    await world.store(told("p1", ONE), told("p2", ONE))
    assert (await world.match()).settled == 1
    assert await world.why() == {"p2": ("still-open", True)}
    await world.hurry()
    await world.match()
    assert await world.states() == {message: ("delivered", "p1")}
    assert await world.why() == {"p2": ("other-id", False)}


async def test_a_report_whose_message_is_settled_meanwhile_is_matched_again(
    world, told, dsn, monkeypatch
):
    monkeypatch.setattr(report_matching, "LOCK_TIMEOUT", "20s")
    first, _ = await world.batch([ONE, TWO])
    await world.store(told("p1", ONE))
    answer = await connect(dsn)
    transaction = answer.transaction()
    await transaction.start()
    await answer.execute(
        "INSERT INTO dispatcher.outcome (message_id, batch_id, state, attempts, provider_id)"
        " SELECT $1, id, 'accepted', 1, 'p1' FROM dispatcher.batch",
        first,
    )
    matching = asyncio.create_task(world.match())
    await until(lambda: waits_for_lock(world.db), what="the matching waits for the answer")
    await transaction.commit()
    await answer.close()
    assert (await matching).settled == 0
    assert await world.why() == {"p1": ("still-open", True)}
    await world.hurry()
    await world.match()
    assert await world.why() == {}
    assert (await world.states())[first] == ("delivered", "p1")


async def waits_for_lock(db) -> bool:
    return await db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")


async def test_a_report_that_keeps_waiting_is_looked_at_less_often(world, told):
    await world.batch([ONE], state="open")
    await world.store(told("p1", ONE))
    waits = []
    for _ in range(4):
        await world.match()
        waits.append(
            await world.db.fetchval(
                "SELECT extract(epoch FROM due_at - clock_timestamp())::float8 "
                "FROM dispatcher.unmatched_report"
            )
        )
        await world.hurry()
    assert waits == sorted(waits)
    assert waits[-1] > 2 * waits[0]


async def test_a_report_does_not_settle_a_returned_message(world, told):
    first, second = await world.batch([ONE, TWO])
    await world.db.execute("UPDATE dispatcher.batch SET unsure_ids = $1", [second])
    await world.store(told("p1", ONE), told("p2", TWO))
    await world.match()
    assert await world.why() == {"p1": ("not-taken", False)}
    assert (await world.states())[second] == ("delivered", "p2")
    assert await world.batch_state() == ("closed", "reports")
    assert (await world.states())[first][1] is None


async def test_reports_that_match_nothing_are_kept_counted_and_listed(world, told):
    from dispatcher.db.reports import unmatched  # noqa: PLC0415

    (message,) = await world.batch([ONE], state="closed")
    await world.accept([message], ["p1"])
    await world.store(
        told("a", None, token=None),
        told("b", ONE, token="nobody's"),
        told("c", THREE),
        told("d", ONE),
    )
    step = await world.match()
    assert step.unmatched == 2
    why = {"a": "no-token", "b": "unknown-token", "c": "other-number", "d": "other-id"}
    for again in (True, True, False):  # it is looked up by its id twice
        found = {name: (reason, name in "ab" and again) for name, reason in why.items()}
        assert await world.why() == found
        await world.hurry()
        await world.match()
    assert {row.provider_id: row.reason for row in await unmatched(world.db)} == why
    assert (await world.tally())["-", "unmatched report", "other-number"] == 1
    assert await world.states() == {message: ("accepted", "p1")}


@pytest.mark.parametrize("token", [None, "0" * 32])
async def test_a_report_without_its_token_is_matched_by_its_id(world, told, token):
    """View, feed, show and the list of reports agree, whatever became of the token."""
    from dispatcher.db.reports import unmatched  # noqa: PLC0415

    first, second = await world.batch([ONE, TWO], state="closed")
    await world.accept([first, second], ["p1", "p2"])
    await world.store(told("p1", None, token=token))
    assert (await world.match()).unmatched == 0
    shown = await world.db.fetch(sql("show_reports"), "p1", [])  # as the view, which has it by now
    assert [row["unmatched"] for row in shown] == [None]
    await world.hurry()
    assert (await world.match()).reports == 1
    assert await world.states() == {first: ("delivered", "p1"), second: ("accepted", "p2")}
    assert await world.events() == [(first, "delivered", "DELIVRD")]
    assert await unmatched(world.db) == []
    await world.hurry()
    await world.match()
    assert len(await world.events()) == 1


async def test_a_report_found_by_its_id_of_an_erased_message_names_nobody(world, told):
    (message,) = await world.batch([ONE], state="closed")
    await world.accept([message], ["p1"])
    await operator.forget(world.db, "Ana", ONE)
    await world.store(told("p1", ONE, token=None))
    await world.match()
    await world.hurry()
    await world.match()
    row = await world.db.fetchrow("SELECT recipient, raw, state FROM dispatcher.report")
    assert tuple(row) == (None, None, "delivered")


async def test_a_report_before_the_answer_finds_it_by_its_id_too(world, told):
    (message,) = await world.batch([ONE], state="open")
    await world.store(told("p1", None, token=None))
    await world.match()
    await world.hurry()
    await world.match()
    assert await world.why() == {"p1": ("no-token", True)}
    await world.accept([message], ["p1"])
    await world.hurry()
    await world.match()
    assert await world.why() == {}
    assert [event for _, event, _ in await world.events()] == ["delivered"]


async def test_a_report_never_makes_a_rejected_message_accepted(world, told):
    (message,) = await world.batch([ONE], state="closed")
    await world.db.execute(
        "INSERT INTO dispatcher.outcome (message_id, batch_id, state, attempts) "
        "SELECT $1, id, 'rejected', 1 FROM dispatcher.batch",
        message,
    )
    await world.store(told("p1", ONE))
    await world.match()
    assert await world.why() == {"p1": ("not-accepted", False)}
    assert await world.states() == {message: ("rejected", None)}


async def test_a_report_adds_the_provider_id_after_settle(world, told):
    (message,) = await world.batch([ONE])
    await world.db.execute("SELECT dispatcher.settle('t1', 'sent')")
    await world.store(told("p1", ONE))
    await world.match()
    assert await world.states() == {message: ("delivered", "p1")}


async def test_one_report_stops_the_policy_resend_for_its_batch(world, told):
    first, second = await world.batch([ONE, TWO])
    await world.db.execute(
        "INSERT INTO dispatcher.app (name, on_unsure, resend_after) "
        "VALUES ('default', 'resend', '0 s')"
    )
    await world.store(told("p1", ONE))
    assert await resend_unsure(world.database, 1) == (0, 0)  # even before it is matched
    await world.match()
    assert await resend_unsure(world.database, 1) == (0, 0)
    assert await world.states() == {first: ("delivered", "p1"), second: ("unsure", None)}


async def test_a_push_that_cannot_be_read_stops_the_policy_resend_for_its_batch(world):
    """It proves as much as a report that the provider took the request."""
    (named,) = await world.batch([ONE], token=TOKEN_1)
    (other,) = await world.batch([TWO], token=TOKEN_1[::-1])
    await world.db.execute(
        "INSERT INTO dispatcher.app (name, on_unsure, resend_after) "
        "VALUES ('default', 'resend', '0 s')"
    )
    body = f'{{"id":1,"extend":"{TOKEN_1}"}}'.encode()
    for _ in range(2):
        await keep_unreadable(
            world.database, body, "application/json", "odd", age=0.0, path="reports"
        )
    assert await resend_unsure(world.database, 1) == (1, 1)
    states = await world.states()
    assert (states[named][0], states[other][0]) == ("unsure", "queued")


async def test_a_report_cancels_a_resend_that_waits(world, told):
    first, second = await world.batch([ONE, TWO])
    await world.db.execute("SELECT dispatcher.settle('t1', 'resend')")
    await world.store(told("p1", ONE))
    assert (await world.match()).settled == 1
    assert await world.states() == {first: ("delivered", "p1"), second: ("queued", None)}
    assert await world.db.fetchval("SELECT array_agg(id) FROM dispatcher.queue") == [second]


async def test_two_steps_at_once_are_one_after_the_other(world, told):
    await world.batch([ONE])
    await world.store(told("p1", ONE))
    async with world.db.transaction():
        from dispatcher.db.report_matching import LOCK_KEY  # noqa: PLC0415

        await world.db.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
        assert (await world.match()).reports == 0
    assert (await world.match()).reports == 1


SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from([ONE, TWO]),
        st.lists(
            st.sampled_from(["DELIVRD", "UNDELIV", "ACCEPTD+DELIVRD", "ACCEPTD+MK:0001"]),
            min_size=1,
            max_size=3,
        ),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda one: one[0],
)


def _reports(told, messages):
    """Return the reports of *messages* in the carrier's order, an interim one before its final."""
    return [
        told(f"p{number[-1]}", number, segment=place, total=len(parts), status=status)
        for number, parts in messages
        for place, part in enumerate(parts, start=1)
        for status in part.split("+")
    ]


async def _final(world) -> tuple:
    for _ in range(3):
        await world.match()
        await world.hurry()
    rows = await world.db.fetch(
        "SELECT recipient, state, provider_id, code, segments FROM dispatcher.message_status "
        "ORDER BY recipient"
    )
    return (
        [tuple(row) for row in rows],
        await world.batch_state(),
        await world.why(),
        # Not its code: when two segments fail, the event is that of the one that failed first.
        sorted(event[1] for event in await world.events() if event[1].endswith("delivered")),
    )


async def _clear(world) -> None:
    await world.db.execute(
        "TRUNCATE dispatcher.message, dispatcher.queue, dispatcher.bulk, dispatcher.batch, "
        "dispatcher.outcome, dispatcher.report, dispatcher.report_inbox, "
        "dispatcher.unmatched_report, dispatcher.report_summary, dispatcher.event"
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=SEGMENTS, data=st.data())
async def test_every_order_of_reports_and_answer_ends_the_same(world, told, messages, data):
    """Reports duplicated, reordered, single and in batches, before and after the answer."""
    sent = _reports(told, messages)
    answer = data.draw(st.sampled_from(["answered", "lost"]), label="answer")

    async def play(order, answer_at: int, cuts: set[int], match_at: set[int]) -> tuple:
        await _clear(world)
        ids = await world.batch([number for number, _ in messages], state="open")
        group = []
        for index in range(len(order) + 1):
            if index == answer_at:
                if answer == "answered":
                    await world.accept(ids, [f"p{number[-1]}" for number, _ in messages])
                else:
                    await world.db.execute(
                        "UPDATE dispatcher.batch SET state = 'unsure', unsure_at = now()"
                    )
            if group and (index in cuts or index == len(order)):
                await world.store(*group)
                group = []
            if index in match_at:
                await world.match()
                await world.hurry()
            if index < len(order):
                group.append(order[index])
        if group:
            await world.store(*group)
        return await _final(world)

    plain = await play(sent, 0, set(range(len(sent) + 1)), set())
    copies = data.draw(st.lists(st.sampled_from(sent), max_size=3), label="duplicates")
    order = data.draw(st.permutations([*sent, *copies]), label="order")
    places = st.integers(0, len(order))
    mixed = await play(
        order,
        data.draw(places, label="answer at"),
        data.draw(st.sets(places), label="commits at"),
        data.draw(st.sets(places), label="matched at"),
    )
    assert mixed == plain
    assert all(state in ("delivered", "undelivered") for _, state, *_ in mixed[0])
    assert len(mixed[3]) == len(messages)  # each is published once


async def test_every_permutation_of_a_long_message_ends_the_same(world, told):
    parts = [
        told("p1", ONE, segment=1, total=2, status="ACCEPTD"),
        told("p1", ONE, segment=1, total=2),
        told("p1", ONE, segment=2, total=2, status="ACCEPTD"),
        told("p1", ONE, segment=2, total=2),
    ]
    for order in itertools.permutations(parts):
        await _clear(world)
        (message,) = await world.batch([ONE])
        for each in order:
            await world.store(each)
            await world.match()
        assert await world.states() == {message: ("delivered", "p1")}
        assert [e[1] for e in await world.events()] == ["accepted", "delivered"]


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_number_on_a_block_list_is_suppressed_if_enabled(world, told, wanted):
    await world.batch([ONE, TWO])
    await world.store(told("p1", ONE, status="MBBLACK"), told("p2", TWO, status="UNDELIV"))
    stranger = replace(told("p3", "+8613199999999", status="BLACK"), token="0" * 32)
    await world.store(stranger)
    await report_matching.match(world.database, suppress_blocked=wanted)
    rows = await world.db.fetch(
        "SELECT recipient, app, promotional, reason, source FROM dispatcher.suppression"
    )
    expected = [
        (
            to_e164(ONE),
            "default",
            True,
            "MBBLACK: Number on a block list: has unsubscribed or complained to the ministry.",
            "report",
        )
    ]
    assert [tuple(row) for row in rows] == (expected if wanted else [])


SPELLINGS = [
    None,  # left out
    " 8613100000001",  # a raw plus, which a form reads as a blank
    "8613100000001",
    "008613100000001",
    "+86 131 0000 0001",
    "13100000001",
    "+86131****0001",
    "86131****0001",
]


@pytest.mark.parametrize("to", SPELLINGS)
async def test_the_provider_id_leads_to_the_message_however_to_is_written(world, told, to):
    first, second = await world.batch([ONE, TWO], state="open")
    await world.accept([first, second], ["p1", "p2"])
    await world.store(told("p1", to))
    await world.match()
    assert await world.states() == {first: ("delivered", "p1"), second: ("accepted", "p2")}
    assert await world.events() == [(first, "delivered", "DELIVRD")]
    assert await world.why() == {}


@pytest.mark.parametrize("to", SPELLINGS)
async def test_an_unsure_message_alone_in_its_request_settles(world, told, to):
    (message,) = await world.batch([ONE])
    await world.store(told("p1", to))
    assert (await world.match()).settled == 1
    assert await world.states() == {message: ("delivered", "p1")}
    assert await world.batch_state() == ("closed", "reports")


@pytest.mark.parametrize("to", SPELLINGS[1:])
async def test_any_spelling_finds_its_unsure_message_among_others(world, told, to):
    first, second = await world.batch([ONE, TWO])
    await world.store(told("p1", to))
    await world.match()
    assert await world.states() == {first: ("delivered", "p1"), second: ("unsure", None)}


@pytest.mark.parametrize("to", [" 2411234567", "2411234567", "002411234567", "+241 123-4567"])
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_number_abroad_is_known_in_every_spelling(world, told, to, accepted):
    first, second = await world.batch(["+2411234567", ONE], state="open" if accepted else "unsure")
    if accepted:
        await world.accept([first, second], ["p1", "p2"])
    await world.store(told("p1", to))
    await world.match()
    other = ("accepted", "p2") if accepted else ("unsure", None)
    assert await world.states() == {first: ("delivered", "p1"), second: other}
    assert (first, "delivered", "DELIVRD") in await world.events()
    assert await world.why() == {}


@pytest.mark.parametrize("to", SPELLINGS)
async def test_a_blocked_number_is_suppressed_in_its_own_form(world, told, to):
    ids = await world.batch([ONE, TWO], state="open")
    await world.accept(ids, ["p1", "p2"])
    await world.store(told("p1", to, status="MBBLACK"))
    await report_matching.match(world.database, suppress_blocked=True)
    rows = await world.db.fetch("SELECT recipient FROM dispatcher.suppression")
    assert [row["recipient"] for row in rows] == [to_e164(ONE)]


@pytest.mark.parametrize(("attempts", "again"), [(449, True), (450, False)])
async def test_a_report_without_a_number_waits_for_three_days(world, told, attempts, again):
    await world.batch([ONE, TWO])
    await world.store(told("p1", None))
    await world.match()
    await world.db.execute("UPDATE dispatcher.unmatched_report SET attempts = $1", attempts)
    await world.hurry()
    await world.match()
    assert await world.why() == {"p1": ("no-number", again)}


async def test_a_masked_number_that_fits_two_settles_neither(world, told):
    await world.batch([ONE, "+8613200000001"])
    await world.store(told("p1", "+86*****00001"))
    await world.match()
    assert await world.why() == {"p1": ("no-number", True)}


async def test_another_whole_number_is_never_taken_for_the_only_message(world, told):
    (message,) = await world.batch([ONE])
    await world.store(told("p1", TWO))
    await world.match()
    assert await world.why() == {"p1": ("other-number", False)}
    assert await world.states() == {message: ("unsure", None)}


@pytest.mark.parametrize("to", ["07700900123", TWO])
async def test_another_whole_number_before_the_answer_waits_for_the_provider_ids(world, told, to):
    (message,) = await world.batch(["+447700900123"], state="open")
    await world.store(told("p1", to))
    await world.match()
    assert await world.why() == {"p1": ("still-open", True)}
    await world.accept([message], ["p1"])
    await world.hurry()
    await world.match()
    assert await world.why() == {}
    assert await world.events() == [(message, "delivered", "DELIVRD")]


NO_NUMBERS = [
    *("null", "undefined", "unknown", "0", "0000000000", "-", "+86", "sip:+8613100000002"),
    *("13100000002;", "1.3100000002E10", "%252B8613100000002"),
]


@pytest.mark.parametrize("to", NO_NUMBERS)
async def test_what_is_no_number_is_as_if_it_was_left_out(world, told, to):
    (message,) = await world.batch([ONE])
    await world.store(told("p1", to))
    await world.match()
    assert await world.states() == {message: ("delivered", "p1")}


@pytest.mark.parametrize("to", [None, *NO_NUMBERS])
async def test_what_is_no_number_waits_until_one_message_is_left(world, told, to):
    first, second = await world.batch([ONE, TWO])
    await world.store(told("p1", to))
    await world.match()
    assert await world.why() == {"p1": ("no-number", True)}
    await world.store(told("p2", TWO))
    await world.match()
    await world.hurry()
    await world.match()
    assert await world.states() == {first: ("delivered", "p1"), second: ("delivered", "p2")}


@pytest.mark.parametrize("to", ["%2B8613100000002", '"+8613100000002"', "%2b86 131 0000 0002"])
async def test_a_number_that_was_encoded_or_quoted_is_read(world, told, to):
    first, second = await world.batch([ONE, TWO])
    await world.store(told("p1", to))
    await world.match()
    assert await world.states() == {first: ("unsure", None), second: ("delivered", "p1")}


async def test_another_whole_number_waits_no_longer_than_its_request_is_open(world, told):
    await world.batch([ONE], state="open")
    await world.store(told("p1", TWO))
    await world.match()
    await world.db.execute("UPDATE dispatcher.batch SET state = 'unsure', unsure_at = now()")
    await world.hurry()
    await world.match()
    assert await world.why() == {"p1": ("other-number", False)}


async def test_a_number_of_another_message_gives_way_to_the_provider_id(world, told):
    first, second = await world.batch([ONE, TWO], state="open")
    await world.accept([first, second], ["p1", "p2"])
    await world.store(told("p1", TWO))
    await world.match()
    assert await world.events() == [(first, "delivered", "DELIVRD")]


async def test_a_leading_blank_is_a_plus_abroad_and_a_blank_at_home(world, told):
    abroad, home = await world.batch(["+6591234567", "13100000001"])
    await world.store(told("p1", " 6591234567"), told("p2", " 13100000001"))
    await world.match()
    assert await world.states() == {abroad: ("delivered", "p1"), home: ("delivered", "p2")}


async def test_requests_are_read_whole_a_few_at_a_time(world, told, monkeypatch):
    monkeypatch.setattr(report_lookup, "MAX_STEP_MEMBERS", 2)
    for token in ("t1", "t2"):
        ids = await world.batch([ONE, TWO], token=token, state="open")
        await world.accept(ids, [f"{token}-1", f"{token}-2"], token=token)
    await world.store(told("t1-1", None), told("t2-2", None, token="t2"))
    await world.match()
    assert await world.why() == {"t2-2": ("not-looked-up", True)}
    await world.hurry()
    await world.match()
    assert await world.why() == {}


@pytest.mark.parametrize("made_up", ["EXPIRED", "UNKNOWN"])
@pytest.mark.parametrize("apart", [True, False])
async def test_a_carriers_final_report_wins_over_a_made_up_one(world, told, made_up, apart):
    (message,) = await world.batch([ONE], state="open")
    await world.accept([message], ["p1"])
    await world.store(told("p1", ONE, status=made_up))
    if apart:
        await world.match()
    await world.store(told("p1", ONE, status="DELIVRD"))
    await world.match()
    await world.store(told("p1", ONE, status=made_up), told("p1", ONE, status="UNDELIV"))
    await world.match()
    assert await world.states() == {message: ("delivered", "p1")}
    events = [event for _, event, _ in await world.events()]
    assert events == (["undelivered", "delivered"] if apart else ["delivered"])
    assert await world.db.fetchval("SELECT earlier ->> 'status' FROM dispatcher.report") == made_up
    counted = await world.tally()
    assert counted["default", "reported", ""] == 1


@pytest.mark.parametrize("segments", [1, 2])
async def test_a_made_up_status_in_small_letters_gives_way(world, told, segments):
    (message,) = await world.batch([ONE], state="open")
    await world.accept([message], ["p1"])
    for status in ("expired", "UNDELIV"):
        for segment in range(1, segments + 1):
            await world.store(told("p1", ONE, status=status, segment=segment, total=segments))
        await world.match()
    assert (await world.events())[-1] == (message, "undelivered", "UNDELIV")


@pytest.mark.parametrize("unknown", ["ENROUTE", "NOBODY-KNOWS", "77.1*", "MM:0001"])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("segments", [1, 2])
async def test_a_delivery_wins_over_a_status_nobody_knows(world, told, unknown, apart, segments):
    (message,) = await world.batch([ONE], state="open")
    await world.accept([message], ["p1"])
    for status in (unknown, "DELIVRD", unknown, "UNDELIV", "EXPIRED"):
        for segment in range(1, segments + 1):
            await world.store(told("p1", ONE, status=status, segment=segment, total=segments))
            if apart:
                await world.match()
    await world.match()
    assert await world.states() == {message: ("delivered", "p1")}
    events = [event for _, event, _ in await world.events()]
    assert events == (["undelivered", "delivered"] if apart else ["delivered"])
    counted = await world.tally()
    assert counted["default", "reported", ""] == 1


@pytest.mark.parametrize("first", ["UNDELIV", "undeliv", "MBBLACK", "E000629", "MK:9999"])
async def test_no_report_changes_a_published_final_status(world, told, first):
    (message,) = await world.batch([ONE], state="open")
    await world.accept([message], ["p1"])
    await world.store(told("p1", ONE, status=first), told("p1", ONE, status="DELIVRD"))
    await world.store(told("p1", ONE, status="DELIVRD"))
    await world.match()
    assert await world.states() == {message: ("undelivered", "p1")}


async def test_both_reports_of_one_commit_are_kept(world, told):
    (message,) = await world.batch([ONE], state="open")
    await world.accept([message], ["p1"])
    await world.store(
        *(told("p1", ONE, status=status) for status in ("ACCEPTD", "EXPIRED", "DELIVRD", "DELIVRD"))
    )
    await world.match()
    assert await world.events() == [(message, "delivered", "DELIVRD")]
    assert (
        await world.db.fetchval("SELECT earlier ->> 'status' FROM dispatcher.report") == "EXPIRED"
    )


async def test_a_segment_that_expired_and_arrived_makes_its_message_delivered(world, told):
    (message,) = await world.batch([ONE], state="open")
    await world.accept([message], ["p1"])
    for segment, status in ((1, "DELIVRD"), (2, "EXPIRED"), (2, "DELIVRD")):
        await world.store(told("p1", ONE, segment=segment, total=2, status=status))
        await world.match()
    assert await world.states() == {message: ("delivered", "p1")}
    assert [event for _, event, _ in await world.events()] == ["undelivered", "delivered"]


@pytest.mark.parametrize("to", [ONE, "8613100000001", None])
async def test_a_report_after_forget_stores_no_number(world, told, to):
    first, second = await world.batch([ONE, TWO], state="open")
    await world.accept([first, second], ["p1", "p2"])
    await world.db.execute("SELECT dispatcher.forget($1)", [ONE, ONE.removeprefix("+86")])
    await world.store(told("p1", to, raw='{"to":"13100000001"}'))
    await world.match()
    kept = await world.db.fetchrow("SELECT recipient, raw FROM dispatcher.report")
    assert tuple(kept) == (None, None)
    assert await world.events() == [(first, "delivered", "DELIVRD")]


# ---- refused by the platform after it was accepted


async def refused_by_report(world, told, count, *, status="E000629", token="t1"):
    from dispatcher.db.reports import register_statuses  # noqa: PLC0415

    await register_statuses(world.database)
    await world.db.execute(
        "INSERT INTO dispatcher.app (name) VALUES ('default') ON CONFLICT DO NOTHING"
    )
    numbers = [f"+86131{n:08d}" for n in range(count)]
    ids = await world.batch(numbers, state="open", token=token)
    await world.accept(ids, [f"{token}-{n}" for n in range(count)], token=token)
    await world.store(
        *(
            told(f"{token}-{n}", number, token=token, status=status)
            for n, number in enumerate(numbers)
        )
    )
    await world.match()
    return ids


async def paused(world) -> tuple[str | None, str | None]:
    return tuple(await world.db.fetchrow("SELECT paused_by, pause_code FROM dispatcher.app"))


async def test_ten_refusals_of_the_app_itself_pause_it(world, told):
    await refused_by_report(world, told, 9)
    assert await paused(world) == (None, None)
    await refused_by_report(world, told, 1, token="t2")
    assert await paused(world) == ("report", "E000629")


async def test_refusals_of_a_clock_ahead_are_not_of_the_last_minutes(world, told):
    await refused_by_report(world, told, 9)
    await world.db.execute(
        "UPDATE dispatcher.app SET report_refused_at = report_refused_at + interval '1 hour'"
    )
    await refused_by_report(world, told, 1, token="t2")
    assert await paused(world) == (None, None)


@pytest.mark.parametrize("status", [*APP_STATUSES, *PART_STATUSES])
async def test_refusals_of_all_that_is_sent_pause_the_app(world, told, status):
    await refused_by_report(world, told, 20, status=status)
    assert await paused(world) == ("report", status)


@pytest.mark.parametrize("status", PART_STATUSES)
async def test_refusals_of_a_part_leave_an_app_that_delivers(world, told, status):
    await refused_by_report(world, told, 1, status="DELIVRD", token="t0")
    await refused_by_report(world, told, 20, status=status)
    assert await paused(world) == (None, None)


async def hours_ago(world) -> None:
    """Move what was delivered so far two hours back."""
    await world.db.execute(
        "UPDATE dispatcher.event_count SET minute = minute - interval '2 hours';"
        "UPDATE dispatcher.event SET created_at = created_at - interval '2 hours'"
    )


@pytest.mark.parametrize("part", ["sender", "signature", "template_id"])
async def test_a_bad_part_at_night_pauses_no_app_of_more_parts(world, told, part):
    ids = await refused_by_report(world, told, 1, status="DELIVRD", token="t0")
    await world.db.execute(f"UPDATE dispatcher.message SET {part} = 'x' WHERE id = $1", ids[0])
    await hours_ago(world)
    await refused_by_report(world, told, 20, status="SC:0017")
    assert await paused(world) == (None, None)
    if part == "template_id":  # a signature is of all its templates
        await refused_by_report(world, told, 20, status="SC:0018", token="t2")
        assert await paused(world) == ("report", "SC:0018")


@pytest.mark.parametrize("status", PART_STATUSES)
async def test_the_only_part_of_an_app_pauses_it(world, told, status):
    await refused_by_report(world, told, 1, status="DELIVRD", token="t0")
    await hours_ago(world)
    await refused_by_report(world, told, 20, status=status)
    assert await paused(world) == ("report", status)


async def test_a_delivery_that_no_event_names_pauses_nothing(world, told):
    await refused_by_report(world, told, 1, status="DELIVRD", token="t0")
    await hours_ago(world)
    await world.db.execute("DELETE FROM dispatcher.event")
    await refused_by_report(world, told, 20, status="SC:0018")
    assert await paused(world) == (None, None)


async def test_reports_of_before_the_resume_pause_nothing(world, told):
    ids = await refused_by_report(world, told, 9)
    await world.db.execute("SELECT dispatcher.resume('default')")
    await world.db.execute("DELETE FROM dispatcher.report")
    await world.store(
        *(told(f"t1-{n}", f"+86131{n:08d}", status="E000629", segment=2, total=2) for n in range(9))
    )
    await world.match()
    assert await paused(world) == (None, None)
    assert len(ids) == 9


async def test_a_resume_that_lies_ahead_counts_for_nothing(world, told):
    """It was written by a server whose clock was ahead, before a fail-over."""
    await refused_by_report(world, told, 0)
    await world.db.execute("UPDATE dispatcher.app SET resumed_at = now() + interval '1 hour'")
    await refused_by_report(world, told, 10, token="t2")
    assert await paused(world) == ("report", "E000629")


async def test_refusals_of_one_number_each_pause_nothing(world, told):
    await refused_by_report(world, told, 30, status="SC:0016")
    assert await paused(world) == (None, None)


async def test_requeue_takes_back_exactly_what_was_never_sent(world, told):
    ids = await refused_by_report(world, told, 3)
    (other,) = await refused_by_report(world, told, 1, status="SC:0016", token="t2")
    (half,) = await world.batch([THREE], state="open", token="t3")
    await world.accept([half], ["t3-0"], token="t3")
    for segment, status in ((1, "E000629"), (2, "DELIVRD")):
        await world.store(told("t3-0", THREE, token="t3", segment=segment, total=2, status=status))
    await world.match()
    everything = [*ids, other, half]
    assert await world.db.fetchval("SELECT dispatcher.requeue($1)", everything) == 3
    assert await world.db.fetchval("SELECT dispatcher.requeue($1)", everything) == 0
    waiting = await world.db.fetch("SELECT id FROM dispatcher.queue ORDER BY id")
    assert [row["id"] for row in waiting] == ids


@pytest.mark.parametrize("how", ["sent", "resend"])
async def test_what_is_requeued_is_no_part_of_an_unsure_request(world, told, how):
    """Else it would be sent by its new request, and once more when the old one is settled."""
    from dispatcher.db.reports import register_statuses  # noqa: PLC0415

    await register_statuses(world.database)
    first, second = await world.batch([ONE, TWO])
    await world.store(told("p1", ONE, status="E000629"))
    await world.match()
    assert await world.batch_state() == ("unsure", None)
    assert await world.db.fetchval("SELECT dispatcher.requeue($1)", [first]) == 1
    await take_out(world.db, [first])
    await world.db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " VALUES ('second', 'default', 1, ARRAY[$1::bigint], '{1}', 1)",
        first,
    )
    assert await world.db.fetchval("SELECT dispatcher.settle('t1', $1)", how) == 1
    after = {"sent": ("accepted", None), "resend": ("queued", None)}[how]
    assert await world.states() == {first: ("sending", None), second: after}


async def test_a_report_closes_a_request_of_which_one_was_requeued(world, told):
    from dispatcher.db.reports import register_statuses  # noqa: PLC0415

    await register_statuses(world.database)
    first, second = await world.batch([ONE, TWO])
    await world.store(told("p1", ONE, status="E000629"))
    await world.match()
    await world.db.execute("SELECT dispatcher.requeue($1)", [first])
    await world.store(told("p1", ONE, status="E000629", segment=2, total=2), told("p2", TWO))
    assert (await world.match()).closed == 1
    assert await world.states() == {first: ("queued", None), second: ("delivered", "p2")}


async def test_a_late_report_leaves_a_requeued_message_waiting(world, told):
    """Also after its old request was given up: that it was refused is known."""
    from dispatcher.db.reports import register_statuses  # noqa: PLC0415

    await register_statuses(world.database)
    first, second = await world.batch([ONE, TWO])
    await world.store(told("p1", ONE, status="E000629"))
    await world.match()
    await world.db.execute("SELECT dispatcher.requeue($1)", [first])
    await world.db.execute("SELECT dispatcher.settle('t1', 'resend')")
    await world.store(told("p1", ONE, status="E000629", segment=2, total=2))
    await world.match()
    assert await world.states() == {first: ("queued", None), second: ("queued", None)}


async def test_a_requeue_during_a_step_is_left_waiting(world, told, monkeypatch):
    """A late answer and the operator commit after the step has looked up its messages."""
    from dispatcher.db.reports import register_statuses  # noqa: PLC0415

    await register_statuses(world.database)
    given_up, _ = await world.batch([ONE, TWO])
    await world.db.execute("SELECT dispatcher.settle('t1', 'resend')")
    partly, unsure = await world.batch([ONE, TWO], token="t2")
    await world.store(
        told("p1", ONE, status="E000629"), told("p2", ONE, status="E000629", token="t2")
    )
    look_up = report_matching.find_places

    async def look_up_too_early(*arguments):
        places = await look_up(*arguments)
        await take_out(world.db, [given_up])  # as the late answer of t1 does
        await world.db.execute(
            "INSERT INTO dispatcher.outcome (message_id, batch_id, state, attempts, provider_id)"
            " SELECT u.id, b.id, 'accepted', 1, u.provider_id"
            " FROM unnest($1::bigint[], '{t1,t2}'::text[], '{p1,p2}'::text[])"
            " AS u (id, token, provider_id) JOIN dispatcher.batch b USING (token)",
            [given_up, partly],
        )
        await world.db.execute(  # the answer of t2 lacks a number
            "UPDATE dispatcher.batch SET unsure_ids = ARRAY[$1::bigint] WHERE token = 't2'", unsure
        )
        assert await world.db.fetchval("SELECT dispatcher.requeue($1)", [given_up, partly]) == 2
        return places

    monkeypatch.setattr(report_matching, "find_places", look_up_too_early)
    assert (await world.match()).settled == 0
    monkeypatch.undo()
    await world.hurry()
    assert (await world.match()).settled == 0
    states = await world.states()
    assert {states[given_up][0], states[partly][0]} == {"queued"}
    assert states[unsure][0] == "unsure"


async def test_what_was_taken_back_is_in_no_question_after_a_requeue(world, told):
    """It was unsure in its second request when the first proved to have been refused unsent."""
    from dispatcher.db.reports import register_statuses  # noqa: PLC0415

    await register_statuses(world.database)
    (first,) = await world.batch([ONE])
    await world.db.execute("SELECT dispatcher.settle('t1', 'resend')")
    (other,) = await world.batch([TWO], token="second")
    await take_out(world.db, [first])
    await world.db.execute(
        "UPDATE dispatcher.batch SET message_ids = $1, attempts = '{2,1}' WHERE token = 'second'",
        [first, other],
    )
    await world.store(told("p1", ONE, status="E000629"))
    await world.match()
    assert (await world.states())[first] == ("undelivered", "p1")
    assert await world.db.fetchval("SELECT dispatcher.requeue($1)", [first]) == 1
    assert await world.db.fetchval("SELECT dispatcher.settle('second', 'resend')") == 1
    assert await world.states() == {first: ("queued", None), other: ("queued", None)}


async def test_what_is_requeued_cannot_be_taken_back(world, told):
    """Also by a matching step, or a late answer, that looked at it before."""
    from dispatcher.db.reports import register_statuses  # noqa: PLC0415

    await register_statuses(world.database)
    ids = await world.batch([ONE, TWO])
    await world.store(told("p1", ONE, status="E000629"))
    await world.match()
    await world.db.execute("SELECT dispatcher.requeue($1)", ids[:1])
    await world.db.execute("SELECT dispatcher.settle('t1', 'resend')")
    batch = await world.db.fetchval("SELECT id FROM dispatcher.batch")
    rows = await world.db.fetch(sql("recall"), ids, [batch] * 2, ["t1"] * 2)
    assert [row["id"] for row in rows] == ids[1:]
    assert await world.db.fetchval("SELECT array_agg(id) FROM dispatcher.queue") == ids[:1]


async def test_reports_of_what_is_requeued_leave_with_retention(world, told):
    """No outcome names them any more, so no partition takes them along."""
    from dispatcher.db.reports import unmatched  # noqa: PLC0415

    ids = await refused_by_report(world, told, 2)
    assert await world.db.fetchval("SELECT dispatcher.requeue($1)", ids) == 2
    assert set((await world.why()).values()) == {("requeued", False)}
    assert await unmatched(world.db) == []  # an operator has nothing to do
    await world.db.execute(
        "UPDATE dispatcher.unmatched_report SET first_seen_at = now() - interval '2 days'"
    )
    assert await world.db.fetchval("SELECT count(*) FROM dispatcher.report") == 2
    await world.db.execute("SELECT dispatcher.prune('1 day')")
    assert await world.db.fetchval("SELECT count(*) FROM dispatcher.report") == 0


async def test_of_two_ids_for_a_message_without_one_is_taken(world, told):
    (message,) = await world.batch([ONE])
    await world.db.execute("SELECT dispatcher.settle('t1', 'sent')")
    await world.store(told("p1", ONE), told("p2", ONE))
    await world.match()
    state, named = (await world.states())[message]
    (other,) = {"p1", "p2"} - {named}
    assert state == "delivered"
    assert await world.why() == {other: ("still-open", True)}
    assert [event for _, event, _ in await world.events()] == ["accepted", "delivered"]
    await world.hurry()
    await world.match()
    assert await world.why() == {other: ("other-id", False)}


@pytest.mark.parametrize("to", [None, "+8613100000***"])
async def test_a_late_report_without_a_number_may_be_of_what_was_sent_again(world, told, to):
    """One of the two messages was sent again since, and accepted: the report may be of it."""
    ids = await world.batch([ONE, TWO])
    await world.db.execute("SELECT dispatcher.settle('t1', 'resend')")
    await take_out(world.db, ids[:1])
    await world.db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " VALUES ('second', 'default', 1, ARRAY[$1::bigint], '{2}', 1)",
        ids[0],
    )
    await world.accept(ids[:1], ["p2"], token="second")
    await world.store(told("p1", to))
    await world.match()
    assert await world.states() == {ids[0]: ("accepted", "p2"), ids[1]: ("queued", None)}
    assert await world.why() == {"p1": ("no-number", True)}


async def test_a_report_of_the_first_request_names_not_the_second(world, told):
    """The second was settled as sent, so its outcome has no provider id yet."""
    (message,) = await world.batch([ONE])
    await world.db.execute("SELECT dispatcher.settle('t1', 'resend')")
    await world.db.execute("DELETE FROM dispatcher.queue")
    await world.db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " VALUES ('second', 'default', 1, ARRAY[$1::bigint], '{2}', 1)",
        message,
    )
    await world.accept([message], [None], token="second")
    await world.store(told("p1", ONE))
    await world.match()
    assert await world.why() == {"p1": ("sent-twice", False)}
    await world.store(told("p2", ONE, token="second"))
    await world.match()
    assert await world.states() == {message: ("delivered", "p2")}


async def test_a_report_that_was_matched_32767_times_waits_on(world, told):
    await world.batch([ONE], state="open")
    await world.store(told("p1", ONE))
    await world.match()
    await world.db.execute("UPDATE dispatcher.unmatched_report SET attempts = 32767")
    await world.hurry()
    await world.match()
    assert await world.why() == {"p1": ("still-open", True)}


async def test_requeued_messages_are_found_by_their_code(world, told):
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    from dispatcher.db.operator import find_by_code  # noqa: PLC0415

    ids = await refused_by_report(world, told, 3)
    await refused_by_report(world, told, 2, status="SC:0016", token="t2")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert await find_by_code(world.db, "e000629", hour_ago) == ids
    assert await find_by_code(world.db, "SC:0016", hour_ago) == []
    assert await find_by_code(world.db, "E000629", datetime.now(UTC) + timedelta(hours=1)) == []


async def test_a_late_report_of_the_first_request_leaves_the_second_alone(world, told):
    (message,) = await refused_by_report(world, told, 1)
    await world.db.execute("SELECT dispatcher.requeue($1)", [message])
    await world.db.execute("DELETE FROM dispatcher.queue")
    await world.db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " VALUES ('second', 'default', 1, ARRAY[$1::bigint], '{1}', 1)",
        message,
    )
    await world.accept([message], ["p2"], token="second")
    await world.store(told("t1-0", "+8613100000000", status="E000629", segment=2, total=2))
    await world.store(told("p2", "+8613100000000", token="second"))
    await world.match()
    assert await world.states() == {message: ("delivered", "p2")}
