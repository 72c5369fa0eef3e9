"""Packing keeps the provider's limits, loses nothing, and wastes little."""

import json
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.core.message import Message, RequestDraft, to_e164
from dispatcher.core.packing import halve, pack, split_by
from dispatcher.core.wire import MAX_BODY_BYTES, MAX_NUMBERS, encode

TOKEN = "01J0000000000000000000000Z"
CALLBACK = "https://sms.example.com/reports/s3cret"

numbers = st.integers(0, 30).map(lambda n: f"1311234{n:04d}")
recipients = st.one_of(numbers, numbers.map("+86{}".format), numbers.map("+24{}".format))
texts = st.text(max_size=25)


@st.composite
def messages(draw, recipients=recipients):
    """Messages that often share a number, a text, or a sender."""
    contents = draw(
        st.lists(
            st.tuples(
                texts, st.lists(texts, max_size=4), st.sampled_from([None, "a", "华为"]), texts
            ),
            min_size=1,
            max_size=5,
        )
    )
    rows = draw(st.lists(st.tuples(recipients, st.sampled_from(contents)), max_size=60))
    return [
        Message(
            id=i,
            recipient=recipient,
            template_id=template,
            params=params,
            sender=sender,
            signature=signature or None,
        )
        for i, (recipient, (template, params, sender, signature)) in enumerate(rows)
    ]


def message(i: int, *, params: list[str] | None = None, recipient: str | None = None) -> Message:
    return Message(
        id=i,
        recipient=recipient or f"+86131{i:08d}",
        template_id="8ff55eac1d0b478ab3c06c3c6a492300",
        params=[f"{i:06d}"] if params is None else params,
        sender="csms100000001",
    )


def packed(rows, **limits) -> tuple[list[RequestDraft], list[Message]]:
    return pack(rows, callback=CALLBACK, token_length=len(TOKEN), **limits)


def body(request: RequestDraft) -> bytes:
    return encode(request, token=TOKEN, callback=CALLBACK)


@given(rows=messages(), max_numbers=st.integers(1, 12), max_bytes=st.integers(150, 3000))
def test_every_message_is_packed_once_within_the_limits(rows, max_numbers, max_bytes):
    requests, too_long = packed(rows, max_numbers=max_numbers, max_bytes=max_bytes)
    sent = [m for request in requests for m in request.messages]
    assert sorted(m.id for m in sent + too_long) == [m.id for m in rows]
    for request in requests:
        assert 1 <= len(request.messages) <= max_numbers
        assert len(body(request)) == request.size <= max_bytes
        assert {m.sender for m in request.messages} == {request.sender}
        assert max(Counter(to_e164(m.recipient) for m in request.messages).values()) == 1
        contents = [entry.content for entry in request.entries]
        assert len(set(contents)) == len(contents), "equal contents share an entry"


@given(rows=messages(), max_bytes=st.integers(150, 600))
def test_only_what_fits_into_no_request_is_left_over(rows, max_bytes):
    for left in packed(rows, max_bytes=max_bytes)[1]:
        assert len(body(packed([left])[0][0])) > max_bytes


@given(rows=messages(), max_numbers=st.integers(1, 12))
def test_order_is_kept_as_far_as_entries_are_shared(rows, max_numbers):
    requests, _ = packed(rows, max_numbers=max_numbers)
    firsts = [min(m.id for m in request.messages) for request in requests]
    assert firsts == sorted(firsts)
    for request in requests:
        entries = [[m.id for m in entry.messages] for entry in request.entries]
        assert all(ids == sorted(ids) for ids in entries)
        assert [ids[0] for ids in entries] == sorted(ids[0] for ids in entries)


@given(rows=messages())
def test_copies_of_a_number_go_out_in_the_order_they_came(rows):
    requests, _ = packed(rows, max_numbers=5)
    seen: dict[tuple[str | None, str], int] = {}
    for request in requests:
        for m in request.messages:
            key = (m.sender, to_e164(m.recipient))
            assert seen.get(key, -1) < m.id
            seen[key] = m.id


@given(rows=messages())
def test_the_body_says_exactly_what_was_asked_for(rows):
    requests, _ = packed(rows)
    said = []
    for request in requests:
        sent = json.loads(body(request))
        assert sent["extend"] == TOKEN
        assert sent["statusCallback"] == CALLBACK
        assert ("from" in sent) is (request.sender is not None)
        for entry in sent["smsContent"]:
            for to in entry["to"]:
                rest = (entry["templateId"], entry.get("templateParas", []), entry.get("signature"))
                said.append((sent.get("from"), to, *rest))
    asked = [(m.sender, m.recipient, m.template_id, m.params, m.signature) for m in rows]
    assert sorted(map(repr, said)) == sorted(map(repr, asked))


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=20),
    character=st.sampled_from(["7", "好", "😀", '"', "\n"]),
)
def test_requests_are_filled_to_nine_tenths_of_their_limit(lengths, character):
    params = [character * length for length in lengths]
    rows = [message(i, params=[f"{i:06d}", *params]) for i in range(1500)]
    requests, too_long = packed(rows)
    assert not too_long
    for request in requests[:-1]:
        assert request.size > 0.9 * MAX_BODY_BYTES or len(request.messages) > 0.9 * MAX_NUMBERS


