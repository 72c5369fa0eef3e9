"""The answer's JSON, as the page's Tables 6 and 7 and its example have it.

Written as text: every value but the sender is known to need no escape, and a text a number costs
a third of what a struct and its encoding cost.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from dispatcher.simulator.codes import RefusedError, top_code
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
        tail = f',"total":{total}}}'
        for number in entry.to:
            position += 1
            if statuses is not None and (status := statuses[position - 1]) != "000000":
                made.append(
                    f'{{"originTo":"{number}{head}{position}","status":"{status}",'
                    f'"countryId":"{country_of_prefix(number[:PREFIX_LENGTH]) or ""}"}}'
                )
                continue
            made.append(
                f'{{"originTo":"{number}{head}{position}","status":"000000",'
                f'"countryId":"{country_of_prefix(number[:PREFIX_LENGTH]) or ""}"{tail}'
            )
    return made
