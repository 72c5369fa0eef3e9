"""The page Codes: every code and report status, what it means, and how often it came today."""

from collections import Counter
from collections.abc import Iterable

from aiohttp import web
from msgspec import Struct

from dispatcher.console.auth import Auth, Session
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.message_pages import filter_address
from dispatcher.core.codes import NUMBER, OURS, REQUEST
from dispatcher.core.language import N_, _
from dispatcher.core.report_status import STATUSES
from dispatcher.core.status import OTHER_EVENTS, EventTotal
from dispatcher.db.message_lists import MessageFilter

CODES_PATH = "/console/codes"
MAX_SEARCH_LENGTH = 100  # characters
_LEVEL_NAMES = {
    "request": N_("of a request"),
    "number": N_("of a number"),
    "ours": N_("of this service"),
    "report": N_("of a carrier"),
}


class CodeEntry(Struct, frozen=True):
    """One row of the page."""

    code: str
    level: str
    kind: str
    meaning: str
    advice: str
    day: int = 0  # how often it came in the last day
    address: str = ""  # query of the list of its messages


class CodesPage:
    """The page Codes."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend

    async def show(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the codes that have all words of the search in them."""
        text = request.query.get("q", "").strip()[:MAX_SEARCH_LENGTH]
        totals = await self._backend.totals()
        values = {"session": session, "text": text, "codes": find_codes(text, totals)}
        return self._auth.page("codes.html", values)


def find_codes(text: str, totals: Iterable[EventTotal]) -> list[CodeEntry]:
    """Return the codes with all words of *text*, those that came today first."""
    day: Counter[str] = Counter()
    for total in totals:
        if total.event not in OTHER_EVENTS:
            day[total.code] += total.day
    words = text.lower().split()
    found = []
    for entry, english in _entries():
        shown = (entry.code, entry.level, entry.kind, entry.meaning, entry.advice)
        whole = " ".join((*shown, english)).lower()  # its English words find a code too
        if all(word in whole for word in words):
            address = filter_address(MessageFilter(code=entry.code))
            found.append(
                CodeEntry(
                    entry.code,
                    entry.level,
                    entry.kind,
                    entry.meaning,
                    entry.advice,
                    day[entry.code],
                    address,
                )
            )
    return sorted(found, key=lambda entry: -entry.day)


def _entries() -> Iterable[tuple[CodeEntry, str]]:
    """Yield all codes in the reader's language, and what they mean in English."""
    for table in (REQUEST, NUMBER, OURS):
        for code in table.values():
            level = _(_LEVEL_NAMES[str(code.level)])
            entry = CodeEntry(code.code, level, _(code.kind), _(code.meaning), _(code.advice))
            yield entry, f"{code.meaning} {code.advice}"
    for status in STATUSES.values():
        level, reason = _(_LEVEL_NAMES["report"]), _(status.reason)
        entry = CodeEntry(status.status, level, reason, _(status.meaning), _(status.advice))
        yield entry, f"{status.meaning} {status.advice}"