def test_one_text_for_all_makes_one_entry_of_500_numbers():
    requests, _ = packed([message(i, params=["062569"]) for i in range(1200)])
    assert [len(request.messages) for request in requests] == [500, 500, 200]
    assert [len(request.entries) for request in requests] == [1, 1, 1]


def test_each_signature_of_one_template_has_its_entry():
    signatures = ["a", None, "b", "a"]
    rows = [replace(message(i), signature=name) for i, name in enumerate(signatures)]
    [request], _ = packed(rows)
    sent = {
        number: entry.get("signature")
        for entry in json.loads(body(request))["smsContent"]
        for number in entry["to"]
    }
    assert [sent[row.recipient] for row in rows] == signatures


def test_two_spellings_of_a_number_never_meet():
    rows = [message(1, recipient="13112345678"), message(2, recipient="+8613112345678")]
    requests, _ = packed(rows)
    assert [request.messages for request in requests] == [[rows[0]], [rows[1]]]


def test_copies_fill_the_requests_that_follow_and_share_them():
    rows = [message(i, recipient=f"+86131{i % 100:08d}") for i in range(300)]
    assert [len(request.messages) for request in packed(rows)[0]] == [100, 100, 100]


def test_a_message_too_long_for_a_request_is_left_over():
    rows = [message(1), message(2, params=["x" * MAX_BODY_BYTES]), message(3)]
    requests, too_long = packed(rows)
    assert [request.messages for request in requests] == [[rows[0], rows[2]]]
    assert too_long == [rows[1]]


def test_a_request_may_have_exactly_the_limit():
    alone = packed([message(1)])[0][0].size
    assert len(packed([message(1)], max_bytes=alone)[0]) == 1
    assert packed([message(1)], max_bytes=alone - 1) == ([], [message(1)])


def hard(count: int) -> list[Message]:
    """Messages of the kind that makes packing look at most requests: copies, large and small."""
    return [
        message(i, recipient=f"+86131{i % 700:08d}", params=["x" * (3000 if i % 7 == 0 else 5)])
        for i in range(count)
    ]


@pytest.mark.parametrize("max_numbers", [MAX_NUMBERS, 5])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([message(i) for i in range(10_000)], id="distinct"),
        pytest.param([message(i, recipient="+861311") for i in range(10_000)], id="one number"),
        pytest.param(hard(10_000), id="copies of two sizes"),
    ],
)
def test_ten_times_the_messages_take_ten_times_the_work(rows, max_numbers):
    def steps(count: int) -> int:
        """Lines of Python that run: unlike the time, the same on every machine."""
        made = 0

        def trace(*_):
            nonlocal made
            made += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            packed(rows[:count], max_numbers=max_numbers)
        finally:
            sys.settrace(before)
        return made

    assert steps(10_000) < 11 * steps(1_000)


@given(rows=messages(), max_numbers=st.integers(1, 30))
def test_halves_hold_the_whole_and_have_their_exact_sizes(rows, max_numbers):
    for request in packed(rows, max_numbers=max_numbers)[0]:
        halves = halve(request)
        if len(request.messages) == 1:
            assert halves is None
            continue
        assert halves is not None
        both = halves[0].messages + halves[1].messages
        assert sorted(both, key=lambda m: m.id) == sorted(request.messages, key=lambda m: m.id)
        for half in halves:
            assert half.messages
            assert len(body(half)) == half.size
        if len(request.entries) > 1:
            assert abs(len(halves[0].entries) - len(halves[1].entries)) <= 1
        else:
            assert abs(len(halves[0].messages) - len(halves[1].messages)) <= 1


@given(rows=messages())
def test_a_split_by_country_holds_the_whole_and_has_exact_sizes(rows):
    for request in packed(rows)[0]:
        parts = split_by(request, lambda m: to_e164(m.recipient)[:3])
        assert sorted(m.id for part in parts.values() for m in part.messages) == sorted(
            m.id for m in request.messages
        )
        for country, part in parts.items():
            assert {to_e164(m.recipient)[:3] for m in part.messages} == {country}
            assert len(body(part)) == part.size
