"""The result of each number of a well-formed request, its segments, and the text it is sent.

In mainland China an SMS has 70 characters of any kind, or 67 in each of several segments, and its
signature is part of the text. Elsewhere that holds for texts in UCS-2; in GSM-7 there are 160, or
153, where nine characters count two, and there is no signature. A template variable is
`${TYPE_n}`, with at most n characters, or `${TYPE}`; templates for mainland China have the type
alone. NUM takes digits only (provider.md, Templates and length).
"""

import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from dispatcher.simulator.options import Options
from dispatcher.simulator.request import (
    ACCEPTED,
    BAD_TEMPLATE,
    DUPLICATE,
    ContentEntry,
    SmsRequest,
)

UNKNOWN_SENDER: Final = "E200033"  # the channel of `from` does not fit the template

_GSM_CHARACTERS = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_DOUBLE_CHARACTERS = frozenset("\f^{}\\[~]|€")

# A text of this length is one segment in any alphabet: 70 UTF-16 units if each character needs two.
MAX_CHARACTERS_OF_ONE_SEGMENT: Final = 35

_VARIABLE = re.compile(r"\$\{([A-Za-z]*)_?([0-9]*)\}")


class Totals(Struct, frozen=True):
    """The segments of each entry, by where its numbers are; nearly always the same array."""

    mainland: "array[int]"
    abroad: "array[int]"

    def of_entry(self, at: int, number: str) -> int:
        """Return the segments of entry *at* for one of its numbers."""
        return self.mainland[at] if is_mainland(number) else self.abroad[at]


def is_mainland(number: str) -> bool:
    """Tell whether *number* is in mainland China: one without + is."""
    return not number.startswith("+") or number.startswith("+86")


def evaluate_numbers(sms_request: SmsRequest, options: Options) -> tuple[list[str] | None, Totals]:
    """Return a code for each number (None: all are accepted) and the segments of each entry."""
    entries = sms_request.body.sms_content
    totals = _segments_of_entries(entries, options)
    codes: dict[int, str] = {}  # position in the request -> code of a refused number
    if len(entries) < len(sms_request.numbers) or not all(totals.mainland):
        codes = _refused_by_entry(entries, totals.mainland)
    sender = sms_request.body.sender
    if options.senders is not None and sender is not None and sender not in options.senders:
        return [UNKNOWN_SENDER] * len(sms_request.numbers), totals
    if options.refused:
        codes.update(_refused_by_prefix(sms_request.numbers, options.refused))
    if not codes:
        return None, totals
    return [codes.get(at, ACCEPTED) for at in range(len(sms_request.numbers))], totals


def _refused_by_entry(entries: Sequence[ContentEntry], totals: Sequence[int]) -> dict[int, str]:
    codes: dict[int, str] = {}
    at = 0
    for entry, total in zip(entries, totals, strict=True):
        if not total:
            codes.update(dict.fromkeys(range(at, at + len(entry.to)), BAD_TEMPLATE))
        elif len(entry.to) > 1:
            codes.update(dict.fromkeys(_repeated_positions(entry.to, at), DUPLICATE))
        at += len(entry.to)
    return codes


def _segments_of_entries(entries: Sequence[ContentEntry], options: Options) -> Totals:
    if options.templates is not None or options.segments is not None:
        both = [_segments_of_entry(entry, options) for entry in entries]
    else:
        both = [  # one short parameter is the usual case
            _ONE_SEGMENT
            if len(params := entry.template_paras) == 1
            and len(params[0]) <= MAX_CHARACTERS_OF_ONE_SEGMENT
            else _segments_of_text("".join(params), "")
            for entry in entries
        ]
    mainland = array("H", [pair[0] for pair in both])
    if all(pair[0] == pair[1] for pair in both):
        return Totals(mainland, mainland)
    return Totals(mainland, array("H", [pair[1] for pair in both]))


_ONE_SEGMENT: Final = (1, 1)


def _segments_of_entry(entry: ContentEntry, options: Options) -> tuple[int, int]:
    """Return the segments of the text in mainland China and elsewhere.

    0 if the template does not take the parameters.
    """
    if options.segments is not None and options.templates is None:
        return options.segments, options.segments
    if options.templates is None:
        return _segments_of_text("".join(entry.template_paras), "")
    text = render_template(options.templates, entry.template_id, entry.template_paras)
    if text is None:
        return 0, 0
    if options.segments is not None:
        return options.segments, options.segments
    return _segments_of_text(text, f"【{entry.signature}】" if entry.signature else "")


def _segments_of_text(text: str, signature: str) -> tuple[int, int]:
    return count_segments(signature + text, mainland=True), count_segments(text, mainland=False)


def _repeated_positions(numbers: list[str], at: int) -> list[int]:
    """Return the positions of repeated numbers in one `to` list; the first copy is sent."""
    if len(set(numbers)) == len(numbers) and all(n.startswith("+") for n in numbers):
        return []
    seen: set[str] = set()
    copies = []
    for position, number in enumerate(numbers, at):
        # A number without a country code is a mainland number: two spellings, one recipient.
        full = number if number.startswith("+") else "+86" + number
        if full in seen:
            copies.append(position)
        seen.add(full)
    return copies


def _refused_by_prefix(numbers: list[str], prefixes: Mapping[str, str]) -> dict[int, str]:
    ordered = sorted(prefixes, key=len)  # a longer prefix replaces a shorter one
    return {
        at: prefixes[prefix]
        for prefix in ordered
        for at, number in enumerate(numbers)
        if number.startswith(prefix)
    }


def count_segments(text: str, *, mainland: bool) -> int:
    """Return the number of segments of *text*, at least 1."""
    if len(text) <= MAX_CHARACTERS_OF_ONE_SEGMENT:
        return 1
    characters = set(text)
    if not mainland and characters <= _GSM_CHARACTERS | _GSM_DOUBLE_CHARACTERS:
        septets = len(text) + sum(
            text.count(double) for double in characters & _GSM_DOUBLE_CHARACTERS
        )
        return 1 if septets <= 160 else -(-septets // 153)  # noqa: PLR2004 - see the module docstring
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return 1 if units <= 70 else -(-units // 67)  # noqa: PLR2004 - see the module docstring


def render_template(
    templates: Mapping[str, str], template_id: str, params: Sequence[str]
) -> str | None:
    """Return the text to send; None if the template is unknown or the parameters do not fit."""
    template = templates.get(template_id)
    if template is None:
        return None
    variables = _VARIABLE.findall(template)
    if len(variables) != len(params):
        return None
    for (kind, limit), param in zip(variables, params, strict=True):
        if not param or (limit and len(param) > int(limit)):
            return None
        if kind == "NUM" and not (param.isascii() and param.isdigit()):
            return None
    remaining = iter(params)
    return _VARIABLE.sub(lambda _: next(remaining), template)
