"""Explains one message: why it is in its state, what to do about that, and what happened to it.

The console and `dispatcher show` present the same sentences and the same timeline.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from dispatcher.core.codes import MISSING_RESULT, Kind, number_code, request_code
from dispatcher.core.format import number, plural
from dispatcher.core.report_matching import UNMATCHED_REASONS
from dispatcher.core.report_status import report_status
from dispatcher.core.status import MessageHistory

_PAUSED_BY = {"operator": "an operator", "report": "reports of the platform"}
MIXED_RESULT_CODES = ("E000510", "E200037")  # of requests in which some numbers may be accepted
_SETTLED_BY = {
    "settled-by-report": "settled by a report",
    "settled-by-operator": "settled by hand or by policy",
}
_STATES = {
    "sending": "Its request is on its way, or waits for its turn in a worker: no answer yet.",
    "cancelled": "It was cancelled while it waited.",
    "lost": "Internal error: it has no queue entry, batch or outcome. Please report it.",
}


class CodeExplanation(Struct, frozen=True):
    """A code with its meaning and advice."""

    code: str
    meaning: str
    advice: str


def explain_code(message: Mapping[str, Any]) -> CodeExplanation | None:
    """Return the meaning of the code of a row of `message_status`; None without a code."""
    code = message["code"]
    if not code:
        return None
    if message["state"] in ("delivered", "undelivered"):
        status = report_status(code)
        return CodeExplanation(code, status.meaning, status.advice)
    if message["state"] == "unsure" and request_code(code).kind in (Kind.RESULT, Kind.ACCEPTED):
        row = number_code(MISSING_RESULT)  # the request was taken; of this number nothing is known
    else:
        row = number_code(code)
    return CodeExplanation(code, row.meaning, row.advice)


def explain_state(message: Mapping[str, Any]) -> str:
    """Return one sentence: why the message of a row of `message_status` is in its state.

    The row also has the columns that the statement show_message adds: whether the app is paused
    and served, and how many segments have a final report.
    """
    known = explain_code(message)
    meaning = known.meaning if known else ""
    match message["state"]:
        case "queued":
            return _queued(message, meaning)
        case "unsure":
            return f"Its request may have been sent; that is not known yet. {meaning}".rstrip()
        case "accepted":
            return _accepted(message)
        case _ if message["suppressed_because"]:
            return f"{meaning} Why it is there: {message['suppressed_because']}."
        case plain if plain in _STATES:
            return _STATES[plain]
        case _:
            return meaning or message["reason"] or f"It was {message['state']}."


def advice(message: Mapping[str, Any]) -> str | None:
    """Return what an operator can do about it, from the same row; None if nothing is wrong."""
    if message["state"] == "queued":
        if message["app_paused"]:
            return _pause_advice(message)
        if not message["app_served"]:
            return (
                "Start `dispatcher run` with this app configured; or cancel the message and insert"
                " it with the right app."
            )
    known = explain_code(message)
    return known.advice if known else None


def _pause_advice(message: Mapping[str, Any]) -> str:
    resume = f"`dispatcher resume {message['app']}`"
    if message["app_paused_by"] == "operator":
        return f"Ask who paused it; {resume} sends its messages."
    code = message["app_pause_code"] or ""
    if message["app_paused_by"] == "report":
        return f"{report_status(code).advice} Then {resume}."
    known = request_code(code)
    return f"{known.advice} It is tried again by itself; {resume} tries at once."


def _queued(message: Mapping[str, Any], meaning: str) -> str:
    back = f"It was returned to the queue: {meaning} " if meaning else ""
    if message["app_paused"]:
        by = _PAUSED_BY.get(message["app_paused_by"], "a worker")
        since = f"{message['app_paused_at']:%Y-%m-%d %H:%M:%S} UTC"
        return f"{back}Its app is paused by {by} since {since}: {message['app_paused']}"
    if not message["app_served"]:
        return f"{back}No running worker serves its app, {message['app']}."
    if message["early"]:
        return f"{back}It is not to be sent before {message['due_at']:%Y-%m-%d %H:%M:%S} UTC."
    return f"{back}It is due and waits for its turn."


def _accepted(message: Mapping[str, Any]) -> str:
    begun = (
        "A report settled it. "
        if message["code"] == "settled-by-report"
        else "The provider took it. "
    )
    total, reported = message["segments"] or 1, message["segments_reported"]
    if reported:
        return f"{begun}{reported} of {total} segments are reported so far."
    if message["report_status"]:
        return f"{begun}The carrier has it: {report_status(message['report_status']).meaning}"
    return f"{begun}No report of a carrier has come yet."


class Step(Struct, frozen=True):
    """One state in the diagram of a message's states."""

    name: str
    row: int  # 1: the usual way; below it the others
    column: int  # 1 to 4, in the order in which a message reaches them
    taken: bool
    current: bool


