"""Actions on templates, limits, suppressed numbers and prices, with the checks of the commands."""

import re
from datetime import time
from decimal import Decimal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.confirmation import (
    MAX_REASON_LENGTH,
    Check,
    Confirmation,
    Do,
    Known,
    OperatorAction,
    reason_of,
    unknown_app,
)
from dispatcher.console.forms import Fields, Invalid, read_template
from dispatcher.core.cost import PRICE_FORM, segments
from dispatcher.core.country import country_of
from dispatcher.core.format import mask, number, plural
from dispatcher.core.language import _
from dispatcher.core.message import as_stored
from dispatcher.core.number import ReadNumber, read_number
from dispatcher.core.rules import Limits, describe_limits, describe_scope
from dispatcher.core.templates import Template, sample_text
from dispatcher.db.operator import ActionResult

RULES_PATH = "/console/rules"
MAX_NUMBERS = 10_000  # of one form; a longer list is a file
MAX_NUMBER_LIMIT = 2_000_000_000  # what the database takes
SHOWN_DOUBTS = 10  # lines without a number that a confirmation names
COUNTED_LIMITS = ("per_minute", "per_day", "same_per_minute", "same_per_hour", "daily_limit")
RULE_FIELDS = (
    "template_id", "text", "kinds", "note", "promotional", *COUNTED_LIMITS, "quiet_from",
    "quiet_until", "country", "price", "currency", "numbers",
)  # fmt: skip


class GivenNumbers(Struct, frozen=True):
    """The numbers of a form, and the lines that hold none, each with the reason."""

    numbers: list[str]
    doubts: list[tuple[int, str]]


def read_numbers(
    text: str, *, other_mainland: bool, remove: bool = False
) -> GivenNumbers | Invalid:
    """Return the numbers in *text*: one a line, or separated by commas and semicolons.

    To *remove* a number that rows may have is never doubtful.
    """
    numbers: dict[str, None] = {}
    doubts: list[tuple[int, str]] = []
    for line, written in enumerate(text.splitlines(), start=1):
        for part in re.split(r"[,;\uff0c\uff1b\t]", written):
            if not part.strip():
                continue
            read = read_number(part.strip(), other_mainland=other_mainland)
            if isinstance(read, ReadNumber):
                numbers[read.e164] = None
            elif remove and (stored := as_stored(part.strip())):
                numbers[stored] = None
            else:
                doubts.append((line, read.reason))
    if len(numbers) > MAX_NUMBERS:
        return Invalid(
            _("A form takes {count} numbers; for more there is `dispatcher suppress --file`.")
            .format(count=number(MAX_NUMBERS))
        )  # fmt: skip
    if not numbers and doubts:
        return Invalid(_("This is not a number: {reason}.").format(reason=_(doubts[0][1])))
    if not numbers:
        return Invalid(_("Give a number, or several, one a line."))
    return GivenNumbers([*numbers], doubts)


def read_limits(fields: Fields) -> Limits | Invalid:
    """Return the limits that a form describes; blank fields are no limits."""
    values: dict[str, int] = {}
    for name in COUNTED_LIMITS:
        if not (text := fields.get(name, "").strip()):
            continue
        if not re.fullmatch("[0-9]{1,10}", text) or not 1 <= int(text) <= MAX_NUMBER_LIMIT:
            return Invalid(_("A limit is a whole number, 1 or more; leave it blank for no limit."))
        values[name] = int(text)
    hours = [fields.get(name, "").strip() for name in ("quiet_from", "quiet_until")]
    if not any(hours):
        return msgspec.convert(values, Limits)
    try:
        begin, end = map(time.fromisoformat, hours)
    except ValueError:
        return Invalid(_("Quiet hours have a beginning and an end, such as 21:00 and 08:00."))
    if begin == end or begin.tzinfo or end.tzinfo:
        return Invalid(_("Quiet hours end at another time than they begin."))
    return replace(msgspec.convert(values, Limits), quiet_from=begin, quiet_until=end)


def read_price(fields: Fields) -> tuple[str, Decimal, str] | Invalid:
    """Return country, price of a segment, and currency that a form describes."""
    country = country_of(fields.get("country", ""))
    currency = fields.get("currency", "").strip().upper()
    price = fields.get("price", "").strip()
    if country is None:
        return Invalid(
            _(
                "A country has two letters, such as CN (ISO 3166), or is a calling code, such as"
                " +44."
            )
        )
    if not PRICE_FORM.fullmatch(price):
        return Invalid(_("A price is a number, such as 0.045."))
    if not re.fullmatch("[A-Z]{0,8}", currency):
        return Invalid(_("A currency has letters only, such as CNY."))
    return country, Decimal(price), currency


def _define_template(fields: Fields, _known: Known) -> Confirmation | Invalid:
    match read_template(fields):
        case Invalid() as invalid:
            return invalid
        case Template(template_id, kinds):
            variables = ", ".join(kinds) if kinds else _("no variables")
            details = []
            if text := fields.get("text", "").strip():
                sample = sample_text(text)
                details = [
                    _("For example: {text}").format(text=sample),
                    _("That is {segments}, without a signature.").format(
                        segments=plural(segments(sample, mainland=True), "segment")
                    ),
                ]
            return Confirmation(
                _("Define the template {id}").format(id=template_id),
                _(
                    "It takes {variables}. From a few seconds on, a message whose variables do not"
                    " fit is rejected with a reason before it costs a request."
                ).format(variables=variables),
                _("Define it"),
                RULES_PATH,
                details=details,
            )


