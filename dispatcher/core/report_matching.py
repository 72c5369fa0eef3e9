"""Decides to which message a report belongs, and its effect.

The token identifies the request, and the number the message in it. A report whose token leads to no
request is matched by its provider id. A report can settle messages of unsure batches only; it never
creates anything.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from dispatcher.core.number import fits_mask, forms_in_request, is_masked, possible_forms
from dispatcher.core.report_status import State, report_status

# Values of `settled_by` of a batch whose messages returned to the queue.
RESENT_BY = frozenset({"policy: resend", "operator: resend"})

UNMATCHED_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "no-token": "It has no `extend`, and no accepted message has its provider id.",
        "unknown-token": "No request had its token, and no accepted message has its provider id.",
        "other-number": "The request with its token was not to this number.",
        "no-number": "It names no number, and several messages of its request may be meant.",
        "not-looked-up": "Its request has not been looked up yet; it is looked at again.",
        "still-open": "The request has no answer yet; it is looked at again.",
        "locked": "Another session holds a row that it needs; it is looked at again.",
        "not-accepted": "The message was refused, cancelled or expired: its outcome is certain.",
        "not-taken": "The answer refused the number, and it is sent again.",
        "sent-twice": "The message was accepted by another request as well.",
        "other-id": "The answer gave the message another provider id.",
        "set-aside": "It cannot be matched: the database refuses a value of it or its message.",
        "being-resent": "Its message is being sent a second time; it is looked at again.",
        "requeued": "Its message was requeued: the platform had refused it before it was sent.",
    }
)


# Searches by provider id for a report without a known token. The answer that brings the id may come
# after the report. No index has all provider ids, so a search is dear, and made once a minute.
MAX_ID_SEARCHES = 2

# Searches for a report without a number, until all but one message of its request are settled: the
# first 24 take 80 minutes, the others ten minutes each. Reports of a request come for 72 hours.
MAX_MEMBER_SEARCHES = 450


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
    inbox: int | None = None  # the row of the inbox that it was taken from

    @property
    def forms(self) -> list[str]:
        """The canonical forms that its number may have; none: it names no number."""
        return possible_forms(self.recipient) if self.recipient else []

    @property
    def forms_in_request(self) -> list[str]:
        """The same, among the numbers of its request."""
        return forms_in_request(self.recipient) if self.recipient else []


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
    accepted_at: float | None = None  # seconds since 1970
    number: str | None = None  # of the message, in its canonical form
    erased: bool = False  # a person's wish: nothing that names them may be stored again
    lost: bool = False  # it neither waits, nor is in a request, nor has an outcome

    @property
    def is_open(self) -> bool:
        """Whether a report may tell something new of the message."""
        if self.outcome is None:
            return self.in_question or self.batch_state == "open"
        if self.outcome == "accepted":
            return self.provider_id is None
        return self.was_given_up

    @property
    def may_be_meant(self) -> bool:
        """Whether a report without a number may be about it, though another request sent it."""
        resent = self.was_given_up and self.outcome_batch != self.batch_id
        return self.is_open or resent

    @property
    def was_given_up(self) -> bool:
        """Whether its request was taken for lost, and the message returned to the queue."""
        return self.settled_by in RESENT_BY and self.in_question


MatchedReport = tuple[PendingReport, MessageLookup]  # a report and its message


class AlreadyAccepted(Struct, frozen=True, gc=False):
    """The message is known to be accepted with the same provider id."""


class AddsProviderId(Struct, frozen=True, gc=False):
    """It adds the missing provider id to an accepted message."""


class ConfirmsAccepted(Struct, frozen=True, gc=False):
    """It proves that a message of an unsure batch, or a lost one, was accepted.

    It proves this for its number only: the provider took the request, but may have refused other
    numbers of it. So the others stay unsure until their own reports come, and the policy `resend`
    no longer applies to the batch (see resend_unsure).
    """


class CancelsResend(Struct, frozen=True, gc=False):
    """It proves that a message was accepted that was given up.

    It is in the queue again, or has ended since: refused, expired or cancelled. That outcome gives
    way, or a requeue would send it twice.
    """


class RetryLater(Struct, frozen=True, gc=False):
    """It cannot be matched yet."""

    why: str


class Unmatched(Struct, frozen=True, gc=False):
    """It belongs to no message; *why* is a key of UNMATCHED_REASONS."""

    why: str


MatchResult = (
    AlreadyAccepted | AddsProviderId | ConfirmsAccepted | CancelsResend | RetryLater | Unmatched
)


def unmatched_reason(report: PendingReport) -> RetryLater | Unmatched:
    """Return why *report* belongs to no message if the database has no row for its token.

    At first it waits to be looked up by its provider id (see `wants_id_search`).
    """
    why = "no-token" if report.token is None else "unknown-token"
    return RetryLater(why) if report.attempts < MAX_ID_SEARCHES else Unmatched(why)


def wants_id_search(report: PendingReport) -> bool:
    """Tell whether *report*, whose token leads to no request, is now looked up by its id."""
    return report.attempts > 0


def needs_members(report: PendingReport, place: MessageLookup) -> bool:
    """Tell whether its number alone does not lead *report* to its message.

    Either its request has no message to the number, or the message there has another provider id.
    """
    if place.message_id is None:
        return True
    return place.provider_id is not None and place.provider_id != report.provider_id


def find_member(report: PendingReport, members: Sequence[MessageLookup]) -> MessageLookup | None:
    """Return which of the *members* of its request *report* is about; None if that is unknown.

    By its provider id first: that is the provider's own, and unique. Then by its number, in any
    spelling, also a masked one that fits one member alone. A report without a number is about the
    only member that may be meant.
    """
    for member in members:
        if member.provider_id == report.provider_id:
            return member
    forms = report.forms_in_request
    for form in forms:
        named = [member for member in members if member.number and _fits(member.number, form)]
        if len(named) > 1:
            named = [member for member in named if member.may_be_meant]
        if len(named) == 1:
            return named[0]
    if forms and not any(map(is_masked, forms)):
        return None
    candidates = members if len(members) == 1 else [one for one in members if one.may_be_meant]
    return candidates[0] if len(candidates) == 1 else None


def _fits(number: str, form: str) -> bool:
    return fits_mask(number, form) if is_masked(form) else number == form


def unknown_member(
    report: PendingReport, members: Sequence[MessageLookup]
) -> RetryLater | Unmatched:
    """Return why none of the *members* of its request is known to be meant by *report*.

    Until the answer brings the provider ids, one of them may be its own, whatever its number. A
    request without an answer becomes unsure, so this wait ends.
    """
    if any(member.batch_state == "open" for member in members):
        return RetryLater("still-open")
    if report.forms and not any(map(is_masked, report.forms)):
        return Unmatched("other-number")
    if any(member.is_open for member in members) and report.attempts < MAX_MEMBER_SEARCHES:
        return RetryLater("no-number")  # when the others are settled, one is left
    return Unmatched("no-number")


def match_report(report: PendingReport, place: MessageLookup) -> MatchResult:
    """Return the effect of *report*, for which the database holds *place*."""
    if place.message_id is None:
        return Unmatched("other-number")
    match place.outcome:
        case None:
            return _undecided(place)
        case "accepted":
            return _accepted(report, place)
        # What the platform refused before anything was sent stays refused, expired or cancelled.
        case _ if place.was_given_up and not report_status(report.status).resendable:
            return CancelsResend()
        case _:
            return Unmatched("not-accepted")


def _undecided(place: MessageLookup) -> MatchResult:
    if place.batch_state == "open":
        return RetryLater("still-open")
    if place.lost or (place.batch_state == "unsure" and place.in_question):
        return ConfirmsAccepted()
    if place.was_given_up:
        return CancelsResend()
    return Unmatched("not-taken")


def _accepted(report: PendingReport, place: MessageLookup) -> MatchResult:
    if place.provider_id == report.provider_id:
        return AlreadyAccepted()
    # What was lost and settled as sent has no request in its outcome: this one may be it.
    if place.outcome_batch is not None and place.outcome_batch != place.batch_id:
        return Unmatched("sent-twice")
    return AddsProviderId() if place.provider_id is None else Unmatched("other-id")
