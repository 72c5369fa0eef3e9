"""Whether this host can send for an app, where other hosts may.

A host that is cut off from the provider and not from the database, or whose clock is wrong, would
go on taking messages that it cannot send, and pause the app for those that can. So it stops
claiming, and probes until the provider answers: with a request that holds no message,
so none has to wait.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dispatcher.core.delays import may_concern_one_host
from dispatcher.core.message import Answer, NoReply

log = structlog.get_logger(__name__)

FIRST_PROBE_SECONDS = 2.0  # seconds after it was lost; each further wait is doubled
MAX_PROBE_SECONDS = 10.0  # a probe costs nothing
LOOK = 1.0  # seconds until a lane asks again whether it may claim

Probe = Callable[[], Awaitable[Answer]]


class CircuitBreaker:
    """The way from this host to the provider of one app."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._lost = asyncio.Event()

    @property
    def lost(self) -> bool:
        """Whether nothing can be sent from here."""
        return self._lost.is_set()

    def lose(self, why: str) -> None:
        """Note that nothing can be sent from here, though there are other workers."""
        if not self.lost:
            log.warning("no claims: this host cannot send", app=self._app, why=why)
            self._lost.set()

    async def run(self, probe: Probe) -> None:
        """Find the way again each time it is lost, for ever."""
        while True:
            await self._lost.wait()
            wait = FIRST_PROBE_SECONDS
            await asyncio.sleep(wait)
            while _is_shut_out(await probe()):
                wait = min(2 * wait, MAX_PROBE_SECONDS)
                await asyncio.sleep(wait)
            self._lost.clear()
            log.info("this host can send again", app=self._app)


def _is_shut_out(answer: Answer) -> bool:
    return isinstance(answer, NoReply) or may_concern_one_host(answer.code)
