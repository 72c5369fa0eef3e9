"""Signatures hold against the vectors, and against the provider's own signer."""

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.signing import (
    AppKey,
    UnverifiedPush,
    Verified,
    aksk_headers,
    verify_push,
    wsse_headers,
)
from dispatcher.core.wire import PATH

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors.json").read_text())
KEY = AppKey("push-key-1", "push-secret-1")
SECOND = AppKey("push-key-2", "push-secret-2")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BODY = b"sequence=1&total=1&smsMsgId=b9d9b4fe_6&status=DELIVRD"
REPORTS = "/reports/s3cret"


class Credentials(NamedTuple):
    """What the SDK's signer wants to know."""

    ak: str
    sk: str


def sdk_authorization(key: AppKey, method: str, path: str, headers: dict[str, str], body: bytes):
    """Return the Authorization of the provider's own signer."""
    request = SdkRequest(
        method=method,
        resource_path=path,
        query_params=[],
        header_params=dict(headers),
        body=body,
    )
    signed = Signer(Credentials(key.key, key.secret)).sign(request)
    return signed.header_params["Authorization"]


@pytest.mark.parametrize("vector", VECTORS["aksk"], ids=lambda vector: vector["name"])
def test_the_published_aksk_vectors_hold(vector):
    method, path, query = vector["canonical"].split("\n")[:3]
    headers = aksk_headers(
        AppKey(vector["ak"], vector["sk"]),
        method=method,
        path=path.rstrip("/"),
        query=query,
        host=vector["headers"]["Host"],
        body=vector["body"].encode(),
        now=datetime.strptime(vector["headers"]["X-Sdk-Date"], "%Y%m%dT%H%M%SZ").replace(
            tzinfo=UTC
        ),
    )
    assert headers == {**vector["headers"], "Authorization": vector["authorization"]}


@pytest.mark.parametrize("digest", ["hex", "raw"])
@pytest.mark.parametrize("vector", VECTORS["wsse"], ids=lambda vector: vector["created"])
def test_the_wsse_vectors_hold_for_both_digests(vector, digest):
    headers = wsse_headers(
        AppKey("the-key", vector["secret"]),
        now=datetime.fromisoformat(vector["created"]),
        nonce=vector["nonce"],
        digest=digest,
    )
    assert headers == {
        "Content-Type": "application/json",
        "Authorization": 'WSSE realm="SDP",profile="UsernameToken",type="Appkey"',
        "X-WSSE": f'UsernameToken Username="the-key",PasswordDigest="{vector["digest_" + digest]}"'
        f',Nonce="{vector["nonce"]}",Created="{vector["created"]}"',
    }


def test_the_hex_digest_has_the_form_of_the_page():
    sample = (
        "NDA1MWIwNjI2ZTkyNWFlM2FhMTE5NDE1YTk5NjU1YWE4NjNlZTY1MmRhYzkxZGViNzczZjdjMjkzZWQ4ZjAwNA=="
    )
    ours = wsse_headers(KEY, now=NOW, nonce="n", digest="hex")["X-WSSE"].split('"')[3]
    assert len(b64decode(ours)) == len(b64decode(sample)) == 64
    assert int(b64decode(ours), 16) >= 0


hosts = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?(:[1-9][0-9]{0,4})?", fullmatch=True)
dates = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 -- naive bounds are what the strategy takes
secrets = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), min_size=1, max_size=40)
paths = st.sampled_from([PATH, PATH + "/", "/a b/ü", "/a%20b", "/"])


@given(body=st.binary(max_size=300), now=dates, host=hosts, secret=secrets, path=paths)
def test_our_headers_are_those_of_the_providers_sdk(body, now, host, secret, path):
    key = AppKey("uxOF5yvM0H3C0t5G0xc272g7hA2I", secret)
    ours = aksk_headers(key, method="POST", path=path, host=host, body=body, now=now)
    unsigned = {name: ours[name] for name in ("Content-Type", "Host", "X-Sdk-Date")}
    assert ours["Authorization"] == sdk_authorization(key, "POST", path, unsigned, body)
    assert ours["X-Sdk-Date"] == now.strftime("%Y%m%dT%H%M%SZ")


def test_the_time_that_is_signed_is_utc_wherever_we_are():
    beijing = NOW.astimezone(timezone(timedelta(hours=8)))
    request = {"method": "POST", "path": PATH, "host": "h", "body": b""}
    assert aksk_headers(KEY, now=beijing, **request) == aksk_headers(KEY, now=NOW, **request)
    same = [wsse_headers(KEY, now=now, nonce="n", digest="hex") for now in (beijing, NOW)]
    assert same[0] == same[1]


def test_a_time_without_a_zone_is_refused():
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        wsse_headers(KEY, now=naive, nonce="n", digest="hex")


def test_a_key_does_not_show_its_secret():
    assert "push-secret-1" not in repr(KEY)


