"""What is decided of a claimed message before it costs a request."""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from dispatcher.core.codes import number_code
from dispatcher.core.message import Message, RequestDraft
from dispatcher.core.outcome import Deferred, Expired, Outcome, Rejected
from dispatcher.core.packing import pack
from dispatcher.core.wire import MAX_NUMBERS

COUNTRY_RETRY_SECONDS = 600.0  # seconds until a message to a paused country is looked at again
NO_OUTCOMES: Mapping[int, Outcome] = MappingProxyType({})


class PreparedClaim(Struct, frozen=True):
    """A claim, sorted out: what goes into requests, and what became of the rest."""

    packed: list[RequestDraft]
    outcomes: list[Outcome]


def prepare(
    messages: Iterable[Message],
    *,
    callback: str | None,
    token_length: int,
    paused_countries: Collection[str],
    country: Callable[[str], str],
    most: int = MAX_NUMBERS,
    decided: Mapping[int, Outcome] = NO_OUTCOMES,
) -> PreparedClaim:
    """Sort out what must not be sent, and pack the rest, at most *most* numbers to a request.

    *country* names the country of a number; it is asked only while a country is paused. *decided*
    holds what the operators' own rules say of some messages, by id (see `core.rules`).
    """
    outcomes: list[Outcome] = []
    fit: list[Message] = []
    for message in messages:
        if message.expires_in is not None and message.expires_in <= 0 and not message.requeued:
            outcomes.append(Expired(message))
        elif message.sender is None and not message.signature:
            outcomes.append(_rejected(message, "no-sender"))
        elif paused_countries and country(message.recipient) in paused_countries:
            outcomes.append(Deferred(message, "E000630", COUNTRY_RETRY_SECONDS, counted=False))
        elif decided and message.id in decided:
            outcomes.append(decided[message.id])
        else:
            fit.append(message)
    packed, too_long = pack(fit, callback=callback, token_length=token_length, max_numbers=most)
    outcomes.extend(_rejected(message, "too-long") for message in too_long)
    return PreparedClaim(packed, outcomes)


def _rejected(message: Message, code: str) -> Rejected:
    row = number_code(code)
    return Rejected(message, code, f"{row.meaning} {row.advice}")
