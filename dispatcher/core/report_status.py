"""What follows from the status of a report: the provider's, and those of suppliers and carriers.

The words come from the published table (core.code_table). Suppliers and carriers send hundreds of
statuses, also longer ones than documented (provider.md, Status reports). A status without a row is
final and failed, and is shown as received.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.code_table import CODE_ROWS, published_rows
from dispatcher.core.language import ENGLISH, _, in_english, language

State = Literal["interim", "delivered", "undelivered"]
# What a number of reports pauses: the app, whose every message would get the same, or the app only
# if nothing of it is delivered meanwhile, for they are about one channel, signature or template,
# and no other of these delivered within a day (delivers_elsewhere in matching.sql).
Pauses = Literal["", "app", "app without a delivery"]


class Reason(StrEnum):
    """Why a message was, or was not, delivered."""

    DELIVERED = "delivered"
    INTERIM = "interim"  # a final report follows
    SILENT = "silent"  # final, but the carrier does not know the result
    FAILED = "failed"  # the carrier could not deliver it
    REFUSED = "refused"  # the platform refused it after it had taken it
    LIMIT = "limit"  # too many messages to one number
    CONTENT = "content"  # blocked words, or the same text too often
    BLOCKED = "blocked"  # the number is on a block list: no promotional messages to it any more


class Status(Struct, frozen=True):
    """A row of the table."""

    status: str
    state: State
    reason: Reason
    meaning: str  # one line
    advice: str  # one line: what to do
    resendable: bool = False  # refused before anything was sent, for a cause that can be removed
    pauses: Pauses = ""
    charged: bool = True  # where the account pays for what is sent; platform codes never are


# The reasons of the statuses for which source and result do not tell it.
_REASONS = {
    Reason.DELIVERED: "DELIVRD",
    Reason.INTERIM: "ACCEPTD",
    Reason.SILENT: "UNKNOWN EXPIRED",
    Reason.LIMIT: "MILIMIT LIMIT BEYONDN SC:0010",
    Reason.CONTENT: "CTLIMIT KEYWORD DJ:0255 SUPERWD"
    " SC:0001 SC:0006 SC:0007 SC:0008 SC:0009 SC:0015",
    Reason.BLOCKED: "BLACK MBBLACK TDBLACK TSBLACK BLKLIST 702 DB:9006 2:70 2:86"
    " SC:0003 SC:0004 SC:0005 SC:0016",
}
_REASON_OF = MappingProxyType(
    {status: reason for reason, listed in _REASONS.items() for status in listed.split()}
)
# The same of the states of SMS centres, which begin so and go on with the centre's own code.
_REASON_OF_BEGINNING = MappingProxyType({"ML:": Reason.INTERIM, "MM:": Reason.SILENT})
# Platform codes of reports after which the same may be sent again (provider.md, Rules): refused
# before anything was sent. Of all others a part may have been sent, or the person may not want it.
RESENDABLE_STATUSES = ("E200019", "E000628", "E000629", "E000632")
# Codes that every further message of the app would get too, and those that every message over the
# same channel, signature or template would get (provider.md, Rules).
APP_STATUSES = ("E000629", "E200018", "E200021", "E200027", "E200035")
PART_STATUSES = (
    "E200019", "E200020", "E200036", "SC:0013", "SC:0017", "SC:0018", "REJECTD*704", "RTE_ERR",
)  # fmt: skip
TEMPLATE_STATUSES = ("E200020", "SC:0017")  # of these, those about a template
# Final statuses that the platform makes up when a carrier says nothing (provider.md, Status
# reports). A later final report of the carrier takes their place.
MADE_UP_STATUSES = ("EXPIRED", "UNKNOWN")


def _reason(code: str, default: Reason) -> Reason:
    return _REASON_OF.get(code) or _REASON_OF_BEGINNING.get(code[:3], default)


def _pattern_of_results() -> str:
    """Return the pattern of the published statuses that say a result, for Python and PostgreSQL."""
    codes = [code for row in CODE_ROWS if row.level == "report" for code in row.codes]
    forms = [
        re.escape(code.removesuffix("*")) + (".*" if code.endswith("*") else "")
        for code in codes
        if code != "*"  # stands for those that are not published
        and _reason(code, Reason.FAILED) is not Reason.SILENT
    ]
    return f"^({'|'.join(forms)})$"


# A status that is not published may be an interim one, and some say that nothing is known: DELIVRD
# takes their place. Small letters mean the same.
RESULT_PATTERN = _pattern_of_results()
_RESULT = re.compile(RESULT_PATTERN, re.IGNORECASE)


def takes_place(state: State, status: str, known_state: State, known_status: str) -> bool:
    """Tell whether a report of a segment takes the place of the one that is *known*."""
    if state == "interim" or known_state == "interim":
        return state != "interim"
    if known_status.upper() in MADE_UP_STATUSES:
        return status.upper() not in MADE_UP_STATUSES
    return (
        state == "delivered"
        and known_state == "undelivered"
        and _RESULT.match(known_status) is None
    )


def report_status(status: str) -> Status:
    """Return what follows from a report's status; an unknown one is final and failed.

    Its words are in the reader's language.
    """
    known = STATUSES.get(status.upper())
    if known is None:
        return _status(status)
    if language() == ENGLISH:
        return known
    return replace(known, meaning=_(known.meaning), advice=_(known.advice))


def _status(status: str) -> Status:
    code = status.upper()
    rows = published_rows("report", code)
    row = rows[0] if rows else published_rows("report", "")[0]
    platform = row.source == "platform" or code.startswith(("E2000", "E0006", "SC:"))
    default = Reason.REFUSED if platform else Reason.FAILED
    reason = _reason(code, default)
    return Status(
        status,
        _state(reason),
        reason,
        _(row.meaning) if code in row.codes else _of_beginning(row.meaning, status),
        _(row.advice),
        resendable=code in RESENDABLE_STATUSES,
        pauses=_pauses(code),
        charged=not row.charged_by_sending.startswith("no"),
    )


def _of_beginning(meaning: str, status: str) -> str:
    """Return the meaning of a status that begins like others, with its name."""
    return _("{meaning}: {status}.").format(meaning=_(meaning).rstrip(".。"), status=status)


def _pauses(code: str) -> Pauses:
    if code in APP_STATUSES:
        return "app"
    return "app without a delivery" if code in PART_STATUSES else ""


def _state(reason: Reason) -> State:
    match reason:
        case Reason.DELIVERED:
            return "delivered"
        case Reason.INTERIM:
            return "interim"
        case _:
            return "undelivered"


def _statuses() -> Mapping[str, Status]:
    with in_english():  # a command imports this module after its language was chosen
        return MappingProxyType(
            {
                code: _status(code)
                for row in CODE_ROWS
                if row.level == "report"
                for code in row.codes
                if not code.endswith("*")
            }
        )


STATUSES = _statuses()
