"""X-WSSE, written from the page: each missing or wrong part has its own code."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from dispatcher.simulator.codes import RefusedError
from dispatcher.simulator.options import Options

WINDOW: Final = 24 * 3600  # seconds that Created may be off, either way (Notes)

_PART = re.compile(r'(\w+)="([^"]*)"')
_NONCE = re.compile(r"[A-Za-z0-9]{1,128}")
_CREATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

# Part of X-WSSE -> the code when it is missing.
_PARTS: Final = {
    "Username": "E000021",
    "Nonce": "E000022",
    "Created": "E000023",
    "PasswordDigest": "E000024",
}


def check_wsse(
    headers: Mapping[str, str], *, now: float, keys: Mapping[str, str], options: Options
) -> None:
    """Check an X-WSSE request. Raises RefusedError if it is not in order."""
    _check_authorization(headers.get("Authorization"))
    parts = _read_parts(headers.get("X-WSSE"))
    created = _read_created(parts["Created"])
    if created is None:
        raise RefusedError("E000025")
    if _NONCE.fullmatch(parts["Nonce"]) is None:
        raise RefusedError("E000101", "Nonce is not 1 to 128 letters and digits")
    if abs(now - created) > WINDOW:
        raise RefusedError("E000110", f"Created is {created - now:+.0f} s from this clock")
    secret = keys.get(parts["Username"])
    if secret is None:
        raise RefusedError("E000102")
    wanted = _digests(parts["Nonce"] + parts["Created"] + secret)
    given = parts["PasswordDigest"].encode("utf-8", "surrogateescape")
    if not any(hmac.compare_digest(wanted[kind], given) for kind in options.wsse_digests):
        raise RefusedError("E000105")


def _read_parts(header: str | None) -> dict[str, str]:
    if header is None:
        raise RefusedError("E000020")
    if not header.startswith("UsernameToken "):
        raise RefusedError("E000026")
    parts = dict(_PART.findall(header))
    for name, code in _PARTS.items():
        if not parts.get(name):
            raise RefusedError(code)
    return parts


def _check_authorization(header: str | None) -> None:
    if header is None:
        raise RefusedError("E000001")
    if not header.startswith("WSSE"):
        raise RefusedError("E000008")
    parts = dict(_PART.findall(header))
    for name, missing, value, wrong in (
        ("realm", "E000002", "SDP", "E000004"),
        ("profile", "E000003", "UsernameToken", "E000005"),
        ("type", "E000007", "Appkey", "E000006"),
    ):
        if name not in parts:
            raise RefusedError(missing)
        if parts[name] != value:
            raise RefusedError(wrong)


def _digests(text: str) -> dict[str, bytes]:
    """Return both readings of Base64(SHA256(text)): the page's sample is hex, most demos raw."""
    digest = hashlib.sha256(text.encode())
    return {
        "hex": base64.b64encode(digest.hexdigest().encode()),
        "raw": base64.b64encode(digest.digest()),
    }


def _read_created(text: str) -> float | None:
    if _CREATED.fullmatch(text) is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:  # digits, but no such day or hour
        return None
