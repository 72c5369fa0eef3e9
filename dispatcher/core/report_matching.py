"""To which message a report belongs, and what follows from that.

The token names the request, the number names the message in it. Only a batch that is unsure can
be settled by a report; whatever else a report may claim, it creates nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from msgspec import Struct

from dispatcher.core.message import to_e164
from dispatcher.core.report_status import State

# A batch that was settled this way has its messages in the queue again.
RESENT_BY = frozenset({"policy: resend", "operator: resend"})

UNMATCHED_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "no-token": "It has no `extend`, so nothing says which request it is about.",
        "unknown-token": "No request of this database had its token.",
        "other-number": "The request with its token was not to this number.",
        "still-open": "The request has no answer yet; it is looked at again.",
        "not-accepted": "The message was refused, cancelled or expired: it is not in question.",
        "not-taken": "The answer said that the number was not taken, and it is sent again.",
        "sent-twice": "The message was accepted by another request as well.",
        "other-id": "The answer gave the message another provider id.",
        "being-resent": "Its message is on its way a second time; it is looked at again.",
    }
)


class Backlog(Struct, frozen=True):
    """The reports that are stored and wait to be matched."""

    reports: int
    oldest_seconds: float


class PendingReport(Struct, frozen=True, gc=False):
    """A report that came, as far as matching needs it."""

    provider_id: str
    segment: int
    total: int
    state: State
    status: str
    token: str | None
    recipient: str | None
    fresh: bool  # the first of its segment; False: a final one after an interim
    looks: int = 0  # how often it was looked at in vain
    waited: float = 0.0  # seconds since it was stored, if it was never looked at

    @property
    def number(self) -> str | None:
        """The number in its one form."""
        return to_e164(self.recipient) if self.recipient else None


class MessageLookup(Struct, frozen=True, gc=False):
    """What the database has under the token of a report."""

    batch_id: int
    app: str
    batch_state: str
    settled_by: str | None
    message_id: int | None  # None: the request was not to this number
    attempt: int | None = None
    in_question: bool = False  # nothing but a report may ever tell what became of it
    outcome: str | None = None
    provider_id: str | None = None
    outcome_batch: int | None = None
    accepted_at: datetime | None = None


MatchedReport = tuple[PendingReport, MessageLookup]  # a report, and where its message is


class AlreadyAccepted(Struct, frozen=True, gc=False):
    """It is about a message that is known to be accepted under the same provider id."""


class AddsProviderId(Struct, frozen=True, gc=False):
    """It gives an accepted message the provider id that was missing."""


class ConfirmsAccepted(Struct, frozen=True, gc=False):
    """It proves that a message of an unsure batch was accepted.

    It says so of this number alone: the provider took the request as a whole, but may have
    refused other numbers of it. So the others stay unsure until their own report, and the policy
    `resend` no longer applies to the batch (see resend_unsure).
    """


class CancelsResend(Struct, frozen=True, gc=False):
    """It proves that a message was accepted which was given up and waits to be sent again."""


class RetryLater(Struct, frozen=True, gc=False):
    """It is too early to tell."""

    why: str


class Unmatched(Struct, frozen=True, gc=False):
    """It belongs to no message; a row of WHY says why."""

    why: str


MatchResult = (
    AlreadyAccepted | AddsProviderId | ConfirmsAccepted | CancelsResend | RetryLater | Unmatched
)


def unmatched_reason(report: PendingReport) -> Unmatched:
    """Return why *report* belongs to no message, when nothing lies under its token."""
    return Unmatched("no-token" if report.token is None else "unknown-token")


def match_report(report: PendingReport, place: MessageLookup) -> MatchResult:
    """Return what follows from *report*, whose token and number lead to *place*."""
    if place.message_id is None:
        return Unmatched("other-number")
    match place.outcome:
        case None:
            return _undecided(place)
        case "accepted":
            return _accepted(report, place)
        case _:
            return Unmatched("not-accepted")


def _undecided(place: MessageLookup) -> MatchResult:
    if place.batch_state == "open":
        return RetryLater("still-open")
    if place.batch_state == "unsure" and place.in_question:
        return ConfirmsAccepted()
    return CancelsResend() if place.settled_by in RESENT_BY else Unmatched("not-taken")


def _accepted(report: PendingReport, place: MessageLookup) -> MatchResult:
    if place.provider_id == report.provider_id:
        return AlreadyAccepted()
    if place.provider_id is None:
        return AddsProviderId()
    return Unmatched("other-id" if place.outcome_batch == place.batch_id else "sent-twice")
