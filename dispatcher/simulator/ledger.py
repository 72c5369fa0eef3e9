"""The witness: which number was accepted, when, with which token, and how often.

One row a request, its numbers joined into one text: a million numbers take about 30 MB. All
that costs time (counting, one row a number) is done when somebody reads.
"""

import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct

from dispatcher.simulator.submission import Entry

_BETWEEN = b"\x1f"


class Row(Struct, frozen=True, gc=False, rename="camel"):
    """One accepted number."""

    number: str
    token: str | None  # what `extend` carried
    sms_msg_id: str
    time: float  # seconds since 1970
    request: int  # serial of the request
    template_id: str
    fingerprint: int  # of template and parameters, see fingerprint()
    total: int  # segments


class Accepted(Struct, frozen=True, gc=False):
    """What one request brought in."""

    serial: int
    at: float  # seconds since 1970
    token: str | None
    id_prefix: str  # smsMsgId is this, "_" and the number's position in the request, from 1
    numbers: str  # those accepted, joined by commas
    positions: "array[int] | None"  # of those accepted; None: all of them
    counts: "array[int]"  # accepted numbers of each entry
    fingerprints: "array[int]"
    segments: "array[int]"
    templates: tuple[str, ...]

    def rows(self) -> Iterator[Row]:
        """One row a number."""
        numbers = self.numbers.split(",")
        positions: Sequence[int] = self.positions or range(1, len(numbers) + 1)
        at = 0
        for count, print_, total, template in zip(
            self.counts, self.fingerprints, self.segments, self.templates, strict=True
        ):
            for index in range(at, at + count):
                yield Row(
                    number=numbers[index],
                    token=self.token,
                    sms_msg_id=f"{self.id_prefix}_{positions[index]}",
                    time=self.at,
                    request=self.serial,
                    template_id=template,
                    fingerprint=print_,
                    total=total,
                )
            at += count


class _Templates(dict[str, tuple[str, int]]):
    """Each template id once, however many entries name it, with where its fingerprints begin."""

    def __missing__(self, template_id: str) -> tuple[str, int]:
        made = (template_id, zlib.crc32(template_id.encode() + _BETWEEN))
        self[template_id] = made
        return made


class Ledger:
    """Everything that was accepted, in the order of acceptance."""

    def __init__(self) -> None:
        self._requests: list[Accepted] = []
        self._numbers = 0
        self._counts: Counter[str] = Counter()
        self._counted = 0  # requests that _counts holds
        self._templates = _Templates()

    @property
    def numbers(self) -> int:
        """How many numbers were accepted, copies included."""
        return self._numbers

    @property
    def requests(self) -> int:
        """How many requests had at least one number accepted."""
        return len(self._requests)

    def record(
        self,
        entries: Sequence[Entry],
        joined: str,
        statuses: Sequence[str] | None,
        *,
        serial: int,
        at: float,
        token: str | None,
        id_prefix: str,
        segments: "array[int]",
    ) -> Accepted | None:
        """Write down what of a request is accepted; return it, or None if nothing was.

        *statuses* has one code a number, or is None if all were accepted.
        """
        positions = None
        counts = array("H", [len(entry.to) for entry in entries])
        if statuses is not None:
            numbers = joined.split(",")
            positions = array("H", [i for i, s in enumerate(statuses, 1) if s == "000000"])
            if not positions:
                return None
            joined = ",".join([numbers[position - 1] for position in positions])
            counts = _count_accepted(entries, statuses)
        templates = [self._templates[entry.template_id] for entry in entries]
        accepted = Accepted(
            serial,
            at,
            token,
            id_prefix,
            joined,
            positions,
            counts,
            array(
                "I",
                [
                    zlib.crc32("\x1f".join(entry.template_paras).encode(), begun)
                    for entry, (_, begun) in zip(entries, templates, strict=True)
                ],
            ),
            segments,
            tuple([template_id for template_id, _ in templates]),
        )
        self._requests.append(accepted)
        self._numbers += sum(counts)
        return accepted

    def counts(self) -> Counter[str]:
        """How often each number was accepted. The counter is the ledger's own: do not change it."""
        for accepted in self._requests[self._counted :]:
            self._counts.update(accepted.numbers.split(","))
        self._counted = len(self._requests)
        return self._counts

    def repeated(self) -> Counter[tuple[str, str]]:
        """How often a number was accepted with one token, where that is more than once."""
        requests_of = Counter(accepted.token for accepted in self._requests)
        suspects: Counter[tuple[str, str]] = Counter()
        for accepted in self._requests:
            token = accepted.token
            if token is None:
                continue
            numbers = accepted.numbers.split(",")
            if requests_of[token] > 1 or len(set(numbers)) < len(numbers):
                suspects.update((number, token) for number in numbers)
        return Counter({pair: count for pair, count in suspects.items() if count > 1})

    def __iter__(self) -> Iterator[Accepted]:
        return iter(self._requests)

    def rows(self) -> Iterator[Row]:
        """One row a number, of everything."""
        for accepted in self._requests:
            yield from accepted.rows()


def fingerprint(template_id: str, params: Sequence[str]) -> int:
    """Return 32 bits that tell two texts apart: CRC-32 of template and parameters.

    They are joined by 0x1F; without parameters it still stands after the template.
    """
    return zlib.crc32("\x1f".join(params).encode(), zlib.crc32(template_id.encode() + _BETWEEN))


def _count_accepted(entries: Sequence[Entry], statuses: Sequence[str]) -> "array[int]":
    counts = array("H")
    at = 0
    for entry in entries:
        counts.append(statuses[at : at + len(entry.to)].count("000000"))
        at += len(entry.to)
    return counts
