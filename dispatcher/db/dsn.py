"""Parses the address of a database: its hosts, to try them in turn, and a name for people."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from dispatcher.settings import Settings
from dispatcher.settings.types import is_address, is_clear_address

DEFAULT_PORT = 5432


class FileAddress(str):
    """An address that was read from a file, and can be read again after a password was rotated."""

    __slots__ = ("file",)

    file: Path

    def __new__(cls, address: str, file: Path) -> Self:
        """Return *address*, which *file* held."""
        self = super().__new__(cls, address)
        self.file = file
        return self

    def read_again(self) -> "FileAddress | None":
        """Return what the file holds now; None if that is the same, or no address yet."""
        try:
            now = self.file.read_text("utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            return None
        return FileAddress(now, self.file) if now != self and is_address(now) else None


def address(url: SecretStr, file: Path | None) -> str:
    """Return the address of a setting; one that *file* held can be read again."""
    text = url.get_secret_value()
    return FileAddress(text, file) if file else text


def direct_address(settings: Settings) -> str | None:
    """Return the address past a pooler, for LISTEN and migrations; None if none is set."""
    url = settings.database_direct_url
    return address(url, settings.database_direct_url_file) if url else None


# Parameters that libpq or other drivers know, and neither asyncpg nor the server: asyncpg would ask
# the server to set them.
_OF_OTHER_DRIVERS: Final = frozenset(
    (
        "channel_binding",
        "connect_timeout",
        "connection_limit",
        "fallback_application_name",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "pgbouncer",
        "pool_timeout",
        "require_auth",
        "requirepeer",
        "socket_timeout",
        "sslcertmode",
        "sslcompression",
        "sslcrldir",
        "sslsni",
        "tcp_user_timeout",
    )
)


def driver_address(dsn: str) -> str:
    """Return *dsn* without the parameters that only other drivers know."""
    before, _, query = dsn.partition("?")
    pairs = [p for p in query.split("&") if p and p.partition("=")[0] not in _OF_OTHER_DRIVERS]
    return f"{before}?{'&'.join(pairs)}" if pairs else before


@dataclass(frozen=True, slots=True)
class Address:
    """Hosts, database and user of an address; its password is never kept."""

    hosts: tuple[tuple[str, int], ...]  # in the order written; a socket's directory starts with /
    database: str
    user: str
    target: str | None = None  # target_session_attrs

    def __str__(self) -> str:
        """Return it as it is shown to people: ``host:port,host:port/database``."""
        hosts = ",".join(
            f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in self.hosts
        )
        return f"{hosts or 'the default host'}/{self.database}"


def read_address(dsn: str) -> Address:
    """Parse *dsn*; leave out what cannot be parsed, the driver raises an error for it.

    Both ways of PostgreSQL to name several hosts are known: ``//one:5432,two:5432/`` and
    ``?host=one,two&port=5432,5432``. The environment (PGHOST and others) is read by the
    driver only: an address without a host has none here.
    """
    if not is_clear_address(dsn):
        return Address((), "", "")  # what would be shown may be a piece of the password
    try:
        parts = urlsplit(dsn)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    except ValueError:
        return Address((), "", "")
    login, _, netloc = parts.netloc.rpartition("@")
    written = [(unquote(host), port) for host, port in map(_split_port, netloc.split(",")) if host]
    if not written and "host" in query:
        written = [_split_port(host) for host in query["host"].split(",") if host]
    common = [int(port) for port in query.get("port", "").split(",") if port.isdecimal()]
    if len(common) != len(written):
        common = common[:1] * len(written) or [DEFAULT_PORT] * len(written)
    hosts = tuple(
        (host, port or fallback) for (host, port), fallback in zip(written, common, strict=True)
    )
    user = query.get("user") or unquote(login.partition(":")[0])
    database = query.get("dbname") or query.get("database") or unquote(parts.path.lstrip("/"))
    return Address(hosts, database or user, user, query.get("target_session_attrs"))


def _split_port(host: str) -> tuple[str, int | None]:
    if host.startswith("/"):
        return host, None
    name, _, port = host.rpartition(":")
    if not name or not port.isdecimal() or (":" in name and not name.startswith("[")):
        return host.strip("[]"), None
    return name.strip("[]"), int(port)
