"""``dispatcher explain``: what a code of the provider means, and what to do."""

from typing import Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.core.language import ENGLISH, N_, _, use_language

_SHOWN = (N_("any other text"), N_("E2000nn (other)"))  # codes of the tables that are words


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="Such as E200028 or MK:0012.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Explain a code of an answer or of a status report.

    The same code may stand for a request, for a number or in a report, and
    means something else in each.
    """
    from dispatcher.cli.output import print_json, screen, table_of
    from dispatcher.core.code_table import published_rows
    from dispatcher.core.codes import NUMBER, OURS, REQUEST
    from dispatcher.core.templates import plain_code

    code = plain_code(code)
    if not code:
        raise CommandError(_("give a code, such as E200028."), code=USED_WRONGLY)
    if json:
        use_language(ENGLISH)  # programs read it
    table = table_of(
        _("Where"), _("Code"), _("Meaning"), _("What to do"), _("Send the same again"), _("Charged")
    )
    for place, ours in (("request", REQUEST), ("number", NUMBER), ("dispatcher", OURS)):
        if (row := ours.get(code.lower()) or ours.get(code.upper())) is not None:
            table.add_row(_(place), row.code, _(row.meaning), _(row.advice), "", "")
    for level in ("request", "number", "report"):
        for known in published_rows(level, code):
            if code.upper() not in known.codes and (level != "report" or not known.codes):
                continue
            table.add_row(
                f"{_(level)}{_(', ')}{_(known.source)}",
                _(known.shown),
                _(known.meaning),
                _(known.advice),
                _(known.again),
                _("by delivery: {charged_by_delivery}; on sending: {charged_by_sending}").format(
                    charged_by_delivery=_(known.charged_by_delivery),
                    charged_by_sending=_(known.charged_by_sending),
                ),
            )
    if not table.rows:
        raise CommandError(_("no code {code} is known.").format(code=code))
    if json:
        names = ("where", "code", "meaning", "advice", "again", "charged")
        rows = zip(*(column.cells for column in table.columns), strict=True)
        print_json([dict(zip(names, map(str, row), strict=True)) for row in rows])
        return
    screen().print(table)
