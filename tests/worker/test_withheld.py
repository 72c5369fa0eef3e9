"""The last moment before a request leaves: what may not be sent any more is not written."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic

import pytest
from support.messages import SENDER, TEMPLATE
from support.provider import KEY, SECRET, provider

from dispatcher.core.codes import NEVER_SENT
from dispatcher.core.message import Batch, Message, NoReply, Reply
from dispatcher.core.outcome import Deferred, Resolved
from dispatcher.core.packing import pack
from dispatcher.core.result import BatchResult
from dispatcher.core.signing import AppKey
from dispatcher.core.wire import EMPTY_REQUEST
from dispatcher.provider.client import Account, Client
from dispatcher.simulator.faults import Reset
from dispatcher.worker.in_flight import Lease
from dispatcher.worker.result_queue import ResultQueue
from dispatcher.worker.sender import Sender

MESSAGES = [Message(n, f"+86138{n:08d}", TEMPLATE, ["1"], SENDER) for n in range(3)]
TOKEN = "t" * 32


@pytest.fixture
async def sim():
    async with provider() as running:
        yield running


@pytest.fixture
async def client(sim):
    account = Account(sim.url, AppKey(KEY, SECRET))
    async with Client(account, clock=lambda: datetime.now(UTC), nonce=lambda: "n") as sending:
        yield sending


async def sent(client: Client, answers: Iterator[bool]) -> list[BatchResult]:
    """Deliver one batch that may be sent as long as *answers* say so; return its results."""
    [packed], _ = pack(MESSAGES, callback=None, token_length=len(TOKEN))

    class AnsweringSender(Sender):
        def may_send(self, _: Batch) -> bool:
            return next(answers)

    results = ResultQueue()
    sender = AnsweringSender(
        client=client,
        claimer=None,
        results=results,
        breaker=None,
        lease=Lease(60.0, monotonic),
        stop=None,
        callback=None,
        max_attempts=5,
    )
    await sender.deliver(Batch(1, "default", TOKEN, packed, 1e12))
    return results.drain()


async def test_a_batch_lost_while_connecting_is_never_written(sim, client):
    [result] = await sent(client, iter([True, *[False] * 9]))
    assert isinstance(await client.probe(), Reply)
    assert len(sim.journal) == 1  # the probe alone
    assert result.code == NEVER_SENT
    assert result.verdict == Resolved(
        [Deferred(m, NEVER_SENT, 0.0, counted=False) for m in MESSAGES]
    )


async def test_a_batch_still_ours_is_sent_over_a_new_connection(sim, client):
    await sent(client, iter([True, *[False] * 9]))
    [result] = await sent(client, iter([True] * 9))
    assert result.code == "000000"
    assert sim.ledger.numbers == len(MESSAGES)


async def test_the_client_says_that_nothing_was_sent(sim, client):
    refused = await client.post(b"{}", may_try=lambda: False)
    assert refused.answer == NoReply("it might not leave any more", sent=False, code=NEVER_SENT)
    assert isinstance(await client.probe(), Reply)
    assert len(sim.journal) == 1


@pytest.fixture
async def transports(monkeypatch) -> list[asyncio.Transport]:
    """Every connection that is made, in order."""
    made = []
    loop = asyncio.get_running_loop()
    create_connection = loop.create_connection

    async def remember(*args: object, **more: object) -> tuple:
        transport, protocol = await create_connection(*args, **more)
        made.append(transport)
        return transport, protocol

    monkeypatch.setattr(loop, "create_connection", remember)
    return made


async def test_a_connection_that_broke_while_it_was_idle_took_nothing(sim, transports, client):
    assert isinstance(await client.probe(), Reply)

    def break_the_idle_one() -> bool:
        transports[0].abort()
        return True

    again = await client.post(EMPTY_REQUEST, may_try=break_the_idle_one)
    assert isinstance(again.answer, Reply)  # sent again, over a new one
    assert again.tries == 2
    assert len(transports) == 2
    assert len(sim.journal) == 2


async def test_a_body_written_before_the_break_may_have_been_sent(sim, transports, client):
    await sim.faults.arm([Reset()])
    broken = await client.post(EMPTY_REQUEST, may_try=lambda: True)
    assert isinstance(broken.answer, NoReply)
    assert (broken.answer.sent, broken.answer.code, broken.tries) == (True, "no-answer", 1)
    assert len(sim.journal) == len(transports) == 1
