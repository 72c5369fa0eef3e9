"""Signs requests, with either of the provider's two methods, and verifies its report pushes.

Source: provider.md, Authentication. Each try gets a new signature, because both methods sign the
time.
"""

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote

ALGORITHM = "SDK-HMAC-SHA256"
CONTENT_TYPE = "application/json"
PUSH_WINDOW = timedelta(minutes=15)  # the provider's own, for its requests and for ours
_SDK_DATE = "%Y%m%dT%H%M%SZ"
_WSSE_DATE = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class AppKey:
    """A key pair of the provider: of an application, or for pushes."""

    key: str
    secret: str = field(repr=False)


def wsse_headers(
    key: AppKey, *, now: datetime, nonce: str, digest: Literal["hex", "raw"]
) -> dict[str, str]:
    """Return the headers of a request signed with X-WSSE.

    The documents do not say what the digest encodes: their sample has the *hex* text of the hash,
    half of the provider's demos the *raw* bytes. *nonce* is 1-128 letters and digits, and new for
    every try.
    """
    created = _utc(now).strftime(_WSSE_DATE)
    hashed = hashlib.sha256(f"{nonce}{created}{key.secret}".encode())
    content = hashed.hexdigest().encode() if digest == "hex" else hashed.digest()
    return {
        "Content-Type": CONTENT_TYPE,
        "Authorization": 'WSSE realm="SDP",profile="UsernameToken",type="Appkey"',
        "X-WSSE": (
            f'UsernameToken Username="{key.key}",PasswordDigest="{b64encode(content).decode()}",'
            f'Nonce="{nonce}",Created="{created}"'
        ),
    }


def aksk_headers(
    key: AppKey,
    *,
    method: str,
    path: str,
    host: str,
    body: bytes,
    now: datetime,
    query: str = "",
    content_type: str = CONTENT_TYPE,
) -> dict[str, str]:
    """Return the headers of a request signed with AK/SK; all must be sent unchanged.

    *host* is the Host header as sent: HTTP clients drop ``:443`` there, so Host is among the
    returned headers. *body* are the bytes as sent. The parts of the header are not quoted,
    although a table of the provider shows quotes (provider.md, Authentication).
    """
    signed = {
        "content-type": content_type,
        "host": host,
        "x-sdk-date": _utc(now).strftime(_SDK_DATE),
    }
    signature = _signature(
        key.secret, method=method, path=path, query=query, headers=signed, body=body
    )
    return {
        "Content-Type": content_type,
        "Host": host,
        "X-Sdk-Date": signed["x-sdk-date"],
        "Authorization": (
            f"{ALGORITHM} Access={key.key}, SignedHeaders={';'.join(signed)}, Signature={signature}"
        ),
    }


@dataclass(frozen=True, slots=True)
class Verified:
    """A push that the provider signed."""

    key: str  # the key pair it used


@dataclass(frozen=True, slots=True)
class UnverifiedPush:
    """A push without a valid signature; it is answered with 401."""

    reason: str  # one line for people, without the signature


_AUTHORIZATION = re.compile(
    r"SDK-HMAC-SHA256 Access=(?P<access>[^,\s]{1,128}), ?"
    r"SignedHeaders=(?P<names>[a-z0-9;-]{1,512}), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)


def verify_push(
    keys: Sequence[AppKey],
    *,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    query: str = "",
    assume: Mapping[str, str] | None = None,
) -> Verified | UnverifiedPush:
    """Return whether one of *keys* signed this push (provider.md, Status reports).

    *headers* are the request's, under lower-case names; *assume* replaces some of them, for a
    proxy in front of us changes Host and Connection. Two key pairs may be in use at once; the
    signature names its key. The body is always signed: no header can exempt it.
    """
    push = _read_push({**headers, **(assume or {})}, now)
    if isinstance(push, UnverifiedPush):
        return push
    # Access is no secret: only the signatures are compared in constant time.
    key = next((key for key in keys if key.key == push.access), None)
    if key is None:
        return UnverifiedPush("The push is signed with a key that is not set here.")
    expected = _signature(
        key.secret, method=method, path=path, query=query, headers=push.signed, body=body
    )
    if hmac.compare_digest(expected, push.signature):
        return Verified(key.key)
    return UnverifiedPush(
        "The signature of the push is wrong: the secret differs, or something on the way changed"
        " the body, Host or Connection."
    )


@dataclass(frozen=True, slots=True)
class _Push:
    """The signature of a push, from its headers."""

    access: str
    signed: dict[str, str]  # the headers that were signed, in their order
    signature: str


def _read_push(headers: Mapping[str, str], now: datetime) -> _Push | UnverifiedPush:
    """Return the signature of a push if it is well-formed and recent."""
    written = _AUTHORIZATION.fullmatch(headers.get("authorization", "").strip())
    if written is None:
        return UnverifiedPush("The push has no Authorization by SDK-HMAC-SHA256.")
    names = written["names"].split(";")
    if not {"host", "x-sdk-date"} <= set(names):
        return UnverifiedPush("The signature of the push leaves out Host or X-Sdk-Date.")
    missing = [name for name in names if name not in headers]
    if missing:
        return UnverifiedPush(f"The push lacks a header that it signed: {missing[0]}.")
    signed = {name: headers[name].strip() for name in names}
    try:
        signed_at = datetime.strptime(signed["x-sdk-date"], _SDK_DATE).replace(tzinfo=UTC)
    except ValueError:
        return UnverifiedPush("X-Sdk-Date of the push is not of the form yyyyMMdd'T'HHmmss'Z'.")
    if abs(now - signed_at) > PUSH_WINDOW:
        return UnverifiedPush(
            "The push was signed over 15 minutes ago or ahead: a replay, or a clock."
        )
    return _Push(written["access"], signed, written["signature"])


def _signature(
    secret: str, *, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> str:
    """Return the signature of a request over *headers*, given by lower-case name, in order."""
    lines = [
        method.upper(),
        _canonical_path(path),
        _canonical_query(query),
        *(f"{name}:{value.strip()}" for name, value in headers.items()),
        "",
        ";".join(headers),
        hashlib.sha256(body).hexdigest(),
    ]
    canonical = "\n".join(lines).encode(errors="surrogateescape")
    to_sign = "\n".join((ALGORITHM, headers["x-sdk-date"], hashlib.sha256(canonical).hexdigest()))
    return hmac.digest(secret.encode(), to_sign.encode(), "sha256").hex()


def _canonical_path(path: str) -> str:
    """Return *path* as it is signed: always with a slash at its end, which the URL has not."""
    quoted = "/".join(quote(unquote(part), safe="~") for part in path.split("/"))
    return quoted if quoted.endswith("/") else quoted + "/"


def _canonical_query(query: str) -> str:
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)


def _utc(now: datetime) -> datetime:
    """Return *now* in UTC: the provider refuses local time with a Z."""
    if now.tzinfo is None:
        raise ValueError("now must have a time zone")
    return now.astimezone(UTC)
