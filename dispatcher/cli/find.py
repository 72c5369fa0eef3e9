"""``dispatcher find``: messages by what is known of them."""

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import CommandError
from dispatcher.cli.replies import masked, table_of_replies
from dispatcher.core.language import _

if TYPE_CHECKING:
    from dispatcher.core.status import MessageSummary, StoredReply
    from dispatcher.db.database import OwnConnection as Connection


SHOWN_REPLIES = 20
_FIELDS = ("id", "app", "recipient", "reference", "state", "code", "queued_at")


def find(
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT", help="A number, reference, provider id, batch token or message id."
        ),
    ],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find messages by number, reference, id or token.

    A number is found in any spelling, and its replies are shown too. Shows the
    newest, numbers masked; `dispatcher show ID` explains one.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, print_json, screen, table_of
    from dispatcher.core.format import mask

    found, answers = with_database(lambda connection: _found(connection, text))
    if json:
        print_json([_as_json(one) for one in found])
        return
    if not found and not answers:
        raise CommandError(_("no message is found by that."))
    table = table_of(
        _("Id"), _("App"), _("Number"), _("Reference"), _("State"), _("Code"), _("Inserted")
    )
    for one in found:
        table.add_row(
            str(one.id), one.app, mask(one.recipient), one.reference or "", _(one.state),
            one.code or "", moment(one.queued_at),
        )  # fmt: skip
    screen().print(table if found else _("No message is found by that; there are replies:"))
    if answers:
        screen().print(table_of_replies(masked(answers)))


async def _found(
    connection: "Connection", written: str
) -> "tuple[list[MessageSummary], list[StoredReply]]":
    """Return what the first kind of search finds that finds anything, and replies of a number.

    A reference may have blanks at its ends: it is first looked for as it was *written*.
    """
    from dispatcher.core.message import as_stored
    from dispatcher.core.number import ReadNumber, read_number
    from dispatcher.db import replies, status

    text = written.strip()
    number = read_number(text, other_mainland=True)
    searches: list[tuple[status.Search, str]] = []
    answers: list[StoredReply] = []
    if isinstance(number, ReadNumber):
        searches.append(("recipient", number.e164))
        answers = await replies.of_number(connection, number.e164, limit=SHOWN_REPLIES)
    if text.isascii() and text.isdecimal() and len(text) < len(str(2**63)):
        searches.append(("id", text))
    searches += [("reference", each) for each in dict.fromkeys((written, text))]
    searches += [("provider_id", text), ("token", text)]
    if not isinstance(number, ReadNumber) and (stored := as_stored(text)):
        searches.append(("recipient", stored))  # a row may have what is no number
    for by, wanted in searches:
        if found := await status.find_in(connection, by, wanted):
            return found, answers
    return [], answers


def _as_json(one: "MessageSummary") -> dict[str, object]:
    """Return what a search reads; the other fields are of lists by a filter, and empty here."""
    from dispatcher.core.format import mask

    return {name: getattr(one, name) for name in _FIELDS} | {"recipient": mask(one.recipient)}
