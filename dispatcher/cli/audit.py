"""``dispatcher audit``: lists the actions of operators."""

from typing import Annotated

import typer

from dispatcher.core.language import _
from dispatcher.core.roles import shown_name
from dispatcher.core.stored_texts import stored_text


def audit(
    *,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="How many, the newest first.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Show who did what, when, and with which result.

    All actions in the console and by commands: pause, resume, cancel, requeue, settle, suppress,
    template, limit, price, forget, and which full number was shown.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, print_json, screen, table_of
    from dispatcher.db import operator

    entries = with_database(lambda connection: operator.audit_entries(connection, last))
    if json:
        print_json(entries)
        return
    table = table_of(_("When"), _("Who"), _("What"), _("With"), _("Detail"), _("Result"))
    for one in entries:
        table.add_row(
            moment(one.created_at),
            shown_name(one.actor),
            one.action,
            one.target,
            stored_text(one.detail),
            stored_text(one.result),
        )
    screen().print(table if table.rows else _("No action is recorded yet."))
