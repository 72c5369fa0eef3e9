"""Estimates segments and cost from texts and prices, beside those the provider reported.

The provider counts a text by where it goes (provider.md, Templates and length): in mainland China
every character is one of 70, or of 67 in each of several segments, and the signature is part of the
text. What is charged, the database says (charged_segments in 0002_functions.sql).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct, field

_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
# Two septets each (provider.md, Templates and length); a form feed is one of them in GSM 03.38.
_GSM_EXTENDED = frozenset("\f^{}\\[~]|€")
_GSM_SINGLE_SEPTETS, _GSM_PART_SEPTETS = (
    160,
    153,
)  # of one message; of one of several parts
_UCS_SINGLE_UNITS, _UCS_PART_UNITS = 70, 67  # UTF-16 units
_MAINLAND = frozenset({"CN", "+86"})  # as core.country names it, also for unused numbers
_VARIABLE = re.compile(r"\$\{[^{}]*\}")
PRICE_FORM = re.compile(r"(?=\.?[0-9])[0-9]{0,6}(?:\.[0-9]{0,9})?")  # of a segment, below a million


class BilledMessage(Struct, frozen=True, gc=False):
    """An accepted message: the fields its cost depends on."""

    app: str
    country: str
    template_id: str
    params: list[str]
    signature: str | None
    segments: int | None  # as the provider reported
    charged: int = 0  # segments, by now
    open: int = 0  # segments that may still be charged


class BillLine(Struct):
    """The messages of one app to one country, with their segments and cost."""

    app: str
    country: str
    messages: int = 0
    reported: int = 0  # segments
    unreported: int = 0  # messages without segments from the provider
    estimated: int = 0  # segments
    unknown: int = 0  # messages whose template's text is not defined here
    charged: int = 0  # segments, by now
    open: int = 0  # segments that may still be charged: their reports have not come
    price: Decimal | None = None  # of a segment
    currency: str = ""

    @property
    def cost(self) -> Decimal | None:
        """What the charged segments cost; None without a price."""
        return None if self.price is None else self.price * self.charged

    @property
    def most(self) -> Decimal | None:
        """What it costs if all of the open segments are charged too; None without a price."""
        return None if self.price is None else self.price * (self.charged + self.open)


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
                mainland = is_mainland(one.country)
                filled = fill_template(text, one.params, one.signature, mainland=mainland)
                estimate = segments(filled, mainland=mainland)
            line.estimated += estimate
            # Nobody has counted it: neither the answer nor a report.
            factor = estimate if one.segments is None and estimate else 1
            line.charged += one.charged * factor
            line.open += one.open * factor

    def sums(self, *, most: bool = False) -> dict[str, Decimal]:
        """Return the cost of all that has a price, by currency; *most*: with what is open."""
        sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        for line in self.lines.values():
            cost = line.most if most else line.cost
            if cost is not None:
                sums[line.currency] += cost
        return dict(sums)


def is_mainland(country: str) -> bool:
    """Tell whether *country*, as core.country names it, is mainland China."""
    return country in _MAINLAND


def fill_template(
    text: str, params: Sequence[str], signature: str | None, *, mainland: bool
) -> str:
    """Return a template's text with *params* filled in, and signed if it goes to the *mainland*."""
    values = iter(params)
    filled = _VARIABLE.sub(lambda _: next(values, ""), text)
    return fill_signature(filled, signature, mainland=mainland)


def fill_signature(text: str, signature: str | None, *, mainland: bool) -> str:
    """Return a text with its signature in front, which other countries do not have."""
    return f"【{signature}】{text}" if signature and mainland else text


def segments(text: str, *, mainland: bool) -> int:
    """Return the number of SMS segments of *text*, at least 1."""
    characters = set(text)
    if not mainland and characters <= _GSM | _GSM_EXTENDED:
        septets = len(text) + sum(text.count(each) for each in characters & _GSM_EXTENDED)
        return _parts(septets, _GSM_SINGLE_SEPTETS, _GSM_PART_SEPTETS)
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return _parts(units, _UCS_SINGLE_UNITS, _UCS_PART_UNITS)


def _parts(units: int, one: int, part: int) -> int:
    return 1 if units <= one else -(-units // part)
