"""``dispatcher show``: shows the history of one message."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli.errors import CommandError
from dispatcher.cli.operate import As, operator_name

if TYPE_CHECKING:
    from dispatcher.core.status import MessageHistory
    from dispatcher.db.database import OwnConnection as Connection

Event = tuple[datetime, str]  # when, and what happened

_SETTLED = {"report": ", settled by a report", "settled": ", settled by hand or by policy"}


def show(
    message_id: Annotated[int, typer.Argument(metavar="ID", help="Id of the message.")],
    *,
    full: Annotated[
        bool,
        typer.Option("--full", help="Show the whole number and the variables; this is recorded."),
    ] = False,
    as_: As = None,
) -> None:
    """Show the history of one message.

    It has the state and its cause, every request and every report.
    """
    from rich.table import Table

    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, screen
    from dispatcher.db import deeds
    from dispatcher.db.admin import story

    who = operator_name(as_)

    async def look(connection: "Connection") -> "MessageHistory | None":
        found = await story(connection, message_id)
        if full and found is not None:
            await deeds.look_closely(connection, who, message_id)
        return found

    found = with_database(look)
    if found is None:
        raise CommandError(f"there is no message {message_id}.")
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(found.message, full=full):
        facts.add_row(f"  {name}", value)
    events = Table.grid(padding=(0, 2))
    # Within a second they keep the order of cause and effect: the time of an outcome is that of
    # its transaction, which began before the batch was closed in it.
    for time, what in sorted(_events(found), key=lambda event: event[0].replace(microsecond=0)):
        events.add_row(f"  {moment(time)}", what)
    zone = datetime.now().astimezone().tzname()
    heading = f"What happened (times in {zone})"
    screen().print(f"Message {message_id}", facts, heading, events, sep="\n")


def _facts(message: dict[str, Any], *, full: bool) -> Iterator[tuple[str, str]]:
    from dispatcher.cli.output import moment
    from dispatcher.core.explain import advice, explain_code, explain_state
    from dispatcher.core.format import mask, plural

    yield "state", message["state"]
    yield "why", explain_state(message)
    if row := explain_code(message):
        yield "code", f"{row.code}: {row.meaning}"
        # Of a queued message, the view has the answer to its whole last request.
        if message["reason"] not in (None, "", row.meaning) and message["state"] != "queued":
            yield "reason", message["reason"]
    if to_do := advice(message):
        yield "what to do", to_do
    yield "recipient", message["recipient"] if full else mask(message["recipient"])
    params = message["params"]
    yield "params", " | ".join(params) if full else plural(len(params), "variable")
    for name in (
        "app", "sender", "template_id", "signature", "reference", "priority", "attempts",
        "provider_id", "segments", "report_status", "idempotency_key", "batch_token",
    ):  # fmt: skip
        if message[name] is not None:
            yield name.replace("_", " "), str(message[name])
    for name in ("send_at", "expires_at", "due_at"):
        if message[name] is not None:
            yield name.replace("_", " "), moment(message[name])


def _events(story: "MessageHistory") -> Iterator[Event]:
    from dispatcher.cli.output import moment
    from dispatcher.core.codes import number_code

    message = story.message
    later = message["send_at"] > message["queued_at"] + timedelta(seconds=1)
    not_before = f", not to be sent before {moment(message['send_at'])}" if later else ""
    yield message["queued_at"], f"queued{not_before}"
    for batch in story.batches:
        yield from _request(batch)
        last = batch is story.batches[-1]
        if batch["closed_at"] and (not last or message["state"] == "queued"):
            code = message["code"] if last else None
            why = f": {code}: {number_code(code).meaning}" if code else ", to be sent again"
            yield batch["closed_at"], f"put back{why}"
    if message["accepted_at"]:
        how = _SETTLED.get(message["outcome_code"], "")
        yield (
            message["accepted_at"],
            f"accepted as {message['provider_id'] or 'unknown id'}{how}",
        )
    elif message["finished_at"]:
        code = message["outcome_code"]
        why = f": {code}: {message['reason'] or number_code(code).meaning}" if code else ""
        yield message["finished_at"], f"{message['state']}{why}"
    for report in story.reports:
        yield from _report(report)


def _report(report: dict[str, Any]) -> Iterator[Event]:
    from dispatcher.core.report_matching import UNMATCHED_REASONS
    from dispatcher.core.report_status import report_status

    place = f"segment {report['segment']} of {report['total']}"
    if report["earlier_at"]:
        yield report["earlier_at"], f"report: {report['earlier_status']} (interim), {place}"
    meaning = report["description"] or report_status(report["status"]).meaning
    told = f"report: {report['status']} ({report['state']}), {place}: {meaning}"
    if report["unmatched"]:
        told += f" It counts for nothing: {UNMATCHED_REASONS[report['unmatched']]}"
    yield report["received_at"], told


def _request(batch: dict[str, Any]) -> Iterator[Event]:
    from dispatcher.core.explain import MIXED_RESULT_CODES
    from dispatcher.core.format import number, plural

    content = f"{plural(batch['messages'], 'message')} in {number(batch['bytes'])} bytes"
    yield (
        batch["opened_at"],
        f"claimed into request {batch['token']}: attempt {batch['attempt']}, {content}",
    )
    tries = batch["tries"] and f"after {plural(batch['tries'], 'try', 'tries')}"
    said = _joined(
        batch["http_status"] and f"HTTP {batch['http_status']}",
        batch["code"],
        batch["description"],
        tries,
    )
    if batch["unsure_at"]:
        yield batch["unsure_at"], f"unsure: it may have been sent; {said}"
    if batch["closed_at"] and batch["settled_by"]:
        yield batch["closed_at"], f"settled by {batch['settled_by']}"
    elif batch["closed_at"]:
        each = (
            "; each number has a result of its own" if batch["code"] in MIXED_RESULT_CODES else ""
        )
        yield batch["closed_at"], f"request answered: {said}{each}"


def _joined(*parts: object) -> str:
    return " ".join(str(part) for part in parts if part)
