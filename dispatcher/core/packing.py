"""Packing: which messages share a request.

The provider's limits are counted on the encoded bytes themselves, so that requests can be filled
to the brim.
"""

from collections.abc import Callable, Iterable
from itertools import starmap

from dispatcher.core import wire
from dispatcher.core.message import Entry, Message, Packed, canonical


def pack(
    messages: Iterable[Message],
    *,
    callback: str | None,
    token_length: int,
    max_numbers: int = wire.MAX_NUMBERS,
    max_bytes: int = wire.MAX_BYTES,
) -> tuple[list[Packed], list[Message]]:
    """Pack *messages*, in order, into requests; return those, and the messages that fit into none.

    Each request has one sender, and messages of equal content share an entry. No request holds a
    number twice: the provider answers by number, so two answers for one number could not be told
    apart, and it sends only to the first copy (E200041). Later copies of a number go into later
    requests. Requests come in the order of their first messages, and each takes messages until
    one does not fit. The time is linear: a message looks at one request that has room, and passes
    a full one only with a copy of a number that an open one holds, *max_numbers* times at most.
    """
    content_of, encoded = wire.contents(), wire.encoded
    lanes: dict[str | None, _Lane] = {}
    made: list[_Filling] = []
    too_long: list[Message] = []
    for message in messages:
        lane = lanes.get(message.sender)
        if lane is None:
            empty = wire.overhead(message.sender, token_length=token_length, callback=callback)
            lane = _Lane(message.sender, empty, max_numbers, max_bytes, made)
            lanes[message.sender] = lane
        if not lane.take(message, content_of(message), len(encoded(message.recipient))):
            too_long.append(message)
    return [filling.packed() for filling in made], too_long


class _Filling:
    """A request that is being filled."""

    __slots__ = ("entries", "full", "numbers", "sender", "size")

    def __init__(self, sender: str | None, size: int) -> None:
        self.sender = sender
        self.size = size
        self.numbers = 0
        self.full = False  # a message did not fit: nothing is added any more
        self.entries: dict[bytes, list[Message]] = {}

    def packed(self) -> Packed:
        return Packed(self.sender, list(starmap(Entry, self.entries.items())), self.size)


class _Lane:
    """The requests of one sender."""

    __slots__ = ("empty", "fillings", "first", "last", "made", "max_bytes", "max_numbers", "sender")

    def __init__(
        self,
        sender: str | None,
        empty: int,
        max_numbers: int,
        max_bytes: int,
        made: list[_Filling],
    ) -> None:
        self.sender = sender
        self.empty = empty  # bytes of a request without entries
        self.max_numbers = max_numbers
        self.max_bytes = max_bytes
        self.made = made  # the requests of all senders, in order
        self.fillings: list[_Filling] = []
        self.first = 0  # index of the first filling that is not full
        self.last: dict[str, int] = {}  # number -> index of the last filling that holds it

    def take(self, message: Message, content: bytes, quoted: int) -> bool:
        """Put *message* into the first request that may have it; False if none ever can."""
        added = wire.ENTRY_BYTES + quoted + len(content)
        if self.empty + added > self.max_bytes:
            return False
        number = canonical(message.recipient)
        at = self.last.get(number, -1) + 1
        if at < self.first:  # noqa: PLR1730 -- max() costs 0.1 µs, once for every message
            at = self.first
        while True:
            if at == len(self.fillings):
                self._open()
            filling = self.fillings[at]
            if not filling.full:
                sharing = filling.entries.get(content)
                size = filling.size + (added if sharing is None else quoted + wire.COMMA)
                if size <= self.max_bytes and filling.numbers < self.max_numbers:
                    if sharing is None:
                        filling.entries[content] = [message]
                    else:
                        sharing.append(message)
                    filling.size = size
                    filling.numbers += 1
                    self.last[number] = at
                    return True
                self._fill(filling)
            at += 1

    def _open(self) -> None:
        filling = _Filling(self.sender, self.empty)
        self.fillings.append(filling)
        self.made.append(filling)

    def _fill(self, filling: _Filling) -> None:
        filling.full = True
        while self.first < len(self.fillings) and self.fillings[self.first].full:
            self.first += 1


def halve(packed: Packed) -> tuple[Packed, Packed] | None:
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


def split_by(packed: Packed, key: Callable[[Message], str]) -> dict[str, Packed]:
    """Split *packed* into one request for each *key*, by first appearance."""
    parts: dict[str, list[Entry]] = {}
    for entry in packed.entries:
        groups: dict[str, list[Message]] = {}
        for message in entry.messages:
            groups.setdefault(key(message), []).append(message)
        for name, messages in groups.items():
            parts.setdefault(name, []).append(Entry(entry.content, messages))
    return {name: _part(packed, entries) for name, entries in parts.items()}


def _part(packed: Packed, entries: list[Entry]) -> Packed:
    """Return a request of *entries*, which are some of *packed*, or parts of some."""
    empty = packed.size - sum(map(wire.entry_bytes, packed.entries))
    return Packed(packed.sender, entries, empty + sum(map(wire.entry_bytes, entries)))
