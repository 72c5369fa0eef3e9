"""What becomes of each number of a well-formed request, by the rules that always hold."""

from array import array
from collections.abc import Mapping

from dispatcher.simulator.codes import ACCEPTED, BAD_TEMPLATE, DUPLICATE
from dispatcher.simulator.options import Options
from dispatcher.simulator.segments import SURELY_ONE, segments
from dispatcher.simulator.submission import Entry, Submission
from dispatcher.simulator.templates import render

UNKNOWN_SENDER = "E200033"  # the channel of `from` and the template do not go together


def judge(submission: Submission, options: Options) -> tuple[list[str] | None, "array[int]"]:
    """Return a code for each number, None if all are accepted, and the segments of each entry."""
    totals = array("H")
    codes: dict[int, str] = {}  # position in the request -> code, for those refused
    at = 0
    for entry in submission.body.sms_content:
        total, code = _read_entry(entry, options)
        totals.append(total)
        if code is not None:
            codes.update(dict.fromkeys(range(at, at + len(entry.to)), code))
        elif len(entry.to) > 1:
            codes.update(dict.fromkeys(_copies(entry.to, at), DUPLICATE))
        at += len(entry.to)
    sender = submission.body.sender
    if options.senders is not None and sender is not None and sender not in options.senders:
        return [UNKNOWN_SENDER] * len(submission.numbers), totals
    if options.refused:
        codes.update(_refused(submission.numbers, options.refused))
    if not codes:
        return None, totals
    return [codes.get(at, ACCEPTED) for at in range(len(submission.numbers))], totals


def _read_entry(entry: Entry, options: Options) -> tuple[int, str | None]:
    """Return segments and, if the template does not fit, the code for every number of *entry*."""
    total = options.segments or 1
    if options.templates is not None:
        text = render(options.templates, entry.template_id, entry.template_paras)
        if text is None:
            return total, BAD_TEMPLATE
        if options.segments is None:
            signature = f"【{entry.signature}】" if entry.signature else ""
            total = segments(signature + text)
    elif options.segments is None:
        params = entry.template_paras
        if len(params) != 1 or len(params[0]) > SURELY_ONE:
            total = segments("".join(params))
    return total, None


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
