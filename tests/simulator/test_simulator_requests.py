"""Requests that the simulator accepts or refuses, with the documented codes."""

import email.utils
import json
import re
import time

import pytest
from provider_client import KEY, SECRET, aksk, body_of, numbers, wsse

from dispatcher.simulator import Options
from dispatcher.simulator.auth import sign
from dispatcher.simulator.number_results import count_segments

ONE = body_of("+8613800000000")


async def test_a_signed_request_gets_the_documented_answer(client):
    body = body_of("+8615512345678", "+2412000000", token="batch-1")
    before = time.time()
    answer = await client.send(body)
    assert (answer.status, answer.code) == (200, "000000")
    assert answer.json["description"] == "Success"
    first, second = answer.json["result"]
    assert first["originTo"] == "+8615512345678"
    assert first["from"] == "csms100000001"
    assert first["status"] == "000000"
    assert (first["countryId"], second["countryId"]) == ("CN", "GA")
    assert first["total"] == 1
    prefix, _, position = first["smsMsgId"].rpartition("_")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", prefix)
    assert second["smsMsgId"] == f"{prefix}_{int(position) + 1}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["createTime"])
    date = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert int(before) <= date <= time.time()
    assert answer.headers["Content-Type"] == "application/json;charset=UTF-8"


def without(headers: dict[str, str], name: str) -> dict[str, str]:
    return {n: v for n, v in headers.items() if n.lower() != name.lower()}


def swap(headers: dict[str, str], name: str, old: str, new: str) -> dict[str, str]:
    assert old in headers[name]
    return {**headers, name: headers[name].replace(old, new)}


AUTH, WSSE = "Authorization", "X-WSSE"


@pytest.mark.parametrize(
    ("status", "code", "spoil"),
    [
        (400, "E000001", lambda h: without(h, AUTH)),
        (400, "E000002", lambda h: swap(h, AUTH, 'realm="SDP",', "")),
        (400, "E000003", lambda h: swap(h, AUTH, 'profile="UsernameToken",', "")),
        (400, "E000004", lambda h: swap(h, AUTH, "SDP", "SPD")),
        (400, "E000005", lambda h: swap(h, AUTH, 'profile="UsernameToken"', 'profile="x"')),
        (400, "E000006", lambda h: swap(h, AUTH, "Appkey", "appkey")),
        (400, "E000007", lambda h: swap(h, AUTH, ',type="Appkey"', "")),
        (400, "E000008", lambda h: swap(h, AUTH, "WSSE ", "Basic ")),
        (400, "E000020", lambda h: without(h, WSSE)),
        (400, "E000021", lambda h: swap(h, WSSE, "Username=", "User=")),
        (400, "E000022", lambda h: swap(h, WSSE, "Nonce=", "Once=")),
        (400, "E000023", lambda h: swap(h, WSSE, "Created=", "Made=")),
        (400, "E000024", lambda h: swap(h, WSSE, "PasswordDigest=", "Digest=")),
        (400, "E000025", lambda h: swap(h, WSSE, 'Z"', '+08:00"')),
        (400, "E000026", lambda h: swap(h, WSSE, "UsernameToken ", "")),
        (401, "E000101", lambda h: swap(h, WSSE, 'Nonce="ac1c', 'Nonce="ac 1c')),
        (401, "E000102", lambda h: swap(h, WSSE, KEY, "unknown")),
        (401, "E000105", lambda _: wsse(secret=SECRET[:-1] + "1")),
        (401, "E000110", lambda _: wsse(age=24 * 3600 + 60)),
        (401, "E000110", lambda _: wsse(age=-24 * 3600 - 60)),
    ],
)
async def test_each_mistake_of_wsse_has_its_code(client, status, code, spoil):
    answer = await client.post(json.dumps(ONE).encode(), spoil(wsse()))
    assert (answer.status, answer.code) == (status, code)
    assert "result" not in answer.json
    assert client.sim.ledger.numbers == 0


