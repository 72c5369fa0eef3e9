"""The outcomes of operators' rules for a claim; without rules nothing is checked."""

from datetime import UTC, datetime, time

import pytest

from dispatcher.core.country import COUNTRIES, ZONES, country, quiet_for
from dispatcher.core.message import Message
from dispatcher.core.outcome import Deferred, Rejected
from dispatcher.core.rules import (
    ClaimFacts,
    Limits,
    RecipientUsage,
    Rules,
    evaluate_rules,
    text_digest,
)
from dispatcher.core.templates import Template

NIGHT = datetime(2026, 11, 1, 15, 0, tzinfo=UTC)  # 23:00 in China, 16:00 in Germany
CHINA, GERMANY = "+8613112345678", "+4915112345678"


def message(number: int, recipient: str = CHINA, *params: str, priority: int = 5) -> Message:
    return Message(number, recipient, "tpl", list(params), sender="1", priority=priority)


def decided(messages, rules=None, limits=None, facts=None, now=NIGHT):
    return evaluate_rules(
        messages,
        rules or Rules(),
        limits or Limits(),
        facts or ClaimFacts(),
        app="default",
        now=now,
        country=country,
    )


def test_without_rules_no_app_is_concerned():
    assert not Rules().concern("default")
    assert Rules(suppressing=True).concern("default")
    assert Rules(templates={"tpl": Template("tpl", [])}).concern("default")
    assert Rules(limits={"other": Limits()}).concern("other")
    assert not Rules(limits={"other": Limits()}).concern("default")


def test_a_suppressed_number_is_rejected_however_it_is_written():
    messages = [message(1), message(2, "13112345678"), message(3, GERMANY)]
    got = decided(
        messages, Rules(suppressing=True), facts=ClaimFacts(suppressed=frozenset({CHINA}))
    )
    assert {key: (type(each), each.code) for key, each in got.items()} == {
        1: (Rejected, "suppressed"),
        2: (Rejected, "suppressed"),
    }


@pytest.mark.parametrize(
    ("of_app", "of_template", "stopped"),
    [
        (False, None, False),
        (True, None, True),
        (True, False, False),  # a code of an app for promotion
        (False, True, True),
    ],
)
def test_who_unsubscribed_gets_no_promotion_and_all_else(of_app, of_template, stopped):
    rules = Rules(
        {"tpl": Template("tpl", [], of_template)},
        suppressing=True,
        promotional=frozenset({"default"} if of_app else ()),
    )
    facts = ClaimFacts(unsubscribed=frozenset({CHINA}))
    got = decided([message(1), message(2, "13112345678"), message(3, GERMANY)], rules, facts=facts)
    codes = {number: outcome.code for number, outcome in got.items()}
    assert codes == ({1: "unsubscribed", 2: "unsubscribed"} if stopped else {})


def test_variables_that_do_not_fit_are_rejected():
    rules = Rules(templates={"tpl": Template("tpl", ["NUM_6"])})
    got = decided([message(1, CHINA, "123456"), message(2, CHINA, "12345x")], rules)
    assert [*got] == [2]
    assert got[2].code == "template-mismatch"
    assert "12345x" not in got[2].reason


def test_limits_count_what_was_sent_and_what_is_sent_now():
    limits = Limits(per_minute=2)
    got = decided([message(n) for n in range(4)], limits=limits)
    assert [*got] == [2, 3]
    assert got[2] == Deferred(message(2), "recipient-limit", 60.0, counted=False)
    got = decided(
        [message(n) for n in range(4)],
        limits=limits,
        facts=ClaimFacts(used={CHINA: RecipientUsage(1)}),
    )
    assert [*got] == [1, 2, 3]


def test_limits_of_one_text_let_others_pass():
    texts = [message(1, CHINA, "a"), message(2, CHINA, "a"), message(3, CHINA, "b")]
    assert [*decided(texts, limits=Limits(same_per_minute=1))] == [2]
    used = RecipientUsage(same_hour={text_digest(texts[0]): 5})
    got = decided(texts, limits=Limits(same_per_hour=5), facts=ClaimFacts(used={CHINA: used}))
    assert [*got] == [1, 2]
    assert used.same_hour == {text_digest(texts[0]): 5}  # a look changes nothing


def test_a_day_limit_waits_longer_than_a_minute_limit():
    got = decided(
        [message(1)], limits=Limits(per_day=3), facts=ClaimFacts(used={CHINA: RecipientUsage(0, 3)})
    )
    assert got[1].wait == 3600.0


def test_a_daily_limit_lets_pass_what_is_left():
    got = decided(
        [message(n) for n in range(5)], limits=Limits(daily_limit=9), facts=ClaimFacts(left=3)
    )
    assert [*got] == [3, 4]
    assert got[3] == Deferred(message(3), "daily-limit", 0.0, counted=False)


