"""What the simulator received and accepted: tests compare the dispatcher's tables with it.

The journal has a record of every request, accepted or not. The ledger has the accepted numbers:
one entry for each request, its numbers joined into one text, so that a million numbers take about
30 MB. Counting and making rows cost time; both happen only when they are asked for.
"""

import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct

from dispatcher.simulator.number_results import Totals
from dispatcher.simulator.request import ACCEPTED, ContentEntry

_SEPARATOR = b"\x1f"


class RequestRecord(Struct, gc=False, rename="camel"):
    """One request. Its fields are set while the simulator processes it."""

    serial: int  # 1 for the first
    at: float  # arrival, seconds since 1970
    monotonic: float  # arrival, seconds of the monotonic clock
    host: str  # the Host header as on the wire
    scheme: str  # "aksk", "wsse", or "" if it is neither
    size: int = 0  # bytes of the body
    numbers: int = 0
    accepted: int = 0
    token: str | None = None
    http_status: int = 0  # 0: no answer was sent
    code: str = ""  # the top-level code of the answer
    faults: list[str] = []
    seconds: float | None = None  # until the answer was ready; None: not answered (yet)
    body: bytes | None = None  # only with the option keep_bodies


class Journal:
    """The records of all requests, in the order of arrival."""

    def __init__(self) -> None:
        self._records: list[RequestRecord] = []

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self._records)

    def __getitem__(self, index: int) -> RequestRecord:
        return self._records[index]

    def add(self, *, at: float, monotonic: float, host: str, scheme: str) -> RequestRecord:
        """Append the record of a request that arrives, and return it."""
        record = RequestRecord(len(self._records) + 1, at, monotonic, host, scheme)
        self._records.append(record)
        return record

    def since(self, after: int = 0) -> Iterator[RequestRecord]:
        """Yield the records with a serial above *after*."""
        yield from self._records[after:]


class Row(Struct, frozen=True, gc=False, rename="camel"):
    """One accepted number."""

    number: str
    token: str | None  # the value of `extend`
    sms_msg_id: str
    time: float  # seconds since 1970
    request: int  # serial of the request
    template_id: str
    fingerprint: int  # of template and parameters, see fingerprint()
    total: int  # segments


class AcceptedRequest(Struct, frozen=True, gc=False):
    """The accepted numbers of one request."""

    serial: int
    at: float  # seconds since 1970
    token: str | None
    id_prefix: str  # smsMsgId is this, "_" and the number's position in the request, from 1
    numbers: str  # accepted ones, joined by commas
    positions: "array[int] | None"  # of the accepted ones; None: all
    counts: "array[int]"  # accepted numbers of each entry
    fingerprints: "array[int]"
    totals: Totals
    templates: tuple[str, ...]
    sender: str | None = None  # the channel number

    def rows(self) -> Iterator[Row]:
        """Yield one row for each number."""
        numbers = self.numbers.split(",")
        positions: Sequence[int] = self.positions or range(1, len(numbers) + 1)
        at = 0
        for entry, (count, fingerprint_, template) in enumerate(
            zip(self.counts, self.fingerprints, self.templates, strict=True)
        ):
            for index in range(at, at + count):
                yield Row(
                    number=numbers[index],
                    token=self.token,
                    sms_msg_id=f"{self.id_prefix}_{positions[index]}",
                    time=self.at,
                    request=self.serial,
                    template_id=template,
                    fingerprint=fingerprint_,
                    total=self.totals.of_entry(entry, numbers[index]),
                )
            at += count


class _TemplateCache(dict[str, tuple[str, int]]):
    """Holds each template id once, with the CRC that its fingerprints start from."""

    def __missing__(self, template_id: str) -> tuple[str, int]:
        cached = (template_id, zlib.crc32(template_id.encode() + _SEPARATOR))
        self[template_id] = cached
        return cached


class Ledger:
    """All accepted requests, in the order of acceptance."""

    def __init__(self) -> None:
        self._requests: list[AcceptedRequest] = []
        self._numbers = 0
        self._counts: Counter[str] = Counter()
        self._counted = 0  # requests included in _counts
        self._templates = _TemplateCache()

    @property
    def numbers(self) -> int:
        """The number of accepted numbers, copies included."""
        return self._numbers

    @property
    def requests(self) -> int:
        """The number of requests with at least one accepted number."""
        return len(self._requests)

    def record(
        self,
        entries: Sequence[ContentEntry],
        joined: str,
        statuses: Sequence[str] | None,
        *,
        serial: int,
        at: float,
        token: str | None,
        id_prefix: str,
        totals: Totals,
        sender: str | None = None,
    ) -> AcceptedRequest | None:
        """Record the accepted numbers of a request; return them, or None if there are none.

        *statuses* has one code for each number, or is None if all are accepted.
        """
        positions = None
        counts = array("H", [len(entry.to) for entry in entries])
        if statuses is not None:
            numbers = joined.split(",")
            positions = array("H", [i for i, s in enumerate(statuses, 1) if s == ACCEPTED])
            if not positions:
                return None
            joined = ",".join([numbers[position - 1] for position in positions])
            counts = _count_accepted(entries, statuses)
        templates = [self._templates[entry.template_id] for entry in entries]
        accepted = AcceptedRequest(
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
                    zlib.crc32("\x1f".join(entry.template_paras).encode(), template_crc)
                    for entry, (_, template_crc) in zip(entries, templates, strict=True)
                ],
            ),
            totals,
            tuple([template_id for template_id, _ in templates]),
            sender,
        )
        self._requests.append(accepted)
        self._numbers += sum(counts)
        return accepted

    def counts(self) -> Counter[str]:
        """Return how often each number was accepted. The caller must not change the counter."""
        for accepted in self._requests[self._counted :]:
            self._counts.update(accepted.numbers.split(","))
        self._counted = len(self._requests)
        return self._counts

    def repeated(self) -> Counter[tuple[str, str]]:
        """Return the (number, token) pairs that were accepted more than once, with their counts."""
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

    def __iter__(self) -> Iterator[AcceptedRequest]:
        return iter(self._requests)

    def rows(self) -> Iterator[Row]:
        """Yield one row for each accepted number of all requests."""
        for accepted in self._requests:
            yield from accepted.rows()


def fingerprint(template_id: str, params: Sequence[str]) -> int:
    """Return a CRC-32 of template and parameters, which identifies a text.

    The parts are joined by 0x1F, which follows the template even without parameters.
    """
    return zlib.crc32("\x1f".join(params).encode(), zlib.crc32(template_id.encode() + _SEPARATOR))


def _count_accepted(entries: Sequence[ContentEntry], statuses: Sequence[str]) -> "array[int]":
    counts = array("H")
    at = 0
    for entry in entries:
        counts.append(statuses[at : at + len(entry.to)].count(ACCEPTED))
        at += len(entry.to)
    return counts
