"""Reads the audit log by a filter, in pages."""

from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

from dispatcher.core.roles import stored_names
from dispatcher.core.status import AuditEntry
from dispatcher.db.database import COMMAND_TIMEOUT_SECONDS, Database
from dispatcher.db.queries import sql

PAGE_ROWS: Final = 100


class AuditFilter(Struct, frozen=True):
    """Which entries of the audit log are wanted; None: any."""

    actor: str | None = None  # as it is shown, or without the mark of the shared token
    action: str | None = None
    target: str | None = None  # a part of it
    since: datetime | None = None
    until: datetime | None = None


async def page(
    database: Database, wanted: AuditFilter, before: int | None
) -> tuple[list[AuditEntry], int | None]:
    """Return entries with ids below *before*, the newest first, and where the next page begins."""
    actor, *others = astuple(wanted)
    actors = None if actor is None else stored_names(actor)
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        rows = await connection.fetch(sql("audit_page"), before, PAGE_ROWS + 1, actors, *others)
    entries = [AuditEntry(*tuple(row)[1:]) for row in rows[:PAGE_ROWS]]
    return entries, rows[PAGE_ROWS - 1]["id"] if len(rows) > PAGE_ROWS else None
