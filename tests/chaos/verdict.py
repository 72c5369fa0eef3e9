"""What must hold when the storm is over."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg
from support.exactness import Books, Text, read_books

from chaos.application import Memory
from chaos.workers import TIMEOUT, Blow
from dispatcher.simulator import Simulator
from dispatcher.simulator.ledger import RequestRecord

# Faults after which a request that was read may be unsure.
LOSSY = {
    *("cut", "half-answer", "stall-after-reading", "delay", "http", "lack", "code"),
    "odd-answer",
}
LOST = {"no-answer", "timeout"}
BEFORE = 60.0  # seconds that a batch may have been open when its worker was struck
IN_FLIGHT = 16  # requests of all apps that are on their way when connections are refused
LATE = 2.0  # seconds after its expiry that an acceptance may seem: signing, sending, reading

Still = tuple[float, float]  # from when to when the provider's process stood still, since 1970


@dataclass(frozen=True)
class Verdict:
    """Both books, and what is wrong with them."""

    books: Books
    problems: list[str]
    unsure: dict[str, int]  # messages by why they are


async def judge(
    db: asyncpg.Connection,
    simulator: Simulator,
    memory: Memory,
    blows: list[Blow],
    stills: list[Still],
    *,
    forgotten: frozenset[Text] = frozenset(),
) -> Verdict:
    """Read both books and compare them with what the application was told.

    *forgotten*: texts that were accepted before the database was restored for the last time.
    """
    books = await read_books(db, simulator.ledger.rows(), forgotten)
    batches = await db.fetch(
        "SELECT token, worker, code, cardinality(coalesce(unsure_ids, message_ids)) AS messages,"
        " extract(epoch FROM opened_at)::float8 AS opened"
        " FROM dispatcher.batch WHERE state = 'unsure'"
    )
    late = await _accepted_late(db, books, memory)
    unsure, unexplained = _explain(batches, simulator, blows, stills)
    problems = [
        *books.problems(),
        *_promises(books, memory),
        *_expired(late, blows, stills),
        *unexplained,
    ]
    return Verdict(books, problems, unsure)


def _promises(books: Books, memory: Memory) -> Iterable[str]:
    """What the application was told holds."""
    states = {row["id"]: row["state"] for row in books.messages}
    if missing := memory.inserted - states.keys():
        yield f"{len(missing)} messages whose insert was acknowledged are gone"
    for cancel in memory.cancels:
        cancelled = sum(states[one] == "cancelled" for one in cancel.ids)
        if cancelled != cancel.told:
            yield f"a cancel told {cancel.told} of {len(cancel.ids)}, and {cancelled} are cancelled"


async def _accepted_late(
    db: asyncpg.Connection, books: Books, memory: Memory
) -> list[asyncpg.Record]:
    """Return what was accepted after its expiry; what was requeued has none any more."""
    accepted = [row for row in books.ledger if row.token is not None]
    return await db.fetch(
        "SELECT m.id, b.worker, extract(epoch FROM m.expires_at)::float8 AS expiry, u.at"
        " FROM unnest($1::text[], $2::text[], $3::float8[]) AS u (token, provider_id, at)"
        " JOIN dispatcher.batch b ON b.token = u.token"
        " JOIN dispatcher.outcome o ON o.provider_id = u.provider_id"
        " JOIN dispatcher.message m ON m.id = o.message_id"
        " WHERE u.at > extract(epoch FROM m.expires_at) + $4 AND m.id <> ALL ($5)",
        [row.token for row in accepted],
        [row.sms_msg_id for row in accepted],
        [row.time for row in accepted],
        LATE,
        list(memory.requeued),
    )


def _expired(late: list[asyncpg.Record], blows: list[Blow], stills: list[Still]) -> Iterable[str]:
    """Nothing is sent after its expiry, unless its worker was frozen on the way to the socket.

    While the provider stands still, on a busy machine, what it was sent in time lies unread.
    """
    for row in late:
        past = row["at"] - row["expiry"]
        unread = sum(
            max(0.0, min(end, row["at"]) - max(begin, row["expiry"])) for begin, end in stills
        )
        if past - unread > LATE and not any(
            blow.worker in (None, row["worker"])
            and row["expiry"] < blow.end
            and blow.begin < row["at"]
            for blow in blows
        ):
            yield f"message {row['id']} was accepted {past:.1f} s after its expiry"


def _explain(
    batches: list[asyncpg.Record], simulator: Simulator, blows: list[Blow], stills: Sequence[Still]
) -> tuple[dict[str, int], list[str]]:
    """Say of each unsure batch why it is; only what was on its way at a fault may be.

    After a time in which the machine stood still a worker's time-out comes before the answer.
    """
    late = [(begin, end) for begin, end in stills if end - begin > TIMEOUT / 2]
    visits: dict[str, list[RequestRecord]] = {}
    for visit in simulator.journal:
        if visit.token is not None:
            visits.setdefault(visit.token, []).append(visit)
    why: dict[str, int] = {"worker killed, frozen or stopped": 0, "answer lost": 0, "unread": 0}
    unread = 0
    unexplained = []
    for batch in batches:
        seen = visits.get(batch["token"], [])
        if any(_was_lost(visit, late) for visit in seen):
            why["answer lost"] += batch["messages"]
        elif any(
            blow.worker in (None, batch["worker"])
            and blow.begin - BEFORE < batch["opened"] < blow.end
            for blow in blows
        ):
            why["worker killed, frozen or stopped"] += batch["messages"]
        # Earlier tries may have been refused: the last one was never read.
        elif batch["code"] in LOST and not any(visit.accepted for visit in seen):
            unread += 1
            why["unread"] += batch["messages"]
        else:
            unexplained.append(
                f"batch {batch['token']} is unsure ({batch['code']}) without a fault"
            )
    injected = simulator.faults.injected
    broken = sum(visit.token is None for visit in simulator.journal) + 16 * injected["refuse"]
    if unread > broken:
        unexplained.append(f"{unread} batches are unsure unread, by {broken} broken connections")
    return why, unexplained


def _was_lost(visit: RequestRecord, stills: Sequence[Still]) -> bool:
    """Tell whether the answer to a request may not have come, or not have said all."""
    return (
        visit.seconds is None
        or visit.seconds > TIMEOUT / 2
        or visit.http_status == 0
        or bool(LOSSY.intersection(visit.faults))
        or any(begin - TIMEOUT < visit.at < end + LATE for begin, end in stills)
    )
