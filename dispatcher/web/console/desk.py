"""What the console asks for and does, as functions; whoever starts it hands them over."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from msgspec import Struct

from dispatcher.core.overview import (
    BatchStory,
    Deed,
    Found,
    Now,
    Story,
    Total,
    Unmatched,
    UnsureBatch,
)
from dispatcher.core.rules import Listed
from dispatcher.core.templates import Template

Step = tuple[datetime, str, int]  # beginning of the step, event, how often


class AwayError(Exception):
    """The database is away; the text is one line for people."""


class Desk(Struct, frozen=True):
    """Look-ups and deeds. Each raises `AwayError` if the database is away, and nothing else.

    Deeds take who does it first, write it down, and return one line that says what came of it.
    """

    now: Callable[[], Awaitable[Now]]
    totals: Callable[[], Awaitable[list[Total]]]
    series: Callable[[str | None, float, float], Awaitable[list[Step]]]
    unmatched: Callable[[], Awaitable[list[Unmatched]]]
    unsure: Callable[[], Awaitable[list[UnsureBatch]]]
    find: Callable[[str, str], Awaitable[list[Found]]]  # id, recipient, reference, provider_id
    story: Callable[[int], Awaitable[Story | None]]
    batch: Callable[[str], Awaitable[BatchStory | None]]
    rules: Callable[[], Awaitable[Listed]]
    deeds: Callable[[], Awaitable[list[Deed]]]
    look_closely: Callable[[str, int], Awaitable[str]]
    pause: Callable[[str, str, str], Awaitable[str]]  # app, reason
    resume: Callable[[str, str], Awaitable[str]]  # app
    cancel: Callable[[str, list[int]], Awaitable[str]]
    requeue: Callable[[str, list[int]], Awaitable[str]]
    settle: Callable[[str, str, str], Awaitable[str]]  # token; sent or resend
    define_template: Callable[[str, Template, str, str | None], Awaitable[str]]  # note, text
    drop_template: Callable[[str, str], Awaitable[str]]
