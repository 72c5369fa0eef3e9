"""Numbers, durations and masked recipients as people read them, in the console and commands."""

import re
from collections.abc import Iterator
from unicodedata import east_asian_width

from dispatcher.core.language import ENGLISH, N_, _, language

_DURATION_UNITS = (
    (86_400, N_("{count} d")),
    (3_600, N_("{count} h")),
    (60, N_("{count} min")),
    (1, N_("{count} s")),
)
_LONGEST_CODE = 6  # digits of a status such as "601"; a number has more
_MANY_DIGITS = re.compile(r"\d(?:[\s.()\u2010-\u2015\u2212\uff0d-]*\d){6,}")  # in whatever spelling
_PROVIDER_ID = re.compile(  # 2ea20735-f856-4376-afbf-570bd70a46ee_11840135
    r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}(?:_[0-9]{1,10})?", re.IGNORECASE
)
_SHORT_RECIPIENT_LENGTH = 8  # characters; a shorter one cannot show both of its ends

# A line may end after each: a Chinese character or a word, with the punctuation around it; the
# notes of typer stay together.
_PIECE = re.compile(
    r"\[[^\[\]]+\]$|[（“]*(?:[!-~]+|[^\s，。；：、）”！？…])[，。；：、）”！？…]*|\s+|."
)


def number(value: float) -> str:
    """Return *value* rounded, with separated thousands: 12,345."""
    return f"{value:,.0f}"


def plural(value: int, one: str, many: str | None = None) -> str:
    """Return *value* with its noun: 1 message, 2 messages."""
    if language() != ENGLISH:  # the others have no plural
        return _(counted(one)).format(count=number(value))
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def columns(text: str) -> int:
    """Return how many columns *text* takes on a screen: two for a Chinese character."""
    return sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def padded(text: str, width: int) -> str:
    """Return *text* with blanks after it, up to *width* columns."""
    return text + " " * (width - columns(text))


def wrapped(text: str, width: int) -> Iterator[str]:
    """Yield the lines of *text*, each at most *width* columns wide if its words allow."""
    line, room = "", width
    for piece in _PIECE.findall(text):
        taken = columns(piece)
        if taken > room and line.strip():
            yield line.rstrip()
            line, room = "", width
        if line or not piece.isspace():
            line += piece
            room -= taken
    if line.strip():
        yield line.rstrip()


def counted(noun: str) -> str:
    """Return the text that a translation of a number with *noun* is kept under.

    Chinese puts a measure word between the two, and none where the noun stands alone.
    """
    return f"{{count}} {noun}"


def sentences(*parts: str) -> str:
    """Return *parts* one after the other, without empty ones; Chinese has no blank."""
    text = ""
    for part in filter(None, parts):
        blank = "" if not text or text.endswith(("\u3002", "\uff1a")) else " "
        text += blank + part
    return text


def duration(seconds: float) -> str:
    """Return a duration in its largest unit: 45 s, 12 min, 3 h, 2 d."""
    for size, unit in _DURATION_UNITS:
        if seconds >= size:
            return _(unit).format(count=f"{seconds // size:.0f}")
    return _("{count} s").format(count=0)


def mask(recipient: str) -> str:
    """Return *recipient* with its middle hidden: ``+86131****5678``."""
    if len(recipient) <= _SHORT_RECIPIENT_LENGTH:
        return "****" + recipient[-2:]
    shown = min(6, len(recipient) - 8)
    return f"{recipient[:shown]}****{recipient[-4:]}"


def mask_if_number(text: str) -> str:
    """Return *text*, an id or a code from outside, without any number that it is or holds.

    A report is untrusted input: its id and its status may be anything, and codes are shown, logged
    and counted everywhere.
    """
    if _PROVIDER_ID.fullmatch(text):
        return text
    if "+" in text or (text.isdecimal() and len(text) > _LONGEST_CODE):
        return mask(text)
    return _MANY_DIGITS.sub("…", text)
