"""Writes deploy/docs/codes.md from the tables of codes: `./dev python tests/codes_page.py`."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from dispatcher.core.codes import NUMBER, OURS, REQUEST, Code, Kind
from dispatcher.core.report_matching import WHY
from dispatcher.core.report_status import STATUSES, Reason

PAGE = Path(__file__).parents[1] / "deploy/docs/codes.md"

KINDS = {
    Kind.ACCEPTED: "accepted; status reports follow",
    Kind.LATER: "deferred: sent again some minutes later; the app slows down",
    Kind.NOT_READY: "deferred for 5 minutes, at most 3 attempts; then rejected",
    Kind.PERMANENT: "rejected; of a whole request: halved until the bad message is alone",
    Kind.DUPLICATE: "rejected: another copy of the number was sent",
    Kind.UNKNOWN: "of a number: rejected. Of a request: HTTP 401 and 403 pause the app, another "
    "4xx rejects, any other status makes the batch unsure",
    Kind.RESULT: "the codes of the numbers decide; without them the batch becomes unsure",
    Kind.AMBIGUOUS: "tried once more at once, then halved; alone, deferred for at most 5 attempts",
    Kind.CONTENT: "halved until the bad message is alone; that one is rejected",
    Kind.CONFIGURATION: "the app pauses, its messages return; probed after 1 to 10 minutes",
    Kind.CLOCK: "as configuration; if other hosts can send, only this host stops",
    Kind.ACCOUNT: "the app pauses, its messages return; probed after 1 to 10 minutes",
    Kind.ADDRESS: "the app pauses, its messages return; probed every 15 minutes",
    Kind.QUOTA: "the app pauses until 00:00 UTC+8, then it is probed every hour",
    Kind.COUNTRY: "messages to that country wait, for at most an hour at a time; others are sent",
    Kind.NOT_SENT: "not sent: tried again at once, then the app pauses and is probed",
    Kind.UNKNOWN_RESULT: "the batch becomes unsure; it is never sent again by itself",
}

REASONS = {
    Reason.DELIVERED: "delivered",
    Reason.INTERIM: "a final report follows",
    Reason.SILENT: "final; delivery is not known",
    Reason.FAILED: "not delivered by the carrier",
    Reason.REFUSED: "refused by the platform after it had accepted the message",
    Reason.LIMIT: "too many messages to one number",
    Reason.CONTENT: "blocked words, or the same text too often",
    Reason.BLOCKED: "the number is on a block list; `SUPPRESS_BLOCKED` suppresses it",
}

HEAD = """\
# Codes

The page is generated from `dispatcher/core/codes.py`, `dispatcher/core/report_status.py` and
`dispatcher/core/report_matching.py` by `./dev python tests/codes_page.py`; a test compares them.
[Provider](provider.md) has the sources of the provider's codes. `message_status.code` and the
console show these codes; `dispatcher show ID` adds meaning and advice.

A code has a kind, and the kind alone decides what follows (`dispatcher/core/outcome.py`).
"""

OTHER_HTTP = """\
An HTTP status without a row: 3xx and 4xx pause the app, 5xx makes the batch unsure.
"""

OTHER_STATUSES = """\
`E2000xx` and `E0006xx` are refusals by the platform after it had accepted the message. Every other
status is final and failed. Case does not matter.
"""


def codes_page() -> str:
    """Return the text of the page."""
    return "\n".join(
        (
            HEAD,
            _table("Kinds", ("kind", "what follows"), _kinds()),
            _codes("Of one number", NUMBER),
            _codes("Of a whole request", REQUEST),
            OTHER_HTTP,
            _codes("Of the dispatcher itself", OURS),
            _table("Statuses of reports", ("status", "state", "reason", "meaning"), _statuses()),
            OTHER_STATUSES,
            _table("Reasons of statuses", ("reason", "meaning"), _reasons()),
            _table("Reports without a message", ("reason", "meaning"), _unmatched()),
        )
    ).replace("\n\n\n", "\n\n")


def _codes(title: str, codes: Mapping[str, Code]) -> str:
    rows = ((f"`{row.code}`", row.kind, row.meaning, row.advice) for row in codes.values())
    return _table(title, ("code", "kind", "meaning", "what to do"), rows)


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"## {title}\n\n{table}".replace("<NAME>", "NAME")  # Markdown would take it for HTML


def _kinds() -> Iterable[tuple[str, str]]:
    return ((kind.value, KINDS[kind]) for kind in Kind)


def _statuses() -> Iterable[tuple[str, ...]]:
    for row in STATUSES.values():
        yield f"`{row.status}`", row.state, row.reason.value, row.meaning


def _reasons() -> Iterable[tuple[str, str]]:
    return ((reason.value, REASONS[reason]) for reason in Reason)


def _unmatched() -> Iterable[tuple[str, str]]:
    return ((f"`{reason}`", meaning) for reason, meaning in WHY.items())


if __name__ == "__main__":
    PAGE.write_text(codes_page(), encoding="utf-8")
