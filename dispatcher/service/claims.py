"""Claiming and dividing, as the pipeline sees them: a database that is away becomes a value."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

import structlog
from msgspec.structs import replace

from dispatcher.core.admit import Arranged, arrange
from dispatcher.core.country import country
from dispatcher.core.message import Batch, Message, Packed
from dispatcher.core.outcome import Outcome
from dispatcher.db import claim as claims
from dispatcher.db import record as records
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.floor import Floor
from dispatcher.db.pool import Pool
from dispatcher.db.session import Patience
from dispatcher.metrics import Metrics
from dispatcher.pipeline.flight import Flight
from dispatcher.pipeline.lanes import Claim
from dispatcher.service.reach import LOOK
from dispatcher.service.rules import RuleBook

log = structlog.get_logger(__name__)


class Claims:
    """How one worker takes messages out of the queue."""

    def __init__(
        self,
        *,
        dsn: str,
        pool: Pool,
        worker: int,
        flight: Flight,
        callback: str | None,
        token_length: int,
        metrics: Metrics,
        cut_off: Callable[[str], bool],
    ) -> None:
        """*cut_off* tells whether this host cannot send for an app."""
        self._cut_off = cut_off
        self._dsn = dsn
        self._pool = pool
        self._worker = worker
        self._flight = flight
        self._callback = callback
        self._token_length = token_length
        self._patience = Patience()
        self._floors: dict[tuple[str, int], Floor] = {}  # by app and lane
        self._metrics = metrics
        self._rules = RuleBook(pool)

    async def claim(
        self, wanted: claims.Wanted, slots: int, per_request: int, taken: float
    ) -> Claim | None:
        """Claim for *slots* requests; None: the database is away, ask again later."""
        if self._cut_off(wanted.app):
            return Claim([], requests=0, senders=0, more=False, wait=LOOK)
        wanted = replace(wanted, slots=slots, per_request=per_request, taken=taken)
        began = monotonic()
        try:
            with self._tokens() as token:
                screen = await self._rules.screen(wanted.app, seconds=self._patience.seconds)
                claimed = await claims.claim(
                    self._pool,
                    self._worker,
                    wanted,
                    arrange=self._arrange,
                    token=token,
                    floor=self._floors.setdefault((wanted.app, wanted.last_priority), Floor()),
                    screen=screen,
                    seconds=self._patience.seconds,
                )
        except DatabaseAwayError as error:
            self._patience.failed()
            self._metrics.database_away("claim")
            log.warning("no claim: the database is away", app=wanted.app, why=str(error))
            return None
        self._patience.passed()
        self._metrics.claimed(wanted.app, monotonic() - began, claimed.finished)
        return Claim(claimed.batches, claimed.requests, claimed.senders, claimed.more, claimed.wait)

    async def another_time(self, batch: Batch) -> float:
        """Return a later time for a batch that missed its own; now, if the database is away."""
        try:
            with naming_absence(self._dsn):
                return await claims.another_time(self._pool, batch)
        except DatabaseAwayError as error:
            self._metrics.database_away("claim")
            log.warning("no other time: the database is away", app=batch.app, why=str(error))
            return monotonic()

    async def split(
        self,
        batch: Batch,
        parts: list[Packed],
        *,
        code: str,
        description: str,
        http_status: int | None,
        tries: int,
    ) -> list[Batch]:
        """Divide *batch* in the database; [] if it was taken over, or cannot be now."""
        try:
            with self._tokens() as token:
                children = await records.split(
                    self._pool,
                    self._worker,
                    batch,
                    parts,
                    code=code,
                    description=description,
                    http_status=http_status,
                    tries=tries,
                    token=token,
                )
        except DatabaseAwayError as error:
            self._metrics.database_away("divide")
            log.warning("not divided: the database is away", app=batch.app, why=str(error))
            return []
        if children:
            self._flight.over(batch.token)
        return children

    @contextmanager
    def _tokens(self) -> Iterator[Callable[[], str]]:
        """Give out tokens for batches; they are doubted if writing the batches fails.

        A failed call may have committed: open batches of this worker with such tokens were never
        sent, and the rescue puts them back.
        """
        made: list[str] = []

        def token() -> str:
            made.append(self._flight.token())
            return made[-1]

        try:
            with naming_absence(self._dsn):
                yield token
        except BaseException:
            for each in made:
                self._flight.doubt(each)
            raise

    def _arrange(
        self,
        messages: list[Message],
        countries: list[str],
        most: int,
        decided: Mapping[int, Outcome],
    ) -> Arranged:
        return arrange(
            messages,
            callback=self._callback,
            token_length=self._token_length,
            paused_countries=countries,
            country=country,
            most=most,
            decided=decided,
        )
