"""Evaluates an answer: the outcome of each message, the state of its batch, pauses of its app.

The kind of the code decides (see core.codes), never the HTTP status alone: results of numbers
count whatever surrounds them, and a message that may have been sent is never returned to the queue.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.codes import UNREACHABLE, Code, Kind, number_code, request_code
from dispatcher.core.delays import CountryPause, Pause, country_pause, deferral_seconds, pause_for
from dispatcher.core.message import (
    Answer,
    Message,
    NoReply,
    NumberResult,
    Reply,
    RequestDraft,
    to_e164,
)
from dispatcher.core.number import fits_mask, is_masked, possible_forms
from dispatcher.core.packing import halve, split_by
from dispatcher.core.wire import API_CODE

FIRST_FAILURE_STATUS = 500  # from here on the request may have been carried out
TOO_LARGE = "HTTP 413"
SMALL_REQUEST_BYTES = 4096  # no sensible limit refuses less
MAX_RETRY_AFTER_SECONDS = 2.0  # longer waits pause the app
ACCEPTED_CODE = "000000"
NOT_READY_WAIT_SECONDS = 300.0  # a template becomes active some 5 minutes after it was approved
MAX_NOT_READY_ATTEMPTS = 3
MAX_AMBIGUOUS_ATTEMPTS = 5  # an outage must not reject all messages; malformed params must


class Accepted(Struct, frozen=True, gc=False, tag=True):
    """The provider took the message; reports follow."""

    message: Message
    provider_id: str | None
    segments: int | None


class Rejected(Struct, frozen=True, gc=False, tag=True):
    """The message was not sent, and is not unless an operator requeues it."""

    message: Message
    code: str
    reason: str  # one line for people


class Deferred(Struct, frozen=True, gc=False, tag=True):
    """The message was not sent, and returns to the queue."""

    message: Message
    code: str
    wait: float  # seconds until it is due
    counted: bool  # whether this claim counts as an attempt


class Expired(Struct, frozen=True, gc=False, tag=True):
    """The message was not sent, and expires before it could be due again."""

    message: Message
    code: str = "expired"
    reason: str = "it expired before it could be sent"


Outcome = Accepted | Rejected | Deferred | Expired


class Resolved(Struct, frozen=True, tag=True):
    """The answer gives the outcome of the messages, except of those in *unsure*."""

    outcomes: list[Outcome]
    unsure: list[Message] = []  # missing from the answer: may have been sent
    slow_down: bool = False  # the provider asks for less
    country: CountryPause | None = None


class UnknownResult(Struct, frozen=True, tag=True):
    """The messages may have been sent: the batch becomes unsure."""

    code: str
    reason: str


class Split(Struct, frozen=True):
    """Nothing was sent; each part is sent as a request of its own."""

    parts: list[RequestDraft]
    code: str
    reason: str


class ReturnAll(Struct, frozen=True, tag=True):
    """Nothing was sent; all messages return to the queue and the app is paused.

    No attempt is counted.
    """

    pause: Pause


Verdict = Resolved | UnknownResult | Split | ReturnAll


class EvaluationContext(Struct, frozen=True, kw_only=True):
    """What a verdict depends on besides the request and its answer."""

    elapsed: float  # seconds since the claim; the expiry of deferred messages counts from there
    max_attempts: int
    now: datetime
    jitter: Callable[[], float]
    country: Callable[[str], str]  # of a number
    # Both halves of one entry were refused: the entry is the cause and is not split further.
    siblings_refused: bool = False


def evaluate(packed: RequestDraft, answer: Answer, context: EvaluationContext) -> Verdict:
    """Return the verdict on *packed* from *answer*, the last answer to its request."""
    if isinstance(answer, Reply):
        if answer.results:
            return _by_number(packed.messages, answer, answer.results, context)
        return _by_code(packed, answer, context)
    if answer.sent:
        return UnknownResult(answer.code, answer.reason)
    return ReturnAll(pause_for(request_code(UNREACHABLE), now=context.now, facts=answer.reason))


def is_retryable(answer: Answer, tries: int, *, numbers: int) -> bool:
    """Return whether the same request may be sent again at once, after *tries* of it.

    Only if provably nothing was sent: it was refused before the API saw it, or each of its
    *numbers* was refused by flow control, or the answer is E000000 for the first time, which may
    be a fault of the provider. A number missing from the answer may have been sent; then it is
    not retryable.
    """
    if isinstance(answer, NoReply):
        return not answer.sent
    if answer.results:
        if answer.results[0].code == ACCEPTED_CODE:  # nearly always; the check ends here
            return False
        refused = results_by_number(answer.results).values()
        return len(refused) == numbers and all(
            number_code(one.code).kind is Kind.LATER for one in refused
        )
    kind = request_code(answer.code).kind
    if kind is Kind.AMBIGUOUS:
        return tries == 1 and answer.http_status < FIRST_FAILURE_STATUS
    patient = answer.retry_after is None or answer.retry_after <= MAX_RETRY_AFTER_SECONDS
    return kind is Kind.NOT_SENT and patient


def _by_number(
    messages: list[Message], reply: Reply, results: list[NumberResult], context: EvaluationContext
) -> Resolved | UnknownResult:
    """Return the verdict from the results; messages without a result are unsure."""
    accepted = _all_accepted(messages, results)
    if accepted is not None:
        return Resolved(accepted)
    answers = _answers(messages, results)
    outcomes: list[Outcome] = []
    unsure: list[Message] = []
    slow_down = False
    for message in messages:
        one = answers.get(message.id)
        if one is None:
            unsure.append(message)
        elif one.code == ACCEPTED_CODE:
            outcomes.append(Accepted(message, one.provider_id, one.segments))
        else:
            row = number_code(one.code)
            slow_down = slow_down or row.kind is Kind.LATER
            if row.kind is Kind.LATER or row.kind is Kind.NOT_READY:
                outcomes.append(_defer(message, row, context))
            else:
                outcomes.append(Rejected(message, row.code, row.meaning))
    if not outcomes:
        return UnknownResult(reply.code, "The answer has a result for none of the numbers.")
    return Resolved(outcomes, unsure, slow_down)


def _answers(messages: list[Message], results: list[NumberResult]) -> dict[int, NumberResult]:
    """Return the result of each message that the answer names, by the message's id.

    By number in any spelling. A result that names no number, or a masked one, is of the message
    in its place, if there is one result for each message and no other number contradicts.
    """
    named = results_by_number(results)
    answers: dict[int, NumberResult] = {}
    for message in messages:
        one = named.get(to_e164(message.recipient))
        if one is not None:
            answers[message.id] = one
    if len(answers) < len(messages) == len(results):
        left = [
            (message, one)
            for message, one in zip(messages, results, strict=True)
            if message.id not in answers
        ]
        if all(_may_be(message, one) for message, one in left):
            answers |= {message.id: one for message, one in left}
    return answers


def _may_be(message: Message, one: NumberResult) -> bool:
    """Tell whether a result that names no whole number may be that of *message*."""
    forms = possible_forms(one.recipient)
    if not forms:
        return True
    return is_masked(forms[0]) and fits_mask(to_e164(message.recipient), forms[0])


def _all_accepted(messages: list[Message], results: list[NumberResult]) -> list[Outcome] | None:
    """Return the outcomes if every number was accepted in the order sent: nearly always."""
    if [one.recipient for one in results] != [message.recipient for message in messages]:
        return None
    if [one.code for one in results].count(ACCEPTED_CODE) < len(results):
        return None
    return [
        Accepted(message, one.provider_id, one.segments)
        for message, one in zip(messages, results, strict=True)
    ]


def _defer(message: Message, row: Code, context: EvaluationContext) -> Outcome:
    """Return the outcome of a message that was refused for a temporary reason."""
    if row.kind is Kind.NOT_READY:
        wait, limit = NOT_READY_WAIT_SECONDS, min(MAX_NOT_READY_ATTEMPTS, context.max_attempts)
    else:
        wait = deferral_seconds(message.attempt, jitter=context.jitter())
        limit = context.max_attempts
        if row.kind is Kind.AMBIGUOUS:
            limit = min(MAX_AMBIGUOUS_ATTEMPTS, limit)
    if message.attempt >= limit:
        return Rejected(message, row.code, f"{row.meaning} That was attempt {message.attempt}.")
    return _due_again(message, row, wait, context, counted=True)


def _due_again(
    message: Message, row: Code, wait: float, context: EvaluationContext, *, counted: bool
) -> Deferred | Expired:
    if (
        message.expires_in is not None
        and not message.requeued
        and context.elapsed + wait >= message.expires_in
    ):
        return Expired(message, row.code, f"{row.meaning} It expires before the next try.")
    return Deferred(message, row.code, wait, counted)


def _by_code(packed: RequestDraft, reply: Reply, context: EvaluationContext) -> Verdict:
    """Return the verdict on an answer without results of numbers."""
    row = request_code(reply.code)
    kind = row.kind
    if kind is Kind.AMBIGUOUS and reply.http_status >= FIRST_FAILURE_STATUS:
        kind = Kind.UNKNOWN_RESULT
    match kind:
        case Kind.ACCEPTED | Kind.RESULT | Kind.UNKNOWN_RESULT:
            said = _said(reply) or " There is no result for any number."
            return UnknownResult(row.code, f"{row.meaning}{said}")
        case Kind.UNKNOWN:
            return _unknown(packed, reply, row, context)
        case Kind.AMBIGUOUS | Kind.CONTENT | Kind.PERMANENT | Kind.DUPLICATE:
            return _isolate(packed, reply, row, context)
        case Kind.LATER | Kind.NOT_READY:
            outcomes = [_defer(message, row, context) for message in packed.messages]
            return Resolved(outcomes, slow_down=kind is Kind.LATER)
        case Kind.COUNTRY:
            return _by_country(packed, row, context)
        case (
            Kind.CONFIGURATION
            | Kind.CLOCK
            | Kind.ACCOUNT
            | Kind.ADDRESS
            | Kind.QUOTA
            | Kind.NOT_SENT
        ):
            return ReturnAll(_pause(row, reply, context))


def _pause(row: Code, reply: Reply, context: EvaluationContext) -> Pause:
    """Return the pause for a refusal, with the words of a gateway."""
    return pause_for(
        row,
        now=context.now,
        facts=_said(reply).strip(),
        skew=reply.clock_skew,
        retry_after=reply.retry_after,
    )


def _said(reply: Reply) -> str:
    """Return the words of an answer that is not the API's, as a sentence; the API has its codes."""
    if not reply.description or API_CODE.fullmatch(reply.code):
        return ""
    return f' It said: "{reply.description}".'


