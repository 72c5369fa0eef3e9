"""What becomes of each number of a well-formed request, by the rules that always hold."""

from array import array
from collections.abc import Mapping, Sequence

from dispatcher.simulator.codes import ACCEPTED, BAD_TEMPLATE, DUPLICATE
from dispatcher.simulator.options import Options
from dispatcher.simulator.segments import SURELY_ONE, segments
from dispatcher.simulator.submission import Entry, Submission
from dispatcher.simulator.templates import render

UNKNOWN_SENDER = "E200033"  # the channel of `from` and the template do not go together


def judge(submission: Submission, options: Options) -> tuple[list[str] | None, "array[int]"]:
    """Return a code for each number, None if all are accepted, and the segments of each entry."""
    entries = submission.body.sms_content
    totals = _count_all(entries, options)
    codes: dict[int, str] = {}  # position in the request -> code, for those refused
    if len(entries) < len(submission.numbers) or not all(totals):
        codes = _refused_of_each(entries, totals)
    sender = submission.body.sender
    if options.senders is not None and sender is not None and sender not in options.senders:
        return [UNKNOWN_SENDER] * len(submission.numbers), totals
    if options.refused:
        codes.update(_refused(submission.numbers, options.refused))
    if not codes:
        return None, totals
    return [codes.get(at, ACCEPTED) for at in range(len(submission.numbers))], totals


def _refused_of_each(entries: Sequence[Entry], totals: Sequence[int]) -> dict[int, str]:
    codes: dict[int, str] = {}
    at = 0
    for entry, total in zip(entries, totals, strict=True):
        if not total:
            codes.update(dict.fromkeys(range(at, at + len(entry.to)), BAD_TEMPLATE))
        elif len(entry.to) > 1:
            codes.update(dict.fromkeys(_copies(entry.to, at), DUPLICATE))
        at += len(entry.to)
    return codes


def _count_all(entries: Sequence[Entry], options: Options) -> "array[int]":
    if options.templates is not None or options.segments is not None:
        return array("H", [_count_segments(entry, options) for entry in entries])
    return array(
        "H",
        [  # one short parameter: the usual case, and the fast one
            1
            if len(params := entry.template_paras) == 1 and len(params[0]) <= SURELY_ONE
            else segments("".join(params))
            for entry in entries
        ],
    )


def _count_segments(entry: Entry, options: Options) -> int:
    """Return the segments of the text; none if the template does not take the parameters."""
    if options.templates is None:
        return options.segments or segments("".join(entry.template_paras))
    text = render(options.templates, entry.template_id, entry.template_paras)
    if text is None:
        return 0
    signature = f"【{entry.signature}】" if entry.signature else ""
    return options.segments or segments(signature + text)


def _copies(numbers: list[str], at: int) -> list[int]:
    """Return where a number of one `to` list is a further copy; the first copy is sent."""
    if len(set(numbers)) == len(numbers) and all(n.startswith("+") for n in numbers):
        return []
    seen: set[str] = set()
    copies = []
    for position, number in enumerate(numbers, at):
        # Without a country code it is a mainland number: two spellings, one recipient.
        full = number if number.startswith("+") else "+86" + number
        if full in seen:
            copies.append(position)
        seen.add(full)
    return copies


def _refused(numbers: list[str], prefixes: Mapping[str, str]) -> dict[int, str]:
    ordered = sorted(prefixes, key=len)  # a longer prefix writes over a shorter one
    return {
        at: prefixes[prefix]
        for prefix in ordered
        for at, number in enumerate(numbers)
        if number.startswith(prefix)
    }
