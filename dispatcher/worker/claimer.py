"""Claims messages and splits batches for one worker, and applies the operators' rules.

If the database is unavailable, the methods return a value that means "later".
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import islice
from time import monotonic
from typing import Final

import structlog
from msgspec.structs import replace

from dispatcher.core.allowed import AllowedNumbers
from dispatcher.core.claim_cursor import ClaimCursor
from dispatcher.core.country import country
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.message import Batch, Message, RequestDraft
from dispatcher.core.outcome import Outcome
from dispatcher.core.prepare import PreparedClaim, prepare
from dispatcher.core.rules import Rules
from dispatcher.core.wire import MAX_NUMBERS
from dispatcher.db import circuit, pace
from dispatcher.db import claim as claims
from dispatcher.db.claim import Claimed
from dispatcher.db.database import AdaptiveTimeout, Database
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.errors import DATA_ERRORS, ROW_ERRORS, data_error_kind, is_data_error
from dispatcher.db.loop import FailingParts
from dispatcher.db.rules import Screen, read_rules
from dispatcher.db.split import split
from dispatcher.telemetry import Metrics
from dispatcher.worker.circuit_breaker import RECHECK_SECONDS, CircuitBreaker
from dispatcher.worker.in_flight import InFlight, Lease

log = structlog.get_logger(__name__)

SHOWN_IDS: Final = 10  # of messages that are missing
TELL_SECONDS: Final = 1.0  # from one line about those of an app to the next
RULES_MAX_AGE_SECONDS: Final = 0.5  # until a rule that was set is applied by every worker
MAX_RULES_NAMED: Final = 20  # of those that cannot be read


class Claimer:
    """Takes messages out of the queue for one worker."""

    def __init__(
        self,
        database: Database,
        *,
        worker: int,
        in_flight: InFlight,
        lease: Lease,
        callback: str | None,
        token_length: int,
        metrics: Metrics,
        breakers: Mapping[str, CircuitBreaker],
        allowed: Mapping[str, AllowedNumbers],
        failing: FailingParts,
    ) -> None:
        """Set what one worker needs; *failing* gets the rules that cannot be read.

        *callback* gets status reports; *breakers* and the *allowed* numbers are by app. An app that
        may send to all numbers has none.
        """
        self._allowed = allowed
        self._breakers = breakers
        self._database = database
        self._worker = worker
        self._in_flight = in_flight
        self._lease = lease
        self._callback = callback
        self._token_length = token_length
        self._timeout = AdaptiveTimeout()
        self._narrowed: dict[tuple[str, int], int] = {}  # messages in one claim, at most
        self._cursors: dict[tuple[str, int], ClaimCursor] = {}  # by app and last priority
        self._missing: dict[str, tuple[int, tuple[int, ...]]] = {}  # not told yet, by app
        self._missing_told_at: dict[str, float] = {}
        self._metrics = metrics
        self._rules = RuleCache(database, failing)

    async def claim(
        self, wanted: ClaimRequest, slots: int, per_request: int, slot_seconds: float
    ) -> Claimed | None:
        """Claim for *slots* requests; None: the database is unavailable, try again later.

        *slot_seconds* is the time that a request occupies its slot.
        """
        breaker = self._breakers[wanted.app]
        asked_at = monotonic()
        # Without its lease this worker would return all that it claims, and claim it again.
        if not self._lease.covers(asked_at) or not breaker.may_claim():
            return Claimed([], wait=RECHECK_SECONDS)
        claimed = None
        try:
            if breaker.is_on_trial:
                slots = per_request = 1
            claimed = await self._claim(wanted, slots, per_request, slot_seconds)
        finally:
            breaker.claimed(len(claimed.batches) if claimed else 0, asked_at)
        return claimed

    async def _claim(
        self, wanted: ClaimRequest, slots: int, per_request: int, slot_seconds: float
    ) -> Claimed | None:
        loop = (wanted.app, wanted.last_priority)
        narrowed = self._narrowed.get(loop)
        if narrowed is not None:  # one of the next messages cannot be claimed
            slots, per_request = 1, min(per_request, narrowed)
        wanted = replace(
            wanted,
            slots=slots,
            per_request=per_request,
            slot_seconds=slot_seconds,
            look_ahead=narrowed is None,
        )
        began = monotonic()
        try:
            with self._tokens([]) as token:
                screen = await self._rules.screen(wanted.app, seconds=self._timeout.seconds)
                claimed = await claims.claim(
                    self._database,
                    self._worker,
                    wanted,
                    arrange=partial(self._arrange, wanted.app),
                    token=token,
                    cursor=self._cursors.setdefault(loop, ClaimCursor(monotonic)),
                    screen=screen,
                    heartbeat_at=self._lease.heartbeat_at,
                    started=self._lease.started,
                    seconds=self._timeout.seconds,
                )
        except UnreadableRuleError:
            return Claimed([], wait=RECHECK_SECONDS)
        except ROW_ERRORS as error:
            if is_data_error(error):
                return await self._narrow(wanted, error)
            if not isinstance(error, DatabaseUnavailable):
                raise
            self._timeout.failed()
            self._metrics.database_away("claim")
            log.warning("no claim: the database is away", app=wanted.app, why=str(error))
            return None
        self._timeout.passed()
        if narrowed is not None:
            self._widen(loop, narrowed)
        self._metrics.claimed(wanted.app, monotonic() - began, claimed.finished)
        if claimed.missing or wanted.app in self._missing:
            self._tell_missing(wanted.app, claimed.missing)
        return claimed

    def _tell_missing(self, app: str, ids: Sequence[int]) -> None:
        """Tell which messages waited without a row in the table: with a line a second at most."""
        self._metrics.missing(app, len(ids))
        messages, first = self._missing.get(app, (0, ()))
        messages, first = messages + len(ids), (*first, *ids)[:SHOWN_IDS]
        if monotonic() < self._missing_told_at.get(app, float("-inf")) + TELL_SECONDS:
            self._missing[app] = messages, first
            return
        log.error(
            "messages that waited are not in dispatcher.message, and are not sent: was a"
            " partition detached, or were rows deleted? Insert them anew",
            app=app,
            messages=messages,
            ids=first,
        )
        self._missing.pop(app, None)
        self._missing_told_at[app] = monotonic()

    async def end_probe(self, app: str, probed_at: datetime) -> None:
        """End the pause of *app*; the next probe does so if the database is unavailable."""
        try:
            await circuit.end_probe(self._database, app, probed_at)
        except DatabaseUnavailable as error:
            self._metrics.database_away("claim")
            log.warning("still paused: the database is away", app=app, why=str(error))

    def _widen(self, loop: tuple[str, int], narrowed: int) -> None:
        """Let the next claim take twice as many: this one met no message that ends it."""
        if narrowed < MAX_NUMBERS:
            self._narrowed[loop] = 2 * narrowed
        else:
            del self._narrowed[loop]

    async def _narrow(self, wanted: ClaimRequest, error: Exception) -> Claimed | None:
        """Halve what the next claim takes, and reject the message at fault once it is alone."""
        loop = (wanted.app, wanted.last_priority)
        failed = wanted.slots * wanted.per_request  # at most so many
        if failed > 1:
            self._narrowed[loop] = min(failed // 2, MAX_NUMBERS)
            return Claimed([], more=True)
        try:
            screen = await self._rules.screen(wanted.app, seconds=self._timeout.seconds)
            message = await claims.set_aside(
                self._database,
                self._worker,
                wanted,
                arrange=partial(self._arrange, wanted.app),
                screen=screen,
            )
        except UnreadableRuleError:
            return Claimed([], wait=RECHECK_SECONDS)
        except DatabaseUnavailable as away:
            log.warning("no claim: the database is away", app=wanted.app, why=str(away))
            return None
        kind = data_error_kind(error)
        if message is None:
            log.error("no claim: an error that no single message causes", app=wanted.app, why=kind)
            return None
        log.error(
            "a message is set aside, or waits: it cannot be claimed", message=message, why=kind
        )
        return Claimed([], more=True)

    async def charge_again(self, batch: Batch) -> None:
        """Charge the rate limit for another try of *batch*, if the database is available."""
        try:
            await pace.charge_again(self._database, batch)
        except DatabaseUnavailable as error:
            self._metrics.database_away("claim")
            log.warning("not charged: the database is away", app=batch.app, why=str(error))

    async def reschedule(self, batch: Batch, late: float) -> float | None:
        """Return a later time for a batch that missed its own, on the monotonic clock.

        None: it is too far away, and the batch returns to the queue. It is now if the database is
        unavailable. *late* is in seconds.
        """
        try:
            return await pace.reschedule(self._database, batch, late)
        except DatabaseUnavailable as error:
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
    ) -> list[Batch] | None:
        """Split *batch* in the database; [] if it was taken over, stopped, or not reachable.

        None: the database refuses every part of it.
        """
        made: list[str] = []
        try:
            with self._tokens(made) as token:
                children = await split(
                    self._database,
                    self._worker,
                    batch,
                    parts,
                    code=code,
                    description=description,
                    http_status=http_status,
                    tries=tries,
                    token=token,
                )
        except ROW_ERRORS as error:
            if is_data_error(error):  # not for the value of a single message
                log.error("not divided: the database refuses it", why=data_error_kind(error))  # noqa: TRY400 - a value needs no traceback
                return None
            if not isinstance(error, DatabaseUnavailable):
                raise
            self._metrics.database_away("divide")
            log.warning("not divided: the database is away", app=batch.app, why=str(error))
            return []
        for unused in set(made).difference(child.token for child in children):
            self._in_flight.finish(unused)  # the database has refused a batch with it
        if children:
            self._in_flight.finish(batch.token)
        return children

    @contextmanager
    def _tokens(self, made: list[str]) -> Iterator[Callable[[], str]]:
        """Give a source of tokens for batches; mark them unconfirmed if writing batches fails.

        *made* gets each token that was taken.

        A failed call may have committed: open batches of this worker with such tokens were never
        sent, and recovery returns their messages to the queue.
        """

        def token() -> str:
            made.append(self._in_flight.new_token())
            return made[-1]

        try:
            yield token
        except BaseException:
            for each in made:
                self._in_flight.mark_unconfirmed(each)
            raise

    def _arrange(
        self,
        app: str,
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
            allowed=self._allowed.get(app),
        )


class UnreadableRuleError(Exception):
    """A rule of an operator cannot be read, and nothing that it may be about is sent."""


class RuleCache:
    """The rules, as they were last read."""

    def __init__(self, database: Database, failing: FailingParts) -> None:
        self._database = database
        self._failing = failing
        self._turn = asyncio.Lock()
        self._read_at = float("-inf")
        self._rules = Rules()
        self._unreadable: dict[str, str] = {}  # the parts of *failing* that are rules

    async def screen(self, app: str, *, seconds: float) -> Screen | None:
        """Return what applies the rules to a claim of *app*; None: no rule concerns it.

        Raises DatabaseUnavailable, within about *seconds*: nothing is sent without the rules.
        Raises UnreadableRuleError if the limits of the app, or all rules of a kind, cannot be
        read: that is no fault of the messages. A template that cannot be read holds back its
        messages only.
        """
        async with self._turn:
            if monotonic() - self._read_at > RULES_MAX_AGE_SECONDS:
                try:
                    self._rules = await read_rules(self._database, seconds=seconds)
                except DATA_ERRORS as error:
                    why = f"They cannot be read, and nothing is sent: {data_error_kind(error)}."
                    self._name({"rules of every app": why})
                    raise UnreadableRuleError from None
                self._name(self._rules.unreadable())
                self._read_at = monotonic()
        rules = self._rules
        if app in rules.unreadable_limits:
            raise UnreadableRuleError
        if not rules.concern(app):
            return None
        return Screen(app, rules, country=country)

    def _name(self, unreadable: dict[str, str]) -> None:
        """Name the rules that cannot be read, for the next heartbeat; log those that are new."""
        named = dict(islice(unreadable.items(), MAX_RULES_NAMED))
        for part in self._unreadable.keys() - named.keys():
            del self._failing[part]
        for part in named.keys() - self._unreadable.keys():
            log.error("a rule cannot be read", rule=part, why=named[part])
        self._failing.update(named)
        self._unreadable = named
