"""Commands of operators: cancel, requeue, settle, pause and resume."""

import getpass
import os
import socket
from datetime import UTC
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.completion import complete_app
from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.spans import begin_of
from dispatcher.cli.usage import MAX_ID
from dispatcher.core.language import _

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection as Connection
    from dispatcher.db.operator import UnsureBatches

MAX_NAME_LENGTH = 80  # characters
MAX_SHOWN = 20  # messages that were left alone
MAX_REQUEUED = 5_000  # messages in one transaction

As = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Name of the operator, for `dispatcher audit`.",
        show_default="user@host",
    ),
]


def operator_name(given: str | None) -> str:
    """Return *given*, or else the user of this machine: ana@host."""
    if given is None:
        return f"{_user_name()}@{socket.gethostname()}"
    who = " ".join(given.split())
    if not who or len(who) > MAX_NAME_LENGTH or not who.isprintable():
        raise CommandError(
            _("--as takes a name of 1 to {max_name_length} characters.").format(
                max_name_length=MAX_NAME_LENGTH
            ),
            code=USED_WRONGLY,
        )
    return who


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return f"user {os.getuid()}"


Ids = Annotated[list[int], typer.Argument(metavar="ID", help="Ids of messages.")]


App = Annotated[
    str,
    typer.Argument(
        metavar="APP",
        help="Its name, as in DISPATCHER_APPS__<NAME>.",
        autocompletion=complete_app,
    ),
]


class Settlement(StrEnum):
    """How an unsure batch is settled."""

    SENT = "sent"
    RESEND = "resend"


def cancel(ids: Ids, *, as_: As = None) -> None:
    """Cancel queued messages; they are never sent.

    Exits with 1 if one of them is not queued any more: it is being sent, or finished.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.db import operator
    from dispatcher.db.status import states_of

    who = operator_name(as_)

    async def work(connection: "Connection") -> "tuple[int, dict[int, str]]":
        before = await states_of(connection, ids)
        done = await operator.cancel(connection, who, ids)
        after = await states_of(connection, ids)
        left = {one: state for one, state in after.items() if state != "cancelled"}
        return done.count or 0, left | {
            one: state for one, state in before.items() if state == "cancelled"
        }

    done, left = with_database(work)
    _print_result(done, ids, _("cancelled"), left)


def requeue(
    ids: Annotated[list[int] | None, typer.Argument(metavar="ID", help="Ids of messages.")] = None,
    *,
    code: Annotated[
        str | None, typer.Option(metavar="CODE", help="Instead of ids: all with this code.")
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="With --code: 2h, 3d, or a time with its zone.")
    ] = "1d",
    as_: As = None,
) -> None:
    """Send messages again that were not sent.

    Rejected and expired messages, and those that the platform refused by a
    report before anything was sent (E000629: the package is used up). Correct
    the cause first. Exits with 1 if one of them is none of these.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.core.report_status import report_status
    from dispatcher.db import operator
    from dispatcher.db.message_actions import CAMPAIGN_CANCELLED
    from dispatcher.db.status import states_of

    if (code is None) == (not ids):
        raise CommandError(_("give either ids or --code."), code=USED_WRONGLY)
    who = operator_name(as_)
    begin = begin_of("--since", since)

    async def work(
        connection: "Connection",
    ) -> "tuple[int, list[int], dict[int, str]]":
        wanted = ids or await operator.find_by_code(connection, code or "", begin)
        done = 0
        left: dict[int, str] = {}
        for start in range(0, len(wanted), MAX_REQUEUED):
            some = wanted[start : start + MAX_REQUEUED]
            before = await states_of(connection, some)
            done += (await operator.requeue(connection, who, some)).count or 0
            after = await states_of(connection, some)
            left |= {one: state for one, state in after.items() if before.get(one) == state}
        ended = [one for one, state in left.items() if state in ("rejected", "expired")]
        cancelled = await operator.of_cancelled_campaigns(connection, ended)
        return done, wanted, left | dict.fromkeys(cancelled, CAMPAIGN_CANCELLED)

    done, wanted, left = with_database(work)
    if code is not None and not wanted:
        raise CommandError(
            _(
                "no message that may be sent again has the code {code} since {begin} UTC. {advice}"
            ).format(code=code, begin=f"{begin:%Y-%m-%d %H:%M}", advice=report_status(code).advice)
        )
    _print_result(done, wanted, _("waiting again"), left)


Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Unsure from this time on: 2h, 3d, 2026-11-29T08:00; UTC."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Unsure before this time.")]


def settle(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TOKEN|ID] HOW",
            help="The batch, as `dispatcher status` lists it, or a message that a fail-over has"
            " lost, unless options choose several; and sent: it went out, or resend: it did not.",
            show_default=False,
        ),
    ],
    *,
    app: Annotated[
        str | None,
        typer.Option(metavar="APP", help="Batches of this app.", autocompletion=complete_app),
    ] = None,
    code: Annotated[
        str | None, typer.Option(metavar="CODE", help="Batches with this code: 'HTTP 502'.")
    ] = None,
    since: Since = None,
    until: Until = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Settle them, after a look at how many.")
    ] = False,
    as_: As = None,
) -> None:
    """Settle an unsure batch by hand, or many at once.

    Use it when you know the result from the provider. With `resend` the
    messages are sent again: twice, if they had been sent before. With --app,
    --code, --since or --until it settles all that match, and says first how
    many.
    """
    from dispatcher.db.operator import UnsureBatches

    who = operator_name(as_)
    several = UnsureBatches(
        app,
        code,
        begin_of("--since", since, UTC) if since else None,
        begin_of("--until", until, UTC) if until else None,
    )
    match words:
        case [how] if several != UnsureBatches():
            _settle_several(who, several, _settlement(how), yes=yes)
        case [number, how] if several == UnsureBatches() and _is_id(number):
            _settle_lost(who, int(number), _settlement(how))
        case [token, how] if several == UnsureBatches():
            _settle_one(who, token, _settlement(how))
        case _:
            raise CommandError(
                _("give TOKEN and HOW; or HOW and some of --app, --code, --since, --until."),
                code=USED_WRONGLY,
            )


