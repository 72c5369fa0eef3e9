"""What the carriers say, and how well it arrives."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0)]


class ReportOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How status reports are made and sent; the same names in JSON."""

    delay: tuple[Seconds, Seconds] = (0.0, 0.0)
    """Seconds after acceptance, between these two, decided for each request."""

    mix: dict[str, Annotated[float, Meta(gt=0.0)]] = field(default_factory=lambda: {"DELIVRD": 1.0})
    """Status to weight. EXPIRED and the platform's own codes carry no updateTime."""

    mix_by: Literal["number", "segment"] = "number"
    """Whether the segments of a long message share one status."""

    interim: Share = 0.0
    """Share of the reports that an ACCEPTD of the same segment goes before."""

    duplicates: Share = 0.0
    """Share of the reports that are sent twice."""

    lost: Share = 0.0
    """Share of the reports that are never sent."""

    reorder: bool = False
    """Whether the reports of a request are sent in another order than its numbers."""

    before_answer: Share = 0.0
    """Share of the requests whose reports are sent, and answered, before their own answer."""

    batch: Annotated[int, Meta(ge=0, le=50)] = 0
    """Reports in one JSON post; 0: one form a report."""

    batch_url: str | None = None
    """The app's address for batches, for requests without statusCallback."""

    push_key: str | None = None
    push_secret: str | None = None
    """The pair that signs posts; None: they are not signed."""

    keep_alive: bool = True
    """Whether connections are kept; the Connection header that is signed says so."""

    mainland_to: Literal["submitted", "canonical"] = "submitted"
    """How `to` writes a number that was submitted without +86; unsure of the provider."""

    connections: Annotated[int, Meta(ge=1, le=1000)] = 32
    """Posts under way at once."""

    timeout: Seconds = 10.0
    """Seconds the receiver has to answer."""

    seed: int = 0
    """Of every chance above."""
