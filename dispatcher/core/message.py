"""Messages, batches and the provider's answers.

They are msgspec structs: creating a frozen one costs 0.2 µs, a frozen dataclass 2 µs, and one is
created for every message and for every number of an answer.
"""

import re
from functools import cached_property

from msgspec import Struct


class Message(Struct, frozen=True, gc=False):
    """One SMS to one number, claimed."""

    id: int
    recipient: str  # as the application wrote it and as it is sent
    template_id: str
    params: list[str]  # never changed; a list because the database driver returns one
    sender: str | None = None
    signature: str | None = None
    expires_in: float | None = None  # seconds left when it was claimed, by the database's clock
    priority: int = 5  # 0 first ... 9 last
    attempt: int = 1  # claims so far that count, and this one
    requeued: bool = False  # by an operator: it no longer expires
    throttled: int = 0  # how often flow control returned it: that counts as no attempt


class Entry(Struct, frozen=True, gc=False):
    """Messages with the same template, params and signature: one element of smsContent."""

    content: bytes  # everything of the element after its numbers, encoded (see core.wire)
    messages: list[Message]


class RequestDraft(Struct, frozen=True, dict=True):
    """Messages of one request; it becomes a batch when it gets a token."""

    sender: str | None
    entries: list[Entry]
    size: int  # bytes of the whole body once encoded, token and callback included

    @cached_property
    def messages(self) -> list[Message]:
        """All messages, entry by entry."""
        return [message for entry in self.entries for message in entry.messages]


class Batch(Struct, frozen=True):
    """One request: recorded in the database as open before it is sent."""

    id: int
    app: str
    token: str  # sent as `extend`, and returned in every report
    packed: RequestDraft
    claimed_at: float  # the worker's monotonic clock, when the claim began
    probe: bool = False  # the only request of a paused app, to test whether the cause is gone
    send_at: float | None = (
        None  # when the app's rate limit allows it, on the same clock; None: now
    )

    @property
    def messages(self) -> list[Message]:
        """All messages, entry by entry."""
        return self.packed.messages


class NumberResult(Struct, frozen=True, gc=False):
    """The result of one number in an answer."""

    recipient: str  # as the answer writes it; empty if it does not
    code: str
    provider_id: str | None = None
    segments: int | None = None
    country: str | None = None


class Reply(Struct, frozen=True):
    """An answer of the API, or a refusal by a proxy in front of it.

    A refusal without a body of the API has the code ``HTTP <status>`` (see core.codes).
    """

    http_status: int
    code: str
    description: str
    results: list[NumberResult] | None = None  # None: the answer has no result at all
    clock_skew: float | None = None  # our clock less the answer's Date, seconds
    retry_after: float | None = None  # seconds that a proxy asks to wait


class NoReply(Struct, frozen=True):
    """No answer, or an unreadable one."""

    reason: str  # one line for people: no number, no text, no secret
    sent: bool  # whether the request may have reached the provider
    code: str = "no-answer"  # a row of core.codes: no-answer, timeout, unreadable


Answer = Reply | NoReply


_MAINLAND = "+86"
_STORED_NUMBER = re.compile(r"\+?[0-9]{5,20}")


def to_e164(recipient: str) -> str:
    """Return the canonical form of a recipient that the database has accepted.

    A number without + is a mainland number (provider.md, Numbers). The database refuses the
    spellings for which that is wrong; core.number reads them.
    """
    return recipient if recipient and recipient[0] == "+" else _MAINLAND + recipient


def as_stored(text: str) -> str:
    """Return the canonical form of *text* if a row may have it as its number, else nothing.

    For rows with a number that `core.number.read_number` refuses: to find and erase them.
    """
    return to_e164(text) if _STORED_NUMBER.fullmatch(text) else ""


def spellings(number: str) -> list[str]:
    """Return the ways in which a message may write *number*, which is in its canonical form."""
    if number.startswith(_MAINLAND):
        return [number, number.removeprefix(_MAINLAND)]
    return [number]
