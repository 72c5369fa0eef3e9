"""The table of report statuses: those of the provider, and the known ones of carriers.

Carriers send hundreds of statuses, also longer ones than documented (provider.md, Status reports).
A status without a row is final and failed, and is shown as received.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

State = Literal["interim", "delivered", "undelivered"]


class Reason(StrEnum):
    """Why a message was, or was not, delivered."""

    DELIVERED = "delivered"
    INTERIM = "interim"  # a final report follows
    SILENT = "silent"  # final, but the carrier does not know the result
    FAILED = "failed"  # the carrier could not deliver it
    REFUSED = "refused"  # the platform refused it after it had taken it
    LIMIT = "limit"  # too many messages to one number
    CONTENT = "content"  # blocked words, or the same text too often
    BLOCKED = "blocked"  # the number is on a block list: do not send to it again


class Status(Struct, frozen=True):
    """A row of the table."""

    status: str
    state: State
    reason: Reason
    meaning: str  # one line


_ROWS: tuple[tuple[str, Reason, str], ...] = (
    ("DELIVRD", Reason.DELIVERED, "Delivered."),
    ("ACCEPTD", Reason.INTERIM, "The carrier has it; a final report follows."),
    ("UNKNOWN", Reason.SILENT, "The carrier does not know its result."),
    ("EXPIRED", Reason.SILENT, "No report of the carrier within 72 h, or it gave up."),
    ("UNDELIV", Reason.FAILED, "The carrier could not deliver it: phone off, full or gone."),
    ("REJECTD", Reason.FAILED, "The carrier refused it."),
    ("DELETED", Reason.FAILED, "The carrier deleted it."),
    ("MILIMIT", Reason.LIMIT, "More messages to the number in a minute than allowed."),
    ("LIMIT", Reason.LIMIT, "More messages to the number in a day than allowed."),
    ("BEYONDN", Reason.LIMIT, "More messages to the number in a day than allowed."),
    ("CTLIMIT", Reason.CONTENT, "The same text to the number too often."),
    ("KEYWORD", Reason.CONTENT, "The text has blocked words."),
    ("SC:0006", Reason.CONTENT, "The text has blocked words."),
    ("BLACK", Reason.BLOCKED, "The number is on a block list."),
    ("MBBLACK", Reason.BLOCKED, "The number is on a block list."),
    ("TDBLACK", Reason.BLOCKED, "The number is on a block list: it has unsubscribed."),
    ("TSBLACK", Reason.BLOCKED, "The number is on a block list: its owner has complained."),
    ("SC:0005", Reason.BLOCKED, "The number is on a block list."),
)


def _state(reason: Reason) -> State:
    match reason:
        case Reason.DELIVERED:
            return "delivered"
        case Reason.INTERIM:
            return "interim"
        case _:
            return "undelivered"


STATUSES: Mapping[str, Status] = MappingProxyType(
    {status: Status(status, _state(reason), reason, text) for status, reason, text in _ROWS}
)


# Final statuses that the platform makes up when a carrier says nothing (provider.md, Status
# reports). A later final report of the carrier takes their place.
MADE_UP_STATUSES = ("EXPIRED", "UNKNOWN")


def report_status(status: str) -> Status:
    """Return the row of a report's status; an unknown one is final and failed.

    E2000xx and E0006xx are refusals of the platform for messages it had accepted.
    """
    row = STATUSES.get(status.upper())
    if row is not None:
        return row
    if status.startswith(("E2000", "E0006")):
        return Status(status, "undelivered", Reason.REFUSED, f"The platform refused it: {status}.")
    return Status(status, "undelivered", Reason.FAILED, f"The carrier failed it: {status}.")
