"""Authentication: checks AK/SK signatures and X-WSSE headers, and signs report posts.

It is written from the provider's guides and shares no code with the dispatcher, so that a mistake
in one of them shows as a refused request. Each missing or wrong part has its own code.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from dispatcher.simulator.options import Options
from dispatcher.simulator.request import RequestRefusedError

ALGORITHM: Final = "SDK-HMAC-SHA256"
SIGNATURE_WINDOW_SECONDS: Final = 15 * 60  # X-Sdk-Date may differ so much, either way (Notes)

# The table of the API reference shows quotes; the provider's own SDK sends none.
_AUTHORIZATION_PATTERN = re.compile(
    ALGORITHM + r" Access=([^,\s\"]+), ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
_SDK_DATE_PATTERN = re.compile(r"[0-9]{8}T[0-9]{6}Z")

WSSE_WINDOW_SECONDS: Final = 24 * 3600  # Created may differ so much, either way (Notes)

_PART_PATTERN = re.compile(r'(\w+)="([^"]*)"')
_NONCE_PATTERN = re.compile(r"[A-Za-z0-9]{1,128}")
_CREATED_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

# Part of X-WSSE -> the code if it is missing.
_CODE_OF_MISSING_PART: Final = {
    "Username": "E000021",
    "Nonce": "E000022",
    "Created": "E000023",
    "PasswordDigest": "E000024",
}


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
    """Check an AK/SK request. Raises RequestRefusedError if the signature is wrong.

    *headers* must find names in any case. *now* is the provider's clock, seconds since 1970.
    """
    date = headers.get("X-Sdk-Date", "")
    if not date:
        raise RequestRefusedError("E000041")
    signed_at = _parse_sdk_date(date)
    if signed_at is None:
        raise RequestRefusedError("E000042", "X-Sdk-Date is not like 20230519T005038Z")
    parts = _AUTHORIZATION_PATTERN.fullmatch(headers.get("Authorization", ""))
    if parts is None:
        raise RequestRefusedError("E000043")
    access, names, signature = parts.groups()
    signed = names.split(";")
    if signed != sorted(signed) or not {"host", "x-sdk-date"} <= set(signed):
        raise RequestRefusedError(
            "E000043", "SignedHeaders must be sorted and hold host and x-sdk-date"
        )
    if abs(now - signed_at) > SIGNATURE_WINDOW_SECONDS:
        raise RequestRefusedError(
            "E000044", f"X-Sdk-Date is {signed_at - now:+.0f} s from this clock"
        )
    secret = keys.get(access)
    if secret is None:
        raise RequestRefusedError("E000102")
    for host in _accepted_hosts(headers.get("Host", ""), options):
        values = [(name, host if name == "host" else headers.get(name, "")) for name in signed]
        expected = sign(secret, method=method, path=path, headers=values, date=date, body=body)
        if hmac.compare_digest(expected, signature):
            return
    raise RequestRefusedError("E000045")


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

    *headers* are the signed headers, with lower-case names, sorted. *path* may have a query.
    """
    canonical = "\n".join(
        [
            method,
            *_canonical_target(path),
            *(f"{name}:{value.strip()}" for name, value in headers),
            "",
            ";".join(name for name, _ in headers),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    text = f"{ALGORITHM}\n{date}\n{digest}"
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex()


@lru_cache(maxsize=256)  # a few addresses are signed many times
def _canonical_target(path: str) -> tuple[str, str]:
    """Return the path and the query in the form that is signed."""
    path, _, query = path.partition("?")
    segments = [quote(segment, safe="~") for segment in unquote(path).split("/")]
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return (
        "/".join(segments).rstrip("/") + "/",  # the URL itself has no such slash
        "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs),
    )


def sdk_date(now: float) -> str:
    """Return *now* in the format of X-Sdk-Date."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")


def _parse_sdk_date(text: str) -> float | None:
    if _SDK_DATE_PATTERN.fullmatch(text) is None:
        return None
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:  # the digits are no date
        return None


def _accepted_hosts(host: str, options: Options) -> list[str]:
    """Return the Host values that a signature may cover (provider.md: not known for certain)."""
    bare = re.sub(r":[0-9]+$", "", host)
    return {"wire": [host], "bare": [bare], "either": [host, bare]}[options.signed_host]


def check_wsse(
    headers: Mapping[str, str], *, now: float, keys: Mapping[str, str], options: Options
) -> None:
    """Check an X-WSSE request. Raises RequestRefusedError if a part is missing or wrong."""
    _check_wsse_authorization(headers.get("Authorization"))
    parts = _parse_wsse(headers.get("X-WSSE"))
    created = _parse_created(parts["Created"])
    if created is None:
        raise RequestRefusedError("E000025")
    if _NONCE_PATTERN.fullmatch(parts["Nonce"]) is None:
        raise RequestRefusedError("E000101", "Nonce is not 1 to 128 letters and digits")
    if abs(now - created) > WSSE_WINDOW_SECONDS:
        raise RequestRefusedError("E000110", f"Created is {created - now:+.0f} s from this clock")
    secret = keys.get(parts["Username"])
    if secret is None:
        raise RequestRefusedError("E000102")
    expected = _digests(parts["Nonce"] + parts["Created"] + secret)
    given = parts["PasswordDigest"].encode("utf-8", "surrogateescape")
    if not any(hmac.compare_digest(expected[kind], given) for kind in options.wsse_digests):
        raise RequestRefusedError("E000105")


def _parse_wsse(header: str | None) -> dict[str, str]:
    if header is None:
        raise RequestRefusedError("E000020")
    if not header.startswith("UsernameToken "):
        raise RequestRefusedError("E000026")
    parts = dict(_PART_PATTERN.findall(header))
    for name, code in _CODE_OF_MISSING_PART.items():
        if not parts.get(name):
            raise RequestRefusedError(code)
    return parts


def _check_wsse_authorization(header: str | None) -> None:
    if header is None:
        raise RequestRefusedError("E000001")
    if not header.startswith("WSSE"):
        raise RequestRefusedError("E000008")
    parts = dict(_PART_PATTERN.findall(header))
    for name, missing, value, wrong in (
        ("realm", "E000002", "SDP", "E000004"),
        ("profile", "E000003", "UsernameToken", "E000005"),
        ("type", "E000007", "Appkey", "E000006"),
    ):
        if name not in parts:
            raise RequestRefusedError(missing)
        if parts[name] != value:
            raise RequestRefusedError(wrong)


def _digests(text: str) -> dict[str, bytes]:
    """Return Base64(SHA256(text)) in both forms: hex as in the sample, raw as in most demos."""
    digest = hashlib.sha256(text.encode())
    return {
        "hex": base64.b64encode(digest.hexdigest().encode()),
        "raw": base64.b64encode(digest.digest()),
    }


def _parse_created(text: str) -> float | None:
    if _CREATED_PATTERN.fullmatch(text) is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:  # the digits are no date
        return None
