"""Every bad message of a refused request is found, whatever codes the parts bring."""

import asyncio
from math import log2

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.codes import OURS, REQUEST
from dispatcher.core.country import country
from dispatcher.core.message import Batch, Message, NumberResult, Reply, RequestDraft
from dispatcher.core.outcome import Accepted, Deferred, Rejected, Resolved
from dispatcher.core.packing import pack
from dispatcher.core.result import BatchResult
from dispatcher.provider.client import RequestResult
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.in_flight import Lease
from dispatcher.worker.sender import Sender

CONTENT = ("E000027", "E000503")


class Played:
    """Stands for provider and database: answers each body by the messages in it."""

    def __init__(self, answer) -> None:
        self._answer = answer
        self._sending: dict[str, RequestDraft] = {}
        self.requests = 0
        self.results: list[BatchResult] = []

    def batch(self, packed: RequestDraft) -> Batch:
        number = len(self._sending)
        token = f"token-{number:04d}"
        self._sending[token] = packed
        return Batch(number, "default", token, packed, claimed_at=0.0)

    async def split(self, _, parts, **__) -> list[Batch]:
        return [self.batch(part) for part in parts]

    async def post(self, body, *, may_try) -> RequestResult:
        assert may_try()
        self.requests += 1
        token = next(name for name in self._sending if name.encode() in body)
        return RequestResult(self._answer(self._sending[token].messages), 1, 0.0)

    def put(self, result: BatchResult) -> None:
        self.results.append(result)

    def deliver(self, packed: RequestDraft) -> dict[int, object]:
        """Send *packed*; return the outcome of each message of which there is one."""
        sender = Sender(
            client=self,
            claimer=self,
            results=self,
            breaker=CircuitBreaker("default"),
            lease=Lease(1e9, lambda: 0.0),
            stop=asyncio.Event(),
            callback=None,
            max_attempts=20,
        )
        asyncio.run(sender.deliver(self.batch(packed)))
        outcomes = {}
        for result in self.results:
            for message in result.batch.messages:
                assert message.id not in outcomes
                outcomes[message.id] = result.verdict
            if isinstance(result.verdict, Resolved):
                for one in result.verdict.outcomes:
                    outcomes[one.message.id] = one
        return outcomes


def one_text(count: int, *, texts: int = 1) -> RequestDraft:
    messages = [
        Message(i, f"{('+86138', '+336')[i % 2]}{i:08d}", "t", [str(i % texts)], sender="s")
        for i in range(count)
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


def test_a_country_is_split_off_after_a_refusal_for_content():
    def answer(messages):
        if len(messages) == 40:
            return Reply(400, "E000027", "")
        return Reply(403, "E000630", "")

    outcomes = Played(answer).deliver(one_text(40))
    assert {type(one) for one in outcomes.values()} == {Deferred}
    assert country("+33600000001") == "FR"
