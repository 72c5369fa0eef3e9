"""Recovers batches: those that dead workers left open, and those that are unsure.

A batch that a dead worker left open becomes unsure. An unsure batch is sent again where the
policy of its app allows that. What was inserted by a clock that was ahead is made due.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic

import structlog

from dispatcher.core.errors import os_reason
from dispatcher.db import workers
from dispatcher.db.database import Database
from dispatcher.db.loop import FailingParts, attempt, wait_for_event
from dispatcher.db.spool import REPORTS_KIND, size
from dispatcher.worker.in_flight import InFlight, Lease

log = structlog.get_logger(__name__)

MARGIN_ROUNDS = 3  # of recovery, in which receivers store what they kept on disk: half a lease

HELD_MARGINS = 10  # for which the policy resend is held back without a line in the log

Step = Callable[[], Awaitable[bool | None]]
SEARCH_REST_SECONDS = 0.05  # between two steps of a search


class ClockWaits:
    """Makes due what waits because the database's clock was set back.

    A search goes through the queue in steps. It is repeated until one finds nothing: an insert that
    began by the old clock may commit behind it.
    """

    def __init__(self) -> None:
        self.jumps = 1  # the start counts as one: no worker may have run when the clock was set
        self.searched = 0  # the jump after which a search found nothing
        self._searched_jump = 0  # the last one before the search that goes on
        self._ended = 0  # waits, by that search
        self._last_id = 0  # that it looked at

    async def end_some(self, database: Database) -> bool:
        """Do one step, if there was a jump; return whether the search goes on."""
        if self.searched == self.jumps:
            return False
        if self._last_id == 0:
            self._searched_jump, self._ended = self.jumps, 0
        ended, last = await workers.end_clock_waits(database, self._last_id)
        if ended:
            log.info("messages of a clock that was ahead made due", rows=ended)
        self._ended += ended
        self._last_id = last or 0
        if last is None and not self._ended:
            self.searched = self._searched_jump
        return last is not None


class SilentWorkers:
    """Finds dead workers whose last heartbeat lies ahead: the database's clock was set back.

    By that clock they would live until it has come there. So their silence is measured here.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[int, tuple[float, float]] = {}  # their heartbeat, and since when it is so

    def dead(self, heartbeats: Mapping[int, tuple[float, float]]) -> list[int]:
        """Return which workers wrote no other heartbeat for their lease; the next look knows more.

        *heartbeats* are those that lie ahead, each with the lease of the worker.
        """
        now = self._clock()
        self._seen = {
            worker: known if (known := self._seen.get(worker)) and known[0] == at else (at, now)
            for worker, (at, _) in heartbeats.items()
        }
        return [
            worker
            for worker, (_, lease) in heartbeats.items()
            if now - self._seen[worker][1] > lease
        ]


class SilentRequests:
    """Sends unsure requests again by policy, once no receiver can still have their reports on disk.

    A receiver keeps reports on disk while it does not reach the database, and stores them within
    seconds when it does. So nothing is sent again until this worker has reached the database for
    the margin, counted from its start and from each failure. The reports in its own data directory
    are waited for, however long that takes. What holds it for long is logged, once.
    """

    def __init__(self, clock: Callable[[], float], *, margin: float, spool: Path) -> None:
        self._clock = clock
        self._margin = margin
        self._spool = spool
        self._reached: tuple[float, float] | None = None  # the database: since when, and last
        self._free_at = 0.0  # when it last held nothing back, or first reached the database
        self._logged = False

    async def look(self, database: Database) -> None:
        """Look whether the database is there; to be called more often than once in the margin."""
        known, self._reached = self._reached, None
        await workers.ping(database)
        now = self._clock()
        if known is None:
            self._free_at, self._logged = now, False
        if known is None or now - known[1] > self._margin:  # it did not look for a while: frozen
            known = now, now
        self._reached = known[0], now

    async def resend(self, database: Database, worker: int) -> None:
        """Send again what may be, after a look."""
        held = self._why_held()
        if held is None:
            self._free_at, self._logged = self._clock(), False
            resent = await workers.resend_unsure(database, worker, margin=self._margin)
            _log("unsure batches sent again by policy", resent)
        elif (
            not self._logged
            and self._clock() - self._free_at > HELD_MARGINS * self._margin
            and await workers.has_silent(database, margin=self._margin)
        ):
            self._logged = True
            log.warning("no unsure message is sent again by policy", why=held)

    def _why_held(self) -> str | None:
        """Return why nothing is sent again now; None: it may be."""
        if self._reached is None or self._clock() - self._reached[0] < self._margin:
            return (
                f"This worker does not look for the database for {self._margin:g} s without a gap"
                " of that length: its steps of recovery take too long, or its machine stands still."
                " Look at the load of both, or raise DISPATCHER_LEASE."
            )
        try:
            if not size(self._spool, REPORTS_KIND)[0]:
                return None
        except OSError as error:
            return f"{self._spool} cannot be read: {os_reason(error)}. Let this user read it."
        return (
            f"{self._spool} has reports that no receiver has stored (*.{REPORTS_KIND})."
            " Start a receiver with this DISPATCHER_DATA_DIR: it stores them."
        )


async def run_recovery(
    database: Database,
    worker: int,
    in_flight: InFlight,
    lease: Lease,
    clock_waits: ClockWaits,
    *,
    interval: float,
    spool: Path,
    stop: asyncio.Event,
    failing: FailingParts,
) -> None:
    """Recover batches every *interval* seconds until *stop*; *spool* may have a receiver's files.

    Each step is safe to repeat, and for many workers at once. One that fails does not keep the
    others from being tried. One that returns true has more to do at once. Before each, a look shows
    whether the database is there: it counts as reached without a gap although all take long.
    """
    silent = SilentWorkers(monotonic)
    requests = SilentRequests(monotonic, margin=MARGIN_ROUNDS * interval, spool=spool)

    async def rescue() -> None:
        dead = silent.dead(await workers.heartbeats_ahead(database))
        _log("batches of dead workers marked unsure", await workers.rescue(database, worker, dead))

    expiry: workers.ExpiryCursor | None = None

    async def expire() -> bool:
        nonlocal expiry
        expired, expiry = await workers.expire(database, expiry)
        if expired:
            log.info("messages expired while they waited", messages=expired)
        return expiry is not None

    async def release() -> None:
        _log(
            "batches of a lost claim put back",
            await workers.release_unsent(
                database, worker, in_flight.tokens, in_flight.unconfirmed, lease.started
            ),
        )

    steps: dict[str, Step] = {
        "requests of dead workers": rescue,
        "unsure requests to be sent again": partial(requests.resend, database, worker),
        "messages that expire": expire,
        "requests of lost claims": release,
        "messages of a clock ahead": partial(clock_waits.end_some, database),
    }
    while not stop.is_set():
        more = False
        for name, step in steps.items():

            async def look_and_do(step: Step = step) -> bool | None:
                await requests.look(database)
                return await step()

            more |= bool(
                await attempt(
                    look_and_do,
                    unavailable="no recovery: the database is away",
                    part=f"recovery ({name})",
                    failing=failing,
                )
            )
        await wait_for_event(stop, SEARCH_REST_SECONDS if more else interval)


def _log(event: str, recovered: tuple[int, int]) -> None:
    batches, messages = recovered
    if batches:
        log.warning(event, batches=batches, messages=messages)
