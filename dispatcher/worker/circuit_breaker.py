"""Circuit breaker: stops claims for an app while this host cannot send and other hosts may.

A host that has lost the provider but not the database, or whose clock is wrong, would go on
claiming messages that it cannot send, and would pause the app for hosts that can. So it stops
claiming, and probes with an empty request until the provider answers: no message has to wait for
that.
"""

import asyncio
from typing import Final

import structlog

from dispatcher.core.delays import may_concern_one_host
from dispatcher.core.message import Answer, NoReply
from dispatcher.provider.client import Client

log = structlog.get_logger(__name__)

FIRST_PROBE_SECONDS: Final = 2.0  # after the breaker opened; each further wait is doubled
MAX_PROBE_SECONDS: Final = 10.0  # a probe costs nothing
RECHECK_SECONDS: Final = 1.0  # until a claim loop checks an open breaker again


class CircuitBreaker:
    """Whether this host can send for one app: closed if it can, open if it cannot."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._opened = asyncio.Event()
        self._valid_from = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether nothing can be sent from this host."""
        return self._opened.is_set()

    def open(self, why: str) -> None:
        """Note that nothing can be sent from this host, while there are other workers."""
        if not self.is_open:
            log.warning("no claims: this host cannot send", app=self._app, why=why)
            self._opened.set()

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
            wait = FIRST_PROBE_SECONDS
            await asyncio.sleep(wait)
            while _cannot_send(await client.probe()):
                wait = min(2 * wait, MAX_PROBE_SECONDS)
                await asyncio.sleep(wait)
            self._opened.clear()
            log.info("this host can send again", app=self._app)


def _cannot_send(answer: Answer) -> bool:
    return isinstance(answer, NoReply) or may_concern_one_host(answer.code)
