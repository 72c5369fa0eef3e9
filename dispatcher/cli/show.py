"""``dispatcher show``: explains one message."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli.errors import CommandError
from dispatcher.cli.operate import As, operator_name
from dispatcher.core.language import ENGLISH, N_, _, use_language

if TYPE_CHECKING:
    from dispatcher.core.explain import TimelineEntry
    from dispatcher.core.status import MessageHistory
    from dispatcher.db.database import OwnConnection as Connection


def show(
    message_id: Annotated[int, typer.Argument(metavar="ID", help="Id of the message.")],
    *,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Show the whole number and the variables; the audit log records it."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
    as_: As = None,
) -> None:
    """Explain one message: its content, state and history.

    Shows why it is in its state, what to do, every request it was in and every report.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import list_of, moment, print_json, screen
    from dispatcher.core.explain import timeline
    from dispatcher.db import operator
    from dispatcher.db.status import message_history

    who = operator_name(as_)

    async def look(connection: "Connection") -> "MessageHistory | None":
        found = await message_history(connection, message_id)
        if full and found is not None:
            await operator.record_reveal(connection, who, message_id)
        return found

    found = with_database(look)
    if found is None:
        raise CommandError(_("there is no message {message_id}.").format(message_id=message_id))
    if json:
        use_language(ENGLISH)  # programs read it
        print_json(
            {"message": dict(_values(found.message, full=full)), "timeline": timeline(found)}
        )
        return
    facts = list_of(_facts(found.message, full=full))
    events = list_of((moment(entry.at), _line(entry)) for entry in timeline(found))
    zone = datetime.now().astimezone().tzname()
    heading = _("What happened (times in {zone})").format(zone=zone)
    screen().print(
        _("Message {message_id}").format(message_id=message_id), facts, heading, events, sep="\n"
    )


def _values(message: dict[str, Any], *, full: bool) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a message, with its number masked and without variables, or *full*."""
    from dispatcher.core.format import mask, mask_if_number

    for name, value in message.items():
        if name == "recipient":
            yield name, value if full else mask(value)
        elif name in _FROM_REPORTS and value is not None:
            yield name, value if full else mask_if_number(value)
        elif name != "params" or full:
            yield name, value


def _line(entry: "TimelineEntry") -> str:
    """Return an entry of the timeline in one line: what happened, in which request, details."""
    title = f"{entry.title} {entry.token}" if entry.token else entry.title
    return title + _(": ") + entry.detail if entry.detail else title


def _facts(message: dict[str, Any], *, full: bool) -> Iterator[tuple[str, str]]:
    from dispatcher.cli.output import moment
    from dispatcher.core.explain import advice, explain_code, explain_state, of_app
    from dispatcher.core.format import mask, plural
    from dispatcher.core.stored_texts import stored_text

    yield _("state"), _(message["state"])
    yield _("why"), explain_state(message)
    if row := explain_code(message):
        yield _("code"), row.code + _(": ") + row.meaning
        # Of one that waits, what the view has is the answer to its whole last request.
        if (
            stored_text(message["reason"] or "") not in ("", row.meaning)
            and message["state"] != "queued"
        ):
            yield _("reason"), of_app(stored_text(message["reason"]), message["app"])
    if to_do := advice(message):
        yield _("what to do"), to_do
    yield _("recipient"), message["recipient"] if full else mask(message["recipient"])
    params = message["params"]
    yield _("params"), " | ".join(params) if full else plural(len(params), "variable")
    shown = dict(_values(message, full=full))
    for name, title in _NAMES.items():
        if shown[name] is not None:
            yield _(title), str(shown[name])
    for name, title in _TIMES.items():
        if message[name] is not None:
            yield _(title), moment(message[name])


_NAMES = {
    "app": N_("app"),
    "sender": N_("sender"),
    "template_id": N_("template id"),
    "signature": N_("signature"),
    "reference": N_("reference"),
    "priority": N_("priority"),
    "attempts": N_("attempts"),
    "provider_id": N_("provider id"),
    "segments": N_("segments"),
    "report_status": N_("report status"),
    "idempotency_key": N_("idempotency key"),
    "batch_token": N_("batch token"),
}
_FROM_REPORTS = ("provider_id", "report_status", "code")  # untrusted: they may be a number
_TIMES = {
    "send_at": N_("send at"),
    "expires_at": N_("expires at"),
    "due_at": N_("due at"),
}
