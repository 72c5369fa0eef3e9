"""What is not as it should be: one thing, its cause, and the next step."""

from enum import IntEnum

from msgspec import Struct


class Level(IntEnum):
    """How bad it is."""

    FINE = 0
    NOTE = 1  # to know
    TROUBLE = 2  # something fails, the rest goes out
    STOPPED = 3  # nothing goes out, for one app or for all


class Finding(Struct, frozen=True):
    """One thing that is not as it should be."""

    level: Level
    app: str | None  # None: it is about everything
    title: str
    cause: str
    step: str  # what to do next
    act: str = ""  # pause, resume: what the console offers for it
