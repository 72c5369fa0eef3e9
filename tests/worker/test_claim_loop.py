"""For how long a slot is taken decides how many numbers go out at once under a pace."""

from dispatcher.worker.claim_loop import RequestSlots


def test_one_slow_request_is_not_how_long_a_slot_is_taken():
    slots = RequestSlots(8, reserved=1)
    for _ in range(8):
        slots.record_duration(0.1)
    for seconds in [30.0] + [0.1] * 6:
        slots.record_duration(seconds)
        assert slots.median_duration == 0.1


def test_when_requests_have_become_slow_it_is_known_soon():
    slots = RequestSlots(8, reserved=1)
    for seconds in [0.1] * 100 + [3.0] * 8:
        slots.record_duration(seconds)
    assert slots.median_duration == 3.0


def test_before_the_first_request_nobody_knows():
    assert RequestSlots(8, reserved=1).median_duration == 0.0