def _unknown(packed: RequestDraft, reply: Reply, row: Code, context: EvaluationContext) -> Verdict:
    """Return the verdict on an unknown code; its messages are never resent automatically.

    HTTP 401 and 403 concern the account, as all known codes with them do: the app is paused
    instead of rejecting all its messages. At another 4xx the request is rejected. At any other
    status the messages may have been sent.
    """
    match reply.http_status // 100, reply.http_status:
        case _, 401 | 403:
            return ReturnAll(_pause(row, reply, context))
        case 4, _:
            return _reject(packed, row)
        case _:
            return UnknownResult(row.code, f"{row.meaning} There is no result for any number.")


def _isolate(
    packed: RequestDraft, reply: Reply, row: Code, context: EvaluationContext
) -> Resolved | Split | ReturnAll:
    """Split a request that was refused for its content; reject a single message.

    An ambiguous refusal of a single message may be a fault of the provider: the message is
    deferred a few times.
    """
    if row.code == TOO_LARGE and packed.size <= SMALL_REQUEST_BYTES:
        return ReturnAll(_pause(row, reply, context))  # no message is to blame
    halves = None if context.siblings_refused else halve(packed)
    if halves is not None:
        return Split(list(halves), row.code, row.meaning)
    if row.kind is Kind.AMBIGUOUS:
        return Resolved([_defer(message, row, context) for message in packed.messages])
    return _reject(packed, row)


