"""Numbers, durations and masked recipients as people read them, in the console and commands."""

_DURATION_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SHORT_RECIPIENT_LENGTH = 8  # characters; a shorter one cannot show both of its ends


def number(value: float) -> str:
    """Return *value* rounded, with separated thousands: 12,345."""
    return f"{value:,.0f}"


def plural(value: int, one: str, many: str | None = None) -> str:
    """Return *value* with its noun: 1 message, 2 messages."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Return a duration in its largest unit: 45 s, 12 min, 3 h, 2 d."""
    for size, unit in _DURATION_UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "0 s"


def mask(recipient: str) -> str:
    """Return *recipient* with its middle hidden: ``+86131****5678``."""
    if len(recipient) <= _SHORT_RECIPIENT_LENGTH:
        return "****" + recipient[-2:]
    shown = min(6, len(recipient) - 8)
    return f"{recipient[:shown]}****{recipient[-4:]}"


def shown_id(provider_id: str) -> str:
    """Return *provider_id*, masked if it could be a number: a report is untrusted input."""
    return mask(provider_id) if "+" in provider_id or provider_id.isdecimal() else provider_id
