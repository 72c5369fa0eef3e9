"""The JSON of an answer (API reference, Tables 6 and 7 and the example).

It is built as text: only the sender can need an escape, and a text for each number costs a third
of a struct and its encoding.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat

import msgspec

from dispatcher.simulator.countries import PREFIX_LENGTH, country_of_prefix
from dispatcher.simulator.number_results import Totals
from dispatcher.simulator.request import ACCEPTED, RequestRefusedError, SmsRequest, top_code


class Answer(msgspec.Struct):
    """An answer of the API before it is sent. Faults may change it."""

    http_status: int
    code: str
    description: str
    results: list[str] | None = None  # one JSON object for each number

    def body(self) -> bytes:
        """Return the JSON."""
        result = "" if self.results is None else f'"result":[{",".join(self.results)}],'
        description = msgspec.json.encode(self.description).decode()
        return f'{{{result}"code":"{self.code}","description":{description}}}'.encode()


def refusal_answer(refusal: RequestRefusedError) -> Answer:
    """Return the answer to a request that is refused as a whole."""
    detail = f" ({refusal.detail})" if refusal.detail else ""
    message = top_code(refusal.code).message + detail
    return Answer(refusal.http_status, refusal.code, message)


def encode_results(
    sms_request: SmsRequest,
    statuses: Sequence[str] | None,
    totals: Totals,
    *,
    id_prefix: str,
    at: float,
) -> list[str]:
    """Return the JSON of one SmsID for each number.

    A refused number has an smsMsgId too (observed), but no segments.
    """
    created = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sender = msgspec.json.encode(sms_request.body.sender or "").decode()
    head = f'","createTime":"{created}","from":{sender},"smsMsgId":"{id_prefix}_'
    entries, numbers = sms_request.body.sms_content, sms_request.numbers
    segments: Sequence[int] = totals.mainland
    if totals.mainland is not totals.abroad:
        segments = [
            totals.of_entry(at, number) for at, entry in enumerate(entries) for number in entry.to
        ]
    elif len(entries) < len(numbers):
        segments = [t for entry, t in zip(entries, segments, strict=True) for _ in entry.to]
    each = zip(numbers, segments, repeat(ACCEPTED) if statuses is None else statuses)  # noqa: B905 - repeat has no end
    return [
        f'{{"originTo":"{number}{head}{position}{_row_end(number[:PREFIX_LENGTH], total, status)}'
        for position, (number, total, status) in enumerate(each, 1)
    ]


@lru_cache(maxsize=4096)  # keyed by prefix, not by number
def _row_end(prefix: str, total: int, status: str) -> str:
    country = country_of_prefix(prefix) or ""
    segments = f',"total":{total}' if status == ACCEPTED else ""
    return f'","status":"{status}","countryId":"{country}"{segments}}}'
