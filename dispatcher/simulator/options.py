"""Options of the simulator: the provider's behaviour, the account, and the status reports.

An option exists for each behaviour that the provider's documents leave open (provider.md), so that
tests can run it both ways.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0)]


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the provider and its account. JSON on the command line has the same names."""

    wsse_digests: tuple[Literal["hex", "raw"], ...] = ("hex", "raw")
    """Accepted contents of PasswordDigest: the hex text, the raw bytes, or both."""

    signed_host: Literal["wire", "bare", "either"] = "wire"
    """The Host that a signature must cover: as sent, without its port, or either of them."""

    numbers_per: Literal["request", "entry"] = "request"
    """Whether the limit of 500 numbers holds for a request or for an entry."""

    mixed_code: str = "E000510"
    """The top-level code if a number is refused; 000000 and E200037 are observed as well."""

    mixed_status: int = 400
    """The HTTP status of such an answer: 400 in the API reference, not confirmed in use."""

    templates: dict[str, str] | None = None
    """Template id to text with its ``${...}`` variables; None: every template is known."""

    senders: frozenset[str] | None = None
    """The channel numbers of the account; None: every sender is known."""

    refused: dict[str, str] = {}
    """Prefix of a number to the code that refuses it; the longest prefix wins."""

    segments: int | None = None
    """Segments of every message; None: counted from the text, or from the parameters."""

    keep_bodies: bool = False
    """Whether the record of a request keeps the body, for tests that read it."""


class ReportOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How status reports are made and sent. JSON has the same names."""

    delay: tuple[Seconds, Seconds] = (0.0, 0.0)
    """Minimum and maximum seconds after acceptance, drawn for each request."""

    mix: dict[str, Annotated[float, Meta(gt=0.0)]] = field(default_factory=lambda: {"DELIVRD": 1.0})
    """Status to weight. EXPIRED and the platform's own codes have no updateTime."""

    mix_by: Literal["number", "segment"] = "number"
    """Whether the segments of a long message share one status."""

    interim: Share = 0.0
    """Share of the reports that follow an ACCEPTD report of the same segment."""

    duplicates: Share = 0.0
    """Share of the reports that are sent twice."""

    lost: Share = 0.0
    """Share of the reports that are never sent."""

    reorder: bool = False
    """Whether the reports of a request are sent in another order than its numbers."""

    before_answer: Share = 0.0
    """Share of the requests whose reports are sent and answered before the request is."""

    batch: Annotated[int, Meta(ge=0, le=50)] = 0
    """Reports in one JSON post; 0: one form for each report."""

    batch_url: str | None = None
    """The app's address for batches, for requests without statusCallback."""

    push_key: str | None = None
    push_secret: str | None = None
    """Key and secret that sign posts; None: posts are not signed."""

    keep_alive: bool = True
    """Whether connections are kept; the Connection header that is signed says so."""

    mainland_to: Literal["submitted", "canonical"] = "submitted"
    """The form of `to` for a number submitted without +86; the provider's form is not known."""

    reply_url: str | None = None
    """The app's address for replies (uplink): /replies/TOKEN of the receiver."""

    replies: Share = 0.0
    """Share of the mainland numbers whose persons reply, when the reports are due."""

    reply_texts: dict[str, Annotated[float, Meta(gt=0.0)]] = field(default_factory=lambda: {"R": 1})
    """Text of a reply to weight."""

    reply_extension: str = ""
    """What the carrier appends to the channel number that was answered."""

    connections: Annotated[int, Meta(ge=1, le=1000)] = 32
    """Maximum number of concurrent posts."""

    timeout: Seconds = 10.0
    """Seconds within which the receiver must answer."""

    seed: int = 0
    """Seed of all random choices above."""
