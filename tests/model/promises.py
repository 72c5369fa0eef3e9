"""What the SQL statements promise, on tables in memory that never change.

One function for each statement or transaction that moves a message. *without* names guards that
are taken out (see `model.guards`).
"""

from collections.abc import Iterable
from typing import NamedTuple

from dispatcher.core.outcome import (
    Accepted,
    Deferred,
    Expired,
    Rejected,
    Resolved,
    ReturnAll,
    UnknownResult,
)
from dispatcher.core.report_matching import (
    AddsProviderId,
    CancelsResend,
    ConfirmsAccepted,
    MessageLookup,
    PendingReport,
    RetryLater,
    match_report,
)
from dispatcher.core.report_status import report_status

Verdict = Resolved | UnknownResult | ReturnAll
NOTHING: frozenset[str] = frozenset()
NO_BATCH = -1
GIVEN_UP = frozenset({"policy: resend", "operator: resend"})  # what settled a batch


class Waiting(NamedTuple):
    """A row of the queue."""

    attempt: int = 0
    last_batch: int = NO_BATCH


class Result(NamedTuple):
    """A row of outcome."""

    state: str
    batch: int
    attempts: int = 0
    named_by: int = NO_BATCH  # the request in which the provider gave its id, if it is known


class Request(NamedTuple):
    """A row of batch."""

    worker: int
    ids: tuple[int, ...]
    attempts: tuple[int, ...]
    state: str = "open"
    settled_by: str = ""
    unsure_ids: tuple[int, ...] | None = None
    probe: bool = False

    @property
    def in_question(self) -> tuple[int, ...]:
        """The messages that nothing is known of, if it is unsure."""
        return self.ids if self.unsure_ids is None else self.unsure_ids


class Tables(NamedTuple):
    """The database. Messages and batches are numbered from 0."""

    queue: tuple[Waiting | None, ...]
    outcome: tuple[Result | None, ...]
    batch: tuple[Request, ...] = ()
    reports: frozenset[tuple[int, int]] = frozenset()  # batch and message, stored
    inbox: frozenset[tuple[int, int]] = frozenset()  # of those, not matched yet
    paused: bool = False


def start(messages: int) -> Tables:
    """Return tables with so many messages that wait."""
    return Tables((Waiting(),) * messages, (None,) * messages)


def provider_id(batch: int, message: int) -> str:
    """Return the id that the provider gives a message in a request."""
    return f"p{batch}-{message}"


def _put(row: tuple, at: int, value: object) -> tuple:
    return (*row[:at], value, *row[at + 1 :])


def _wait(tables: Tables, message: int, waiting: Waiting | None) -> Tables:
    return tables._replace(queue=_put(tables.queue, message, waiting))


def _end(tables: Tables, message: int, result: Result | None) -> Tables:
    return tables._replace(outcome=_put(tables.outcome, message, result))


def _mark(tables: Tables, batch: int, **changes: object) -> Tables:
    request = tables.batch[batch]._replace(**changes)
    return tables._replace(batch=_put(tables.batch, batch, request))


def claim(tables: Tables, worker: int, ids: Iterable[int]) -> Tables:
    """`claim` and `open_batches`: messages leave the queue with their batch."""
    taken = tuple(ids)
    rows = [tables.queue[message] for message in taken]
    attempts = tuple(row.attempt + 1 for row in rows if row)
    for message in taken:
        tables = _wait(tables, message, None)
    request = Request(worker, taken, attempts, probe=tables.paused)
    return tables._replace(batch=(*tables.batch, request))


def cancel(tables: Tables, message: int, without: frozenset[str] = NOTHING) -> Tables:
    """`dispatcher.cancel`: only what waits."""
    waiting = tables.queue[message]
    if waiting is None:
        if "a cancel takes only what it finds waiting" not in without:
            return tables
        if tables.outcome[message] is not None:
            return tables
        waiting = Waiting()
    cancelled = Result("cancelled", waiting.last_batch, waiting.attempt)
    return _end(_wait(tables, message, None), message, cancelled)


