"""Numbers, durations and masked recipients as people read them, in the console and commands."""

from dispatcher.core.language import ENGLISH, N_, _, language

_DURATION_UNITS = (
    (86_400, N_("{count} d")),
    (3_600, N_("{count} h")),
    (60, N_("{count} min")),
    (1, N_("{count} s")),
)
_SHORT_RECIPIENT_LENGTH = 8  # characters; a shorter one cannot show both of its ends


def number(value: float) -> str:
    """Return *value* rounded, with separated thousands: 12,345."""
    return f"{value:,.0f}"


def plural(value: int, one: str, many: str | None = None) -> str:
    """Return *value* with its noun: 1 message, 2 messages."""
    if language() != ENGLISH:  # the others have no plural
        return f"{number(value)} {_(one)}"
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


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


def shown_id(provider_id: str) -> str:
    """Return *provider_id*, masked if it could be a number: a report is untrusted input."""
    return mask(provider_id) if "+" in provider_id or provider_id.isdecimal() else provider_id
