"""How a request ended, on its way from the sender to the database."""

from msgspec import Struct

from dispatcher.core.message import Batch
from dispatcher.core.outcome import Done, PutBack, Uncertain


class Closing(Struct, frozen=True):
    """A batch whose request is over, and what is to be written of it."""

    batch: Batch
    verdict: Done | Uncertain | PutBack
    http_status: int | None
    code: str
    description: str
    tries: int
    seconds: float
