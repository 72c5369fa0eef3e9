"""Claims messages and splits batches for one worker, and applies the operators' rules.

A database that cannot be reached becomes a value: the caller tries again later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import structlog
from msgspec.structs import replace

from dispatcher.core.claim_cursor import ClaimCursor
from dispatcher.core.country import country
from dispatcher.core.message import Batch, Message, RequestDraft
from dispatcher.core.outcome import Outcome
from dispatcher.core.prepare import PreparedClaim, prepare
from dispatcher.core.rules import Rules
from dispatcher.db import claim as claims
from dispatcher.db import record as records
from dispatcher.db.database import AdaptiveTimeout, Connection, Pool
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.rules import apply_rules, read_rules
from dispatcher.telemetry import Metrics
from dispatcher.worker.circuit_breaker import LOOK
from dispatcher.worker.claim_loop import Claim
from dispatcher.worker.in_flight import InFlight

log = structlog.get_logger(__name__)


class Claims:
    """How one worker takes messages out of the queue."""

    def __init__(
        self,
        *,
        dsn: str,
        pool: Pool,
        worker: int,
        flight: InFlight,
        callback: str | None,
        token_length: int,
        metrics: Metrics,
        cut_off: Callable[[str], bool],
    ) -> None:
        """*cut_off* returns whether this host cannot send for an app."""
        self._cut_off = cut_off
        self._dsn = dsn
        self._pool = pool
        self._worker = worker
        self._flight = flight
        self._callback = callback
        self._token_length = token_length
        self._patience = AdaptiveTimeout()
        self._floors: dict[tuple[str, int], ClaimCursor] = {}  # by app and lane
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
                    floor=self._floors.setdefault(
                        (wanted.app, wanted.last_priority), ClaimCursor(monotonic)
                    ),
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

    def _floor(self, wanted: claims.Wanted) -> ClaimCursor:
        return self._floors.setdefault((wanted.app, wanted.last_priority), ClaimCursor(monotonic))

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
        parts: list[RequestDraft],
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
    ) -> PreparedClaim:
        return prepare(
            messages,
            callback=self._callback,
            token_length=self._token_length,
            paused_countries=countries,
            country=country,
            most=most,
            decided=decided,
        )


FRESH = 5.0  # seconds until a rule that was set is known to every worker

Screen = Callable[[Connection, Sequence[Message], float], Awaitable[dict[int, Outcome]]]


class RuleBook:
    """The rules, as they were last read."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._turn = asyncio.Lock()
        self._read_at = float("-inf")
        self._rules = Rules()

    async def screen(self, app: str, *, seconds: float) -> Screen | None:
        """Return what looks at the messages of a claim of *app*; None: no rule concerns it.

        Raises asyncpg's errors, within about *seconds*: without knowing the rules nothing is sent.
        """
        async with self._turn:
            if monotonic() - self._read_at > FRESH:
                self._rules = await read_rules(self._pool, seconds=seconds)
                self._read_at = monotonic()
        rules = self._rules
        if not rules.concern(app):
            return None
        return partial(_apply, app, rules)


async def _apply(
    app: str, rules: Rules, connection: Connection, messages: Sequence[Message], asked_at: float
) -> dict[int, Outcome]:
    now = datetime.fromtimestamp(asked_at, UTC)
    return await apply_rules(connection, app, messages, rules, now=now, country=country)
