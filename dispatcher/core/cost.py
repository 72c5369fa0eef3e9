"""Estimates segments and cost from texts and prices, beside those the provider reported."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct, field

_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_EXTENDED = frozenset("^{}\\[~]|€")  # two septets each (provider.md, Templates and length)
_GSM_SINGLE_SEPTETS, _GSM_PART_SEPTETS = (
    160,
    153,
)  # of one message; of one of several parts
_UCS_SINGLE_UNITS, _UCS_PART_UNITS = 70, 67  # UTF-16 units
_VARIABLE = re.compile(r"\$\{[^{}]*\}")


class BilledMessage(Struct, frozen=True, gc=False):
    """An accepted message: the fields its cost depends on."""

    app: str
    country: str
    template_id: str
    params: list[str]
    signature: str | None
    segments: int | None  # as the provider reported


class BillLine(Struct):
    """The messages of one app to one country, with their segments and cost."""

    app: str
    country: str
    messages: int = 0
    reported: int = 0  # segments
    unreported: int = 0  # messages without segments from the provider
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
    """Lines by app and country; messages are added to it."""

    texts: Mapping[str, str]  # of templates, by id
    prices: Mapping[str, tuple[Decimal, str]]  # price and currency, by country
    lines: dict[tuple[str, str], BillLine] = field(default_factory=dict)

    def add(self, sent: Iterable[BilledMessage]) -> None:
        """Add messages."""
        for one in sent:
            line = self.lines.get((one.app, one.country))
            if line is None:
                price, currency = self.prices.get(one.country, (None, ""))
                line = BillLine(one.app, one.country, price=price, currency=currency)
                self.lines[one.app, one.country] = line
            line.messages += 1
            line.reported += one.segments or 0
            line.unreported += one.segments is None
            text = self.texts.get(one.template_id)
            if text is None:
                line.unknown += 1
                estimate = 0
            else:
                estimate = segments(fill_template(text, one.params, one.signature))
            line.estimated += estimate
            line.billed += estimate if one.segments is None else one.segments

    def sums(self) -> dict[str, Decimal]:
        """Return the cost of all that has a price, by currency."""
        sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        for line in self.lines.values():
            if line.cost is not None:
                sums[line.currency] += line.cost
        return dict(sums)


def fill_template(text: str, params: Sequence[str], signature: str | None) -> str:
    """Return a template's text with *params* filled in.

    In mainland China the signature is part of the text and counts.
    """
    values = iter(params)
    return fill_signature(_VARIABLE.sub(lambda _: next(values, ""), text), signature)


def fill_signature(text: str, signature: str | None) -> str:
    """Return a text with its signature in front."""
    return f"【{signature}】{text}" if signature else text


def segments(text: str) -> int:
    """Return the number of SMS segments of *text*, at least 1."""
    characters = set(text)
    if characters <= _GSM | _GSM_EXTENDED:
        septets = len(text) + sum(text.count(each) for each in characters & _GSM_EXTENDED)
        return _parts(septets, _GSM_SINGLE_SEPTETS, _GSM_PART_SEPTETS)
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return _parts(units, _UCS_SINGLE_UNITS, _UCS_PART_UNITS)


def _parts(units: int, one: int, part: int) -> int:
    return 1 if units <= one else -(-units // part)
