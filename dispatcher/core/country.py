"""Which country a number belongs to; asked only when a country's quota is spent."""

import phonenumbers

from dispatcher.core.message import canonical


def country(recipient: str) -> str:
    """Return the ISO 3166 code of *recipient*'s country, or ``+<calling code>`` without one.

    The provider limits by country, and several countries share a calling code (+1, +7, +44), so
    a prefix is not enough; the library carries the numbering plans.
    """
    number = canonical(recipient)
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return number[:4]
    return phonenumbers.region_code_for_number(parsed) or f"+{parsed.country_code}"
