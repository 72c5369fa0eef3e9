"""The row of a code, and the kinds there are; the rows themselves are in core.codes."""

from enum import StrEnum
from typing import Literal

from msgspec import Struct

Level = Literal["number", "request", "ours"]


class Kind(StrEnum):
    """What a code says about a number or a request; core.outcome says what follows from it."""

    ACCEPTED = "accepted"
    LATER = "later"  # flow control: passes with time, and asks us to slow down
    NOT_YET = "not yet"  # passes within minutes, or never
    PERMANENT = "permanent"  # this message will never go out as it is
    DUPLICATE = "duplicate"  # another copy of the number went out
    UNKNOWN = "unknown"  # nobody here knows this code
    RESULT = "result"  # the results by number say it
    AMBIGUOUS = "ambiguous"  # one entry spoils all, or the provider is in trouble
    CONTENT = "content"  # one entry spoils all
    CONFIGURATION = "configuration"  # nothing goes out until somebody mends our settings
    CLOCK = "clock"  # nothing goes out until our clock is right
    ACCOUNT = "account"  # nothing goes out until the account is in order
    ADDRESS = "address"  # nothing goes out until our address is on the white list
    QUOTA = "quota"  # nothing goes out until tomorrow
    COUNTRY = "country"  # nothing goes to one country until tomorrow
    NOT_TAKEN = "not taken"  # refused before the API saw it: safe to send again
    NO_KNOWLEDGE = "no knowledge"  # may have been sent


class Code(Struct, frozen=True):
    """A row of the table."""

    code: str
    level: Level
    kind: Kind
    meaning: str  # one line
    advice: str  # one line: what to do