def requeue(tables: Tables, message: int) -> Tables:
    """`dispatcher.requeue`: only what was rejected, as new."""
    result = tables.outcome[message]
    if result is None or result.state != "rejected":
        return tables
    tables = _end(tables, message, None)
    return _wait(tables, message, Waiting(0, result.batch))


def settle(tables: Tables, batch: int, how: str, without: frozenset[str] = NOTHING) -> Tables:
    """`dispatcher.settle`: an unsure batch, as sent or to be sent again."""
    request = tables.batch[batch]
    if request.state != "unsure":
        return tables
    tables = _mark(tables, batch, state="closed", settled_by=f"operator: {how}")
    lax = "settling by hand leaves alone what has an outcome" in without
    for message, attempt in zip(request.ids, request.attempts, strict=True):
        if message not in request.in_question or (tables.outcome[message] and not lax):
            continue
        if how == "sent":
            tables = _end(tables, message, Result("accepted", batch, attempt))
        else:
            tables = _wait(tables, message, Waiting(attempt, batch))
    return tables


def rescue(tables: Tables, dead: frozenset[int], without: frozenset[str] = NOTHING) -> Tables:
    """`rescue`: the open batches of dead workers become unsure."""
    for number, request in enumerate(tables.batch):
        if request.state != "open" or request.worker not in dead:
            continue
        if "what a dead worker had open is unsure" in without:
            tables = _mark(tables, number, state="closed", settled_by="its worker")
            for message, attempt in zip(request.ids, request.attempts, strict=True):
                tables = _wait(tables, message, Waiting(attempt - 1, number))
        else:
            tables = _mark(tables, number, state="unsure")
    return tables


def resend(tables: Tables, batch: int, without: frozenset[str] = NOTHING) -> Tables:
    """`resend_unsure`: by policy, an unsure batch without any report is sent again."""
    request = tables.batch[batch]
    reported = any(known == batch for known, _ in tables.reports)
    if "a report ends the policy resend" in without:
        reported = False
    if request.state != "unsure" or reported:
        return tables
    tables = _mark(tables, batch, state="closed", settled_by="policy: resend")
    for message, attempt in zip(request.ids, request.attempts, strict=True):
        if message in request.in_question and tables.outcome[message] is None:
            tables = _wait(tables, message, Waiting(attempt, batch))
    return tables


def abandon(tables: Tables, batch: int) -> Tables:
    """`abandon`: what its worker never had in its hands was not sent."""
    request = tables.batch[batch]
    if request.state != "open":
        return tables
    tables = _mark(tables, batch, state="closed", settled_by="its worker")
    for message, attempt in zip(request.ids, request.attempts, strict=True):
        tables = _wait(tables, message, Waiting(attempt - 1, batch))
    return tables


def split(
    tables: Tables,
    worker: int,
    batch: int,
    parts: Iterable[tuple[int, ...]],
    without: frozenset[str] = NOTHING,
) -> tuple[Tables, tuple[int, ...]]:
    """`db.split.split`: an open batch is closed, and its parts are opened; return their numbers.

    None are if another worker has taken it over.
    """
    request = tables.batch[batch]
    if request.state != "open" and "only an open batch is divided" not in without:
        return tables, ()
    attempts = dict(zip(request.ids, request.attempts, strict=True))
    first = len(tables.batch)
    tables = _mark(tables, batch, state="closed", settled_by="split")
    children = tuple(
        Request(worker, ids, tuple(attempts[message] for message in ids)) for ids in parts
    )
    tables = tables._replace(batch=(*tables.batch, *children))
    return tables, tuple(range(first, len(tables.batch)))


def expire(tables: Tables, message: int, without: frozenset[str] = NOTHING) -> Tables:
    """`dispatcher.expire`: only what waits."""
    waiting = tables.queue[message]
    if waiting is None:
        if "only what waits expires" not in without or tables.outcome[message] is not None:
            return tables
        waiting = Waiting()
    over = Result("expired", waiting.last_batch, waiting.attempt)
    return _end(_wait(tables, message, None), message, over)


