"""Explains one message: why it is in its state, what to do about that, and what happened to it.

The console and `dispatcher show` present the same sentences and the same timeline.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from dispatcher.core.codes import MISSING_RESULT, Kind, number_code, request_code
from dispatcher.core.format import mask_if_number, number, plural, sentences
from dispatcher.core.language import N_, _
from dispatcher.core.report_matching import UNMATCHED_REASONS
from dispatcher.core.report_status import report_status
from dispatcher.core.status import MessageHistory
from dispatcher.core.stored_texts import stored_text, suppression_reason

_PAUSED_BY = {
    "operator": N_("an operator"),
    "report": N_("reports of the platform"),
    "worker": N_("a worker"),
}
MIXED_RESULT_CODES = ("E000510", "E200037")  # of requests in which some numbers may be accepted
_SETTLED_BY = {
    "settled-by-report": N_("settled by a report"),
    "settled-by-operator": N_("settled by hand or by policy"),
}
_STATES = {
    "sending": N_("Its request is on its way, or waits for its turn in a worker: no answer yet."),
    "cancelled": N_("It was cancelled while it waited."),
    "lost": N_(
        "A fail-over or a restore of the database has lost its place or its result: it may have"
        " been sent."
    ),
}


class CodeExplanation(Struct, frozen=True):
    """A code with its meaning and advice."""

    code: str
    meaning: str
    advice: str


def of_app(text: str, app: str) -> str:
    """Return *text*, which may name settings of any app as advice of a code does, for *app*."""
    return text.replace("<NAME>", app.upper())


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
            return sentences(_("Its request may have been sent; that is not known yet."), meaning)
        case "accepted":
            return _accepted(message)
        case _ if message["suppressed_because"]:
            return sentences(
                meaning,
                _("Why it is there: {reason}.").format(
                    reason=suppression_reason(message["suppressed_because"]).rstrip(".。")
                ),
            )
        case plain if plain in _STATES:
            return _(_STATES[plain])
        case _:
            return (
                meaning
                or stored_text(message["reason"] or "")
                or _("It was {state}.").format(state=_(message["state"]))
            )


def advice(message: Mapping[str, Any]) -> str | None:
    """Return what an operator can do about it, from the same row; None if nothing is wrong."""
    if message["state"] == "queued":
        if message["app_paused"]:
            return _pause_advice(message)
        if not message["app_served"]:
            return _(
                "Start `dispatcher run` with this app configured; or cancel the message and"
                " insert it with the right app."
            )
    if message["state"] == "lost":
        return _(
            "Its report settles it. If none comes, ask the provider, then `dispatcher settle"
            " {message} sent`; or `resend`, if the provider never had it."
        ).format(message=message["id"])
    known = explain_code(message)
    return of_app(known.advice, message["app"]) if known else None


def _pause_advice(message: Mapping[str, Any]) -> str:
    resume = f"`dispatcher resume {message['app']}`"
    if message["app_paused_by"] == "operator":
        return _("Ask who paused it; {resume} sends its messages.").format(resume=resume)
    code = message["app_pause_code"] or ""
    if message["app_paused_by"] == "report":
        return sentences(report_status(code).advice, _("Then {resume}.").format(resume=resume))
    known = request_code(code)
    return sentences(
        of_app(known.advice, message["app"]),
        _("It is tried again by itself; {resume} tries at once.").format(resume=resume),
    )


def _queued(message: Mapping[str, Any], meaning: str) -> str:
    back = _("It was returned to the queue: {meaning}").format(meaning=meaning) if meaning else ""
    return sentences(back, _wait(message))


def _wait(message: Mapping[str, Any]) -> str:
    """Return what a message in the queue waits for."""
    if message["app_paused"]:
        by = _(_PAUSED_BY.get(message["app_paused_by"], _PAUSED_BY["worker"]))
        since = f"{message['app_paused_at']:%Y-%m-%d %H:%M:%S} UTC"
        return _("Its app is paused by {by} since {since}: {reason}").format(
            by=by, since=since, reason=stored_text(message["app_paused"])
        )
    if not message["app_served"]:
        return _("No running worker serves its app, {app}.").format(app=message["app"])
    if message["early"]:
        return _("It is not to be sent before {due_at} UTC.").format(
            due_at=f"{message['due_at']:%Y-%m-%d %H:%M:%S}"
        )
    return _("It is due and waits for its turn.")


def _accepted(message: Mapping[str, Any]) -> str:
    begun = (
        _("A report settled it.")
        if message["code"] == "settled-by-report"
        else _("The provider took it.")
    )
    total, reported = message["segments"] or 1, message["segments_reported"]
    if reported:
        more = _("{reported} of {total} segments are reported so far.").format(
            reported=reported, total=total
        )
        return sentences(begun, more)
    if message["report_status"]:
        meaning = report_status(message["report_status"]).meaning
        return sentences(begun, _("The carrier has it: {meaning}").format(meaning=meaning))
    return sentences(begun, _("No report of a carrier has come yet."))


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
    not_before = scheduled and _("not to be sent before {send_at} UTC").format(
        send_at=f"{send_at:%Y-%m-%d %H:%M:%S}"
    )
    detail = _joined(_("for the app {app}").format(app=message["app"]), not_before)
    yield TimelineEntry(queued_at, _("Queued"), detail)
    for batch in history.batches:
        yield from _request_entries(batch)
        last = batch is history.batches[-1]
        if batch["closed_at"] and (not last or message["state"] == "queued"):
            code = message["code"] if last else None
            reason = code + _(": ") + number_code(code).meaning if code else _("to be sent again")
            yield TimelineEntry(batch["closed_at"], _("Returned to the queue"), reason)
    code = message["outcome_code"]
    if message["accepted_at"]:
        provider_id = message["provider_id"]
        accepted_as = (
            _("as {provider_id}").format(provider_id=mask_if_number(provider_id))
            if provider_id
            else _("its id is not known")
        )
        detail = _joined(accepted_as, _(_SETTLED_BY.get(code, "")))
        yield TimelineEntry(message["accepted_at"], _("Accepted by the provider"), detail, "good")
    elif message["finished_at"]:
        reason = of_app(stored_text(message["reason"] or ""), message["app"])
        reason = reason or (number_code(code).meaning if code else "")
        detail = code + _(": ") + reason if code else ""
        title = _(message["state"].capitalize())
        yield TimelineEntry(message["finished_at"], title, detail, "bad")
    for report in history.reports:
        yield from _report_entries(report)


def _request_entries(batch: Mapping[str, Any]) -> Iterator[TimelineEntry]:
    detail = _("attempt {attempt}, {messages} in {bytes} bytes").format(
        attempt=batch["attempt"],
        messages=plural(batch["messages"], "message"),
        bytes=number(batch["bytes"]),
    )
    token = batch["token"]
    yield TimelineEntry(batch["opened_at"], _("Claimed into request"), detail, token=token)
    answer = _joined(
        batch["http_status"] and f"HTTP {batch['http_status']}",
        batch["code"],
        stored_text(batch["description"] or "").rstrip(".。"),
        batch["tries"] and _("after {tries}").format(tries=plural(batch["tries"], "try", "tries")),
    )
    if batch["unsure_at"]:
        detail = _joined(_("it may have been sent"), answer)
        yield TimelineEntry(batch["unsure_at"], _("Unsure"), detail, "unsure")
    if batch["closed_at"] and batch["settled_by"]:
        yield TimelineEntry(
            batch["closed_at"],
            _("Settled"),
            _("by {who}").format(who=stored_text(batch["settled_by"])),
        )
    elif batch["closed_at"]:
        mixed = batch["code"] in MIXED_RESULT_CODES and _("each number has a result of its own")
        yield TimelineEntry(batch["closed_at"], _("Request answered"), _joined(answer, mixed))


def _report_entries(report: Mapping[str, Any]) -> Iterator[TimelineEntry]:
    segment = _("segment {segment} of {total}").format(
        segment=report["segment"], total=report["total"]
    )
    if report["earlier_at"]:
        earlier = mask_if_number(report["earlier_status"])
        title = _("Report {earlier_status}").format(earlier_status=earlier)
        yield TimelineEntry(
            report["earlier_at"], title, _("interim, {segment}").format(segment=segment)
        )
    status, state = report["status"], report["state"]
    title = _("Report {status}").format(status=mask_if_number(status))
    detail = (
        _joined(_(state), segment) + f": {report['description'] or report_status(status).meaning}"
    )
    kind: Literal["", "good", "bad"] = ""
    if report["unmatched"]:
        nothing = _("It counts for nothing: {why}")
        # A newer release may know more reasons.
        why = UNMATCHED_REASONS.get(report["unmatched"], report["unmatched"])
        detail = sentences(detail, nothing.format(why=_(why)))
    elif state == "delivered":
        kind = "good"
    elif state == "undelivered":
        kind = "bad"
    yield TimelineEntry(report["received_at"], title, detail, kind)


def _joined(*parts: object) -> str:
    return _(", ").join(str(part) for part in parts if part)
