"""Carries one batch through its request, and through its halves when it is refused as a whole."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from time import monotonic
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core import rate_limit
from dispatcher.core.codes import NEVER_SENT
from dispatcher.core.message import Answer, Batch, Reply, RequestDraft
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

MOST_TIMES = 3  # a machine so slow that each time is missed must send all the same


class Sent(Protocol):
    """How a request ended after all its tries (see `provider.client.Sent`)."""

    @property
    def answer(self) -> Answer:
        """The last answer."""

    @property
    def tries(self) -> int:
        """HTTP requests made."""

    @property
    def seconds(self) -> float:
        """From the first try to the last answer."""

    @property
    def slowed(self) -> bool:
        """Whether a try was turned away because the app is too fast, even if a later one passed."""


class Post(Protocol):
    """How to send an encoded body."""

    async def __call__(self, body: bytes, *, numbers: int, may_try: Callable[[], bool]) -> Sent:
        """Send *body*, of so many numbers; ask *may_try* before each retry. Raises nothing."""


class SplitUp(Protocol):
    """How to divide a batch in the database."""

    async def __call__(
        self,
        batch: Batch,
        parts: list[RequestDraft],
        *,
        code: str,
        description: str,
        http_status: int | None,
        tries: int,
    ) -> list[Batch]:
        """Close *batch* and open its parts at once; [] if it was taken over, or cannot be now."""


class Ways(Struct, frozen=True):
    """What sending needs from outside, for one app."""

    post: Post
    split: SplitUp
    hand_over: Callable[[BatchResult], None]
    still_ours: Callable[[Batch], bool]  # the lease covers it, and nobody asked to stop
    now: Callable[[], datetime]
    jitter: Callable[[], float]
    country: Callable[[str], str]
    another_time: Callable[[Batch], Awaitable[float]]  # when the pace lets it go (monotonic clock)
    callback: str | None
    max_attempts: int


class Refused(Struct, frozen=True):
    """A request that was refused as a whole, and may pass in parts."""

    batch: Batch
    split: Split
    sent: Sent


async def deliver(batch: Batch, ways: Ways) -> None:
    """Send *batch*, and hand over a closing for it, or one for each part it was divided into.

    A cancelled request may have been sent: its batch is handed over as unsure.
    """
    if batch.send_at is not None:
        await _wait(batch, batch.send_at, ways)
    match await _request(batch, ways):
        case Refused() as refused:
            await _divide(refused, ways)
        case BatchResult() as closing:
            ways.hand_over(closing)


async def _wait(batch: Batch, send_at: float, ways: Ways) -> None:
    """Wait for the time of *batch*, and for a later one if this process came too late for it.

    What a busy machine held up must not go out together with what is on time.
    """
    try:
        for _ in range(MOST_TIMES):
            await asyncio.sleep(send_at - monotonic())
            if monotonic() - send_at <= rate_limit.MAX_LATENESS_SECONDS:
                return
            send_at = await ways.another_time(batch)
    except asyncio.CancelledError:
        ways.hand_over(_unsent(batch, NEVER_SENT))
        raise


async def _divide(refused: Refused, ways: Ways) -> None:
    """Send the parts of a refused batch one after the other, and divide again what is refused."""
    parent = refused.batch
    try:
        children = await ways.split(
            parent,
            refused.split.parts,
            code=refused.split.code,
            description=refused.split.reason,
            http_status=_status(refused.sent.answer),
            tries=refused.sent.tries,
        )
    except asyncio.CancelledError:
        ways.hand_over(_unsent(parent, refused.split.code))
        raise
    if not children:
        # Another worker took it over, or the database is away. Nothing of it was sent, and that
        # is evidence: it settles the batch if that is still possible.
        ways.hand_over(_unsent(parent, refused.split.code))
        return
    again = await _send_each(children, ways)
    if len(again) == len(children) and len(parent.packed.entries) == 1:
        # Groups of numbers that have nothing in common but the text: the text is bad.
        for part in again:
            _end(part, ways)
        return
    try:
        while again:
            await _divide(again.pop(), ways)
    except asyncio.CancelledError:
        for part in again:
            ways.hand_over(_unsent(part.batch, NEVER_SENT))
        raise


async def _send_each(batches: list[Batch], ways: Ways) -> list[Refused]:
    """Send *batches* one after the other, and return those that are refused as a whole."""
    refused: list[Refused] = []
    left = list(reversed(batches))
    try:
        while left:
            match await _request(left.pop(), ways):
                case Refused() as part:
                    refused.append(part)
                case BatchResult() as closing:
                    ways.hand_over(closing)
    except asyncio.CancelledError:
        for batch in (*left, *(part.batch for part in refused)):
            ways.hand_over(_unsent(batch, NEVER_SENT))
        raise
    return refused


def _end(refused: Refused, ways: Ways) -> None:
    """Close a batch that is refused, and that cutting further would tell nothing more about."""
    match _judged(refused.batch, refused.sent, ways, siblings_refused=True):
        case BatchResult() as closing:
            ways.hand_over(closing)
        case Refused():
            raise AssertionError("what was refused with its siblings is not divided again")


async def _request(batch: Batch, ways: Ways) -> BatchResult | Refused:
    lifetime = _lifetime(batch)

    def may_try() -> bool:
        return ways.still_ours(batch) and monotonic() - batch.claimed_at < lifetime

    if not may_try():
        return _given_up(batch)
    body = encode(batch.packed, token=batch.token, callback=ways.callback)
    try:
        sent = await ways.post(body, numbers=len(batch.messages), may_try=may_try)
    except asyncio.CancelledError:
        ways.hand_over(
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
        return _given_up(batch)
    return _judged(batch, sent, ways)


def _judged(
    batch: Batch, sent: Sent, ways: Ways, *, siblings_refused: bool = False
) -> BatchResult | Refused:
    verdict = evaluate(
        batch.packed,
        sent.answer,
        EvaluationContext(
            elapsed=monotonic() - batch.claimed_at,
            max_attempts=ways.max_attempts,
            now=ways.now(),
            jitter=ways.jitter,
            country=ways.country,
            siblings_refused=siblings_refused,
        ),
    )
    match verdict:
        case Split():
            return Refused(batch, verdict, sent)
        case UnknownResult(code, reason):
            return _closing(batch, verdict, sent, code, reason)
        case Resolved() | ReturnAll():
            if isinstance(verdict, Resolved) and sent.slowed:
                verdict = replace(verdict, slow_down=True)
            answer = sent.answer
            said = answer.description if isinstance(answer, Reply) else answer.reason
            return _closing(batch, verdict, sent, answer.code, said)


def _closing(
    batch: Batch,
    verdict: Resolved | ReturnAll | UnknownResult,
    sent: Sent,
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
    """Close a batch of which this worker knows that nothing was sent."""
    back: list[Outcome] = [Deferred(m, code, 0.0, counted=False) for m in batch.messages]
    return _without_request(batch, back, code)


def _given_up(batch: Batch) -> BatchResult:
    """Close a batch that may not be sent any more: what has expired is over, the rest goes back."""
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
