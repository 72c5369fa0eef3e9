"""The audit log: filter, pages, and export as CSV."""

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import urlencode

from aiohttp import hdrs, web
from msgspec.structs import asdict

from dispatcher.console.auth import Auth, Session, cut, protected
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import Invalid, message_id, read_time, written_time
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.status import AuditEntry
from dispatcher.db.audit import AuditFilter

AUDIT_PATH = "/console/audit"
MAX_FIELD_LENGTH = 200  # characters
_COLUMNS = AuditEntry.__struct_fields__
_FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run such a cell


def read_audit_filter(fields: Mapping[str, str]) -> AuditFilter | Invalid:
    """Return the filter that an address describes; blank fields do not count."""
    values: dict[str, str | datetime] = {}
    for name in AuditFilter.__struct_fields__:
        text = fields.get(name, "").strip()[:MAX_FIELD_LENGTH]
        if not text:
            continue
        if name in ("since", "until"):
            match read_time(text):
                case Invalid() as invalid:
                    return invalid
                case moment:
                    values[name] = moment
        else:
            values[name] = text
    return AuditFilter(**values)  # type: ignore[arg-type]


def audit_address(wanted: AuditFilter, **more: str) -> str:
    """Return the query of the page of *wanted*."""
    fields = {
        name: written_time(value) if isinstance(value, datetime) else value
        for name, value in asdict(wanted).items()
        if value is not None
    }
    return urlencode(fields | more)


class AuditPages:
    """The audit log as a page and as a file."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend

    async def show(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show a page of the audit log."""
        wanted = read_audit_filter(request.query)
        before = message_id(request.query.get("before", ""))
        if isinstance(wanted, Invalid):
            values = {"session": session, "what": wanted.reason}
            return self._auth.page("missing.html", values, status=400)
        entries, following = await self._backend.audit_page(wanted, before)
        values = {
            "session": session,
            "fields": asdict(wanted),
            "audit": entries,
            "following": audit_address(wanted, before=str(following)) if following else None,
            "address": audit_address(wanted),
        }
        return self._auth.page("audit.html", values)

    async def export(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Send all entries that fit a filter as CSV, the newest first."""
        wanted = read_audit_filter(request.query)
        if isinstance(wanted, Invalid):
            values = {"session": session, "what": wanted.reason}
            return self._auth.page("missing.html", values, status=400)
        entries, following = await self._backend.audit_page(wanted, None)
        headers = {
            hdrs.CONTENT_TYPE: "text/csv; charset=utf-8",
            hdrs.CONTENT_DISPOSITION: 'attachment; filename="audit.csv"',
        }
        response = protected(web.StreamResponse(headers=headers))
        await response.prepare(request)
        # Excel takes a CSV file for UTF-8 only by its mark.
        await response.write("\ufeff".encode() + _csv([_COLUMNS]))
        await response.write(_csv(_rows(entries)))
        try:
            while following is not None:
                entries, following = await self._backend.audit_page(wanted, following)
                await response.write(_csv(_rows(entries)))
        except DatabaseUnavailable:
            return cut(request, response)
        await response.write_eof()
        return response


def _rows(entries: list[AuditEntry]) -> Iterator[tuple[str, ...]]:
    for entry in entries:
        texts = (entry.actor, entry.action, entry.target, entry.detail, entry.result)
        safe = (f"'{text}" if text.startswith(_FORMULA_BEGINS) else text for text in texts)
        yield entry.created_at.isoformat(timespec="seconds"), *safe


def _csv(rows: object) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue().encode()
