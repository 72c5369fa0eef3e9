"""The answer's JSON, as the page's Tables 6 and 7 and its example have it.

Written as text: every value but the sender is known to need no escape, and a text a number costs
a third of what a struct and its encoding cost.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat

import msgspec

from dispatcher.simulator.codes import ACCEPTED, RefusedError, top_code
from dispatcher.simulator.countries import PREFIX_LENGTH, country_of_prefix
from dispatcher.simulator.submission import Submission


class Answer(msgspec.Struct):
    """An answer of the API before it goes out; faults change it."""

    http_status: int
    code: str
    description: str
    results: list[str] | None = None  # one JSON object a number

    def body(self) -> bytes:
        """Encode it."""
        result = "" if self.results is None else f'"result":[{",".join(self.results)}],'
        description = msgspec.json.encode(self.description).decode()
        return f'{{{result}"code":"{self.code}","description":{description}}}'.encode()


def refuse(refusal: RefusedError) -> Answer:
    """Answer a request that is refused as a whole."""
    detail = f" ({refusal.detail})" if refusal.detail else ""
    message = top_code(refusal.code).message + detail
    return Answer(refusal.http_status, refusal.code, message)


def results(
    submission: Submission,
    statuses: Sequence[str] | None,
    totals: Sequence[int],
    *,
    id_prefix: str,
    at: float,
) -> list[str]:
    """Return the JSON of one SmsID for each number.

    A refused number has an smsMsgId too (seen in the field), but no segments.
    """
    created = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sender = msgspec.json.encode(submission.body.sender or "").decode()
    head = f'","createTime":"{created}","from":{sender},"smsMsgId":"{id_prefix}_'
    entries, numbers = submission.body.sms_content, submission.numbers
    if len(entries) < len(numbers):
        totals = [t for entry, t in zip(entries, totals, strict=True) for _ in entry.to]
    each = zip(numbers, totals, repeat(ACCEPTED) if statuses is None else statuses)  # noqa: B905 - repeat has no end
    return [
        f'{{"originTo":"{number}{head}{position}{_tail(number[:PREFIX_LENGTH], total, status)}'
        for position, (number, total, status) in enumerate(each, 1)
    ]


@lru_cache(maxsize=4096)  # of prefixes, not of numbers
def _tail(prefix: str, total: int, status: str) -> str:
    country = country_of_prefix(prefix) or ""
    segments = f',"total":{total}' if status == ACCEPTED else ""
    return f'","status":"{status}","countryId":"{country}"{segments}}}'
