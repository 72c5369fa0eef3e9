"""Stores replies on arrival, with what follows from them, and reads them for operators."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from dispatcher.core.reply import UplinkReply, reply_digest
from dispatcher.core.status import StoredReply
from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, Connection, Database, storing
from dispatcher.db.queries import sql


class ReceivedReply(Struct, frozen=True, gc=False):
    """A reply, the app of the address it came to, and when, by this machine's clock."""

    reply: UplinkReply
    app: str  # empty: the address names none
    at: float  # seconds since 1970
    verified: bool = False  # it was signed, or came from an allowed network

    @property
    def raw(self) -> str:
        """All fields as a JSON object."""
        return self.reply.raw


REPLIES_PATH: Final = "replies"  # where replies come, without the token; an app may follow


def address_app(path: str) -> str:
    """Return the app that the path of a push names; empty if it names none."""
    return path.partition("/")[2]


async def store(
    database: Database,
    replies: Sequence[ReceivedReply],
    *,
    now: float,
    seconds: float = TRANSACTION_TIMEOUT_SECONDS,
) -> int:
    """Write *replies*, and suppress who unsubscribes; safe to repeat.

    *now* is this machine's time. Returns how many were new.
    Raises DatabaseUnavailable, or UnstorableError if it would be refused again: none is stored.
    """
    async with storing(database, seconds=seconds) as connection:
        return await write(connection, replies, now=now)


async def write(connection: Connection, replies: Sequence[ReceivedReply], *, now: float) -> int:
    """Write *replies* over one connection; return how many were new."""
    by_digest = {reply_digest(one.reply, one.at): one for one in replies}
    rows = [
        (
            digest,
            one.reply.provider_id,
            one.app,
            one.reply.number,
            one.reply.channel,
            one.reply.text,
            one.reply.unsubscribes,
            max(0.0, now - one.at),
            one.reply.replied_at,
            one.reply.raw,
            one.verified,
        )
        for digest, one in sorted(by_digest.items())
    ]
    news = await connection.fetchval(sql("store_replies"), *map(list, zip(*rows, strict=True)))
    return int(news)


async def newest(connection: Connection, *, limit: int) -> list[StoredReply]:
    """Return the newest replies."""
    return [StoredReply(*row) for row in await connection.fetch(sql("replies"), limit)]


async def of_number(connection: Connection, number: str, *, limit: int) -> list[StoredReply]:
    """Return the newest replies of a number, which is in its canonical form."""
    rows = await connection.fetch(sql("replies_of_number"), number, limit)
    return [StoredReply(*row) for row in rows]
