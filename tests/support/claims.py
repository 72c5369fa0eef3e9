"""Packs what is claimed, as a worker without a callback does."""

from dispatcher.core.country import country
from dispatcher.core.message import Message
from dispatcher.core.outcome import Outcome
from dispatcher.core.prepare import PreparedClaim, prepare


def arrange(
    messages: list[Message], countries: list[str], most: int, decided: dict[int, Outcome]
) -> PreparedClaim:
    """Return the requests and outcomes of a claim; the argument `arrange` of `claim`."""
    return prepare(
        messages,
        callback=None,
        token_length=32,
        paused_countries=countries,
        country=country,
        most=most,
        decided=decided,
    )
