"""SDK-HMAC-SHA256, written from the provider's guide: checks requests, and signs reports."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from dispatcher.simulator.codes import RefusedError
from dispatcher.simulator.options import Options

ALGORITHM: Final = "SDK-HMAC-SHA256"
WINDOW: Final = 15 * 60  # seconds that X-Sdk-Date may be off, either way (Notes)

# Unquoted, although the page's table shows quotes; the provider's own SDK sends it so.
_AUTHORIZATION = re.compile(
    ALGORITHM + r" Access=([^,\s\"]+), ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")


def check_signature(
    headers: Mapping[str, str],
    body: bytes,
    *,
    method: str,
    path: str,
    now: float,
    keys: Mapping[str, str],
    options: Options,
) -> None:
    """Check an AK/SK request. Raises RefusedError if it is not signed well.

    *headers* must find names in any case. *now* is the provider's clock, seconds since 1970.
    """
    date = headers.get("X-Sdk-Date", "")
    if not date:
        raise RefusedError("E000041")
    signed_at = _read_date(date)
    if signed_at is None:
        raise RefusedError("E000042", "X-Sdk-Date is not like 20230519T005038Z")
    parts = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
    if parts is None:
        raise RefusedError("E000043")
    access, names, signature = parts.groups()
    signed = names.split(";")
    if signed != sorted(signed) or not {"host", "x-sdk-date"} <= set(signed):
        raise RefusedError("E000043", "SignedHeaders must be sorted and hold host and x-sdk-date")
    if abs(now - signed_at) > WINDOW:
        raise RefusedError("E000044", f"X-Sdk-Date is {signed_at - now:+.0f} s from this clock")
    secret = keys.get(access)
    if secret is None:
        raise RefusedError("E000102")
    for host in _hosts(headers.get("Host", ""), options):
        values = [(name, host if name == "host" else headers.get(name, "")) for name in signed]
        wanted = sign(secret, method=method, path=path, headers=values, date=date, body=body)
        if hmac.compare_digest(wanted, signature):
            return
    raise RefusedError("E000045")


def sign(
    secret: str,
    *,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    date: str,
    body: bytes,
) -> str:
    """Return the signature, 64 hex digits.

    *headers* are those that are signed: lower-case names, sorted. *path* may carry a query.
    """
    canonical = "\n".join(
        [
            method,
            *_canonical_place(path),
            *(f"{name}:{value.strip()}" for name, value in headers),
            "",
            ";".join(name for name, _ in headers),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    text = f"{ALGORITHM}\n{date}\n{digest}"
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex()


@lru_cache(maxsize=256)  # of a few addresses, signed again and again
def _canonical_place(path: str) -> tuple[str, str]:
    """Return path and query as they are signed."""
    place, _, query = path.partition("?")
    segments = [quote(segment, safe="~") for segment in unquote(place).split("/")]
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return (
        "/".join(segments).rstrip("/") + "/",  # only here, never in the URL
        "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs),
    )


def sdk_date(now: float) -> str:
    """Write *now* as X-Sdk-Date wants it."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")


def _read_date(text: str) -> float | None:
    if _DATE.fullmatch(text) is None:
        return None
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:  # digits, but no such day or hour
        return None


def _hosts(host: str, options: Options) -> list[str]:
    """Return the Host values a signature may cover; normalising is unsure of the service."""
    bare = re.sub(r":[0-9]+$", "", host)
    return {"wire": [host], "bare": [bare], "either": [host, bare]}[options.signed_host]
