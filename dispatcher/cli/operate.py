"""What an operator does to messages, batches and apps: one function of the database each."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import CommandError

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection as Connection


import getpass
import os
import socket

from dispatcher.cli.errors import USED_WRONGLY

MAX_NAME = 80  # characters

As = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Who does it, for `dispatcher audit`.",
        show_default="user@host",
    ),
]


def named(given: str | None) -> str:
    """Return the name that was given, or else the user of this machine: ana@host."""
    if given is None:
        return f"{_user()}@{socket.gethostname()}"
    who = " ".join(given.split())
    if not who or len(who) > MAX_NAME or not who.isprintable():
        raise CommandError(f"--as takes a name of 1 to {MAX_NAME} characters.", code=USED_WRONGLY)
    return who


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return f"user {os.getuid()}"


Ids = Annotated[list[int], typer.Argument(metavar="ID", help="Ids of messages.")]
App = Annotated[str, typer.Argument(metavar="APP", help="Its name, as in DISPATCHER_APPS__<NAME>.")]


class How(StrEnum):
    """How an unsure batch is settled."""

    SENT = "sent"
    RESEND = "resend"


def cancel(ids: Ids, *, as_: As = None) -> None:
    """Cancel messages that still wait; those are never sent.

    Exits with 1 if one of them was too late: sent, on its way, or finished already.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.db import deeds

    who = named(as_)
    done = with_database(lambda connection: deeds.cancel(connection, who, ids))
    _tell(done.count or 0, ids, "cancelled", "not waiting any more, or unknown")


def requeue(ids: Ids, *, as_: As = None) -> None:
    """Send rejected or expired messages again.

    Mend the cause first. Exits with 1 if one of them is neither rejected nor expired.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.db import deeds

    who = named(as_)
    done = with_database(lambda connection: deeds.requeue(connection, who, ids))
    _tell(done.count or 0, ids, "waiting again", "neither rejected nor expired, or unknown")


def settle(
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="The batch, as `dispatcher status` lists it.")
    ],
    how: Annotated[
        How, typer.Argument(metavar="HOW", help="sent: it went out. resend: it did not.")
    ],
    *,
    as_: As = None,
) -> None:
    """Settle an unsure batch by hand.

    For when you know what became of it. With `resend` its messages go out
    again, and twice if they had gone out after all.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.core.format import plural
    from dispatcher.db import deeds

    who = named(as_)
    settled = with_database(
        lambda connection: deeds.settle(connection, who, token, how.value)
    ).count
    if settled is None:
        raise CommandError(
            f"no unsure batch has the token {token}: it may be settled already, see `dispatcher"
            " show` of one of its messages."
        )
    done = "accepted" if how is How.SENT else "waiting again"
    typer.echo(f"{plural(settled, 'message')} of the batch {done}.")


def pause(
    app: App,
    reason: Annotated[
        str, typer.Option(metavar="WORDS", help="Why, for those who look at it later.")
    ] = "",
    *,
    as_: As = None,
) -> None:
    """Stop sending for an app.

    Requests on their way are finished, and everything else waits.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.db import deeds

    who = named(as_)

    async def work(connection: "Connection") -> None:
        await _must_be_known(connection, app)
        await deeds.pause(connection, who, app, reason)

    with_database(work)
    typer.echo(f"{app} is paused; `dispatcher resume {app}` goes on.")


def resume(app: App, *, as_: As = None) -> None:
    """Send again for a paused app.

    Whether an operator has paused it, or an error of its account.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.db import deeds

    who = named(as_)

    async def work(connection: "Connection") -> None:
        await _must_be_known(connection, app)
        await deeds.resume(connection, who, app)

    with_database(work)
    typer.echo(f"{app} is sending again.")


async def _must_be_known(connection: "Connection", app: str) -> None:
    """Refuse a name that nobody has used: a misspelt pause would stop nothing."""
    from dispatcher.db import admin

    names = await admin.app_names(connection)
    if app not in names:
        known = f"known are {', '.join(names)}" if names else "no worker has run here yet"
        raise CommandError(f"no app is called {app}: {known}.")


def _tell(done: int, ids: list[int], what: str, otherwise: str) -> None:
    from dispatcher.core.format import plural

    typer.echo(f"{plural(done, 'message')} {what}.")
    if left := len(set(ids)) - done:
        raise CommandError(
            f"{plural(left, 'message')} left alone: {otherwise}. See `dispatcher show`."
        )
