"""Sends each batch in one request, and in parts if it is refused as a whole."""

import asyncio
import random
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from msgspec import Struct

from dispatcher.core import rate_limit
from dispatcher.core.codes import NEVER_SENT
from dispatcher.core.country import country
from dispatcher.core.message import Answer, Batch, Reply
from dispatcher.core.outcome import (
    Deferred,
    EvaluationContext,
    Expired,
    Outcome,
    Resolved,
    ReturnAll,
    Split,
    UnknownResult,
    evaluate,
)
from dispatcher.core.result import BatchResult
from dispatcher.core.wire import encode
from dispatcher.provider.client import Client, RequestResult
from dispatcher.telemetry.traces import Trace
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.in_flight import Lease
from dispatcher.worker.recorder import ResultQueue

MAX_RESCHEDULES: Final = 3  # a machine so slow that each time is missed must send all the same


class RefusedRequest(Struct, frozen=True):
    """A request that was refused as a whole, and may be accepted in parts."""

    batch: Batch
    split: Split
    sent: RequestResult


class Sender:
    """Sends the batches of one app, and submits their results."""

    def __init__(
        self,
        *,
        client: Client,
        claimer: Claimer,
        results: ResultQueue,
        breaker: CircuitBreaker,
        lease: Lease,
        stop: asyncio.Event,
        callback: str | None,
        max_attempts: int,
        trace: Trace | None = None,
    ) -> None:
        """Set what one app needs: *callback* gets status reports, *trace* each result."""
        self._client = client
        self._claimer = claimer
        self._results = results
        self._breaker = breaker
        self._lease = lease
        self._stop = stop
        self._callback = callback
        self._max_attempts = max_attempts
        self._trace = trace

    def may_send(self, batch: Batch) -> bool:
        """Tell whether *batch* may be sent: the lease covers it, and nothing is to stop."""
        return (
            not self._stop.is_set()
            and not self._breaker.is_open
            and self._lease.covers(batch.claimed_at)
        )

    def _submit(self, result: BatchResult) -> None:
        if self._trace is not None:
            self._trace(result)
        self._results.put(result)

    async def deliver(self, batch: Batch) -> None:
        """Send *batch*, and submit its result, or one for each part it was split into.

        A cancelled request may have been sent: its batch is submitted as unsure.
        """
        if batch.send_at is not None:
            await self._wait_until(batch, batch.send_at)
        match await self._request(batch):
            case RefusedRequest() as refused:
                await self._split(refused)
            case BatchResult() as result:
                self._submit(result)

    async def _wait_until(self, batch: Batch, send_at: float) -> None:
        """Wait for the time of *batch*, and for a later one if this process came too late for it.

        A batch that a busy machine delayed must not be sent together with one that is on time.
        """
        try:
            for _ in range(MAX_RESCHEDULES):
                await asyncio.sleep(send_at - monotonic())
                if monotonic() - send_at <= rate_limit.MAX_LATENESS_SECONDS:
                    return
                send_at = await self._claimer.reschedule(batch)
        except asyncio.CancelledError:
            self._submit(_unsent(batch, NEVER_SENT))
            raise

    async def _split(self, refused: RefusedRequest) -> None:
        """Send the parts of a refused batch one after the other; split again what is refused."""
        parent = refused.batch
        try:
            children = await self._claimer.split(
                parent,
                refused.split.parts,
                code=refused.split.code,
                description=refused.split.reason,
                http_status=_status(refused.sent.answer),
                tries=refused.sent.tries,
            )
        except asyncio.CancelledError:
            self._submit(_unsent(parent, refused.split.code))
            raise
        if not children:
            # Another worker took it over, or the database is away. Nothing of it was sent, which
            # settles the batch if that is still possible.
            self._submit(_unsent(parent, refused.split.code))
            return
        again = await self._send_each(children)
        if len(again) == len(children) and len(parent.packed.entries) == 1:
            # Groups of numbers that have nothing in common but the text: the text is bad.
            for part in again:
                self._reject_part(part)
            return
        try:
            while again:
                await self._split(again.pop())
        except asyncio.CancelledError:
            for part in again:
                self._submit(_unsent(part.batch, NEVER_SENT))
            raise

    async def _send_each(self, batches: list[Batch]) -> list[RefusedRequest]:
        """Send *batches* one after the other, and return those that are refused as a whole."""
        refused: list[RefusedRequest] = []
        left = list(reversed(batches))
        try:
            while left:
                match await self._request(left.pop()):
                    case RefusedRequest() as part:
                        refused.append(part)
                    case BatchResult() as result:
                        self._submit(result)
        except asyncio.CancelledError:
            for batch in (*left, *(part.batch for part in refused)):
                self._submit(_unsent(batch, NEVER_SENT))
            raise
        return refused

    def _reject_part(self, refused: RefusedRequest) -> None:
        """Submit a part that is refused, and that smaller parts would explain no better."""
        match self._evaluate(refused.batch, refused.sent, siblings_refused=True):
            case BatchResult() as result:
                self._submit(result)
            case RefusedRequest():
                raise AssertionError("what was refused with its siblings is not split again")

    async def _request(self, batch: Batch) -> BatchResult | RefusedRequest:
        lifetime = _lifetime(batch)

        def may_try() -> bool:
            return self.may_send(batch) and monotonic() - batch.claimed_at < lifetime

        if not may_try():
            return _withheld(batch)
        body = encode(batch.packed, token=batch.token, callback=self._callback)
        try:
            sent = await self._client.post(body, may_try=may_try)
        except asyncio.CancelledError:
            self._submit(
                BatchResult(
                    batch,
                    UnknownResult("stopped", "the worker was stopped before the answer came"),
                    http_status=None,
                    code="stopped",
                    description="",
                    tries=1,
                    seconds=0.0,
                )
            )
            raise
        if sent.answer.code == NEVER_SENT:  # withheld in the last moment
            return _withheld(batch)
        if batch.send_at is not None and isinstance(sent.answer, Reply):
            for _ in range(1, sent.tries):  # each try has arrived, and counts in the rate
                await self._claimer.reschedule(batch)
        return self._evaluate(batch, sent)

    def _evaluate(
        self, batch: Batch, sent: RequestResult, *, siblings_refused: bool = False
    ) -> BatchResult | RefusedRequest:
        verdict = evaluate(
            batch.packed,
            sent.answer,
            EvaluationContext(
                elapsed=monotonic() - batch.claimed_at,
                max_attempts=self._max_attempts,
                now=datetime.now(UTC),
                jitter=random.random,
                country=country,
                siblings_refused=siblings_refused,
            ),
        )
        match verdict:
            case Split():
                return RefusedRequest(batch, verdict, sent)
            case UnknownResult(code, reason):
                return _batch_result(batch, verdict, sent, code, reason)
            case Resolved() | ReturnAll():
                answer = sent.answer
                said = answer.description if isinstance(answer, Reply) else answer.reason
                return _batch_result(batch, verdict, sent, answer.code, said)


