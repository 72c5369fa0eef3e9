"""``dispatcher cost``: the cost of a day, by the operator's prices."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name
from dispatcher.core.language import _

if TYPE_CHECKING:
    from rich.console import Console

    from dispatcher.core.cost import Bill, BillLine
    from dispatcher.db.database import OwnConnection

_YEARS = range(2000, 3000)
_MAX_CURRENCY_LENGTH = 8
_PROVIDER_ZONE = timezone(timedelta(hours=8))


def cost(
    day: Annotated[
        str | None,
        typer.Option(
            metavar="DAY",
            help="Such as 2026-11-01, by the provider's clock (UTC+8).",
            show_default="today",
        ),
    ] = None,
    *,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COUNTRY=PRICE",
            help="First set the price of a segment: CN=0.045CNY. May be repeated.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
    as_: As = None,
) -> None:
    """Show segments and cost of a day, by app and country.

    Estimated segments are counted from the texts of templates defined with
    --text; segments reported by the provider are shown beside them. Charged
    are, as BILLING of the app says, those delivered or all sent; in mainland
    China by default those delivered. Open are those without a report so far.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import print_json, screen
    from dispatcher.core.country import country
    from dispatcher.db import cost as costs
    from dispatcher.db import operator

    begin = _day(day)
    wanted = [_price(text) for text in price or ()]
    who = operator_name(as_)

    async def work(connection: "OwnConnection") -> "Bill":
        for each in wanted:
            await operator.set_price(connection, who, *each)
        end = begin + timedelta(days=1)
        return await costs.bill_of(connection, begin, end, country=country)

    bill = with_database(work)
    if json:
        print_json([_as_json(line) for line in _ordered(bill)])
        return
    _print_bill(bill, screen())


def _ordered(bill: "Bill") -> "list[BillLine]":
    return sorted(bill.lines.values(), key=lambda line: (line.app, -line.messages))


def _as_json(line: "BillLine") -> dict[str, object]:
    from msgspec.structs import asdict

    return asdict(line) | {"cost": line.cost}


def _print_bill(bill: "Bill", console: "Console") -> None:
    from dispatcher.cli.output import table_of
    from dispatcher.core.format import number

    table = table_of(_("App"), _("Country"))
    for name in (
        _("Messages"),
        _("Estimated"),
        _("Reported"),
        _("Charged"),
        _("Open"),
        _("Price"),
        _("Cost"),
    ):
        table.add_column(name, justify="right")
    for line in _ordered(bill):
        table.add_row(
            line.app,
            line.country,
            number(line.messages),
            number(line.estimated) if line.unknown < line.messages else "-",
            number(line.reported) if line.unreported < line.messages else "-",
            number(line.charged),
            number(line.open),
            "-" if line.price is None else f"{line.price} {line.currency}".strip(),
            "-" if line.cost is None else f"{line.cost:,.2f} {line.currency}".strip(),
        )
    console.print(table if table.rows else _("Nothing was accepted on that day."))
    if table.rows:
        typer.echo(_("Estimated, reported, charged and open are segments."))
    at_most = bill.sums(most=True)
    for currency, cost in sorted(bill.sums().items()):
        more = at_most[currency] - cost
        later = (
            _(", and up to {more} more with the reports to come").format(more=f"{more:,.2f}")
            if more
            else ""
        )
        typer.echo(
            _("Together {cost} {currency}").format(cost=f"{cost:,.2f}", currency=currency).strip()
            + later
        )
    if any(line.price is None for line in bill.lines.values()):
        typer.echo(_("Set a price for the others: `dispatcher cost --price DE=0.07EUR`."))


def _day(text: str | None) -> datetime:
    if text is None:
        today = datetime.now(UTC).astimezone(_PROVIDER_ZONE)
        return today.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=_PROVIDER_ZONE)
        if day.year in _YEARS:
            return day
    except ValueError:
        pass
    raise CommandError(_("--day takes a day such as 2026-11-01."), code=USED_WRONGLY)


def _price(text: str) -> tuple[str, Decimal, str]:
    from dispatcher.core.cost import PRICE_FORM
    from dispatcher.core.country import country_of

    named, _sep, rest = text.partition("=")
    country = country_of(named)
    amount = rest.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    currency = rest[len(amount) :]
    sane = PRICE_FORM.fullmatch(amount) and len(currency) <= _MAX_CURRENCY_LENGTH
    if country is None or not sane:
        raise CommandError(
            _(
                "--price takes COUNTRY=PRICE, such as CN=0.045CNY; a country has two letters (ISO"
                " 3166), or is a calling code, such as +44."
            ),
            code=USED_WRONGLY,
        )
    return country, Decimal(amount), currency
