"""An app that may send to some numbers sends to no other."""

import random

import pytest

from dispatcher.core.allowed import AllowedNumbers
from dispatcher.core.country import country
from dispatcher.core.message import Message
from dispatcher.core.outcome import Rejected
from dispatcher.core.prepare import prepare
from dispatcher.settings import AppSettings
from dispatcher.worker.worker import allowed_numbers

KEYS = {"endpoint": "https://sms.example.com", "app_key": "k", "app_secret": "s"}


def refused(allowed: AllowedNumbers, *numbers: str) -> dict[str, str]:
    messages = [Message(at, number, "t", [], sender="csms1") for at, number in enumerate(numbers)]
    done = prepare(
        messages, callback=None, token_length=8, paused_countries=(), country=country,
        allowed=allowed,
    )  # fmt: skip
    assert all(isinstance(one, Rejected) for one in done.outcomes)
    packed = {message.recipient for draft in done.packed for message in draft.messages}
    told = {one.message.recipient: one.code for one in done.outcomes}
    assert packed | told.keys() == set(numbers)
    return told


def test_nothing_but_the_named_numbers_is_packed():
    allowed = allowed_numbers(AppSettings(**KEYS, only_to="+8613100000001, +852*\n"))
    others = ["+8613100000002", "+86131000000010", "13100000003", "+15005550001", "+85"]
    mine = ["+8613100000001", "13100000001", "+85291234567"]
    assert refused(allowed, *others, *mine) == dict.fromkeys(others, "only-to")


@pytest.mark.parametrize(
    "value",
    [
        "13100000001",
        "+86-131-0000-0001",
        "+86 131 0000 0001",
        "0086 13100000001",
        "131\xa00000\xa00001",
        "+6591234567\uff0c13100000001",
        "+6591234567 +8613100000001",
        "+86 131 0000 0001;+65 9123 4567\n",
    ],
)
def test_an_allowed_number_may_be_written_in_any_spelling(value):
    allowed = allowed_numbers(AppSettings(**KEYS, only_to=value))
    assert refused(allowed, "+8613100000001", "+8613100000002") == {"+8613100000002": "only-to"}
    assert allowed.numbers <= {"+8613100000001", "+6591234567"}


def test_random_numbers_reach_no_one_else():
    chance = random.Random(14)
    allowed = allowed_numbers(AppSettings(**KEYS, only_to="+8613100000001"))
    numbers = {f"+{chance.randrange(10**7, 10**13)}" for _ in range(5_000)} - {"+8613100000001"}
    assert refused(allowed, *numbers).keys() == numbers


def test_only_named_countries_are_sent_to():
    allowed = allowed_numbers(AppSettings(**KEYS, countries="cn,sg"))
    told = refused(allowed, "13100000001", "+6591234567", "+85291234567", "+12125550100")
    assert told == {"+85291234567": "country-not-allowed", "+12125550100": "country-not-allowed"}


def test_a_calling_code_is_the_country_that_has_it():
    settings = AppSettings(**KEYS, countries="+86, +65;+852")
    assert settings.countries == {"CN", "SG", "HK"}
    numbers = ["+8613100000001", "13100000001", "+6591234567", "+85291234567"]
    told = refused(allowed_numbers(settings), *numbers, "+447400123456")
    assert told == {"+447400123456": "country-not-allowed"}


def test_a_shared_calling_code_is_all_of_its_numbers():
    allowed = allowed_numbers(AppSettings(**KEYS, countries="+44,+870"))
    british = ["+447400123456", "+441481960000", "+447700900123", "+870773110123"]
    assert refused(allowed, *british, "+12125550100") == {"+12125550100": "country-not-allowed"}
    alone = allowed_numbers(AppSettings(**KEYS, countries="GB"))
    assert refused(alone, *british).keys() == {*british[1:]}


def test_without_a_setting_all_are_allowed():
    assert allowed_numbers(AppSettings(**KEYS)).all


@pytest.mark.parametrize(
    "value",
    ["1310000001", "6591234567", "+86131", "+8613100000001,x", "*", "+*", " , ", "all", "+0*"],
)
def test_a_doubtful_setting_is_refused(value):
    with pytest.raises(ValueError, match="must be numbers"):
        AppSettings(**KEYS, only_to=value)


@pytest.mark.parametrize("value", ["China", "C", ",", "+999", "+0", "+", "+8613", "86", "CN,+9999"])
def test_a_doubtful_country_is_refused(value):
    with pytest.raises(ValueError, match="must be countries"):
        AppSettings(**KEYS, countries=value)
