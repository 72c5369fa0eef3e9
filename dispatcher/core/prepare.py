"""Checks claimed messages before they are sent, and packs them into requests."""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from dispatcher.core.codes import number_code
from dispatcher.core.message import Message, RequestDraft
from dispatcher.core.outcome import Deferred, Expired, Outcome, Rejected
from dispatcher.core.packing import pack
from dispatcher.core.wire import MAX_NUMBERS

COUNTRY_RETRY_SECONDS = 600.0  # until a message to a paused country is due again
NO_OUTCOMES: Mapping[int, Outcome] = MappingProxyType({})


class PreparedClaim(Struct, frozen=True):
    """The requests of a claim, and the outcomes of the messages that are not sent."""

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
    """Decide the messages that must not be sent, and pack the others into requests.

    Args:
        messages: the claimed messages, in order.
        callback: the address for reports, part of every request.
        token_length: the length of the token that each request gets.
        paused_countries: ISO 3166 codes; messages to them are deferred.
        country: returns the country of a number; called only while a country is paused.
        most: numbers in one request at most.
        decided: outcomes of operators' rules, by message id (see `core.rules`).
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
