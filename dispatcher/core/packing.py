"""Packing: which messages share a request.

The provider's limits are counted on the encoded bytes themselves, so that requests can be filled
to the brim.
"""

from collections.abc import Callable, Sequence
from itertools import starmap

from dispatcher.core import wire
from dispatcher.core.message import Entry, Message, RequestDraft, to_e164


def pack(
    messages: Sequence[Message],
    *,
    callback: str | None,
    token_length: int,
    max_numbers: int = wire.MAX_NUMBERS,
    max_bytes: int = wire.MAX_BODY_BYTES,
) -> tuple[list[RequestDraft], list[Message]]:
    """Pack *messages*, in order, into requests; return those, and the messages that fit into none.

    Each request has one sender, and messages of equal content share an entry. No request holds a
    number twice: the provider answers by number, so two answers for one number could not be told
    apart, and it sends only to the first copy (E200041). Later copies of a number go into later
    requests. Requests come in the order of their first messages, and each takes messages until
    one does not fit. The time is linear: a message looks at one request that has room, and passes
    a full one only with a copy of a number that an open one holds, *max_numbers* times at most.
    """
    lanes: dict[str | None, list[Message]] = {}
    for message in messages:
        lanes.setdefault(message.sender, []).append(message)
    made: list[_OpenRequest] = []
    too_long: list[Message] = []
    for sender, lane in lanes.items():
        empty = wire.overhead(sender, token_length=token_length, callback=callback)
        fillings, misfits = _fill(lane, sender, empty, max_numbers, max_bytes)
        made += fillings
        too_long += misfits
    if len(lanes) > 1:
        place = {message.id: place for place, message in enumerate(messages)}
        made.sort(key=lambda filling: place[filling.first.id])
        too_long.sort(key=lambda message: place[message.id])
    return [filling.packed() for filling in made], too_long


class _OpenRequest:
    """A request that is being filled."""

    __slots__ = ("entries", "first", "full", "numbers", "sender", "size")

    def __init__(self, first: Message, sender: str | None, size: int) -> None:
        self.first = first
        self.sender = sender
        self.size = size
        self.numbers = 0
        self.full = False  # a message did not fit: nothing is added any more
        self.entries: dict[bytes, list[Message]] = {}

    def packed(self) -> RequestDraft:
        return RequestDraft(self.sender, list(starmap(Entry, self.entries.items())), self.size)


def _fill(
    lane: list[Message], sender: str | None, empty: int, max_numbers: int, max_bytes: int
) -> tuple[list[_OpenRequest], list[Message]]:
    """Put the messages of one sender into requests; *empty* is the size of one without entries.

    Return the requests, and the messages that fit into none. This runs for every message that is
    sent: so it is one loop, and calls little.
    """
    content_of, encoded = wire.content_encoder(), wire.encode_json
    entry_bytes, comma = wire.ENTRY_BYTES, wire.COMMA_BYTES
    fillings: list[_OpenRequest] = []
    too_long: list[Message] = []
    first = 0  # index of the first filling that is not full
    last: dict[str, int] = {}  # number -> index of the last filling that holds it
    for message in lane:
        content = content_of(message)
        recipient = message.recipient
        quoted = len(encoded(recipient))
        added = entry_bytes + quoted + len(content)
        if empty + added > max_bytes:
            too_long.append(message)
            continue
        number = to_e164(recipient)
        at = last[number] + 1 if number in last else 0
        if at < first:  # noqa: PLR1730 -- max() costs 0.1 µs, once for every message
            at = first
        while True:
            if at == len(fillings):
                fillings.append(_OpenRequest(message, sender, empty))
            filling = fillings[at]
            if not filling.full:
                sharing = filling.entries.get(content)
                size = filling.size + (added if sharing is None else quoted + comma)
                if size <= max_bytes and filling.numbers < max_numbers:
                    if sharing is None:
                        filling.entries[content] = [message]
                    else:
                        sharing.append(message)
                    filling.size = size
                    filling.numbers += 1
                    last[number] = at
                    break
                filling.full = True
                while first < len(fillings) and fillings[first].full:
                    first += 1
            at += 1
    return fillings, too_long


def halve(packed: RequestDraft) -> tuple[RequestDraft, RequestDraft] | None:
    """Cut *packed* in two, to find out which half is refused; None if it is one number.

    By entries first, for a refusal for content is one entry's; a lone entry by its numbers.
    """
    if len(packed.entries) > 1:
        middle = len(packed.entries) // 2
        return _part(packed, packed.entries[:middle]), _part(packed, packed.entries[middle:])
    if not packed.entries or len(packed.entries[0].messages) == 1:
        return None
    entry = packed.entries[0]
    middle = len(entry.messages) // 2
    first, second = entry.messages[:middle], entry.messages[middle:]
    return (
        _part(packed, [Entry(entry.content, first)]),
        _part(packed, [Entry(entry.content, second)]),
    )


def split_by(packed: RequestDraft, key: Callable[[Message], str]) -> dict[str, RequestDraft]:
    """Split *packed* into one request for each *key*, by first appearance."""
    parts: dict[str, list[Entry]] = {}
    for entry in packed.entries:
        groups: dict[str, list[Message]] = {}
        for message in entry.messages:
            groups.setdefault(key(message), []).append(message)
        for name, messages in groups.items():
            parts.setdefault(name, []).append(Entry(entry.content, messages))
    return {name: _part(packed, entries) for name, entries in parts.items()}


def _part(packed: RequestDraft, entries: list[Entry]) -> RequestDraft:
    """Return a request of *entries*, which are some of *packed*, or parts of some."""
    empty = packed.size - sum(map(wire.entry_bytes, packed.entries))
    return RequestDraft(packed.sender, entries, empty + sum(map(wire.entry_bytes, entries)))
