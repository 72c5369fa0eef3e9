"""Every bad message of a refused request is found, whatever codes the parts bring."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.core.circuit import ENOUGH_REFUSED
from dispatcher.core.codes import OURS, REQUEST
from dispatcher.core.country import country
from dispatcher.core.message import Batch, Message, NumberResult, Reply, RequestDraft
from dispatcher.core.outcome import (
    MAX_REFUSED_TEXT_ATTEMPTS,
    TEXT_CODES,
    Accepted,
    Deferred,
    Rejected,
    Resolved,
)
from dispatcher.core.packing import pack
from dispatcher.core.result import BatchResult
from dispatcher.provider.client import RequestResult
from dispatcher.worker import sender
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.in_flight import Lease
from dispatcher.worker.sender import MAX_SPLIT_SECONDS, Sender

CONTENT = ("E000027", "E000503")


class Played:
    """Stands for provider and database: answers each body by the messages in it."""

    def __init__(self, answer, lease: Lease | None = None) -> None:
        self._answer = answer
        self._sending: dict[str, RequestDraft] = {}
        self.requests = 0
        self.results: list[BatchResult] = []
        self._sender = Sender(
            client=self,
            claimer=self,
            results=self,
            breaker=CircuitBreaker("default"),
            lease=lease or Lease(1e9, lambda: 0.0),
            stop=asyncio.Event(),
            callback=None,
            max_attempts=20,
        )

    def batch(self, packed: RequestDraft) -> Batch:
        number = len(self._sending)
        token = f"token-{number:04d}"
        self._sending[token] = packed
        return Batch(number, "default", token, packed, claimed_at=sender.monotonic())

    async def split(self, parent, parts, **__) -> list[Batch]:
        return [replace(self.batch(part), claimed_at=parent.claimed_at) for part in parts]

    async def post(self, body, *, may_try) -> RequestResult:
        assert may_try()
        self.requests += 1
        token = next(name for name in self._sending if name.encode() in body)
        return RequestResult(self._answer(self._sending[token].messages), 1, 0.0)

    def put(self, result: BatchResult) -> None:
        self.results.append(result)

    def deliver(self, packed: RequestDraft) -> dict[int, object]:
        """Send *packed*; return the outcome of each message of which there is one."""
        asyncio.run(self._sender.deliver(self.batch(packed)))
        outcomes = {}
        for result in self.results:
            for message in result.batch.messages:
                assert message.id not in outcomes
                outcomes[message.id] = result.verdict
            if isinstance(result.verdict, Resolved):
                for one in result.verdict.outcomes:
                    outcomes[one.message.id] = one
        return outcomes


def one_text(count: int, *, texts: int = 1, first: int = 0, attempt: int = 1) -> RequestDraft:
    messages = [
        Message(
            i,
            f"{('+86138', '+336')[i % 2]}{i:08d}",
            "t",
            [str(i % texts)],
            sender="s",
            attempt=attempt,
        )
        for i in range(first, first + count)
    ]
    [packed], _ = pack(messages, callback=None, token_length=10)
    return packed


def accepted(messages) -> Reply:
    results = [NumberResult(m.recipient, "000000", f"id-{m.id}") for m in messages]
    return Reply(200, "000000", "", results)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), count=st.integers(2, 500), code=st.sampled_from(CONTENT))
def test_every_bad_number_is_found_in_few_requests(data, count, code):
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=8))
    packed = one_text(count)

    def answer(messages):
        refused = any(message.id in bad for message in messages)
        return Reply(400, code, "") if refused else accepted(messages)

    played = Played(answer)
    outcomes = played.deliver(packed)
    assert {i for i, one in outcomes.items() if isinstance(one, Rejected)} == bad
    assert sum(isinstance(one, Accepted) for one in outcomes.values()) == count - len(bad)
    assert played.requests <= 2 * len(bad) * log2(count) + 2


def test_a_firewall_that_refuses_one_message_stops_no_other():
    def answer(messages):
        if any(message.id == 317 for message in messages):
            return Reply(418, "HTTP 418", "blocked")
        return accepted(messages)

    played = Played(answer)
    outcomes = played.deliver(one_text(500, texts=500))
    assert isinstance(outcomes.pop(317), Deferred)
    assert {type(one) for one in outcomes.values()} == {Accepted}
    assert played.requests <= 2 * log2(500) + 2


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    count=st.integers(1, 40),
    texts=st.integers(1, 5),
    http_status=st.sampled_from([None, 400, 403, 413, 500]),
)
def test_no_combination_of_codes_loses_a_message(data, count, texts, http_status):
    codes = st.sampled_from([*REQUEST, *OURS, "E999999", "E200015", "E200028", "E200030", ""])

    def answer(messages):
        code = data.draw(codes)
        return Reply(http_status or 400, code, "") if code else accepted(messages)

    packed = one_text(count, texts=texts)
    outcomes = Played(answer).deliver(packed)
    assert outcomes.keys() == {message.id for message in packed.messages}


def test_a_text_refused_for_all_numbers_costs_few_requests():
    """Most of its numbers wait, each time a little longer, and are rejected in the end."""
    played = Played(lambda _: Reply(400, "E000027", ""))
    outcomes = played.deliver(one_text(500))
    kinds = Counter(type(one) for one in outcomes.values())
    assert kinds.keys() == {Rejected, Deferred}
    assert ENOUGH_REFUSED <= kinds[Rejected] <= ENOUGH_REFUSED + 1  # its sibling is on its way
    assert played.requests < 100
    last = one_text(400, first=1000, attempt=MAX_REFUSED_TEXT_ATTEMPTS)
    for attempt, packed in enumerate([one_text(400, first=1000), last]):
        played.results.clear()
        before = played.requests
        outcomes = played.deliver(packed)
        assert played.requests == before + 1
        assert {type(one) for one in outcomes.values()} == {Rejected if attempt else Deferred}


def test_one_accepted_number_ends_what_is_known_of_a_text():
    played = Played(
        lambda messages: accepted(messages) if messages[0].id == 1000 else Reply(400, "E000027", "")
    )
    for packed, fewest, most in (
        (one_text(500), 40, 100),  # it is refused for all numbers
        (one_text(100, first=500), 1, 1),
        (one_text(1, first=1000), 1, 1),  # accepted
        (one_text(100, first=600), 40, 100),
    ):
        before = played.requests
        played.results.clear()
        played.deliver(packed)
        assert fewest <= played.requests - before <= most


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("sorted_list", [False, True])
def test_many_bad_numbers_among_good_ones_are_all_found(share, sorted_list):
    dice = random.Random(7)
    for count in (12, 100, 500):
        bad = set(dice.sample(range(count), int(share * count)))
        if sorted_list:
            bad = set(range(count - len(bad), count))

        def answer(messages, bad=bad):
            if any(message.id in bad for message in messages):
                return Reply(400, "E000503", "")
            return accepted(messages)

        outcomes = Played(answer).deliver(one_text(count))
        assert {i for i, one in outcomes.items() if isinstance(one, Rejected)} == bad
        assert sum(isinstance(one, Accepted) for one in outcomes.values()) == count - len(bad)


@pytest.mark.parametrize("code", sorted(TEXT_CODES))
def test_one_request_rejects_a_text_that_the_code_condemns(code):
    played = Played(lambda _: Reply(400, code, ""))
    outcomes = played.deliver(one_text(500))
    assert {type(one) for one in outcomes.values()} == {Rejected}
    assert played.requests == 1


def test_a_condemned_text_does_not_reject_another_one():
    def answer(messages):
        if any(message.id % 5 == 3 for message in messages):
            return Reply(400, "E200028", "")
        return accepted(messages)

    played = Played(answer)
    outcomes = played.deliver(one_text(100, texts=5))
    assert {i for i, one in outcomes.items() if isinstance(one, Rejected)} == set(range(3, 100, 5))
    assert sum(isinstance(one, Accepted) for one in outcomes.values()) == 80
    assert played.requests <= 6


def test_a_country_waits_until_midnight_of_the_database():
    """Its clock, which is not that of this host."""
    lease = Lease(1e9, lambda: 0.0)
    lease.renew(0.0, 0.0, datetime(2031, 5, 5, 15, 50, tzinfo=UTC).timestamp())
    played = Played(lambda _: Reply(403, "E000630", ""), lease)
    [waits] = {one.wait for one in played.deliver(one_text(40)).values()}
    pauses = [pause for result in played.results for pause in result.verdict.countries]
    assert (waits, {pause.until_in for pause in pauses}) == (600.0, {600.0})


def test_a_country_is_split_off_after_a_refusal_for_content():
    def answer(messages):
        if len(messages) == 40:
            return Reply(400, "E000027", "")
        return Reply(403, "E000630", "")

    outcomes = Played(answer).deliver(one_text(40))
    assert {type(one) for one in outcomes.values()} == {Deferred}
    assert country("+33600000001") == "FR"


@pytest.mark.parametrize("seconds", [1.0, 25.0, 90.0])
def test_a_long_search_ends_with_its_time_and_goes_on_with_the_next_claim(monkeypatch, seconds):
    """What is stopped meanwhile is not sent; each claim finds bad ones all the same."""
    clock = [1000.0]
    monkeypatch.setattr(sender, "monotonic", lambda: clock[0])
    bad = set(random.Random(7).sample(range(500), 100))
    sent_at = []

    def answer(messages):
        sent_at.append(clock[0])
        clock[0] += seconds
        if any(message.id in bad for message in messages):
            return Reply(400, "E000503", "")
        return accepted(messages)

    left = {message.id: message for message in one_text(500, texts=500).messages}
    found, claims = set(), 0
    while left:
        claims += 1
        assert claims <= len(bad) + 1
        sent_at.clear()
        claimed_at = clock[0]
        [packed], _ = pack(left.values(), callback=None, token_length=10)
        outcomes = Played(answer).deliver(packed)
        assert outcomes.keys() == left.keys()
        alone = {i for i, one in outcomes.items() if isinstance(one, Rejected)}
        back = [one for one in outcomes.values() if isinstance(one, Deferred)]
        assert alone <= bad
        assert alone or not back
        assert not any(one.counted for one in back)
        assert {one.code for one in back} <= {"never-sent"}  # a refusal would raise an alarm
        if len(sent_at) > 2 * log2(500) + 2:  # more than one bad number takes
            assert sent_at[-1] <= claimed_at + MAX_SPLIT_SECONDS
        found |= alone
        left = {one.message.id: one.message for one in back}
    assert found == bad
    assert claims > 1


def test_a_long_search_by_country_ends_with_its_time(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(sender, "monotonic", lambda: clock[0])

    def answer(messages):
        clock[0] += MAX_SPLIT_SECONDS + 1
        if len(messages) == 40:
            return Reply(403, "E000630", "")
        return accepted(messages)

    kinds = Counter(type(one) for one in Played(answer).deliver(one_text(40)).values())
    assert kinds == {Accepted: 20, Deferred: 20}
