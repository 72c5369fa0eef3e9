"""Parses the address of a database: its hosts, to try them in turn, and a name for people."""

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_PORT = 5432


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
    try:
        parts = urlsplit(dsn)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    except ValueError:
        return Address((), "", "")
    login, _, netloc = parts.netloc.rpartition("@")
    written = [_split_port(unquote(host)) for host in netloc.split(",") if host]
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