@pytest.mark.parametrize("age", [-23 * 3600, 0, 23 * 3600])
@pytest.mark.parametrize("digest", ["hex", "raw"])
async def test_wsse_is_accepted_for_a_day_with_either_digest(client, digest, age):
    answer = await client.post(json.dumps(ONE).encode(), wsse(digest=digest, age=age))
    assert answer.code == "000000"


@pytest.mark.parametrize(("accepts", "refuses"), [("hex", "raw"), ("raw", "hex")])
async def test_a_provider_with_one_digest_refuses_the_other(start, accepts, refuses):
    client = await start(options=Options(wsse_digests=(accepts,)))
    raw = json.dumps(ONE).encode()
    assert (await client.post(raw, wsse(digest=accepts))).code == "000000"
    assert (await client.post(raw, wsse(digest=refuses))).code == "E000105"


@pytest.mark.parametrize(
    ("status", "code", "changed"),
    [
        (400, "E000041", {"X_Sdk_Date": None}),
        (400, "E000042", {"X_Sdk_Date": "2023-05-19T00:50:38Z"}),
        (400, "E000042", {"X_Sdk_Date": "20231319T005038Z"}),
        (400, "E000043", {"Authorization": "SDK-HMAC-SHA256 Access=a,Signature=b"}),
        (400, "E000044", {"X_Sdk_Date": "20230519T005038Z"}),
        (400, "E000045", {"Content_Type": "application/json;charset=utf-8"}),
    ],
)
async def test_each_mistake_of_a_signed_request_has_its_code(client, status, code, changed):
    answer = await client.send(ONE, **changed)
    assert (answer.status, answer.code) == (status, code)
    assert client.sim.ledger.numbers == 0


@pytest.mark.parametrize(("age", "code"), [(14 * 60, "000000"), (16 * 60, "E000044")])
@pytest.mark.parametrize("direction", [1, -1])
async def test_a_signature_is_valid_for_15_minutes_either_way(client, age, code, direction):
    raw = json.dumps(ONE).encode()
    answer = await client.post(raw, aksk(raw, client.host, age=age * direction))
    assert answer.code == code


async def test_a_wrong_secret_key_or_body_is_refused(client):
    raw = json.dumps(ONE).encode()
    wrong_secret = aksk(raw, client.host, secret=SECRET[:-1] + "1")
    assert (await client.post(raw, wrong_secret)).code == "E000045"
    assert (await client.post(raw, aksk(raw, client.host, key="unknown"))).code == "E000102"
    assert (await client.post(raw + b" ", aksk(raw, client.host))).code == "E000045"


async def test_quoted_or_incomplete_authorizations_are_refused(client):
    raw = json.dumps(ONE).encode()
    headers = aksk(raw, client.host)
    quoted = re.sub(r"Access=([^,]+),", r'Access="\1",', headers["Authorization"])
    assert (await client.post(raw, {**headers, "Authorization": quoted})).code == "E000043"
    unsigned = headers["Authorization"].replace("content-type;host;", "content-type;")
    assert (await client.post(raw, {**headers, "Authorization": unsigned})).code == "E000043"


async def test_the_signature_must_cover_the_host_header(start):
    raw = json.dumps(ONE).encode()
    wire = await start()
    assert (await wire.post(raw, aksk(raw, "127.0.0.1"))).code == "000000"
    assert wire.sim.journal[0].host == "127.0.0.1"
    signed_elsewhere = {**aksk(raw, "127.0.0.1"), "Host": "127.0.0.1:443"}
    assert (await wire.post(raw, signed_elsewhere)).code == "E000045"
    bare = await start(options=Options(signed_host="bare"))
    assert (await bare.post(raw, signed_elsewhere)).code == "000000"
    assert (await bare.post(raw, aksk(raw, "127.0.0.1:443"))).code == "E000045"
    either = await start(options=Options(signed_host="either"))
    assert (await either.post(raw, signed_elsewhere)).code == "000000"
    assert (await either.post(raw, aksk(raw, "127.0.0.1:443"))).code == "000000"


