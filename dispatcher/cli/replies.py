"""``dispatcher replies``: what persons answered to messages."""

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name
from dispatcher.core.language import _

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from dispatcher.core.status import StoredReply
    from dispatcher.db.database import OwnConnection as Connection


def replies(
    number: Annotated[
        str | None, typer.Argument(metavar="NUMBER", help="Only of this number, in any spelling.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Replies to list.")] = 20,
    full: Annotated[
        bool, typer.Option("--full", help="Whole numbers; the audit log records it.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
    as_: As = None,
) -> None:
    """Show replies (uplink), the newest first.

    The provider posts them to /replies/TOKEN of the report receiver, or to
    /replies/TOKEN/APP. A reply such as R (UNSUBSCRIBE_WORDS) stops promotional
    messages of the app to its number; `dispatcher suppress` lists those.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import print_json, screen
    from dispatcher.core.number import DoubtfulNumber, read_number
    from dispatcher.db import operator
    from dispatcher.db import replies as db

    read = None if number is None else read_number(number, other_mainland=True)
    if isinstance(read, DoubtfulNumber):
        raise CommandError(
            _("the number is doubtful: {reason}.").format(reason=read.reason), code=USED_WRONGLY
        )
    who = operator_name(as_)

    async def work(connection: "Connection") -> "list[StoredReply]":
        if read is None:
            found = await db.newest(connection, limit=limit)
        else:
            found = await db.of_number(connection, read.e164, limit=limit)
        if full and found:
            await operator.record_export(connection, who, f"replies {len(found)}")
        return found

    found = with_database(work)
    shown = found if full else masked(found)
    if json:
        print_json(shown)
    else:
        screen().print(table_of_replies(shown) if shown else _("No reply has come."))


def masked(found: "Sequence[StoredReply]") -> "list[StoredReply]":
    """Return the replies with masked numbers."""
    from msgspec.structs import replace

    from dispatcher.core.format import mask

    return [replace(one, number=mask(one.number)) for one in found]


def table_of_replies(found: "Sequence[StoredReply]") -> "Table":
    """Return a table of replies; control characters of their texts are left out."""
    from dispatcher.cli.output import moment, table_of

    table = table_of(_("Reply"), _("Received"), _("App"), _("Number"), _("Text"), _("Unsubscribed"))
    for one in found:
        text = "".join(each if each.isprintable() else " " for each in one.text)
        table.add_row(
            str(one.id), moment(one.received_at), one.app or "-", one.number, text,
            _("yes") if one.unsubscribed else "",
        )  # fmt: skip
    return table
