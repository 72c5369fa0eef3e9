"""Who may report: the secret path, the network, the signature."""

import asyncio
from datetime import timedelta

import pytest
from receiving_end import KEYS, SIGNED, TOKEN, form, receiver, signature, stored, stripped

from dispatcher.receiver.receiver import receiving
from dispatcher.settings import load_settings


async def test_another_path_is_not_found(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        for path in ("/reports/wrong", f"/reports/{TOKEN}x", f"/reports/{TOKEN[:-1]}"):
            assert (await receives.post(form(), path=path))[0] == 404
    assert await stored(db) == []


async def test_without_a_path_token_there_is_no_receiver(dsn, tmp_path):
    settings = load_settings({"DISPATCHER_DATA_DIR": str(tmp_path)})
    async with receiving(settings, dsn, asyncio.Event()) as routes:
        assert routes == []


@pytest.mark.parametrize("key", KEYS)
async def test_a_push_signed_with_either_live_key_is_taken(dsn, tmp_path, key):
    async with receiver(dsn, tmp_path, **stripped(SIGNED)) as receives:
        assert await receives.signed(form(), key=key) == (200, "Success")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"secret": "no"}, "signature"),
        ({"key": "nobody", "secret": "no"}, "key"),
        ({"ago": timedelta(minutes=16)}, "replay"),
        ({"ago": timedelta(minutes=-16)}, "clock"),
        ({"Authorization": ""}, "Authorization"),
        ({"Authorization": "SDK-HMAC-SHA256 Access=push-key"}, "Authorization"),
    ],
)
async def test_a_push_that_is_not_signed_right_is_refused(dsn, db, tmp_path, wrong, reason):
    async with receiver(dsn, tmp_path, **stripped(SIGNED)) as receives:
        status, said = await receives.signed(form(), **wrong)
        assert (status, reason in said) == (401, True)
        assert (await receives.post(form()))[0] == 401
    assert await stored(db) == []


async def test_a_signature_does_not_fit_another_body(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path, **stripped(SIGNED)) as receives:
        headers = signature(form("p1"))
        assert (await receives.post(form("p1"), **headers))[0] == 200
        assert (await receives.post(form("p2"), **headers))[0] == 401
    assert await stored(db) == [("p1", 1, "DELIVRD")]


async def test_signatures_hold_behind_a_proxy_that_rewrites_headers(dsn, tmp_path):
    proxied = stripped(SIGNED) | {"PUSH_HOST": "sms.example.com", "PUSH_CONNECTION": "keep-alive"}
    async with receiver(dsn, tmp_path, **proxied) as receives:
        rewritten = {"Host": "10.0.0.1:8080", "Connection": "close"}
        assert (await receives.signed(form(), host="sms.example.com", **rewritten))[0] == 200
    async with receiver(dsn, tmp_path, **stripped(SIGNED)) as receives:
        assert (await receives.signed(form(), host="sms.example.com", **rewritten))[0] == 401


NETWORKS = [
    ({}, {}, 200),
    ({"REPORT_NETWORKS": "127.0.0.0/8"}, {}, 200),
    ({"REPORT_NETWORKS": "provider"}, {}, 403),
    # nobody but a trusted proxy may say who the client is
    ({"REPORT_NETWORKS": "provider"}, {"X-Forwarded-For": "117.78.29.5"}, 403),
    (
        {"REPORT_NETWORKS": "provider", "TRUSTED_PROXIES": "127.0.0.1"},
        {"X-Forwarded-For": "117.78.29.5"},
        200,
    ),
    (
        {"REPORT_NETWORKS": "provider", "TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8"},
        {"X-Forwarded-For": "117.78.29.5, 10.1.2.3"},
        200,
    ),
    (
        {"REPORT_NETWORKS": "provider", "TRUSTED_PROXIES": "127.0.0.1"},
        {"X-Forwarded-For": "117.78.29.5, 9.9.9.9"},
        403,
    ),
    (
        {"REPORT_NETWORKS": "provider", "TRUSTED_PROXIES": "127.0.0.1"},
        {"X-Forwarded-For": "nonsense"},
        403,
    ),
]


@pytest.mark.parametrize(("environ", "headers", "status"), NETWORKS)
async def test_only_listed_networks_may_report(dsn, tmp_path, environ, headers, status):
    async with receiver(dsn, tmp_path, **environ) as receives:
        assert (await receives.post(form(), **headers))[0] == status
