"""Checks claimed messages before they are sent, and packs them into requests."""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from dispatcher.core.allowed import AllowedNumbers
from dispatcher.core.codes import number_code
from dispatcher.core.message import Message, RequestDraft
from dispatcher.core.outcome import Deferred, Expired, Outcome, Rejected
from dispatcher.core.packing import pack
from dispatcher.core.wire import MAX_BODY_BYTES, MAX_NUMBERS

COUNTRY_RETRY_SECONDS = 600.0  # until a message to a paused country is due again
NARROW_RATIO = 4  # a narrow request has less than a fourth of the numbers that it could have
POSTPONE_RATIO = 10.0  # of the time for which a request occupies its slot
MIN_SLOT_SECONDS = 0.05
MAX_POSTPONE_SECONDS = 5.0
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
    allowed: AllowedNumbers | None = None,
) -> PreparedClaim:
    """Decide the messages that must not be sent, and pack the others into requests.

    Args:
        messages: the claimed messages, in order.
        callback: the address for reports, part of every request.
        token_length: the length of the token that each request gets.
        paused_countries: ISO 3166 codes; messages to them are deferred.
        country: returns the country of a number; called only while a country is paused, or with
            *allowed*.
        most: numbers in one request at most.
        decided: outcomes of operators' rules, by message id (see `core.rules`).
        allowed: the numbers that may be sent to; None: all.
    """
    outcomes: list[Outcome] = []
    fit: list[Message] = []
    no_rule = allowed is None and not paused_countries and not decided
    for message in messages:
        if no_rule and message.expires_in is None and message.sender is not None:  # nearly always
            fit.append(message)
        elif message.expires_in is not None and message.expires_in <= 0 and not message.requeued:
            outcomes.append(Expired(message))
        elif message.sender is None and not message.signature:
            outcomes.append(_rejected(message, "no-sender"))
        elif allowed is not None and (code := allowed.refusal(message.recipient, country=country)):
            outcomes.append(_rejected(message, code))
        elif paused_countries and country(message.recipient) in paused_countries:
            outcomes.append(Deferred(message, "E000630", COUNTRY_RETRY_SECONDS, counted=False))
        elif decided and message.id in decided:
            outcomes.append(decided[message.id])
        else:
            fit.append(message)
    packed, too_long = pack(fit, callback=callback, token_length=token_length, max_numbers=most)
    outcomes.extend(_rejected(message, "too-long") for message in too_long)
    return PreparedClaim(packed, outcomes)


class SlotShare(Struct, frozen=True):
    """The requests of a claim, by what becomes of them."""

    now: list[RequestDraft]
    returned: list[RequestDraft]  # no slot is free: to the place they had
    postponed: list[RequestDraft]  # to a later one, so that others are seen


def share_slots(packed: list[RequestDraft], slots: int, *, numbers: int, full: bool) -> SlotShare:
    """Return which of *packed* are sent on *slots*.

    Messages to one number, or with a sender each, take a request each. One slot is for these where
    there are requests that carry many of *numbers*, which have the others. Where the claim is
    *full* of narrow ones, there may be others behind, which would wait for all of these: the rest
    of the narrow ones is postponed. A long text also leaves room for few numbers, and is not meant.
    """
    if len(packed) <= slots:
        return SlotShare(packed, [], [])
    narrow: list[RequestDraft] = []
    wide: list[RequestDraft] = []
    for each in packed:
        few = len(each.messages) * NARROW_RATIO < numbers and each.size * 2 < MAX_BODY_BYTES
        (narrow if few else wide).append(each)
    if not narrow or not (wide or full):
        return SlotShare(packed[:slots], packed[slots:], [])
    first = slots  # narrow ones that are sent
    if wide:
        first = 1 if slots > 1 or narrow[0] is packed[0] else 0
        first = max(first, slots - len(wide))
    room = slots - first
    if full and len(narrow) > slots:
        return SlotShare(narrow[:first] + wide[:room], wide[room:], narrow[first:])
    # In their order: what packing left of the last messages has no slot before full requests.
    others = {id(each) for each in narrow[first:]}
    now = [each for each in packed if id(each) not in others][:slots]
    taken = {id(each) for each in now}
    return SlotShare(now, [each for each in packed if id(each) not in taken], [])


def postpone(share: SlotShare, *, slot_seconds: float, all_slots: int) -> list[Deferred]:
    """Give what *share* postpones later places, one after the other.

    A tenth of the slots suffices for messages that are due at that distance; all of them, where
    no others were seen. Where there are many they are due sooner, and are postponed again: if
    nothing else is due by then, they have all slots. What is one request now is due at one time,
    and can be one again.

    Args:
        share: the requests of a claim.
        slot_seconds: how long a request occupies its slot.
        all_slots: request slots of the app, free or not.
    """
    if not share.postponed:
        return []
    slot = max(slot_seconds, MIN_SLOT_SECONDS) / all_slots
    if any(len(packed.messages) > 1 for packed in share.now):
        slot *= POSTPONE_RATIO
    distance = min(slot, MAX_POSTPONE_SECONDS / len(share.postponed))
    return [
        Deferred(message, "", distance * place, counted=False)
        for place, packed in enumerate(share.postponed, 1)
        for message in packed.messages
    ]


def _rejected(message: Message, code: str) -> Rejected:
    row = number_code(code)
    return Rejected(message, code, f"{row.meaning} {row.advice}")
