"""Which requests of a claim are sent, when the others are due, and how many grants it may take."""

import pytest

from dispatcher.core import rate_limit
from dispatcher.core.message import Entry, Message, RequestDraft
from dispatcher.core.prepare import SlotShare, postpone, share_slots


def singles(count: int, *, first: int = 0, size: int = 200) -> list[RequestDraft]:
    """Return requests that carry one message each."""
    return [
        RequestDraft(None, [Entry(b"", [Message(first + n, "131", "t", [])])], size)
        for n in range(count)
    ]


def full_request(first: int, numbers: int = 12) -> RequestDraft:
    messages = [Message(first + n, f"{13100000000 + n}", "t", []) for n in range(numbers)]
    return RequestDraft(None, [Entry(b"", messages)], 2000)


def test_one_slot_is_for_messages_that_take_a_request_each():
    narrow, wide = singles(30), [full_request(100), full_request(200), full_request(300)]
    share = share_slots([*narrow, *wide], 3, numbers=12, full=True)
    assert share.now == [narrow[0], wide[0], wide[1]]
    assert (share.returned, share.postponed) == ([wide[2]], narrow[1:])


def test_where_nothing_else_is_seen_all_slots_are_used():
    narrow = singles(30)
    share = share_slots(narrow, 4, numbers=12, full=True)
    assert (share.now, share.returned, share.postponed) == (narrow[:4], [], narrow[4:])


def test_a_few_of_them_keep_their_place_and_one_slot():
    narrow, wide = singles(3), [full_request(100 * n) for n in range(1, 5)]
    share = share_slots([*narrow, *wide], 4, numbers=12, full=True)
    assert share.now == [narrow[0], *wide[:3]]
    assert (share.returned, share.postponed) == ([*narrow[1:], wide[3]], [])


@pytest.mark.parametrize("full", [True, False])
def test_what_packing_left_has_no_slot_before_full_requests(full):
    packed = [*(full_request(100 * n) for n in range(1, 5)), *singles(1, first=900)]
    share = share_slots(packed, 3, numbers=12, full=full)
    assert (share.now, share.returned, share.postponed) == (packed[:3], packed[3:], [])


def test_slots_that_no_full_request_needs_are_for_the_others():
    narrow, wide = singles(9), full_request(100)
    share = share_slots([*narrow, wide], 4, numbers=12, full=True)
    assert (share.now, share.postponed) == ([*narrow[:3], wide], narrow[3:])


@pytest.mark.parametrize(
    ("packed", "full"),
    [
        (singles(30), False),  # the claim saw all that is due: nobody waits behind
        ([full_request(0), *singles(1, first=100)], True),  # the last request of a sender
        (singles(30, size=60_000), True),  # long texts
    ],
)
def test_nothing_is_postponed_where_no_other_message_waits_for_it(packed, full):
    share = share_slots(packed, 2, numbers=12, full=full)
    assert (share.now, share.returned, share.postponed) == (packed[:2], packed[2:], [])


def test_a_single_slot_goes_to_what_comes_first():
    narrow, wide = singles(9), full_request(100)
    assert share_slots([*narrow, wide], 1, numbers=12, full=True).now == [narrow[0]]
    assert share_slots([wide, *narrow], 1, numbers=12, full=True).now == [wide]


@pytest.mark.parametrize(
    ("rate", "numbers", "slots"),
    [(0.2, 1, 1), (1.0, 1, 1), (3.0, 1, 2), (4.9, 1, 4), (500.0, 10, 4), (500.0, 500, 1)],
)
def test_a_slow_app_is_not_claimed_far_ahead(rate, numbers, slots):
    assert rate_limit.slots_ahead(rate, numbers, 4) == slots


def test_postponed_messages_of_one_request_share_a_due_time():
    pair = full_request(100, numbers=2)
    share = SlotShare([], [], [*singles(1), pair, *singles(1, first=200)])
    later = postpone(share, slot_seconds=0.8, all_slots=8)
    assert [(each.message.id, each.wait) for each in later] == [
        (0, 0.1), (100, 0.2), (101, 0.2), (200, pytest.approx(0.3)),
    ]  # fmt: skip
    assert not any(each.counted for each in later)


def test_beside_requests_of_many_they_are_ten_times_as_far_apart():
    share = SlotShare([full_request(0)], [], singles(2, first=100))
    later = postpone(share, slot_seconds=0.8, all_slots=8)
    assert [each.wait for each in later] == [1.0, 2.0]


def test_many_of_them_are_due_within_seconds():
    share = SlotShare([full_request(0)], [], singles(1000, first=100))
    later = postpone(share, slot_seconds=10.0, all_slots=1)
    assert later[-1].wait == pytest.approx(5.0)
