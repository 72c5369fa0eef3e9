"""``dispatcher audit``: who did what."""

from typing import Annotated

import typer


def audit(
    *,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="How many, the newest first.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Show who did what, when, and what came of it.

    Everything that was done in the console or by a command: pause, resume, cancel, requeue,
    settle, suppress, template, limit, price, forget, and whose number was looked at.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.cli.output import moment, screen, table_of
    from dispatcher.db import deeds

    done = with_database(lambda connection: deeds.written(connection, last))
    if json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(done)))
        return
    table = table_of("When", "Who", "What", "With", "Detail", "Result")
    for one in done:
        table.add_row(moment(one.at), one.who, one.action, one.target, one.detail, one.result)
    screen().print(table if table.rows else "Nothing was done by anybody yet.")
