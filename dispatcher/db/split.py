"""Divides a request that was refused as a whole: closes its batch, and opens one for each part."""

from collections.abc import Callable, Sequence
from functools import partial

from dispatcher.core.codes import SET_ASIDE, number_code
from dispatcher.core.message import Batch, RequestDraft
from dispatcher.core.packing import halve
from dispatcher.core.result import storable_text
from dispatcher.db import events
from dispatcher.db.claim import open_batches
from dispatcher.db.database import Connection, Database
from dispatcher.db.errors import DATA_ERRORS, ROW_ERRORS, data_error_kind, is_data_error
from dispatcher.db.events import count
from dispatcher.db.queries import sql
from dispatcher.db.record import append_outcomes


async def split(
    database: Database,
    worker: int,
    batch: Batch,
    parts: Sequence[RequestDraft],
    *,
    code: str,
    description: str,
    http_status: int | None,
    tries: int,
    token: Callable[[], str],
) -> list[Batch]:
    """Close *batch*, which was refused as a whole, and open one batch for each of *parts*.

    Returns no batch if another worker has taken this one over in the meantime: its messages are
    then not this worker's to send. Nor if a person has stopped the app or a campaign of it. A
    message whose batch the database refuses for a value, as a trigger or a constraint of an
    application may, is rejected; the others are opened without it. Raises one of ROW_ERRORS
    if it refuses an empty batch too: then no message is at fault.
    """
    divide = partial(_split, database, worker, batch, parts, token=token)
    try:
        return await divide((http_status, code, description, tries), apart=False)
    except ROW_ERRORS as error:
        if not is_data_error(error):
            raise
    code, description = storable_text(code), storable_text(description)
    return await divide((http_status, code, description, tries), apart=True)


async def _split(
    database: Database,
    worker: int,
    batch: Batch,
    parts: Sequence[RequestDraft],
    answer: tuple[int | None, str, str, int],
    *,
    token: Callable[[], str],
    apart: bool,
) -> list[Batch]:
    """Split *batch*; *apart* narrows a failure down to the message, at the cost of savepoints."""
    async with database.transaction() as connection:
        closed = await connection.fetchval(sql("close_for_split"), batch.id, *answer, batch.token)
        if closed is None:
            return []
        open_parts = _open_apart if apart else open_batches
        return await open_parts(
            connection,
            batch.app,
            worker,
            parts,
            token=token,
            claimed_at=batch.claimed_at,
            parent=batch.id,
        )


async def _open_apart(
    connection: Connection,
    app: str,
    worker: int,
    parts: Sequence[RequestDraft],
    *,
    token: Callable[[], str],
    claimed_at: float,
    parent: int,
) -> list[Batch]:
    """Open batches one by one, halve what the database refuses, and reject a message at fault."""
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    write = partial(
        open_batches, connection, app, worker, token=token, claimed_at=claimed_at, parent=parent
    )
    await connection.execute("SAVEPOINT part")
    await write([RequestDraft(parts[0].sender, [], parts[0].size)])  # what refuses it refuses all
    await connection.execute("ROLLBACK TO SAVEPOINT part")
    opened: list[Batch] = []
    pending = list(reversed(parts))
    while pending:
        part = pending.pop()
        await connection.execute("SAVEPOINT part")
        try:
            opened += await write([part])
        except DATA_ERRORS as error:
            await connection.execute("ROLLBACK TO SAVEPOINT part")
            if (halves := halve(part)) is not None:
                pending += reversed(halves)
                continue
            [message] = part.messages
            row = number_code(SET_ASIDE)
            reason = f"{row.meaning} {data_error_kind(error)}"
            event = (app, "rejected", row.code)
            await append_outcomes(
                connection,
                [(message.id, parent, "rejected", message.attempt, None, None, row.code, reason)],
            )
            await count(connection, worker, [event])
            await events.append(connection, {event: [message.id]})
        else:
            await connection.execute("RELEASE SAVEPOINT part")
    return opened
