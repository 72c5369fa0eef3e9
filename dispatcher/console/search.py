"""Search for messages; the pages of one message and one request.

The search text is sent in a form and never in an address: proxies log addresses and browsers keep
them in their history, and numbers must not be there.
"""

import re

from aiohttp import hdrs, web

from dispatcher.console.auth import Auth, Session, redirect
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import message_id, read_form
from dispatcher.core.codes import request_code
from dispatcher.core.explain import advice, explain_code, explain_state, timeline
from dispatcher.core.number import ReadNumber, read_number
from dispatcher.core.status import MessageSummary

SEARCH_PATH = "/console/search"
MAX_TEXT_LENGTH = 200  # characters of the search text; references are the longest
TOKEN_PATTERN = re.compile(r"[0-9a-f]{32}")


class SearchPages:
    """The search, and the pages of its results."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend

    async def search(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the search and its results; a single result leads to its page."""
        form = (await read_form(request) or {}) if request.method == hdrs.METH_POST else {}
        text = form.get("text", "").strip()[:MAX_TEXT_LENGTH]
        if TOKEN_PATTERN.fullmatch(text) and await self._backend.batch(text):
            return redirect(f"/console/batch/{text}")
        found = await self._find(text) if text else []
        if len(found) == 1:
            return redirect(f"/console/message/{found[0].id}")
        values = {"session": session, "text": text, "found": found}
        return self._auth.page("search.html", values)

    async def _find(self, text: str) -> list[MessageSummary]:
        """Search by id, recipient, reference and provider id; return the first that has results."""
        if message_id(text) is not None and (found := await self._backend.find("id", text)):
            return found
        number = read_number(text, other_mainland=True)
        if isinstance(number, ReadNumber) and (
            found := await self._backend.find("recipient", number.e164)
        ):
            return found
        return await self._backend.find("reference", text) or await self._backend.find(
            "provider_id", text
        )

    async def message(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show a message; a form reveals its number and variables, and the audit log records it."""
        wanted = message_id(request.match_info["id"])
        history = await self._backend.message(wanted) if wanted is not None else None
        if wanted is None or history is None:
            return self._missing(session, "There is no message with this id.")
        revealed = request.method == hdrs.METH_POST
        if revealed:
            await self._backend.record_reveal(session.actor, wanted)
        message = history.message
        values = {
            "session": session,
            "message": message,
            "code": explain_code(message),
            "why": explain_state(message),
            "advice": advice(message),
            "timeline": timeline(history),
            "revealed": revealed,
        }
        return self._auth.page("message.html", values)

    async def batch(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show a request: its answer and its messages."""
        token = request.match_info["token"]
        found = await self._backend.batch(token) if TOKEN_PATTERN.fullmatch(token) else None
        if found is None:
            return self._missing(session, "There is no request with this token.")
        code = found.batch["code"]
        values = {
            "session": session,
            "batch": found.batch,
            "messages": found.messages,
            "code": request_code(code) if code else None,
        }
        return self._auth.page("batch.html", values)

    def _missing(self, session: Session, what: str) -> web.Response:
        return self._auth.page("missing.html", {"session": session, "what": what}, status=404)
