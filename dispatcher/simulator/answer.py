"""The answer's JSON, as the page's Tables 6 and 7 and its example have it.

Written as text: every value but the sender is known to need no escape, and a text a number costs
a third of what a struct and its encoding cost.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

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
    made: list[str] = []
    position = 0
    for entry, total in zip(submission.body.sms_content, totals, strict=True):
        for number in entry.to:
            status = ACCEPTED if statuses is None else statuses[position]
            position += 1
            tail = _tail(number[:PREFIX_LENGTH], total, status)
            made.append(f'{{"originTo":"{number}{head}{position}{tail}')
    return made


@lru_cache(maxsize=4096)  # of prefixes, not of numbers
def _tail(prefix: str, total: int, status: str) -> str:
    country = country_of_prefix(prefix) or ""
    segments = f',"total":{total}' if status == ACCEPTED else ""
    return f'","status":"{status}","countryId":"{country}"{segments}}}'