def record(
    tables: Tables, batch: int, verdict: Verdict, without: frozenset[str] = NOTHING
) -> tuple[Tables, bool]:
    """`db.record.record` of one batch; return also whether it was written."""
    request = tables.batch[batch]
    if request.state != "open":
        tables = _match_again(tables, batch, verdict)
    if not _takes_answer(request, verdict, without):
        if "only what was closed here is written" in without:
            return _write(tables, batch, verdict, without), True
        return _recall(tables, batch, verdict, without), False
    missing = [message.id for message in verdict.unsure] if isinstance(verdict, Resolved) else []
    if isinstance(verdict, UnknownResult) or missing:
        tables = _mark(tables, batch, state="unsure")
        if missing:
            tables = _mark(tables, batch, unsure_ids=tuple(missing))
    else:
        by = "late answer" if request.state == "unsure" else ""
        tables = _mark(tables, batch, state="closed", settled_by=by)
    tables = _write(tables, batch, verdict, without)
    return (_close_settled(tables, batch) if missing else tables), True


def _match_again(tables: Tables, batch: int, verdict: Verdict) -> Tables:
    """`match_again`: a late answer names messages of reports that may have found none."""
    outcomes = verdict.outcomes if isinstance(verdict, Resolved) else []
    named = {(batch, each.message.id) for each in outcomes if isinstance(each, Accepted)}
    return tables._replace(inbox=tables.inbox | (named & tables.reports))


def _takes_answer(request: Request, verdict: Verdict, without: frozenset[str]) -> bool:
    """`close_batches`: an open batch takes any answer, an unsure one only evidence, and once."""
    if request.state == "open" or "a closed batch takes no answer" in without:
        return True
    answered = request.unsure_ids is not None
    if "an answer that lacks numbers is written once" in without:
        answered = False
    evidence = not isinstance(verdict, UnknownResult)
    return request.state == "unsure" and not answered and evidence


def _write(tables: Tables, batch: int, verdict: Verdict, without: frozenset[str]) -> Tables:
    match verdict:
        case UnknownResult():
            return tables
        case ReturnAll():
            request = tables.batch[batch]
            for message, attempt in zip(request.ids, request.attempts, strict=True):
                tables = _return(tables, message, Waiting(attempt - 1, batch), without)
            return tables._replace(paused=True)
    request = tables.batch[batch]
    for outcome in verdict.outcomes:
        match outcome:
            case Accepted(message):
                result = Result("accepted", batch, message.attempt, batch)
                tables = _append(tables, message.id, result, without)
            case Rejected(message):
                result = Result("rejected", batch, message.attempt)
                tables = _append(tables, message.id, result, without)
            case Deferred(message=message, counted=counted):
                attempt = message.attempt - (0 if counted else 1)
                waiting = Waiting(attempt, batch)
                tables = _return(tables, message.id, waiting, without)
            case Expired(message):
                result = Result("expired", batch, message.attempt)
                tables = _append(tables, message.id, result, without)
    return tables._replace(paused=False) if request.probe and tables.paused else tables


def _append(tables: Tables, message: int, result: Result, without: frozenset[str]) -> Tables:
    """A message that has an outcome keeps it."""
    if known := tables.outcome[message]:
        if "the primary key of outcome" not in without:
            return tables
        result = result._replace(state=f"{known.state} and {result.state}")
    return _end(tables, message, result)


def _return(tables: Tables, message: int, waiting: Waiting, without: frozenset[str]) -> Tables:
    """`return_to_queue`: unless a report settled it meanwhile; what waits already, waits."""
    if tables.outcome[message] is not None and "what returns has no outcome" not in without:
        return tables
    if tables.queue[message] is not None:
        return tables
    return _wait(tables, message, waiting)


