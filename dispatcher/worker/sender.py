"""Sends each batch in one request, and in parts if it is refused as a whole."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from msgspec import Struct

from dispatcher.core import rate_limit
from dispatcher.core.circuit import RefusedTexts, is_answer_of_api
from dispatcher.core.codes import NEVER_SENT, WRITE_REFUSED
from dispatcher.core.country import country
from dispatcher.core.message import Answer, Batch, Reply
from dispatcher.core.outcome import (
    Accepted,
    Deferred,
    EvaluationContext,
    Expired,
    Outcome,
    Resolved,
    ReturnAll,
    Split,
    UnknownResult,
    defer_text,
    evaluate,
)
from dispatcher.core.packing import halve
from dispatcher.core.result import BatchResult
from dispatcher.core.wire import encode
from dispatcher.db.claim import REFUSED_WRITE_SECONDS
from dispatcher.provider.client import Client, RequestResult
from dispatcher.telemetry.traces import Trace
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.in_flight import Lease
from dispatcher.worker.result_queue import ResultQueue

MAX_RESCHEDULES: Final = 3  # a machine so slow that each time is missed must send all the same
MAX_SPLIT_SECONDS: Final = 60.0  # after its claim no rule is applied any more: a day may have ended


class RefusedRequest(Struct, frozen=True):
    """A request that was refused as a whole, and may be accepted in parts."""

    batch: Batch
    split: Split
    sent: RequestResult


class SplitTime(Struct):
    """Whether parts of a batch are still sent: for a minute after its claim.

    But until one part is done with: or where answers are slow, the same messages would be claimed
    and refused together again, without end. What halving accepts leaves the bad ones as they are.
    """

    claimed_at: float
    has_progress: bool = False

    @property
    def is_over(self) -> bool:
        """Whether no further part is sent."""
        return self.has_progress and monotonic() - self.claimed_at > MAX_SPLIT_SECONDS

    def add(self, result: BatchResult, *, halves: bool) -> None:
        """Note the result of a part; *halves*: of a request with one bad message at least."""
        verdict = result.verdict
        refused_alone = isinstance(verdict, Resolved) and verdict.refused
        self.has_progress = self.has_progress or refused_alone or not halves


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
        self._refused_texts = RefusedTexts()

    def may_send(self, batch: Batch) -> bool:
        """Tell whether *batch* may be sent: the lease covers it, and nothing is to stop."""
        return (
            not self._stop.is_set()
            and self._breaker.covers(batch.claimed_at)
            and self._lease.covers(batch.claimed_at)
        )

    async def probe(self, app: str, probed_at: datetime) -> None:
        """Send a request without messages; its answer ends the pause of *app* before *probed_at*.

        Its time-out is that of any request: the API may be slow. A stop does not wait for it.
        """
        probe = asyncio.create_task(self._client.probe())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((probe, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            probe.cancel()
        if probe.done() and is_answer_of_api(probe.result()):
            await self._claimer.end_probe(app, probed_at)

    def _submit(self, result: BatchResult) -> None:
        if self._trace is not None:
            self._trace(result)
        self._results.put(result)

    async def deliver(self, batch: Batch) -> None:
        """Send *batch*, and submit its result, or one for each part it was split into.

        A cancelled request may have been sent: its batch is submitted as unsure.
        """
        if batch.send_at is not None and not await self._wait_until(batch, batch.send_at):
            self._submit(_unsent(batch, NEVER_SENT))
            return
        ended = await self._request(batch)
        if isinstance(ended, RefusedRequest):
            await self._split(ended)
            tries = ended.sent.tries
        else:
            self._submit(ended)
            tries = 0 if ended.http_status is None else ended.tries
        # Only now, for the answer must not be lost to a stop that does not wait for the database.
        if batch.send_at is not None:
            for _ in range(1, tries):  # each try has arrived, and counts in the rate
                await self._claimer.charge_again(batch)

    async def _wait_until(self, batch: Batch, send_at: float) -> bool:
        """Wait for the time of *batch*, and for a later one if this process came too late for it.

        A batch that a busy machine delayed must not be sent together with one that is on time.
        Returns whether it may be sent: if a later time is too far away, it returns to the queue.
        """
        try:
            for _ in range(MAX_RESCHEDULES):
                await asyncio.sleep(send_at - monotonic())
                late = monotonic() - send_at
                if late <= rate_limit.MAX_LATENESS_SECONDS:
                    return True
                later = await self._claimer.reschedule(batch, late)
                if later is None:
                    return False
                send_at = later
        except asyncio.CancelledError:
            self._submit(_unsent(batch, NEVER_SENT))
            raise
        return True

    async def _split(self, refused: RefusedRequest) -> None:
        """Send the parts of a refused batch one after the other; split again what is refused.

        What is left when the time is over returns to the queue, for the next claim to decide.
        """
        pending = [refused]
        time = SplitTime(refused.batch.claimed_at)
        try:
            while pending:
                part = pending.pop()
                if self._refused_texts.covers(monotonic(), part.batch.packed):
                    self._submit(self._defer_text(part.batch, part.split, part.sent))
                elif time.is_over:
                    self._submit(_unsent(part.batch, NEVER_SENT))
                else:
                    pending += await self._send_parts(part, time)
        except asyncio.CancelledError:
            for part in pending:
                self._submit(_unsent(part.batch, NEVER_SENT))
            raise

    async def _send_parts(self, refused: RefusedRequest, time: SplitTime) -> list[RefusedRequest]:
        """Send the parts of *refused*, and return those that are to be split again.

        If one half of a request is accepted, the other holds what was refused, and is split again
        without being sent: k bad numbers of n are found in at most 2 k log2 n + 1 requests.
        """
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
            self._submit(_unsent(parent, NEVER_SENT))
            raise
        if children is None:  # at once, and the same request would be refused again without end
            self._submit(_unsent(parent, WRITE_REFUSED, REFUSED_WRITE_SECONDS))
            return []
        if not children:
            # A person has stopped the app or a campaign, another worker took it over, or the
            # database is away. Nothing of it was sent, which settles the batch if that is possible.
            self._submit(_unsent(parent, NEVER_SENT))
            return []
        again: list[RefusedRequest] = []
        left = list(reversed(children))
        accepted = False  # the half before
        try:
            while left:
                inferred = _infer(refused, left[-1]) if accepted else None
                if inferred is not None:
                    again.append(inferred)
                    left.pop()
                    continue
                part = left.pop()
                match _withheld(part) if time.is_over else await self._request(part):
                    case RefusedRequest() as refused_part:
                        again.append(refused_part)
                    case BatchResult() as result:
                        accepted = _is_accepted(result)
                        time.add(result, halves=refused.split.halves)
                        self._submit(result)
        except asyncio.CancelledError:
            for batch in (*left, *(part.batch for part in again)):
                self._submit(_unsent(batch, NEVER_SENT))
            raise
        return again

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
        return self._evaluate(batch, sent)

    def _evaluate(self, batch: Batch, sent: RequestResult) -> BatchResult | RefusedRequest:
        verdict = evaluate(batch.packed, sent.answer, self._context(batch))
        match verdict:
            case Split(halves=True) if self._refused_texts.covers(monotonic(), batch.packed):
                return self._defer_text(batch, verdict, sent)
            case Split():
                return RefusedRequest(batch, verdict, sent)
            case UnknownResult(code, reason):
                return _batch_result(batch, verdict, sent, code, reason)
            case Resolved() | ReturnAll():
                if isinstance(verdict, Resolved):
                    self._remember_texts(batch, verdict)
                answer = sent.answer
                said = answer.description if isinstance(answer, Reply) else answer.reason
                return _batch_result(batch, verdict, sent, answer.code, said)

    def _context(self, batch: Batch) -> EvaluationContext:
        return EvaluationContext(
            elapsed=monotonic() - batch.claimed_at,
            max_attempts=self._max_attempts,
            now=_utc(self._lease.database_time()),
            jitter=random.random,
            country=country,
        )

    def _remember_texts(self, batch: Batch, verdict: Resolved) -> None:
        """Note whether the texts of *batch* were refused or accepted."""
        if not verdict.refused:
            if any(isinstance(outcome, Accepted) for outcome in verdict.outcomes):
                self._refused_texts.add_accepted(batch.packed)
        elif len(batch.messages) == 1:
            self._refused_texts.add_refused(monotonic(), batch.packed)

    def _defer_text(self, batch: Batch, split: Split, sent: RequestResult) -> BatchResult:
        """Return the result of a refused batch whose text is refused for all numbers."""
        verdict = defer_text(batch.packed, split.code, self._context(batch))
        return _batch_result(batch, verdict, sent, split.code, split.reason)


def _utc(database_time: float | None) -> datetime:
    """Return a time of the database; the time of this host before the first heartbeat."""
    return (
        datetime.now(UTC) if database_time is None else datetime.fromtimestamp(database_time, UTC)
    )


def _infer(refused: RefusedRequest, half: Batch) -> RefusedRequest | None:
    """Return *half* of *refused* as if it had been refused too; None if it must be sent alone."""
    halves = halve(half.packed) if refused.split.halves else None
    if halves is None:
        return None
    split = Split(
        list(halves), refused.split.code, "not sent: its other half was accepted", halves=True
    )
    return RefusedRequest(half, split, replace(refused.sent, tries=0, seconds=0.0))


def _is_accepted(result: BatchResult) -> bool:
    outcomes = result.verdict.outcomes if isinstance(result.verdict, Resolved) else []
    return any(isinstance(outcome, Accepted) for outcome in outcomes)


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


def _unsent(batch: Batch, code: str, wait: float = 0.0) -> BatchResult:
    """Return the result of a batch of which this worker knows that nothing was sent.

    Its messages wait for *wait* seconds.
    """
    back: list[Outcome] = [Deferred(m, code, wait, counted=False) for m in batch.messages]
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
