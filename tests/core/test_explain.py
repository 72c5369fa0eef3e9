"""Why a message is in its state, and what an operator can do about it."""

from dispatcher.core.explain import advice, explain_state


def test_a_lost_message_says_what_happened_and_what_to_do():
    lost = {"id": 7, "state": "lost", "code": None, "reason": None, "suppressed_because": None}
    assert "A fail-over or a restore of the database has lost" in explain_state(lost)
    assert "`dispatcher settle 7 sent`" in (advice(lost) or "")
