"""Segments and cost, estimated from texts and prices, beside what the provider reported."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct, field

_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_TWICE = frozenset("^{}\\[~]|€")  # two septets each (provider.md, Templates and length)
_GSM_ONE, _GSM_PART = 160, 153  # septets of a single message, and of a part of several
_UCS_ONE, _UCS_PART = 70, 67  # UTF-16 units
_VARIABLE = re.compile(r"\$\{[^{}]*\}")


class BilledMessage(Struct, frozen=True, gc=False):
    """One accepted message, as far as it is paid for."""

    app: str
    country: str
    template_id: str
    params: list[str]
    signature: str | None
    segments: int | None  # as the provider reported


class Line(Struct):
    """What one app sent to one country."""

    app: str
    country: str
    messages: int = 0
    reported: int = 0  # segments
    unreported: int = 0  # messages of which the provider told no segments
    estimated: int = 0  # segments
    unknown: int = 0  # messages whose template's text is not defined here
    billed: int = 0  # segments: those reported, and of the other messages those estimated
    price: Decimal | None = None  # of a segment
    currency: str = ""

    @property
    def cost(self) -> Decimal | None:
        """What the billed segments cost; None without a price."""
        return None if self.price is None else self.price * self.billed


class Bill(Struct):
    """Lines by app and country, as messages are added."""

    texts: Mapping[str, str]  # of templates, by id
    prices: Mapping[str, tuple[Decimal, str]]  # price and currency, by country
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)

    def add(self, sent: Iterable[BilledMessage]) -> None:
        """Add messages."""
        for one in sent:
            line = self.lines.get((one.app, one.country))
            if line is None:
                price, currency = self.prices.get(one.country, (None, ""))
                line = Line(one.app, one.country, price=price, currency=currency)
                self.lines[one.app, one.country] = line
            line.messages += 1
            line.reported += one.segments or 0
            line.unreported += one.segments is None
            text = self.texts.get(one.template_id)
            if text is None:
                line.unknown += 1
                estimate = 0
            else:
                estimate = segments(filled(text, one.params, one.signature))
            line.estimated += estimate
            line.billed += estimate if one.segments is None else one.segments

    def sums(self) -> dict[str, Decimal]:
        """Return the cost of all that has a price, by currency."""
        sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        for line in self.lines.values():
            if line.cost is not None:
                sums[line.currency] += line.cost
        return dict(sums)


def filled(text: str, params: Sequence[str], signature: str | None) -> str:
    """Return a template's text with its variables filled in; the mainland counts the signature."""
    values = iter(params)
    body = _VARIABLE.sub(lambda _: next(values, ""), text)
    return f"【{signature}】{body}" if signature else body


def segments(text: str) -> int:
    """Return how many parts *text* is sent in, at least 1."""
    characters = set(text)
    if characters <= _GSM | _GSM_TWICE:
        septets = len(text) + sum(text.count(each) for each in characters & _GSM_TWICE)
        return _parts(septets, _GSM_ONE, _GSM_PART)
    return _parts(len(text.encode("utf-16-le", "surrogatepass")) // 2, _UCS_ONE, _UCS_PART)


def _parts(units: int, one: int, part: int) -> int:
    return 1 if units <= one else -(-units // part)
