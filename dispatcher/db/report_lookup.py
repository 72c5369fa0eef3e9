"""Takes reports from the inbox for one step of the matching, and finds their messages."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from msgspec.structs import replace

from dispatcher.core.report_matching import (
    MessageLookup,
    PendingReport,
    needs_members,
    wants_id_search,
)
from dispatcher.db.database import Connection
from dispatcher.db.queries import array_text, sql

MAX_STEP_REPORTS: Final = 5000  # in one step, about: a fifth of a second
MAX_STEP_MEMBERS: Final = 50_000  # messages of requests that one step reads whole, about


async def take(connection: Connection) -> list[PendingReport]:
    """Take reports, one for each segment: the newest, and fresh if any of them was."""
    new = [
        PendingReport(*row) for row in await connection.fetch(sql("take_reports"), MAX_STEP_REPORTS)
    ]
    # A final report may come while its interim one still waits for its message.
    later = [(seen.provider_id, seen.segment) for seen in new if not seen.fresh]
    rows = await connection.fetch(
        sql("take_unmatched"),
        [key[0] for key in later],
        [key[1] for key in later],
        MAX_STEP_REPORTS,
    )
    held = await _held(connection, later, {(row[0], row[1]) for row in rows})
    if held:
        await put_back(
            connection, [seen for seen in new if (seen.provider_id, seen.segment) in held]
        )
    taken: dict[tuple[str, int], PendingReport] = {}
    for seen in (*(PendingReport(*row) for row in rows), *new):
        key = (seen.provider_id, seen.segment)
        known = taken.get(key)
        taken[key] = (
            seen if known is None else replace(seen, fresh=known.fresh, attempts=known.attempts)
        )
    return [seen for key, seen in taken.items() if key not in held]


async def _held(
    connection: Connection, keys: Sequence[tuple[str, int]], taken: set[tuple[str, int]]
) -> set[tuple[str, int]]:
    """Return those of *keys* whose unmatched reports another session holds; some were *taken*.

    None of them can be written until it ends.
    """
    asked = [key for key in keys if key not in taken]
    if not asked:
        return set()
    rows = await connection.fetch(
        sql("still_unmatched"), [key[0] for key in asked], [key[1] for key in asked]
    )
    return {(row["provider_id"], row["segment"]) for row in rows}


async def put_back(connection: Connection, reports: Sequence[PendingReport]) -> None:
    """Put *reports* of the inbox back into it, for the next step."""
    await connection.execute(
        sql("put_back"),
        [seen.inbox for seen in reports],
        [seen.waited for seen in reports],
        [seen.provider_id for seen in reports],
        [seen.segment for seen in reports],
        [seen.total for seen in reports],
        [seen.state for seen in reports],
        [seen.status for seen in reports],
        [seen.token for seen in reports],
        [seen.recipient for seen in reports],
        [seen.fresh for seen in reports],
    )


async def find_places(
    connection: Connection, reports: Sequence[PendingReport]
) -> dict[int, MessageLookup]:
    """Return the message found by token and number of each report, by its index.

    A number that may be read in two ways is looked up in both, and the likelier one counts.
    """
    asked: list[tuple[int, str | None, str | None]] = []
    for index, seen in enumerate(reports):
        asked += [(index, seen.token, form) for form in seen.forms or (None,)]
    rows = await connection.fetch(
        sql("find_places"),
        array_text(token for _, token, _ in asked),
        array_text(form for _, _, form in asked),
    )
    places: dict[int, MessageLookup] = {}
    for row in sorted(rows, key=itemgetter(0)):
        index, place = asked[row[0] - 1][0], MessageLookup(*row[1:])
        if index not in places or places[index].message_id is None:
            places[index] = place
    return places


async def find_places_by_id(
    connection: Connection, reports: Sequence[PendingReport], places: dict[int, MessageLookup]
) -> dict[int, MessageLookup]:
    """Return the message with the provider id of each report whose token leads to no request."""
    asked = {
        index: seen.provider_id
        for index, seen in enumerate(reports)
        if index not in places and wants_id_search(seen)
    }
    if not asked:
        return {}
    rows = await connection.fetch(sql("find_accepted"), list(set(asked.values())))
    known = {row[0]: MessageLookup(*row[1:]) for row in rows}
    return {index: known[word] for index, word in asked.items() if word in known}


async def find_members(
    connection: Connection, reports: Sequence[PendingReport], places: dict[int, MessageLookup]
) -> dict[str, list[MessageLookup]]:
    """Return all messages of the requests in which a report's number leads to none, by token."""
    tokens = {
        reports[index].token
        for index, place in places.items()
        if needs_members(reports[index], place)
    }
    members: dict[str, list[MessageLookup]] = {}
    if tokens:
        rows = await connection.fetch(sql("find_members"), list(tokens), MAX_STEP_MEMBERS)
        for row in rows:
            of_token = members.setdefault(row[0], [])
            member = MessageLookup(*row[1:])
            if member.message_id is not None:
                of_token.append(member)
    return members