# Each state with its place in the diagram: the usual way is the first row.
_STEPS = (
    ("queued", 1, 1),
    ("sending", 1, 2),
    ("accepted", 1, 3),
    ("delivered", 1, 4),
    ("cancelled", 2, 1),
    ("unsure", 2, 2),
    ("rejected", 2, 3),
    ("undelivered", 2, 4),
    ("expired", 3, 1),
)


def state_diagram(history: MessageHistory) -> list[Step]:
    """Return the states that a message may have, with the way that it took."""
    message = history.message
    taken = {"queued", message["state"]}
    if history.batches:
        taken.add("sending")
    if any(batch["unsure_at"] for batch in history.batches):
        taken.add("unsure")
    if message["accepted_at"]:
        taken.add("accepted")
    return [
        Step(name, row, column, name in taken, name == message["state"])
        for name, row, column in _STEPS
    ]


class TimelineEntry(Struct, frozen=True):
    """One event of a message's timeline."""

    at: datetime
    title: str
    detail: str = ""
    kind: Literal["", "good", "bad", "unsure"] = ""
    token: str = ""  # of the request that the title speaks of


def timeline(history: MessageHistory) -> list[TimelineEntry]:
    """Return what happened to a message, in order of time.

    Events of one second keep the order in which one causes the next: an outcome's time is that of
    its transaction, which begins before the batch is closed in it.
    """
    return sorted(_entries(history), key=lambda entry: entry.at.replace(microsecond=0))


def _entries(history: MessageHistory) -> Iterator[TimelineEntry]:
    message = history.message
    queued_at, send_at = message["queued_at"], message["send_at"]
    scheduled = send_at > queued_at + timedelta(seconds=1)
    not_before = f", not to be sent before {send_at:%Y-%m-%d %H:%M:%S} UTC" if scheduled else ""
    yield TimelineEntry(queued_at, "Queued", f"for the app {message['app']}{not_before}")
    for batch in history.batches:
        yield from _request_entries(batch)
        last = batch is history.batches[-1]
        if batch["closed_at"] and (not last or message["state"] == "queued"):
            code = message["code"] if last else None
            reason = f"{code}: {number_code(code).meaning}" if code else "to be sent again"
            yield TimelineEntry(batch["closed_at"], "Returned to the queue", reason)
    code = message["outcome_code"]
    if message["accepted_at"]:
        provider_id = message["provider_id"]
        accepted_as = f"as {provider_id}" if provider_id else "its id is not known"
        detail = _joined(accepted_as, _SETTLED_BY.get(code))
        yield TimelineEntry(message["accepted_at"], "Accepted by the provider", detail, "good")
    elif message["finished_at"]:
        detail = f"{code}: {message['reason'] or number_code(code).meaning}" if code else ""
        title = message["state"].capitalize()
        yield TimelineEntry(message["finished_at"], title, detail, "bad")
    for report in history.reports:
        yield from _report_entries(report)


def _request_entries(batch: Mapping[str, Any]) -> Iterator[TimelineEntry]:
    size = f"{plural(batch['messages'], 'message')} in {number(batch['bytes'])} bytes"
    detail = f"attempt {batch['attempt']}, {size}"
    token = batch["token"]
    yield TimelineEntry(batch["opened_at"], "Claimed into request", detail, token=token)
    answer = _joined(
        batch["http_status"] and f"HTTP {batch['http_status']}",
        batch["code"],
        (batch["description"] or "").rstrip("."),
        batch["tries"] and f"after {plural(batch['tries'], 'try', 'tries')}",
    )
    if batch["unsure_at"]:
        detail = _joined("it may have been sent", answer)
        yield TimelineEntry(batch["unsure_at"], "Unsure", detail, "unsure")
    if batch["closed_at"] and batch["settled_by"]:
        yield TimelineEntry(batch["closed_at"], "Settled", f"by {batch['settled_by']}")
    elif batch["closed_at"]:
        mixed = batch["code"] in MIXED_RESULT_CODES and "each number has a result of its own"
        yield TimelineEntry(batch["closed_at"], "Request answered", _joined(answer, mixed))


def _report_entries(report: Mapping[str, Any]) -> Iterator[TimelineEntry]:
    segment = f"segment {report['segment']} of {report['total']}"
    if report["earlier_at"]:
        title = f"Report {report['earlier_status']}"
        yield TimelineEntry(report["earlier_at"], title, f"interim, {segment}")
    status, state = report["status"], report["state"]
    detail = f"{state}, {segment}: {report['description'] or report_status(status).meaning}"
    kind: Literal["", "good", "bad"] = ""
    if report["unmatched"]:
        detail += f" It counts for nothing: {UNMATCHED_REASONS[report['unmatched']]}"
    elif state == "delivered":
        kind = "good"
    elif state == "undelivered":
        kind = "bad"
    yield TimelineEntry(report["received_at"], f"Report {status}", detail, kind)


def _joined(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part)
