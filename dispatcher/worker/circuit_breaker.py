"""Circuit breaker: stops claims for an app while this host cannot send and other hosts may.

A host that has lost the provider but not the database, or whose clock is wrong, would go on
claiming messages that it cannot send, and would pause the app for hosts that can. A host that loses
answers would make messages unsure, and open the circuit of the app for all. So it stops
claiming, and probes with an empty request until the provider answers: no message has to wait for
that. After lost answers it then starts with one message: large requests may be lost where small
ones pass.
"""

import asyncio
from time import monotonic
from typing import Final

import structlog

from dispatcher.core.circuit import is_answer_of_api
from dispatcher.core.delays import may_concern_one_host
from dispatcher.core.message import Answer, NoReply
from dispatcher.core.outcome import UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.provider.client import Client

log = structlog.get_logger(__name__)

FIRST_PROBE_SECONDS: Final = 2.0  # after the breaker opened; each further wait is doubled
MAX_PROBE_SECONDS: Final = 10.0  # a probe costs nothing
MAX_TRIAL_SECONDS: Final = 300.0  # between trials: each that fails leaves a message unsure
RECHECK_SECONDS: Final = 1.0  # until a claim loop checks an open breaker again


class CircuitBreaker:
    """Whether this host can send for one app: closed if it can, open if it cannot."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._opened = asyncio.Event()
        self._valid_from = float("-inf")
        self._loses_answers = False
        self._first_wait = FIRST_PROBE_SECONDS
        self._trial_from: float | None = None  # monotonic; None: not on trial
        self._trial_is_sent = False

    @property
    def is_open(self) -> bool:
        """Whether nothing can be sent from this host."""
        return self._opened.is_set()

    @property
    def is_on_trial(self) -> bool:
        """Whether one message at a time is sent, because this host has lost answers."""
        return self._trial_from is not None

    def may_claim(self) -> bool:
        """Return whether the caller may claim; on trial, nobody else may until `claimed`."""
        if self.is_open or (self.is_on_trial and self._trial_is_sent):
            return False
        self._trial_is_sent = self.is_on_trial
        return True

    def claimed(self, batches: int, asked_at: float) -> None:
        """Note how many requests the claim brought; after none, another one may be tried.

        *asked_at*, on the monotonic clock, is when `may_claim` allowed it. What was allowed before
        the trial is no part of it.
        """
        if self._trial_from is not None and asked_at >= self._trial_from:
            self._trial_is_sent = batches > 0

    def open(self, why: str, *, loses_answers: bool = False) -> None:
        """Note that nothing can be sent from this host, while there are other workers."""
        if self.is_open:
            return
        log.warning("no claims: this host cannot send", app=self._app, why=why)
        again = loses_answers and self.is_on_trial
        self._first_wait = (
            min(2 * self._first_wait, MAX_TRIAL_SECONDS) if again else FIRST_PROBE_SECONDS
        )
        self._loses_answers = loses_answers
        self._trial_from = None
        self._opened.set()

    def record(self, result: BatchResult) -> None:
        """Note *result* of the trial: an answer ends it, none opens the breaker again."""
        if self._trial_from is None or result.batch.claimed_at < self._trial_from:
            return
        if isinstance(result.verdict, UnknownResult):
            self.open(result.verdict.reason, loses_answers=True)
        elif result.tries > 0:
            self._trial_from = None
        else:
            self._trial_is_sent = False

    def withhold(self, now: float, why: str) -> None:
        """Note that the app's circuit opened *now*: what was claimed before is not sent any more.

        *now* is on the monotonic clock.
        """
        log.warning("no claims: the circuit of the app is open", app=self._app, why=why)
        self._valid_from = now

    def covers(self, claimed_at: float) -> bool:
        """Return whether a batch claimed at *claimed_at* may be sent."""
        return not self.is_open and claimed_at >= self._valid_from

    async def run(self, client: Client) -> None:
        """Each time the breaker is open, probe with *client* until it can be closed; never ends."""
        while True:
            await self._opened.wait()
            wait = self._first_wait
            await asyncio.sleep(wait)
            while self._cannot_send(await client.probe()):
                wait = max(wait, min(2 * wait, MAX_PROBE_SECONDS))
                await asyncio.sleep(wait)
            if self._loses_answers:
                self._trial_from, self._trial_is_sent = monotonic(), False
            self._opened.clear()
            log.info("this host can send again", app=self._app)

    def _cannot_send(self, answer: Answer) -> bool:
        if self._loses_answers:
            return not is_answer_of_api(answer)
        return isinstance(answer, NoReply) or may_concern_one_host(answer.code)
