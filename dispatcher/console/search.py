"""Search for messages; the pages of one message and one request.

The search text is sent in a form and never in an address: proxies log addresses and browsers keep
them in their history, and numbers must not be there.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aiohttp import hdrs, web
from msgspec import Struct

from dispatcher.console.auth import Auth, Session, redirect
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import message_id, read_form
from dispatcher.core.codes import request_code
from dispatcher.core.cost import fill_signature, fill_template, is_mainland, segments
from dispatcher.core.country import country
from dispatcher.core.explain import advice, explain_code, explain_state, state_diagram, timeline
from dispatcher.core.language import N_, _
from dispatcher.core.message import as_stored, to_e164
from dispatcher.core.number import ReadNumber, read_number
from dispatcher.core.status import MessageSummary
from dispatcher.db.message_lists import ERASED_NUMBER

SEARCH_PATH = "/console/search"
MAX_TEXT_LENGTH = 200  # characters of the search text; references are the longest
LISTED_MESSAGES = 50  # of a request, until all of them are asked for
# What a request is called in each of its states; "open" names an app that is not paused.
_REQUEST_STATES = {"open": N_("on its way"), "unsure": N_("unsure"), "closed": N_("closed")}
TOKEN_PATTERN = re.compile(r"[0-9a-f]{32}")


class MessageText(Struct, frozen=True):
    """What a message says, and what it costs; None: not known."""

    shown: str | None  # without its variables until they are revealed
    segments: int | None  # as its text counts
    cost: Decimal | None
    currency: str
    country: str


class SearchPages:
    """The search, and the pages of its results."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend

    async def search(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the search and its results; a single result leads to its page."""
        form = (await read_form(request) or {}) if request.method == hdrs.METH_POST else {}
        written = form.get("text", "")[:MAX_TEXT_LENGTH]
        text = written.strip()
        if TOKEN_PATTERN.fullmatch(text) and await self._backend.batch(text):
            return redirect(f"/console/batch/{text}")
        found = await self._find(text, written) if text else []
        if len(found) == 1:
            return redirect(f"/console/message/{found[0].id}")
        values = {"session": session, "text": text, "found": found}
        return self._auth.page("search.html", values)

    async def _find(self, text: str, written: str) -> list[MessageSummary]:
        """Search by id, recipient, reference and provider id; return the first that has results.

        A reference may have blanks at its ends: it is first looked for as it was *written*.
        """
        if message_id(text) is not None and (found := await self._backend.find("id", text)):
            return found
        number = read_number(text, other_mainland=True)
        if isinstance(number, ReadNumber) and (
            found := await self._backend.find("recipient", number.e164)
        ):
            return found
        for reference in dict.fromkeys((written, text)):
            if found := await self._backend.find("reference", reference):
                return found
        found = await self._backend.find("provider_id", text)
        if not found and not isinstance(number, ReadNumber) and (stored := as_stored(text)):
            return await self._backend.find("recipient", stored)  # a row may have what is no number
        return found

    async def message(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show a message; a form reveals its number and variables, and the audit log records it."""
        wanted = message_id(request.match_info["id"])
        history = await self._backend.message(wanted) if wanted is not None else None
        if wanted is None or history is None:
            return self._missing(session, _("There is no message with this id."))
        revealed = request.method == hdrs.METH_POST
        raw = None
        if revealed:
            as_stored = "raw" in (await read_form(request) or {})
            await self._backend.record_reveal(
                session.actor, wanted, "as stored" if as_stored else ""
            )
            tokens = [batch["token"] for batch in history.batches]
            raw = await self._backend.message_as_stored(wanted, tokens) if as_stored else None
        message = history.message
        number = to_e164(message["recipient"])
        known = message["recipient"] != ERASED_NUMBER
        values = {
            "session": session,
            "message": message,
            "code": explain_code(message),
            "why": explain_state(message),
            "advice": advice(message),
            "timeline": timeline(history),
            "diagram": state_diagram(history),
            "text": await self._text(message, revealed=revealed),
            "revealed": revealed,
            "raw": raw,
            "suppressions": await self._backend.suppressions_of(number) if known else [],
            "replies": await self._backend.replies_of(number) if known and revealed else None,
        }
        return self._auth.page("message.html", values)

    async def _text(self, message: Mapping[str, Any], *, revealed: bool) -> MessageText:
        """Return what a message says and costs; its variables only if it is *revealed*."""
        to = country(message["recipient"]) if message["recipient"] != ERASED_NUMBER else ""
        known = await self._backend.message_text(message["template_id"], to)
        if known.text is None:
            estimated, shown = None, None
        else:
            signature, mainland = message["signature"], is_mainland(to)
            filled = fill_template(known.text, message["params"], signature, mainland=mainland)
            estimated = segments(filled, mainland=mainland)
            unfilled = fill_signature(known.text, signature, mainland=mainland)
            shown = filled if revealed else unfilled
        counted = estimated
        if message["charged"] is not None:
            counted = message["charged"] + message["may_be_charged"]
        cost = None if known.price is None or counted is None else known.price * counted
        return MessageText(shown, estimated, cost, known.currency, to)

    async def batch(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show a request: its answer and its messages."""
        token = request.match_info["token"]
        found = await self._backend.batch(token) if TOKEN_PATTERN.fullmatch(token) else None
        if found is None:
            return self._missing(session, _("There is no request with this token."))
        code = found.batch["code"]
        whole = "all" in request.query
        values = {
            "session": session,
            "batch": found.batch,
            "state": _REQUEST_STATES.get(found.batch["state"], found.batch["state"]),
            "messages": found.messages if whole else found.messages[:LISTED_MESSAGES],
            "total": len(found.messages),
            "code": request_code(code) if code else None,
        }
        return self._auth.page("batch.html", values)

    async def missing(self, _request: web.Request, session: Session) -> web.StreamResponse:
        """Show that an address leads nowhere."""
        return self._missing(session, _("There is no such page."))

    def _missing(self, session: Session, what: str) -> web.Response:
        return self._auth.page("missing.html", {"session": session, "what": what}, status=404)