def push(key: AppKey = KEY, body: bytes = BODY, at: datetime = NOW, path: str = REPORTS):
    """Return the headers of a push as the provider signs it, computed by its SDK."""
    signed = {
        "connection": "close",
        "content-length": str(len(body)),
        # The SDK exempts the body of a form from the signature; the provider's pushes do not.
        "content-type": "application/json",
        "host": "sms.example.com",
        "x-sdk-date": at.strftime("%Y%m%dT%H%M%SZ"),
    }
    authorization = sdk_authorization(key, "POST", path, signed, body).replace(", ", ",")
    return {**signed, "authorization": authorization}


def verify(headers: dict[str, str], **changes: Any) -> Verified | UnverifiedPush:
    request = {"method": "POST", "path": REPORTS, "body": BODY, "now": NOW, "assume": None}
    return verify_push([KEY, SECOND], headers=headers, **{**request, **changes})


@pytest.mark.parametrize("key", [KEY, SECOND], ids=lambda key: key.key)
def test_each_of_two_live_key_pairs_verifies_its_pushes(key):
    assert verify(push(key)) == Verified(key.key)


@given(body=st.binary(max_size=300), path=st.sampled_from([REPORTS, "/", "/a b"]), at=dates)
def test_every_push_signed_by_the_algorithm_is_verified(body, path, at):
    assert verify(push(body=body, path=path, at=at), body=body, path=path, now=at) == Verified(
        KEY.key
    )


@pytest.mark.parametrize(
    ("seconds", "taken"), [(-900, True), (900, True), (-901, False), (901, False), (86400, False)]
)
def test_a_push_is_taken_within_fifteen_minutes_of_its_signature(seconds, taken):
    answer = verify(push(at=NOW + timedelta(seconds=seconds)))
    assert isinstance(answer, Verified) is taken
    if not taken:
        assert "15 minutes" in answer.reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"host": "other.example.com"}, "wrong"),
        ({"connection": "keep-alive"}, "wrong"),
        ({"content-type": "text/plain"}, "wrong"),
        ({"x-sdk-date": "20261122T120001Z"}, "wrong"),
        ({"x-sdk-date": "2026-11-22T12:00:00Z"}, "form"),
        ({"x-sdk-date": ""}, "form"),
        ({"authorization": ""}, "no Authorization"),
        ({"authorization": 'WSSE realm="SDP"'}, "no Authorization"),
        ({"authorization": "SDK-HMAC-SHA256 Access=a,SignedHeaders=b,Signature="}, "no Author"),
        (
            {"authorization": f"SDK-HMAC-SHA256 Access=a,SignedHeaders=b,Signature={'0' * 64}"},
            "leaves out",
        ),
    ],
)
def test_a_push_with_an_altered_header_is_refused(changes, said):
    answer = verify({**push(), **changes})
    assert isinstance(answer, UnverifiedPush)
    assert said in answer.reason


def test_a_push_that_lacks_a_signed_header_is_refused():
    headers = push()
    del headers["connection"]
    assert verify(headers) == UnverifiedPush("The push lacks a header that it signed: connection.")


@given(at=st.integers(0, len(BODY) - 1), bit=st.integers(0, 7))
def test_a_push_with_one_altered_bit_of_its_body_is_refused(at, bit):
    altered = BODY[:at] + bytes([BODY[at] ^ 1 << bit]) + BODY[at + 1 :]
    assert isinstance(verify(push(), body=altered), UnverifiedPush)


@pytest.mark.parametrize("changes", [{"path": "/reports/other"}, {"method": "PUT"}, {"query": "a"}])
def test_a_push_to_another_address_is_refused(changes):
    assert isinstance(verify(push(), **changes), UnverifiedPush)


def test_a_push_of_an_unknown_key_or_a_wrong_secret_is_refused():
    unknown = verify(push(AppKey("push-key-3", "push-secret-1")))
    wrong = verify(push(AppKey("push-key-1", "push-secret-2")))
    assert unknown == UnverifiedPush("The push is signed with a key that is not set here.")
    assert isinstance(wrong, UnverifiedPush)
    assert "secret differs" in wrong.reason


def test_behind_a_proxy_host_and_connection_are_assumed():
    rewritten = {**push(), "host": "127.0.0.1:8080", "connection": "keep-alive"}
    assert isinstance(verify(rewritten), UnverifiedPush)
    assumed = {"host": "sms.example.com", "connection": "close"}
    assert verify(rewritten, assume=assumed) == Verified(KEY.key)


def test_no_header_exempts_the_body_of_a_push_from_its_signature():
    headers = {**push(), "x-sdk-content-sha256": "UNSIGNED-PAYLOAD"}
    assert isinstance(verify(headers, body=b"status=DELIVRD"), UnverifiedPush)


# Bytes of a header that are no UTF-8 come as surrogates.
header_text = st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"]))


@given(
    headers=st.dictionaries(
        st.sampled_from(["authorization", "host", "x-sdk-date", "connection"]),
        st.text() | header_text,
        min_size=1,
    ),
    body=st.binary(),
    path=st.text(),
    query=st.text(),
)
def test_any_unsigned_push_is_refused_without_an_error(headers, body, path, query):
    request = {**push(), **headers}
    answer = verify(request, body=body, path=path, query=query)
    assert isinstance(answer, UnverifiedPush)
