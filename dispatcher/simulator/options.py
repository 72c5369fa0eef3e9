"""How this provider behaves where its documents leave it open, and what it knows of the account.

Each field that is marked unsure in the facts about the provider can be played both ways.
"""

from typing import Literal

from msgspec import Struct


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the simulated provider is set to; the same names in JSON on the command line."""

    wsse_digests: tuple[Literal["hex", "raw"], ...] = ("hex", "raw")
    """What may have been encoded in PasswordDigest: the hex text, the raw bytes, or either."""

    signed_host: Literal["wire", "bare", "either"] = "wire"
    """The Host a signature must cover: as on the wire, without its port, or either of them."""

    numbers_per: Literal["request", "entry"] = "request"
    """What the limit of 500 numbers counts."""

    mixed_code: str = "E000510"
    """The top-level code when a number was refused; 000000 and E200037 are seen as well."""

    mixed_status: int = 400
    """The HTTP status of such an answer; the page has the code under 400, the field is unsure."""

    templates: dict[str, str] | None = None
    """Template id to text with its ``${...}`` variables; None: every template is known."""

    senders: frozenset[str] | None = None
    """The channel numbers of the account; None: every sender is known."""

    refused: dict[str, str] = {}
    """Prefix of a number to the code that refuses it; the longest prefix wins."""

    segments: int | None = None
    """Segments of every message; None: counted from the text, or the parameters alone."""

    keep_bodies: bool = False
    """Whether the record of a request keeps the body, for tests that look into it."""
