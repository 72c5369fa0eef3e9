"""Evaluates an answer: the outcome of each message, the state of its batch, pauses of its app.

The kind of the code decides (see core.codes), never the HTTP status alone: results of numbers
count whatever surrounds them, and a message that may have been sent is never returned to the queue.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.codes import UNREACHABLE, Code, Kind, number_code, request_code
from dispatcher.core.delays import (
    CountryPause,
    Pause,
    country_pause,
    deferral_seconds,
    outage_deferral_seconds,
    pause_for,
)
from dispatcher.core.format import mask_if_number
from dispatcher.core.message import (
    Answer,
    Message,
    NoReply,
    NumberResult,
    Reply,
    RequestDraft,
    to_e164,
)
from dispatcher.core.number import fits_mask, forms_in_request, is_masked
from dispatcher.core.packing import halve, split_by
from dispatcher.core.wire import ACCEPTED_CODE, API_CODE

FIRST_FAILURE_STATUS = 500  # from here on the request may have been carried out
TOO_LARGE = "HTTP 413"
SMALL_REQUEST_BYTES = 4096  # no sensible limit refuses less
MAX_RETRY_AFTER_SECONDS = 2.0  # longer waits pause the app
NOT_READY_WAIT_SECONDS = 300.0  # a template becomes active some 5 minutes after it was approved
MAX_NOT_READY_ATTEMPTS = 3
MAX_TIMES_THROTTLED = 32_767  # a smallint of PostgreSQL; the wait grows no more by then
MAX_REFUSED_TEXT_ATTEMPTS = 5  # of a number whose text is refused for all numbers
# Codes that concern template, variables and sender: the same for all numbers of one text.
TEXT_CODES = frozenset({"E200028", "E200029", "E200033"})


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
    throttled: bool = False  # by flow control

    @property
    def attempts_spent(self) -> int:
        """How many attempts the message has behind it when it returns to the queue."""
        return self.message.attempt - (0 if self.counted else 1)

    @property
    def times_throttled(self) -> int:
        """How often flow control has returned the message by then."""
        return min(self.message.throttled + self.throttled, MAX_TIMES_THROTTLED)


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
    throttled: int = 0  # numbers that flow control refused
    countries: list[CountryPause] = []  # to pause
    refused: bool = False  # the request, one message or text by now, was refused for its content
    pause: Pause | None = None  # if *refused*: the circuit decides whether it is made


class UnknownResult(Struct, frozen=True, tag=True):
    """The messages may have been sent: the batch becomes unsure."""

    code: str
    reason: str


class Split(Struct, frozen=True):
    """Nothing was sent; each part is sent as a request of its own."""

    parts: list[RequestDraft]
    code: str
    reason: str
    halves: bool = False  # of a request with one bad message at least


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


def evaluate(packed: RequestDraft, answer: Answer, context: EvaluationContext) -> Verdict:
    """Return the verdict on *packed* from *answer*, the last answer to its request.

    Under HTTP 5xx a request without results may have been sent, whatever the code: a proxy
    answers so also after it has passed the request on (provider.md, Gateway answers).
    """
    if isinstance(answer, Reply):
        if answer.results:
            return _by_number(packed.messages, answer, answer.results, context)
        if answer.http_status >= FIRST_FAILURE_STATUS:
            return _unknown_result(answer)
        return _by_code(packed, answer, context)
    if answer.sent:
        return UnknownResult(answer.code, answer.reason)
    return ReturnAll(pause_for(request_code(UNREACHABLE), facts=answer.reason))


def is_retryable(answer: Answer) -> bool:
    """Return whether the same request may be sent again at once.

    Only if provably nothing was sent: no byte of the body was written, or a gateway throttled the
    request (HTTP 429) and does not ask for a longer wait. Under a status of 5xx its code proves
    nothing.
    """
    if isinstance(answer, NoReply):
        return not answer.sent
    return (
        not answer.results
        and answer.http_status < FIRST_FAILURE_STATUS
        and request_code(answer.code).kind is Kind.NOT_SENT
        and (answer.retry_after or 0.0) <= MAX_RETRY_AFTER_SECONDS
    )


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
    throttled = 0
    pause: Pause | None = None
    countries: dict[str, CountryPause] = {}
    for message in messages:
        one = answers.get(message.id)
        if one is None:
            unsure.append(message)
        elif one.code == ACCEPTED_CODE:
            outcomes.append(Accepted(message, one.provider_id, one.segments))
        else:
            row = number_code(mask_if_number(one.code))
            throttled += row.kind is Kind.LATER
            if row.kind is Kind.QUOTA:
                pause = pause_for(row)
            elif row.kind is Kind.COUNTRY:
                name = context.country(message.recipient)
                countries[name] = country_pause(name, row, now=context.now)
            outcomes.append(_refused_number(message, row, context))
    if not outcomes:
        return UnknownResult(reply.code, "The answer has a result for none of the numbers.")
    return Resolved(outcomes, unsure, throttled, list(countries.values()), pause=pause)


def _refused_number(message: Message, row: Code, context: EvaluationContext) -> Outcome:
    """Return the outcome of one number that was refused; a spent quota is not its fault."""
    match row.kind:
        case Kind.LATER | Kind.NOT_READY:
            return _defer(message, row, context)
        case Kind.QUOTA:
            return _due_again(message, row, 0.0, context, counted=False)
        case Kind.COUNTRY:
            pause = country_pause(context.country(message.recipient), row, now=context.now)
            return _due_again(message, row, pause.until_in, context, counted=False)
        case _:
            return Rejected(message, row.code, row.meaning)


def _tidy(one: NumberResult) -> NumberResult:
    """Return *one* with its code as codes are written: without blanks, in capitals."""
    code = one.code.strip()
    code = code.upper() if API_CODE.fullmatch(code.upper()) else code
    return one if code == one.code else replace(one, code=code)


def _answers(messages: list[Message], results: list[NumberResult]) -> dict[int, NumberResult]:
    """Return the result of each message that the answer names, by the message's id.

    By number in any spelling. A result that names no number, or a masked one, is of the message
    in its place, if there is one result for each message and no other number contradicts. But the
    order of results is not promised: where only some ask to send again, places do not tell which.
    """
    results = [_tidy(one) for one in results]
    named = results_by_number(results, {to_e164(message.recipient) for message in messages})
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
        weights = {_weight(one) for _, one in left}
        alike = len(weights) == 1 or _TEMPORARY_WEIGHT not in weights
        if alike and all(_may_be(message, one) for message, one in left):
            answers |= {message.id: one for message, one in left}
    return answers


def _may_be(message: Message, one: NumberResult) -> bool:
    """Tell whether a result that names no whole number may be that of *message*."""
    forms = forms_in_request(one.recipient)
    if not forms:
        return True
    number = to_e164(message.recipient)
    return any(is_masked(form) and fits_mask(number, form) for form in forms)


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
    """Return the outcome of a message that was refused for a temporary reason.

    Flow control rejects nothing, and counts as no attempt: it says nothing about the message. What
    may be its fault ends with its attempts, and what has an expiry waits until then.
    """
    jitter = context.jitter()
    limit: int | None
    if row.kind is Kind.LATER:
        wait = deferral_seconds(message.throttled + 1, jitter=jitter)
        return _due_again(message, row, wait, context, counted=False, throttled=True)
    if row.kind is Kind.NOT_READY:
        wait, limit = NOT_READY_WAIT_SECONDS, min(MAX_NOT_READY_ATTEMPTS, context.max_attempts)
    else:
        wait = outage_deferral_seconds(message.attempt, jitter=jitter)
        expires = message.expires_in is not None and not message.requeued
        limit = None if expires else context.max_attempts
    if limit is not None and message.attempt >= limit:
        return Rejected(message, row.code, f"{row.meaning} That was attempt {message.attempt}.")
    return _due_again(message, row, wait, context, counted=True)


def _due_again(
    message: Message,
    row: Code,
    wait: float,
    context: EvaluationContext,
    *,
    counted: bool,
    throttled: bool = False,
) -> Deferred | Expired:
    if (
        message.expires_in is not None
        and not message.requeued
        and context.elapsed + wait >= message.expires_in
    ):
        return Expired(message, row.code, f"{row.meaning} It expires before the next try.")
    return Deferred(message, row.code, wait, counted, throttled)


def _by_code(packed: RequestDraft, reply: Reply, context: EvaluationContext) -> Verdict:
    """Return the verdict on an answer without results of numbers."""
    row = request_code(reply.code)
    match row.kind:
        case Kind.ACCEPTED | Kind.RESULT | Kind.UNKNOWN_RESULT:
            return _unknown_result(reply)
        case Kind.UNKNOWN:
            return _unknown(packed, reply, row, context)
        case Kind.AMBIGUOUS | Kind.CONTENT | Kind.PERMANENT | Kind.DUPLICATE:
            return _isolate(packed, reply, row, context)
        case Kind.LATER | Kind.NOT_READY:
            outcomes = [_defer(message, row, context) for message in packed.messages]
            throttled = len(outcomes) if row.kind is Kind.LATER else 0
            return Resolved(outcomes, throttled=throttled)
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
            return ReturnAll(_pause(row, reply))


def _unknown_result(reply: Reply) -> UnknownResult:
    row = request_code(reply.code)
    said = _said(reply) or " There is no result for any number."
    return UnknownResult(row.code, f"{row.meaning}{said}")


def _pause(row: Code, reply: Reply) -> Pause:
    """Return the pause for a refusal, with the words of a gateway."""
    return pause_for(
        row,
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
    """Return the verdict on an unknown code of a request, or on the page of a firewall.

    HTTP 401 and 403 concern the account, as all known codes with them do: the app is paused. At
    another 4xx the request is split, so that one message cannot stop the others; the app is paused
    if a second message in a row is refused alone (core/circuit.py). At any other status the
    messages may have been sent.
    """
    match reply.http_status // 100, reply.http_status:
        case _, 401 | 403:
            return ReturnAll(_pause(row, reply))
        case 4, _:
            return _isolate(packed, reply, row, context)
        case _:
            return _unknown_result(reply)


def _isolate(
    packed: RequestDraft, reply: Reply, row: Code, context: EvaluationContext
) -> Resolved | Split | ReturnAll:
    """Split a request that was refused for its content; reject a single message, or a single text.

    An ambiguous refusal of a single message may be a fault of the provider, and an unknown code
    says nothing about it: the message is deferred, and the circuit may pause the app.
    """
    if row.code == TOO_LARGE and packed.size <= SMALL_REQUEST_BYTES:
        return ReturnAll(_pause(row, reply))  # no message is to blame
    if row.code in TEXT_CODES and len(packed.entries) == 1:
        return _reject(packed, row)
    halves = halve(packed)
    if halves is not None:
        return Split(list(halves), row.code, row.meaning, halves=True)
    if row.kind is Kind.AMBIGUOUS or row.kind is Kind.UNKNOWN:
        outcomes = [_defer(message, row, context) for message in packed.messages]
        pause = _pause(row, reply) if row.kind is Kind.UNKNOWN else None
        return Resolved(outcomes, refused=True, pause=pause)
    return _reject(packed, row)


def _reject(packed: RequestDraft, row: Code) -> Resolved:
    outcomes: list[Outcome] = [Rejected(m, row.code, row.meaning) for m in packed.messages]
    return Resolved(outcomes, refused=True)


def defer_text(packed: RequestDraft, code: str, context: EvaluationContext) -> Resolved:
    """Return the verdict on numbers of a text that was refused for all numbers so far.

    They wait, because nothing proves that the text is at fault, and are rejected in the end.
    """
    row = request_code(code)
    most = min(MAX_REFUSED_TEXT_ATTEMPTS, context.max_attempts)
    outcomes: list[Outcome] = []
    for message in packed.messages:
        if message.attempt >= most:
            reason = f"{row.meaning} This text was refused for all numbers."
            outcomes.append(Rejected(message, row.code, reason))
        else:
            wait = outage_deferral_seconds(message.attempt, jitter=context.jitter())
            outcomes.append(_due_again(message, row, wait, context, counted=True))
    return Resolved(outcomes, refused=True)


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
    return Resolved(outcomes, countries=[pause])


def results_by_number(
    results: Iterable[NumberResult], sent: Collection[str]
) -> dict[str, NumberResult]:
    """Return one result for each number, by its canonical form; *sent* are those of the request.

    A spelling that may be read in two ways is the number that was sent.

    If a number has several, accepted wins, because it was sent; a temporary code loses, because
    a number is sent again only if no other result forbids it.
    """
    answers: dict[str, NumberResult] = {}
    for each in results:
        forms = forms_in_request(each.recipient)
        if not forms or is_masked(forms[0]):
            continue
        number = next((form for form in forms if form in sent), forms[0])
        known = answers.setdefault(number, each)
        if known is not each and _weight(each) > _weight(known):
            answers[number] = each
    return answers


_TEMPORARY_WEIGHT = 0


def _weight(one: NumberResult) -> int:
    match number_code(one.code).kind:
        case Kind.ACCEPTED:
            return 2
        case Kind.LATER | Kind.NOT_READY | Kind.QUOTA | Kind.COUNTRY:
            return _TEMPORARY_WEIGHT
        case _:
            return 1