def _drop_template(fields: Fields, _known: Known) -> Confirmation | Invalid:
    template_id = fields.get("template_id")
    if not template_id:
        return Invalid(_("Name the template."))
    return Confirmation(
        _("Remove the template {id}").format(id=template_id),
        _("Its variables are not checked here any more; the provider still checks them."),
        _("Remove it"),
        RULES_PATH,
    )


def _set_limits(fields: Fields, known: Known) -> Confirmation | Invalid:
    app = fields.get("app")
    if not app:
        return Invalid(_("Name the app."))
    match read_limits(fields):
        case Invalid() as invalid:
            return invalid
        case limits:
            if limits != Limits() and app not in known.apps:  # one that is gone can be removed
                return unknown_app(app, known)
            return Confirmation(
                _("Set the limits of {app}").format(app=app),
                _("From a few seconds on: {limits}. What is over a limit waits; none is lost.")
                .format(limits=describe_limits(limits)),
                _("Set them"),
                RULES_PATH,
            )  # fmt: skip


def _set_price(fields: Fields, _known: Known) -> Confirmation | Invalid:
    match read_price(fields):
        case Invalid() as invalid:
            return invalid
        case country, price, currency:
            return Confirmation(
                _("Set the price of {country}").format(country=country),
                _("A segment to {country} costs {price}. Costs are shown with it, of the past too.")
                .format(country=country, price=f"{price} {currency}".strip()),
                _("Set it"),
                RULES_PATH,
            )  # fmt: skip


def _suppress(fields: Fields, known: Known) -> Confirmation | Invalid:
    app = fields.get("app", "")
    if app and app not in known.apps:  # a misspelt app would stop nothing
        return unknown_app(app, known)
    match read_numbers(fields.get("numbers", ""), other_mainland=known.other_mainland):
        case Invalid() as invalid:
            return invalid
        case given:
            scope = describe_scope(app, promotional=_is_promotional(fields))
            return Confirmation(
                _("Suppress {numbers}").format(numbers=plural(len(given.numbers), "number")),
                _("From the next second on they are not sent {scope}.").format(
                    scope=scope or _("anything")
                ),
                _("Suppress them"),
                RULES_PATH,
                grave=True,
                details=_details(given),
            )


def _unsuppress(fields: Fields, known: Known) -> Confirmation | Invalid:
    text = fields.get("numbers", "")
    match read_numbers(text, other_mainland=known.other_mainland, remove=True):
        case Invalid() as invalid:
            return invalid
        case given:
            return Confirmation(
                _("Send to {numbers} again").format(numbers=plural(len(given.numbers), "number")),
                _("Every suppression of them ends, whatever set it: also what their owners asked."),
                _("Send to them again"),
                RULES_PATH,
                grave=True,
                details=_details(given),
            )


def _details(given: GivenNumbers) -> list[str]:
    lines = [", ".join(mask(each) for each in given.numbers[:SHOWN_DOUBTS])]
    if (more := len(given.numbers) - SHOWN_DOUBTS) > 0:
        lines.append(_("and {count} more").format(count=number(more)))
    lines += [
        _("Line {line} is left out: {reason}.").format(line=line, reason=_(reason))
        for line, reason in given.doubts[:SHOWN_DOUBTS]
    ]
    if (more := len(given.doubts) - SHOWN_DOUBTS) > 0:
        lines.append(_("and {count} more lines").format(count=number(more)))
    return lines


def _is_promotional(fields: Fields) -> bool:
    return fields.get("promotional") == "yes"


async def _do_define_template(backend: ConsoleBackend, actor: str, fields: Fields) -> ActionResult:
    match read_template(fields):
        case Invalid(reason):
            return ActionResult(None, reason)
        case template:
            note = fields.get("note", "")[:MAX_REASON_LENGTH]
            text = fields.get("text", "").strip() or None
            return await backend.define_template(actor, template, note, text)


async def _do_set_limits(backend: ConsoleBackend, actor: str, fields: Fields) -> ActionResult:
    match read_limits(fields):
        case Invalid(reason):
            return ActionResult(None, reason)
        case limits:
            return await backend.set_limits(actor, fields["app"], limits)


async def _do_set_price(backend: ConsoleBackend, actor: str, fields: Fields) -> ActionResult:
    match read_price(fields):
        case Invalid(reason):
            return ActionResult(None, reason)
        case price:
            return await backend.set_price(actor, *price)


async def _do_suppress(backend: ConsoleBackend, actor: str, fields: Fields) -> ActionResult:
    match read_numbers(fields.get("numbers", ""), other_mainland=backend.other_mainland):
        case Invalid(reason):
            return ActionResult(None, reason)
        case given:
            return await backend.suppress(
                actor,
                given.numbers,
                reason_of(fields),
                app=fields.get("app", ""),
                promotional=_is_promotional(fields),
            )


async def _do_unsuppress(backend: ConsoleBackend, actor: str, fields: Fields) -> ActionResult:
    text = fields.get("numbers", "")
    match read_numbers(text, other_mainland=backend.other_mainland, remove=True):
        case Invalid(reason):
            return ActionResult(None, reason)
        case given:
            return await backend.unsuppress(actor, given.numbers)


def _rule(check: Check, do: Do, form: str | None = None) -> OperatorAction:
    return OperatorAction(check, do, "rules", form)


RULE_ACTIONS: dict[str, OperatorAction] = {
    "template": _rule(_define_template, _do_define_template, "template"),
    "template-remove": _rule(_drop_template, lambda b, a, f: b.drop_template(a, f["template_id"])),
    "limits": _rule(_set_limits, _do_set_limits, "limits"),
    "price": _rule(_set_price, _do_set_price, "price"),
    "suppress": _rule(_suppress, _do_suppress, "suppress"),
    "unsuppress": _rule(_unsuppress, _do_unsuppress, "suppress"),
}