def _reject(packed: RequestDraft, row: Code) -> Resolved:
    return Resolved([Rejected(message, row.code, row.meaning) for message in packed.messages])


def _by_country(packed: RequestDraft, row: Code, context: EvaluationContext) -> Resolved | Split:
    """Split a request by country; defer the messages of a single country and pause it."""
    parts = split_by(packed, lambda message: context.country(message.recipient))
    if len(parts) > 1:
        return Split(list(parts.values()), row.code, row.meaning)
    pause = country_pause(next(iter(parts)), row, now=context.now)
    outcomes: list[Outcome] = [
        _due_again(message, row, pause.until_in, context, counted=False)
        for message in packed.messages
    ]
    return Resolved(outcomes, country=pause)


def results_by_number(results: Iterable[NumberResult]) -> dict[str, NumberResult]:
    """Return one result for each number, by its canonical form.

    If a number has several, accepted wins, because it was sent; a temporary code loses, because
    a number is sent again only if no other result forbids it.
    """
    answers: dict[str, NumberResult] = {}
    for each in results:
        forms = possible_forms(each.recipient)
        if not forms or is_masked(forms[0]):
            continue
        number = forms[0]
        one = replace(each, code=each.code.strip()) if each.code[-1:].isspace() else each
        known = answers.setdefault(number, one)
        if known is not one and _weight(one) > _weight(known):
            answers[number] = one
    return answers


def _weight(one: NumberResult) -> int:
    match number_code(one.code).kind:
        case Kind.ACCEPTED:
            return 2
        case Kind.LATER | Kind.NOT_READY:
            return 0
        case _:
            return 1