def test_quiet_hours_use_the_recipients_clock_and_skip_urgent():
    limits = Limits(quiet_from=time(21), quiet_until=time(8))
    messages = [message(1), message(2, GERMANY), message(3, priority=1), message(4, priority=2)]
    got = decided(messages, limits=limits)
    assert {key: each.wait for key, each in got.items()} == {1: 9 * 3600, 4: 9 * 3600}


# Country, hour of 2026-11-01 in UTC, and for how long it is still quiet from 21:00 to 08:00. In the
# United States summer time ends on that day at 06:00 UTC.
QUIET_HOURS = [
    ("CN", 12, 0.0),  # 20:00
    ("CN", 13, 11.0),  # 21:00
    ("CN", 23, 1.0),  # 07:00
    ("CN", 0, 0.0),  # 08:00
    ("DE", 19, 0.0),  # 20:00: summer time is over
    ("DE", 20, 11.0),  # 21:00
    ("DE", 6, 1.0),  # 07:00
    ("US", 0, 0.0),  # 20:00 in the east
    ("US", 1, 17.0),  # 21:00 in the east: until 08:00 on Hawaii
    ("US", 17, 1.0),  # 07:00 on Hawaii
    ("US", 18, 0.0),
    ("RU", 8, 0.0),  # 20:00 in Kamchatka
    ("RU", 9, 21.0),  # 21:00 in Kamchatka: until 08:00 in Kaliningrad
    ("RU", 6, 0.0),  # 08:00 in Kaliningrad
    ("AU", 9, 0.0),  # 20:00 on Lord Howe Island, which has summer time
    ("AU", 10, 14.0),  # 21:00 there: until 08:00 in Perth
    ("AU", 23, 1.0),  # 07:00 in Perth
    ("ID", 12, 13.0),  # 21:00 in Jayapura: until 08:00 in Jakarta
    ("ID", 1, 0.0),  # 08:00 in Jakarta
    ("XX", 3, 0.0),
    ("XK", 19, 0.0),  # 20:00 in Kosovo
    ("XK", 20, 11.0),  # 21:00
    ("AC", 21, 11.0),
    ("TA", 21, 11.0),
    # Numbers of shared calling codes that no numbering plan has.
    ("+44", 20, 0.0),
    ("+44", 21, 11.0),
    ("+61", 10, 15.5),  # 21:00 on Lord Howe Island: until 08:00 on the Cocos Islands
    ("+1", 0, 19.0),  # 21:30 in Newfoundland: until 08:00 on Samoa
    ("+1", 18, 1.0),  # 07:00 on Samoa
    ("+1", 19, 0.0),
    ("+1", 23, 0.0),
]


@pytest.mark.parametrize(("land", "hour", "hours"), QUIET_HOURS)
def test_it_is_quiet_while_it_is_quiet_anywhere_in_a_country(land, hour, hours):
    now = datetime(2026, 11, 1, hour, tzinfo=UTC)
    assert quiet_for(land, time(21), time(8), now=now) == hours * 3600


def test_quiet_hours_follow_summer_time():
    summer = datetime(2026, 7, 1, 19, tzinfo=UTC)
    assert quiet_for("DE", time(21), time(8), now=summer) == 11 * 3600
    assert quiet_for("DE", time(21), time(8), now=summer.replace(month=12)) == 0.0


def test_china_has_one_time():
    assert ZONES["CN"] == ("Asia/Shanghai",)


def test_every_country_has_clocks():
    assert [land for land in COUNTRIES if not ZONES.get(land)] == []


def test_quiet_hours_are_kept_for_numbers_that_no_plan_has():
    limits = Limits(quiet_from=time(15), quiet_until=time(20))
    strangers = ["+447700900123", "+61999999999", "+38344123456", "+2908123"]
    got = decided([message(at, number) for at, number in enumerate(strangers)], limits=limits)
    # 02:00 in Sydney: the hours there are over for long, and in Perth it is 23:00.
    assert {strangers[at]: each.wait for at, each in got.items()} == {
        "+447700900123": 5 * 3600,
        "+38344123456": 4 * 3600,
        "+2908123": 5 * 3600,
    }


def test_a_number_of_no_country_has_its_calling_code():
    assert [country(number) for number in ("+870773110123", "+447700900123", "+6512345678")] == [
        "+870", "+44", "SG",
    ]  # fmt: skip


def test_every_country_has_some_day():
    for land in ZONES:
        hours = [
            quiet_for(land, time(21), time(8), now=datetime(2026, 11, 1, hour, tzinfo=UTC))
            for hour in range(24)
        ]
        assert 0.0 in hours, land
        assert max(hours) > 0, land