def _batch_result(
    batch: Batch,
    verdict: Resolved | ReturnAll | UnknownResult,
    sent: RequestResult,
    code: str,
    description: str,
) -> BatchResult:
    return BatchResult(
        batch,
        verdict,
        http_status=_status(sent.answer),
        code=code,
        description=description,
        tries=sent.tries,
        seconds=sent.seconds,
    )


def _status(answer: Answer) -> int | None:
    return answer.http_status if isinstance(answer, Reply) else None


def _lifetime(batch: Batch) -> float:
    """Return for how long after its claim the whole batch may be sent, in seconds."""
    return min(
        (m.expires_in for m in batch.messages if m.expires_in is not None and not m.requeued),
        default=float("inf"),
    )


def _unsent(batch: Batch, code: str) -> BatchResult:
    """Return the result of a batch of which this worker knows that nothing was sent."""
    back: list[Outcome] = [Deferred(m, code, 0.0, counted=False) for m in batch.messages]
    return _without_request(batch, back, code)


def _withheld(batch: Batch) -> BatchResult:
    """Return the result of a batch that may not be sent any more: messages expire or return."""
    age = monotonic() - batch.claimed_at
    return _without_request(
        batch,
        [
            Expired(m)
            if m.expires_in is not None and m.expires_in <= age and not m.requeued
            else Deferred(m, NEVER_SENT, 0.0, counted=False)
            for m in batch.messages
        ],
        NEVER_SENT,
    )


def _without_request(batch: Batch, outcomes: list[Outcome], code: str) -> BatchResult:
    return BatchResult(
        batch,
        Resolved(outcomes),
        http_status=None,
        code=code,
        description="nothing was sent",
        tries=0,
        seconds=0.0,
    )
