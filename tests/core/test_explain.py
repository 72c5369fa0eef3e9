"""Why a message is in its state, and what an operator can do about it."""

from dispatcher.core.explain import advice, explain_state


def test_a_lost_message_says_what_happened_and_what_to_do():
    lost = {"id": 7, "state": "lost", "code": None, "reason": None, "suppressed_because": None}
    assert "A fail-over or a restore of the database has lost" in explain_state(lost)
    assert "`dispatcher settle 7 sent`" in (advice(lost) or "")


def test_advice_names_the_settings_of_the_messages_app():
    rejected = {"id": 7, "state": "rejected", "app": "shop", "code": "no-sender"}
    assert "DISPATCHER_APPS__SHOP__SENDER," in (advice(rejected) or "")
    paused = {
        "id": 7,
        "state": "queued",
        "app": "shop",
        "app_paused": "The signature is wrong.",
        "app_paused_by": "worker",
        "app_pause_code": "E000101",
    }
    assert "DISPATCHER_APPS__SHOP__APP_KEY," in (advice(paused) or "")
