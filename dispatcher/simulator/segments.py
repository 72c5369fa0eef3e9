"""How many parts an SMS is split into.

UCS-2 text has 70 characters, or 67 a part; GSM-7 text 160, or 153 a part, where nine characters
count two (facts, Templates and length).
"""

_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_TWICE = frozenset("\f^{}\\[~]|€")

# Up to here one part whatever the alphabet: 70 UTF-16 units even if each character needs two.
SURELY_ONE = 35


def segments(text: str) -> int:
    """Return the number of parts of *text*, at least 1."""
    if len(text) <= SURELY_ONE:
        return 1
    characters = set(text)
    if characters <= _GSM | _GSM_TWICE:
        septets = len(text) + sum(text.count(twice) for twice in characters & _GSM_TWICE)
        return 1 if septets <= 160 else -(-septets // 153)  # noqa: PLR2004  the docstring says
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return 1 if units <= 70 else -(-units // 67)  # noqa: PLR2004  the docstring says