def entry(**changed: object) -> dict[str, object]:
    made = {"to": ["+8613800000000"], "templateId": "t", "templateParas": ["1"], **changed}
    return {"from": "csms1", "smsContent": [{n: v for n, v in made.items() if v is not None}]}


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("E000027", b"{"),
        ("E000027", b'{"from":"\xff"}'),
        ("E000027", body_of(*numbers(501))),
        ("E000027", entry(templateParas=["x" * 65_536])),
        ("E000503", b"[]"),
        ("E000503", {"from": "csms1"}),
        ("E000503", {"from": "csms1", "smsContent": []}),
        ("E000503", {**ONE, "from": ""}),
        ("E000503", {**ONE, "from": "s" * 22}),
        ("E000503", {n: v for n, v in ONE.items() if n != "from"}),
        ("E000503", entry(to=[])),
        ("E000503", entry(to=["+" + "1" * 21])),
        ("E000503", entry(to=["+86138-0000"])),
        ("E000503", entry(to=["+86138,+86139"])),
        ("E000503", entry(to=["+8613800000000", ""])),
        ("E000503", entry(to="+8613800000000")),
        ("E000503", entry(templateId=None)),
        ("E000503", entry(templateId="")),
        ("E000503", entry(templateId="t" * 33)),
        ("E000503", entry(templateParas='["1"]')),
        ("E000503", entry(templateParas=[1])),
        ("E000503", entry(signature="s" * 33)),
        ("E000503", {**ONE, "statusCallback": "h" * 1025}),
        ("E000503", {**ONE, "extend": ""}),
        ("E000503", {**ONE, "extend": "e" * 129}),
        ("E000503", {**ONE, "extend": "a b"}),
        ("E000503", {**ONE, "extend": "{a}"}),
    ],
)
async def test_a_body_above_a_limit_is_refused(client, code, body):
    answer = await client.send(body)
    assert (answer.status, answer.code) == (400, code)
    assert "1380000" not in answer.json["description"]
    assert client.sim.ledger.numbers == 0


@pytest.mark.parametrize(
    "body",
    [
        body_of(*numbers(500)),
        entry(to=["+" + "1" * 20]),
        entry(to=["13800000000"]),
        entry(templateParas=None),
        entry(templateId="t" * 32, signature="s" * 32),
        {"smsContent": [{"to": ["+8613800000000"], "templateId": "t", "signature": "s"}]},
        {**ONE, "from": "s" * 21, "statusCallback": "h" * 1024, "extend": "e" * 128},
    ],
)
async def test_a_body_at_a_limit_is_accepted(client, body):
    assert (await client.send(body)).code == "000000"


async def test_a_body_of_exactly_64_kb_is_the_largest(client):
    empty = len(json.dumps(entry(templateParas=[""])))
    fits = entry(templateParas=["x" * (65_536 - empty)])
    assert len(json.dumps(fits)) == 65_536
    assert (await client.send(fits)).code == "000000"
    over = entry(templateParas=["x" * (65_536 - empty + 1)])
    assert (await client.send(over)).code == "E000027"


async def test_500_numbers_is_the_limit_of_a_request_or_an_entry(start):
    two = body_of(*numbers(300))
    two["smsContent"].append({**two["smsContent"][0], "to": numbers(300, 300)})
    assert (await (await start()).send(two)).code == "E000027"
    by_entry = await start(options=Options(numbers_per="entry"))
    assert (await by_entry.send(two)).code == "000000"


async def test_the_content_type_must_be_json(client):
    raw = json.dumps(ONE).encode()
    headers = {**wsse(), "Content-Type": "text/plain"}
    assert (await client.post(raw, headers)).code == "E000027"
    headers = {**wsse(), "Content-Type": "application/json; charset=UTF-8"}
    assert (await client.post(raw, headers)).code == "000000"


