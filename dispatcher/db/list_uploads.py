"""Lists that operators uploaded in the console: kept until they are loaded, a day at most.

They are in the database, so that any process can check and load them, whichever took the upload.
"""

from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from dispatcher.db.database import Connection
from dispatcher.db.queries import sql

State = Literal["checking", "checked", "loading", "loaded", "failed"]
PART_BYTES: Final = 1024 * 1024  # of the content, in one row
SILENT_SECONDS: Final = 15.0  # a process that has shown no progress for so long is dead


class ListUpload(Struct, frozen=True):
    """One uploaded list."""

    id: int
    created_at: datetime
    created_by: str
    loaded_by: str | None  # who asked for its load
    asked_at: datetime | None  # and when
    name: str  # of the file
    options: str  # JSON
    bytes: int
    state: State
    progress: float  # of checking or loading, 0 to 1
    result: str | None  # JSON, of the last check or load
    error: str | None
    has_rejects: bool
    silent: bool  # it is to be worked on, and no process does
    tries: int  # processes that have begun to check or load it
    held: bool = False  # no worker has been here since its load was asked for, or went on


async def add(connection: Connection, actor: str, name: str, options: str) -> int:
    """Begin an upload; delete those of over a day ago. Return its id."""
    upload_id: int = await connection.fetchval(sql("add_list_upload"), actor, name, options)
    return upload_id


async def add_part(connection: Connection, upload_id: int, part: int, content: bytes) -> None:
    """Keep the next part of the content."""
    await connection.execute(sql("add_list_upload_part"), upload_id, part, content)


async def complete(connection: Connection, upload_id: int) -> None:
    """Note that the whole content is there, to be checked."""
    await connection.execute(sql("complete_list_upload"), upload_id)


async def drop(connection: Connection, upload_id: int, actor: str) -> None:
    """Delete an upload with its content, unless it is being loaded, and write the audit log."""
    await connection.execute(sql("drop_list_upload"), upload_id, actor)


async def find(connection: Connection, upload_id: int) -> ListUpload | None:
    """Return an upload, or None if there is none with this id."""
    row = await connection.fetchrow(sql("list_upload"), upload_id, SILENT_SECONDS)
    return ListUpload(*row) if row else None


async def recent(connection: Connection) -> list[ListUpload]:
    """Return the uploads that are kept, the newest first."""
    return [ListUpload(*row) for row in await connection.fetch(sql("list_uploads"), SILENT_SECONDS)]


async def begin_work(connection: Connection, upload_id: int) -> int | None:
    """Take an upload to be worked on; return which try it is, None if another process does it."""
    tries: int | None = await connection.fetchval(sql("begin_list_work"), upload_id, SILENT_SECONDS)
    return tries


async def note_progress(connection: Connection, upload_id: int, progress: float) -> None:
    """Show that the work goes on."""
    await connection.execute(sql("note_list_progress"), upload_id, progress)


async def ask_to_load(
    connection: Connection, upload_id: int, actor: str, options: str, lines: str
) -> bool:
    """Have a checked list loaded; return False if it is not, or not any more, checked.

    The audit log has who asked for it, and for which *lines* of it.
    """
    asked: bool = await connection.fetchval(
        sql("ask_to_load_list"), upload_id, options, actor, lines
    )
    return asked


async def end_work(  # noqa: PLR0917
    connection: Connection,
    upload_id: int,
    state: State,
    result: str | None,
    error: str | None,
    rejects: bytes | None,
) -> None:
    """Keep what a check or a load gave; the content of a loaded list is deleted."""
    await connection.execute(sql("end_list_work"), upload_id, state, result, error, rejects)


async def content(connection: Connection, upload_id: int) -> list[bytes]:
    """Return the parts of an upload."""
    rows = await connection.fetch(sql("list_upload_content"), upload_id)
    return [row["content"] for row in rows]


async def rejects(connection: Connection, upload_id: int) -> bytes | None:
    """Return the file of refused lines; None if there is none."""
    found: bytes | None = await connection.fetchval(sql("list_rejects"), upload_id)
    return found
