"""Packs messages into requests within the provider's limits.

Sizes are counted on the encoded bytes, so that requests can be filled completely.
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
    """Pack *messages*, in order, into requests; return them and the messages too long for one.

    Each request has one sender, and messages of equal content share an entry. No request holds a
    number twice: the provider answers by number, so two answers for one number could not be
    distinguished, and it sends only to the first copy (E200041). Later copies go into later
    requests. Requests come in the order of their first messages, and each takes messages until
    one does not fit. The time is linear: a message checks one request that has room, and skips
    a full one only if it repeats a number of an open one, *max_numbers* times at most.
    """
    lanes: dict[str | None, list[Message]] = {}
    sender: str | None = None
    lane: list[Message] = []  # of the last message; the next one nearly always has the same sender
    for message in messages:
        if not lane or message.sender != sender:
            sender = message.sender
            lane = lanes.setdefault(sender, [])
        lane.append(message)
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
        self.full = False  # a message did not fit: no more are added
        self.entries: dict[bytes, list[Message]] = {}

    def packed(self) -> RequestDraft:
        return RequestDraft(self.sender, list(starmap(Entry, self.entries.items())), self.size)


def _fill(  # noqa: C901 - a call for each message would cost more than a branch
    lane: list[Message], sender: str | None, empty: int, max_numbers: int, max_bytes: int
) -> tuple[list[_OpenRequest], list[Message]]:
    """Put the messages of one sender into requests; *empty* is the size of one without entries.

    Return the requests and the messages too long for one. This is the hot path of every message,
    so it is one loop with few calls.
    """
    encoded = wire.encode_json
    # Of the last message; the next one nearly always has the same.
    template_id: str | None = None  # none yet
    signature: str | None = None
    bare = before = after = b""
    entry_bytes, comma = wire.ENTRY_BYTES, wire.COMMA_BYTES
    fillings: list[_OpenRequest] = []
    too_long: list[Message] = []
    first = 0  # index of the first filling that is not full
    last: dict[str, int] = {}  # number -> index of the last filling that holds it
    for message in lane:
        if message.template_id != template_id or message.signature != signature:
            template_id, signature = message.template_id, message.signature
            bare, before, after = wire.content_frame(template_id, signature)
        params = message.params
        content = before + encoded(params) + after if params else bare
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
    """Split *packed* in two halves, to find the refused one; None if it is one number.

    Several entries are split first, because a refusal for content concerns one entry; a single
    entry is split by its numbers.
    """
    if len(packed.entries) > 1:
        middle = len(packed.entries) // 2
        return _part(packed, packed.entries[:middle]), _part(packed, packed.entries[middle:])
    if not packed.entries or len(packed.entries[0].messages) == 1:
        return None
    entry = packed.entries[0]
    # Every other number: bad ones often stand together, in a list that was sorted, and the numbers
    # that are tried alone should be of all parts of it.
    first, second = entry.messages[1::2], entry.messages[::2]
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
