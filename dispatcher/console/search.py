"""Find a message, read its story, and that of its request.

What is looked for goes in a form and never in an address: addresses stand in logs of proxies and
in histories of browsers, and numbers must not.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from aiohttp import hdrs, web
from msgspec import Struct

from dispatcher.console.auth import Auth, Session, protected
from dispatcher.console.backend import Desk
from dispatcher.console.forms import form_of, message_id
from dispatcher.core.codes import request_code
from dispatcher.core.explain import MIXED_RESULT_CODES, advice, explain_code, explain_state
from dispatcher.core.status import MessageHistory, MessageSummary

MAX_TEXT = 200  # characters of what is looked for; the longest is a reference
TOKEN = re.compile(r"[0-9a-f]{32}")


class TimelineEntry(Struct, frozen=True):
    """One event of a message's timeline."""

    at: datetime
    title: str
    detail: str = ""
    kind: str = ""  # good, bad, unsure: how it is drawn
    batch: str = ""  # token, to lead there


class SearchPages:
    """The pages about single messages and requests."""

    def __init__(self, guard: Auth, desk: Desk) -> None:
        self._guard = guard
        self._desk = desk

    async def find(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the search, and what it found."""
        form = (await form_of(request) or {}) if request.method == hdrs.METH_POST else {}
        text = form.get("text", "").strip()[:MAX_TEXT]
        if TOKEN.fullmatch(text) and await self._desk.batch(text):
            return _to(f"/console/batch/{text}")
        found: list[MessageSummary] = []
        if text:
            found = await self._search(text)
        if len(found) == 1:
            return _to(f"/console/message/{found[0].id}")
        values = {"session": session, "text": text, "found": found}
        return self._guard.page("find.html", values)

    async def _search(self, text: str) -> list[MessageSummary]:
        """Look for *text* as whatever it can be; the first that finds something is meant."""
        number = re.sub(r"[\s()-]", "", text)
        if message_id(text) is not None and (found := await self._desk.find("id", text)):
            return found
        if re.fullmatch(r"\+?[0-9]{5,20}", number) and (
            found := await self._desk.find("recipient", number)
        ):
            return found
        return await self._desk.find("reference", text) or await self._desk.find(
            "provider_id", text
        )

    async def message(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show a message's story; a form asks for its number and variables in full."""
        wanted = message_id(request.match_info["id"])
        story = await self._desk.story(wanted) if wanted is not None else None
        if wanted is None or story is None:
            return self._missing(session, "There is no message with this id.")
        revealed = request.method == hdrs.METH_POST
        if revealed:
            await self._desk.look_closely(session.who, wanted)
        message = story.message
        row = explain_code(message)
        values = {
            "session": session,
            "message": message,
            "row": row,
            "why": explain_state(message),
            "to_do": advice(message),
            "moments": sorted(_moments(story), key=lambda moment: moment.at),
            "revealed": revealed,
        }
        return self._guard.page("message.html", values)

    async def batch(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show a request: its answer, and its messages."""
        token = request.match_info["token"]
        found = await self._desk.batch(token) if TOKEN.fullmatch(token) else None
        if found is None:
            return self._missing(session, "There is no request with this token.")
        code = found.batch["code"]
        values = {
            "session": session,
            "batch": found.batch,
            "messages": found.messages,
            "row": request_code(code) if code else None,
        }
        return self._guard.page("batch.html", values)

    def _missing(self, session: Session, what: str) -> web.Response:
        return self._guard.page("missing.html", {"session": session, "what": what}, status=404)


def routes(guard: Auth, desk: Desk) -> list[web.AbstractRouteDef]:
    """Return the routes of the search and of what it finds."""
    finder = SearchPages(guard, desk)
    return [
        web.get("/console/find", guard.inside(finder.find)),
        web.post("/console/find", guard.inside(finder.find)),
        web.get("/console/message/{id}", guard.inside(finder.message)),
        web.post("/console/message/{id}", guard.inside(finder.message)),
        web.get("/console/batch/{token}", guard.inside(finder.batch)),
    ]


def _to(address: str) -> web.Response:
    return protected(web.Response(status=303, headers={hdrs.LOCATION: address}))


def _moments(story: MessageHistory) -> Iterator[TimelineEntry]:
    message = story.message
    yield TimelineEntry(message["queued_at"], "Enqueued", f"for the app {message['app']}")
    for batch in story.batches:
        yield from _request(batch)
    if message["accepted_at"]:
        provider = message["provider_id"]
        yield TimelineEntry(
            message["accepted_at"],
            "Accepted by the provider",
            f"as {provider}" if provider else "its id is not known",
            "good",
        )
    elif message["finished_at"]:
        known = explain_code(message)
        reason = message["reason"] or (known.meaning if known else "")
        detail = ": ".join(filter(None, (message["code"], reason)))
        yield TimelineEntry(message["finished_at"], message["state"].capitalize(), detail, "bad")
    for report in story.reports:
        place = f"segment {report['segment']} of {report['total']}"
        kind = {"delivered": "good", "undelivered": "bad"}.get(report["state"], "")
        yield TimelineEntry(
            report["received_at"],
            f"Report {report['status']}: {report['state']}",
            " ".join(filter(None, (place, report["description"]))),
            kind,
        )


def _request(batch: dict[str, Any]) -> Iterator[TimelineEntry]:
    messages = batch["messages"]
    yield TimelineEntry(
        batch["opened_at"],
        f"Request, attempt {batch['attempt']}",
        f"with {messages:,} {'message' if messages == 1 else 'messages'}, {batch['bytes']:,} bytes",
        batch=batch["token"],
    )
    answer = _answer(batch)
    if batch["unsure_at"]:
        yield TimelineEntry(batch["unsure_at"], "Unsure: it may have been sent", answer, "unsure")
    if batch["closed_at"]:
        yield TimelineEntry(batch["closed_at"], "Request over", answer)


def _answer(batch: dict[str, Any]) -> str:
    tries = batch["tries"]
    parts = (
        batch["http_status"] and f"HTTP {batch['http_status']}",
        batch["code"],
        (batch["description"] or "").rstrip("."),
        tries and f"after {tries} {'try' if tries == 1 else 'tries'}",
        batch["settled_by"] and f"settled by {batch['settled_by']}",
        batch["code"] in MIXED_RESULT_CODES and "each number has a result of its own",
    )
    return ", ".join(str(part) for part in parts if part)
