"""Explains to operators why a message is in its present state, and what to do about it."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from dispatcher.core.codes import number_code, request_code
from dispatcher.core.report_status import Reason, report_status

_ADVICE = {
    Reason.DELIVERED: "Nothing to do.",
    Reason.INTERIM: "Nothing to do; a final report follows.",
    Reason.SILENT: "It is unknown whether it arrived; if it matters, ask the recipient.",
    Reason.FAILED: "If it matters, insert it anew later, or reach the recipient another way.",
    Reason.REFUSED: "Ask the provider what the code means; then insert it anew, or let it be.",
    Reason.LIMIT: "Send less to one number; insert it anew when the limit's time is over.",
    Reason.CONTENT: "Have the template changed, or send the same text less often.",
    Reason.BLOCKED: "Do not send to this number again; its owner can be taken off the list.",
}


# Codes of a request of which some numbers may have been accepted.
MIXED_RESULT_CODES = ("E000510", "E200037")
_STATES = {
    "sending": "Its request is being sent, or waits in a worker: there is no answer yet.",
    "cancelled": "It was cancelled while it waited.",
    "lost": "Internal error: the message has no queue entry, batch or outcome. Please report it.",
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
        return CodeExplanation(code, status.meaning, _ADVICE[status.reason])
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
            return f"Its request may have been sent; the result is unknown. {meaning}".rstrip()
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
    known = request_code(message["app_pause_code"] or "")
    return f"{known.advice} It is tried again by itself; {resume} tries at once."


def _queued(message: Mapping[str, Any], meaning: str) -> str:
    back = f"It was returned to the queue: {meaning} " if meaning else ""
    if message["app_paused"]:
        by = "an operator" if message["app_paused_by"] == "operator" else "a worker"
        since = f"{message['app_paused_at']:%Y-%m-%d %H:%M:%S} UTC"
        return f"{back}Its app is paused by {by} since {since}: {message['app_paused']}"
    if not message["app_served"]:
        return f"{back}No running worker serves its app, {message['app']}."
    if message["early"]:
        return f"{back}It is not to be sent before {message['due_at']:%Y-%m-%d %H:%M:%S} UTC."
    return f"{back}It is due and waits for its turn."


def _accepted(message: Mapping[str, Any]) -> str:
    begun = "A report settled it. " if message["code"] == "report" else "The provider took it. "
    total, reported = message["segments"] or 1, message["segments_reported"]
    if reported:
        return f"{begun}{reported} of {total} segments are reported so far."
    if message["report_status"]:
        return f"{begun}The carrier has it: {report_status(message['report_status']).meaning}"
    return f"{begun}No report of a carrier has come yet."
