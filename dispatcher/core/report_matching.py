"""Decides to which message a report belongs, and its effect.

The token identifies the request, and the number the message in it. A report can settle messages of
unsure batches only; it never creates anything.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from msgspec import Struct

from dispatcher.core.message import to_e164
from dispatcher.core.report_status import State

# Values of `settled_by` of a batch whose messages returned to the queue.
RESENT_BY = frozenset({"policy: resend", "operator: resend"})

UNMATCHED_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "no-token": "It has no `extend`, so its request is unknown.",
        "unknown-token": "No request of this database had its token.",
        "other-number": "The request with its token was not to this number.",
        "still-open": "The request has no answer yet; it is looked at again.",
        "not-accepted": "The message was refused, cancelled or expired: its outcome is certain.",
        "not-taken": "The answer refused the number, and it is sent again.",
        "sent-twice": "The message was accepted by another request as well.",
        "other-id": "The answer gave the message another provider id.",
        "being-resent": "Its message is being sent a second time; it is looked at again.",
    }
)


class Backlog(Struct, frozen=True):
    """Stored reports that are not matched yet."""

    reports: int
    oldest_seconds: float


class PendingReport(Struct, frozen=True, gc=False):
    """A received report: the fields that matching needs."""

    provider_id: str
    segment: int
    total: int
    state: State
    status: str
    token: str | None
    recipient: str | None
    fresh: bool  # the first of its segment; False: a final one after an interim
    attempts: int = 0  # unsuccessful attempts to match it
    waited: float = 0.0  # seconds since it was stored, before the first attempt

    @property
    def number(self) -> str | None:
        """The number in its canonical form."""
        return to_e164(self.recipient) if self.recipient else None


class MessageLookup(Struct, frozen=True, gc=False):
    """What the database holds for the token and number of a report."""

    batch_id: int
    app: str
    batch_state: str
    settled_by: str | None
    message_id: int | None  # None: the request was not to this number
    attempt: int | None = None
    in_question: bool = False  # only a report can give its outcome
    outcome: str | None = None
    provider_id: str | None = None
    outcome_batch: int | None = None
    accepted_at: datetime | None = None


MatchedReport = tuple[PendingReport, MessageLookup]  # a report and its message


class AlreadyAccepted(Struct, frozen=True, gc=False):
    """The message is known to be accepted with the same provider id."""


class AddsProviderId(Struct, frozen=True, gc=False):
    """It adds the missing provider id to an accepted message."""


class ConfirmsAccepted(Struct, frozen=True, gc=False):
    """It proves that a message of an unsure batch was accepted.

    It proves this for its number only: the provider took the request, but may have refused other
    numbers of it. So the others stay unsure until their own reports come, and the policy `resend`
    no longer applies to the batch (see resend_unsure).
    """


class CancelsResend(Struct, frozen=True, gc=False):
    """It proves that a message was accepted that is in the queue again."""


class RetryLater(Struct, frozen=True, gc=False):
    """It cannot be matched yet."""

    why: str


class Unmatched(Struct, frozen=True, gc=False):
    """It belongs to no message; *why* is a key of UNMATCHED_REASONS."""

    why: str


MatchResult = (
    AlreadyAccepted | AddsProviderId | ConfirmsAccepted | CancelsResend | RetryLater | Unmatched
)


def unmatched_reason(report: PendingReport) -> Unmatched:
    """Return why *report* belongs to no message if the database has no row for its token."""
    return Unmatched("no-token" if report.token is None else "unknown-token")


def match_report(report: PendingReport, place: MessageLookup) -> MatchResult:
    """Return the effect of *report*, for which the database holds *place*."""
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
