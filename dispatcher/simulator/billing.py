"""What the provider would charge, in segments, by its two ways of billing (provider.md, Billing).

`delivered` counts the segments that a carrier reports as delivered; `sent` counts all segments of
accepted messages, except those that the platform itself refused afterwards.
"""

from collections import Counter
from collections.abc import Iterable

from dispatcher.simulator.ledger import AcceptedRequest, Row
from dispatcher.simulator.number_results import is_mainland

DELIVERED = "DELIVRD"
_PLATFORM = ("E2000", "E0006", "SC:")


class Bill:
    """Counts the final statuses of segments; what is accepted stands in the ledger."""

    def __init__(self) -> None:
        self._delivered: Counter[bool] = Counter()  # by whether the number is in mainland China
        self._refused: Counter[bool] = Counter()

    def note(self, row: Row, status: str) -> None:
        """Note the final status of one segment of an accepted message."""
        if status == DELIVERED:
            self._delivered[is_mainland(row.number)] += 1
        elif status.startswith(_PLATFORM):
            self._refused[is_mainland(row.number)] += 1

    def sums(self, accepted: Iterable[AcceptedRequest]) -> dict[str, dict[str, int]]:
        """Return the charged segments by way of billing, in mainland China and abroad."""
        sent: Counter[bool] = Counter()
        for request in accepted:
            for row in request.rows():
                sent[is_mainland(row.number)] += row.total
        return {
            "delivered": {"mainland": self._delivered[True], "abroad": self._delivered[False]},
            "sent": {
                "mainland": sent[True] - self._refused[True],
                "abroad": sent[False] - self._refused[False],
            },
        }