async def test_repeated_numbers_in_one_entry_are_refused(client):
    body = body_of("+8613800000000", "+8613800000001", "13800000000", "+8613800000000")
    answer = await client.send(body)
    assert (answer.status, answer.code) == (400, "E000510")
    codes = [row["status"] for row in answer.json["result"]]
    assert codes == ["000000", "000000", "E200041", "E200041"]
    assert all(row["smsMsgId"] for row in answer.json["result"])
    assert client.sim.ledger.counts() == {"+8613800000000": 1, "+8613800000001": 1}


async def test_a_repeated_number_in_another_entry_is_accepted(client):
    body = body_of("+8613800000000", token="t")
    body["smsContent"] *= 2
    assert (await client.send(body)).code == "000000"
    assert client.sim.ledger.repeated() == {("+8613800000000", "t"): 2}


async def test_prefixes_templates_and_senders_refuse_numbers(start):
    client = await start(
        options=Options(
            templates={"known": "You have ${NUM_2} parcels at ${TXT_6}"},
            senders=frozenset({"csms1"}),
            refused={"+241": "E200031", "+2412": "E200015"},
            mixed_code="000000",
            mixed_status=200,
        )
    )

    async def code(number: str, template: str, params: list[str], sender: str = "csms1") -> str:
        body = entry(to=[number], templateId=template, templateParas=params)
        answer = await client.send({**body, "from": sender})
        assert (answer.status, answer.code) == (200, "000000")
        return answer.statuses[number]

    assert await code("+8613800000000", "known", ["3", "gate 6"]) == "000000"
    assert await code("+8613800000000", "unknown", ["3", "gate 6"]) == "E200028"
    assert await code("+8613800000000", "known", ["3"]) == "E200028"
    assert await code("+8613800000000", "known", ["3", "gate 67"]) == "E200028"
    assert await code("+8613800000000", "known", ["x", "gate 6"]) == "E200028"
    assert await code("+8613800000000", "known", ["", "gate 6"]) == "E200028"
    assert await code("+8613800000000", "known", ["3", "gate 6"], "csms2") == "E200033"
    assert await code("+2411000000", "known", ["3", "gate 6"]) == "E200031"
    assert await code("+2412000000", "known", ["3", "gate 6"]) == "E200015"
    assert client.sim.ledger.numbers == 1


def test_segments_follow_the_carriers_rules():
    cases = [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("a" * 159 + "€", 2),
        ("中" * 70, 1),
        ("中" * 71, 2),
        ("中" * 134, 2),
        ("中" * 135, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
    ]
    for text, parts in cases:
        assert count_segments(text, mainland=False) == parts, text
    for text, parts in [("a" * 70, 1), ("a" * 71, 2), ("[" * 134, 2), ("a" * 135, 3), *cases[6:]]:
        assert count_segments(text, mainland=True) == parts, text


async def test_a_text_is_counted_where_it_goes(start):
    client = await start(options=Options(templates={"t": "a" * 68}))
    body = {
        "from": "csms1",
        "smsContent": [
            {"to": ["+8613800000000", "+4915112345678"], "templateId": "t", "signature": "xyz"}
        ],
    }
    answer = await client.send(body)
    assert [one["total"] for one in answer.json["result"]] == [2, 1]
    assert [row.total for row in client.sim.ledger.rows()] == [2, 1]


async def test_other_paths_and_methods_are_refused(client):
    async with client.session.post(client.sim.url + "/sms/other/v1") as response:
        assert response.status == 404
    async with client.session.get(client.sim.url + "/sms/batchSendDiffSms/v1") as response:
        assert response.status == 405


def test_sign_matches_the_published_vector():
    signature = sign(
        "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc",
        method="GET",
        path="/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs"
        "?limit=2&marker=13551d6b-755d-4757-b956-536f674975c0",
        headers=[
            ("content-type", "application/json"),
            ("host", "service.region.example.com"),
            ("x-sdk-date", "20191115T033655Z"),
        ],
        date="20191115T033655Z",
        body=b"",
    )
    assert signature == "7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe"