def _settlement(word: str) -> Settlement:
    try:
        return Settlement(word)
    except ValueError:
        raise CommandError(
            _("HOW is sent or resend, not {word}.").format(word=word), code=USED_WRONGLY
        ) from None


def _is_id(word: str) -> bool:
    """Tell whether *word* is the id of a message, or too great for one: a token is longer."""
    return word.isascii() and word.isdigit() and len(word) <= len(str(MAX_ID))


def _settle_lost(who: str, message: int, how: Settlement) -> None:
    from dispatcher.cli.connection import with_database
    from dispatcher.db import operator

    settled = (
        message <= MAX_ID
        and with_database(
            lambda connection: operator.settle_lost(connection, who, [message], how.value)
        ).count
    )
    if not settled:
        raise CommandError(
            _(
                "message {message} is not lost: see `dispatcher show {message}`. An unsure batch is"
                " settled by its token."
            ).format(message=message)
        )
    typer.echo(_("Message {message} {done}.").format(message=message, done=_done(how)))


def _settle_one(who: str, token: str, how: Settlement) -> None:
    from dispatcher.cli.connection import with_database
    from dispatcher.core.format import plural
    from dispatcher.db import operator

    settled = with_database(
        lambda connection: operator.settle(connection, who, token, how.value)
    ).count
    if settled is None:
        raise CommandError(
            _(
                "no unsure batch has the token {token}: it may be settled already, see"
                " `dispatcher show` of one of its messages."
            ).format(token=token)
        )
    typer.echo(
        _("{settled} of the batch {done}.").format(
            settled=plural(settled, "message"), done=_done(how)
        )
    )


def _settle_several(who: str, chosen: "UnsureBatches", how: Settlement, *, yes: bool) -> None:
    from dispatcher.cli.connection import with_database
    from dispatcher.core.format import plural
    from dispatcher.db import operator

    batches, messages = with_database(lambda connection: operator.count_unsure(connection, chosen))
    if not batches:
        raise CommandError(_("no unsure batch matches: see `dispatcher status`."))
    found = _("{messages} in {batches}").format(
        messages=plural(messages, "message"),
        batches=plural(batches, "unsure batch", "unsure batches"),
    )
    if not yes:
        raise CommandError(
            _("{found} match. Nothing is settled yet: add --yes for {value}.").format(
                found=found, value=how.value
            )
        )
    settled = with_database(
        lambda connection: operator.settle_batches(connection, who, chosen, how.value)
    ).count
    typer.echo(
        _("{found}: {messages} {done}.").format(
            found=found, messages=plural(settled or 0, "message"), done=_done(how)
        )
    )


def _done(how: Settlement) -> str:
    return _("accepted") if how is Settlement.SENT else _("waiting again")


def pause(
    app: App,
    reason: Annotated[str, typer.Option(metavar="WORDS", help="Why, shown in the audit.")] = "",
    *,
    as_: As = None,
) -> None:
    """Stop sending for an app.

    Open requests are finished, and all other messages wait.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.db import operator

    who = operator_name(as_)

    async def work(connection: "Connection") -> None:
        await check_app_exists(connection, app)
        await operator.pause(connection, who, app, reason)

    with_database(work)
    typer.echo(_("{app} is paused; `dispatcher resume {app}` goes on.").format(app=app))


def resume(app: App, *, as_: As = None) -> None:
    """Resume sending for a paused app.

    It may have been paused by an operator or by an error of its account.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.db import operator

    who = operator_name(as_)

    async def work(connection: "Connection") -> None:
        await check_app_exists(connection, app)
        await operator.resume(connection, who, app)

    with_database(work)
    typer.echo(_("{app} is sending again.").format(app=app))


async def check_app_exists(connection: "Connection", app: str) -> None:
    """Refuse an unknown name: a misspelt pause would stop nothing."""
    from dispatcher.db import status

    names = await status.app_names(connection)
    if app not in names:
        known = (
            _("known are {names}").format(names=", ".join(names))
            if names
            else _("no worker has run here yet")
        )
        raise CommandError(_("no app is called {app}: {known}.").format(app=app, known=known))


def _print_result(done: int, ids: list[int], what: str, left: dict[int, str]) -> None:
    """Print how many messages changed; raise CommandError with those that did not, and why."""
    from dispatcher.core.format import plural

    typer.echo(_("{messages} {done}.").format(messages=plural(done, "message"), done=what))
    told = [str(one) + _(": ") + _(left[one]) for one in sorted(left)]
    if count := len(set(ids)) - done:
        shown = _("; ").join(told[:MAX_SHOWN])
        more = (
            _("; and {value} more").format(value=len(told) - MAX_SHOWN)
            if len(told) > MAX_SHOWN
            else ""
        )
        raise CommandError(
            _("{count} left alone ({shown}{more}). See `dispatcher show`.").format(
                count=plural(count, "message"), shown=shown, more=more
            )
        )
