"""The result of a request, passed from the sender to the recorder."""

from msgspec import DecodeError, Struct, json
from msgspec.structs import replace

from dispatcher.core.message import Batch, Entry, Message, RequestDraft
from dispatcher.core.outcome import Accepted, Outcome, Resolved, ReturnAll, UnknownResult


class BatchResult(Struct, frozen=True):
    """A batch whose request has ended, and what to record about it."""

    batch: Batch
    verdict: Resolved | UnknownResult | ReturnAll
    http_status: int | None
    code: str
    description: str
    tries: int
    seconds: float


def serialize(closing: BatchResult) -> bytes:
    """Encode *closing* for the spool: what is needed to record it later, without personal data.

    Numbers and texts are left out; the database has them.
    """
    verdict = closing.verdict
    if isinstance(verdict, Resolved):
        verdict = replace(
            verdict,
            outcomes=[replace(each, message=_bare(each.message)) for each in verdict.outcomes],
            unsure=[_bare(message) for message in verdict.unsure],
        )
    messages = [_bare(message) for message in closing.batch.messages]
    batch = replace(closing.batch, packed=RequestDraft(None, [Entry(b"", messages)], 0))
    return json.encode(replace(closing, batch=batch, verdict=verdict))


def deserialize(frozen: bytes) -> BatchResult | None:
    """Decode what `serialize` encoded; None if it is damaged."""
    try:
        return json.decode(frozen, type=BatchResult)
    except DecodeError:
        return None


MAX_SMALLINT = 32_767  # of PostgreSQL


def storable(result: BatchResult) -> BatchResult:
    """Return *result* with each value that PostgreSQL cannot store left out or cut."""
    verdict = result.verdict
    if isinstance(verdict, Resolved):
        verdict = replace(verdict, outcomes=[_storable(each) for each in verdict.outcomes])
    status = result.http_status
    return replace(
        result,
        verdict=verdict,
        http_status=status if status is not None and 0 <= status <= MAX_SMALLINT else None,
        code=storable_text(result.code),
        description=storable_text(result.description),
        tries=min(max(result.tries, 0), MAX_SMALLINT),
    )


def _storable(outcome: Outcome) -> Outcome:
    match outcome:
        case Accepted(message, provider_id, segments):
            fits = segments is not None and 0 <= segments <= MAX_SMALLINT
            return Accepted(
                message, provider_id and storable_text(provider_id), segments if fits else None
            )
        case _:
            return replace(outcome, code=storable_text(outcome.code))


def storable_text(text: str) -> str:
    """Return *text* without NUL and without lone surrogates, which no text of PostgreSQL has."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _bare(message: Message) -> Message:
    return Message(
        message.id,
        "",
        "",
        [],
        priority=message.priority,
        attempt=message.attempt,
        expires_in=message.expires_in,
        requeued=message.requeued,
        throttled=message.throttled,
    )
