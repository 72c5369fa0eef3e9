"""Tokens of the console: each has a name and a role, and is stored as its digest only."""

import hashlib
import secrets
from datetime import datetime

import asyncpg
from msgspec import Struct

from dispatcher.core.language import _
from dispatcher.core.roles import Role
from dispatcher.db.database import COMMAND_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.queries import sql


class TokenError(Exception):
    """A token cannot be made or revoked; the text says why."""


class ConsoleToken(Struct, frozen=True):
    """A token, without itself."""

    id: int
    name: str
    role: Role
    created_at: datetime
    created_by: str
    used_at: datetime | None  # the last login with it
    revoked_at: datetime | None
    revoked_by: str | None


class ValidToken(Struct, frozen=True):
    """A token that is not revoked."""

    id: int
    name: str
    role: Role
    digest: bytes


def digest(token: str) -> bytes:
    """Return what is stored of a token. It has 256 bits of chance, so one round is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


async def add(connection: Connection, actor: str, name: str, role: Role) -> str:
    """Make a token, and return it: it is not stored. Raises TokenError if the name is taken."""
    token = secrets.token_urlsafe()
    try:
        await connection.execute(sql("add_console_token"), name, role, digest(token), actor)
    except asyncpg.UniqueViolationError:
        raise TokenError(
            _("there is a token {name} already: revoke it first").format(name=name)
        ) from None
    return token


async def revoke(connection: Connection, actor: str, name: str) -> bool:
    """End a token and all logins with it; return whether there was one of this name."""
    revoked: bool = await connection.fetchval(sql("revoke_console_token"), name, actor)
    return revoked


async def tokens(connection: Connection) -> list[ConsoleToken]:
    """Return all tokens, the newest first, those that are revoked too."""
    return [ConsoleToken(*row) for row in await connection.fetch(sql("console_tokens"))]


async def valid(database: Database) -> list[ValidToken]:
    """Return the tokens that are not revoked."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return [ValidToken(*row) for row in await connection.fetch(sql("valid_console_tokens"))]


async def note_use(database: Database, token_id: int) -> None:
    """Note that a token was used for a login now."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        await connection.execute(sql("note_console_token_use"), token_id)
