"""The ledger has every accepted number, stays small, and is readable over HTTP."""

import asyncio
import json
import random
from collections import Counter

import pytest
from provider_client import aksk, body_of, numbers

from dispatcher.simulator import Options, fingerprint, read_faults
from dispatcher.simulator.number_results import evaluate_numbers
from dispatcher.simulator.request import read_request


async def test_the_ledger_has_the_numbers_answered_as_accepted(client):
    """Send thousands of numbers over many connections; refuse some, and lose some answers."""
    dice = random.Random(1)
    script = [
        {"fault": "code", "code": "E000000", "probability": 0.1, "seed": 1},
        {"fault": "http", "status": 503, "probability": 0.1, "seed": 2},
        {"fault": "number-code", "share": 0.2, "seed": 3},
    ]
    await client.sim.faults.arm(read_faults(json.dumps(script)))
    accepted: Counter[str] = Counter()
    ids: dict[str, str] = {}

    async def send(at: int) -> None:
        sent = dice.choices(numbers(300), k=dice.randrange(1, 80))
        answer = await client.send(body_of(*sent, token=f"token-{at}"))
        for row in answer.json.get("result", []) if answer.json else []:
            if row["status"] == "000000":
                accepted[row["originTo"]] += 1
                assert row["smsMsgId"] not in ids
                ids[row["smsMsgId"]] = row["originTo"]

    await asyncio.gather(*[send(at) for at in range(200)])
    assert accepted
    shown = await client.get("/_accepted")
    assert shown["accepted"] == accepted
    assert (shown["requests"], shown["numbers"]) == (200, accepted.total())
    assert shown["repeated"] == []
    rows = await client.get("/_ledger")
    assert {row["smsMsgId"]: row["number"] for row in rows} == ids
    assert len(rows) == accepted.total()
    records = {record.serial: record for record in client.sim.journal}
    assert all(row["token"] == records[row["request"]].token for row in rows)


async def test_each_row_identifies_the_accepted_text(client):
    body = body_of("+8613800000000", "+8613800000001", "+8613800000000", token="batch-1")
    body["smsContent"].append(
        {"to": ["+2412000000"], "templateId": "other", "templateParas": ["长" * 40, "b"]}
    )
    answer = await client.send(body)
    rows = await client.get("/_ledger")
    assert [row["number"] for row in rows] == ["+8613800000000", "+8613800000001", "+2412000000"]
    given = [row["smsMsgId"] for row in answer.json["result"] if row["status"] == "000000"]
    assert [row["smsMsgId"] for row in rows] == given
    assert [row["fingerprint"] for row in rows] == [
        fingerprint("t" * 32, ["062569"]),
        fingerprint("t" * 32, ["062569"]),
        fingerprint("other", ["长" * 40, "b"]),
    ]
    assert fingerprint("t", ["a", "b"]) != fingerprint("t", ["ab"])
    assert [row["templateId"] for row in rows] == ["t" * 32, "t" * 32, "other"]
    assert [row["total"] for row in rows] == [1, 1, 1]
    assert {row["token"] for row in rows} == {"batch-1"}


async def test_a_repeated_number_is_shown_with_its_token(client):
    await client.send(body_of("+8613800000000", token="a"))
    await client.send(body_of("+8613800000000", token="b"))
    await client.send(body_of("+8613800000000"))
    await client.send(body_of("+8613800000000"))
    assert (await client.get("/_accepted"))["repeated"] == []
    await client.send(body_of("+8613800000000", "+8613800000001", token="a"))
    shown = await client.get("/_accepted")
    assert shown["accepted"] == {"+8613800000000": 5, "+8613800000001": 1}
    assert shown["repeated"] == [{"number": "+8613800000000", "token": "a", "count": 2}]


async def test_the_ledger_can_be_read_after_a_serial(client):
    await client.send(body_of("+8613800000000"))
    (first,) = await client.get("/_ledger")
    await client.send(body_of("+8613800000001"))
    (second,) = await client.get(f"/_ledger?after={first['request']}")
    assert second["number"] == "+8613800000001"
    assert await client.get(f"/_ledger?after={second['request']}") == []
    async with client.session.get(client.sim.url + "/_ledger?after=x") as response:
        assert response.status == 400


async def test_each_request_has_a_record(start):
    client = await start(options=Options(keep_bodies=True))
    body = body_of(*numbers(3), token="batch-1")
    await client.send(body)
    raw = json.dumps(body).encode()
    await client.post(raw, {**aksk(raw, client.host), "Host": "elsewhere"})
    first, second = await client.get("/_requests")
    assert first["host"] == client.host
    assert (first["scheme"], first["size"], first["numbers"]) == ("aksk", len(raw), 3)
    assert (first["accepted"], first["token"]) == (3, "batch-1")
    assert (first["httpStatus"], first["code"], first["faults"]) == (200, "000000", [])
    assert client.sim.journal[0].body == raw
    assert (second["host"], second["code"], second["accepted"]) == ("elsewhere", "E000045", 0)
    assert second["monotonic"] >= first["monotonic"]
    assert await client.get("/_requests?after=1") == [second]


@pytest.mark.slow
async def test_the_ledger_counts_a_million_numbers(client):
    """Record them as the API does: a million numbers over HTTP would be a benchmark."""
    ledger = client.sim.ledger
    for at in range(2_000):
        raw = json.dumps(body_of(*numbers(500, at * 500))).encode()
        sms_request = read_request(raw, "application/json", Options())
        statuses, totals = evaluate_numbers(sms_request, Options())
        ledger.record(
            sms_request.body.sms_content,
            sms_request.joined,
            statuses,
            serial=at + 1,
            at=0.0,
            token=f"token-{at}",
            id_prefix="49e05e90-107a-45af-acbe-c3c1f1af25d2",
            totals=totals,
        )
    shown = await client.get("/_accepted")
    assert shown["numbers"] == len(shown["accepted"]) == 1_000_000
    lines = 0
    async with client.session.get(client.sim.url + "/_ledger") as response:
        async for chunk in response.content.iter_any():
            lines += chunk.count(b"\n")
    assert lines == 1_000_000