def _recall(tables: Tables, batch: int, verdict: Verdict, without: frozenset[str]) -> Tables:
    """`recall`: a late answer takes back what was given up, unless it is on its way again."""
    if "a late answer takes back what waits again" in without or not isinstance(verdict, Resolved):
        return tables
    if tables.batch[batch].settled_by not in GIVEN_UP:
        return tables
    for outcome in verdict.outcomes:
        if not isinstance(outcome, Accepted):
            continue
        message = outcome.message
        if message.id in tables.batch[batch].in_question and _gives_way(tables, message.id):
            result = Result("accepted", batch, message.attempt, batch)
            tables = _take_back(tables, message.id, result)
    return tables


def _gives_way(tables: Tables, message: int) -> bool:
    """`recall`: whether a message waits, is unsure again, or has ended otherwise than accepted."""
    result = tables.outcome[message]
    if result is not None:
        return result.state != "accepted"
    return tables.queue[message] is not None or _unsure_again(tables, message) is not None


def _take_back(tables: Tables, message: int, accepted: Result) -> Tables:
    again = _unsure_again(tables, message)
    tables = _end(_wait(tables, message, None), message, accepted)
    return tables if again is None else _close_settled(tables, again)


def _unsure_again(tables: Tables, message: int) -> int | None:
    """Return the unsure batch that holds a message without an outcome."""
    if tables.outcome[message] is not None:
        return None
    for number, request in enumerate(tables.batch):
        if request.state == "unsure" and message in request.in_question:
            return number
    return None


def _close_settled(tables: Tables, batch: int) -> Tables:
    """`close_settled`: an unsure batch of which every message has an outcome."""
    request = tables.batch[batch]
    if request.state == "unsure" and all(tables.outcome[m] for m in request.in_question):
        return _mark(tables, batch, state="closed", settled_by="reports")
    return tables


def store(tables: Tables, batch: int, message: int) -> Tables:
    """`store_reports`: a report that comes twice is one."""
    key = (batch, message)
    if key in tables.reports:
        return tables
    return tables._replace(reports=tables.reports | {key}, inbox=tables.inbox | {key})


def match(  # noqa: PLR0911 - one for each effect
    tables: Tables, batch: int, message: int, without: frozenset[str] = NOTHING
) -> Tables:
    """`db.report_matching.match` of one report that is stored."""
    request, result = tables.batch[batch], tables.outcome[message]
    place = MessageLookup(
        batch,
        "app",
        request.state,
        request.settled_by or None,
        message,
        request.attempts[request.ids.index(message)],
        message in request.in_question,
        result.state if result else None,
        _named(result, message),
        result.batch if result else None,
    )
    given = provider_id(batch, message)
    state = report_status("DELIVRD").state
    report = PendingReport(given, 1, 1, state, "DELIVRD", f"t{batch}", "+8613800000000", True)
    effect = match_report(report, place)
    if "a report waits for an open request" in without and request.state == "open":
        effect = ConfirmsAccepted()
    done = tables._replace(inbox=tables.inbox - {(batch, message)})
    accepted = Result("accepted", batch, place.attempt or 0, batch)
    match effect:
        case RetryLater():
            return tables
        case ConfirmsAccepted():
            return _close_settled(_end(done, message, accepted), batch)
        case CancelsResend():
            if "a report takes back what waits again" in without:
                return done
            if not _gives_way(tables, message):
                return tables  # it is being sent a second time: looked at again
            return _take_back(done, message, accepted)
        case AddsProviderId():
            assert result is not None
            return _end(done, message, result._replace(named_by=batch))
        case _:
            return done


def _named(result: Result | None, message: int) -> str | None:
    if result is None or result.named_by == NO_BATCH:
        return None
    return provider_id(result.named_by, message)


def state_of(tables: Tables, message: int) -> tuple[str, int]:
    """`message_status`: the state of a message, and its attempts."""
    result, waiting = tables.outcome[message], tables.queue[message]
    if result:
        delivered = result.state == "accepted" and (result.named_by, message) in tables.reports
        return ("delivered" if delivered else result.state), result.attempts
    if waiting:
        return "queued", waiting.attempt
    for request in tables.batch:
        if request.state != "closed" and message in request.in_question:
            state = "sending" if request.state == "open" else "unsure"
            return state, request.attempts[request.ids.index(message)]
    return "lost", 0
