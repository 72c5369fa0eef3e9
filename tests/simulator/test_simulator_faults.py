"""Each fault has its effect on the connection, and the ledger has what was accepted."""

import asyncio
import email.utils
import json
import time
from urllib.parse import urlsplit

import aiohttp
import pytest
from provider_client import PATH, aksk, body_of, numbers

from dispatcher.simulator import ConfigTextError, Options, read_faults
from dispatcher.simulator.fault_trigger import FaultState
from dispatcher.simulator.request import read_request

ONE = body_of("+8613800000000", token="one")


async def arm(client, *faults):
    await client.sim.faults.arm(read_faults(json.dumps(faults)))


class Raw:
    """One connection that sends and reads raw bytes."""

    def __init__(self, client) -> None:
        place = urlsplit(client.sim.url)
        self._address = (place.hostname, place.port)
        raw = json.dumps(ONE).encode()
        headers = {**aksk(raw, place.netloc), "Content-Length": str(len(raw))}
        lines = [f"POST {PATH} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
        self.head = "\r\n".join(lines).encode()
        self.body = raw

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(*self._address)

    async def send(self) -> None:
        await self.open()
        self.writer.write(self.head + self.body)
        await self.writer.drain()

    async def read_all(self) -> bytes:
        async with asyncio.timeout(30):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()


async def test_refuse_resets_connections_until_it_is_cleared(start):
    client = await start(control="127.0.0.1:0")
    assert (await client.send(ONE)).code == "000000"
    await client.session.put(client.sim.control_url + "/_faults", json={"fault": "refuse"})
    with pytest.raises(aiohttp.ClientConnectionError):  # the kept connection was reset
        await client.send(ONE)
    with pytest.raises(ConnectionRefusedError):
        await Raw(client).open()
    assert (await client.get("/_faults"))["injected"] == {"refuse": 1}
    await client.session.delete(client.sim.control_url + "/_faults")
    assert (await client.send(ONE)).code == "000000"
    assert client.sim.ledger.numbers == 2


async def test_refuse_ends_after_its_seconds(client):
    await arm(client, {"fault": "refuse", "seconds": 1.0})
    with pytest.raises(ConnectionRefusedError):
        await Raw(client).open()
    deadline = time.monotonic() + 30
    raw = Raw(client)
    while time.monotonic() < deadline:
        try:
            await raw.open()
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
    assert (await client.send(ONE)).code == "000000"
    await raw.close()


async def test_a_silent_refusal_answers_no_connecting_client(client):
    await arm(client, {"fault": "refuse", "silent": True})
    opened = [asyncio.create_task(Raw(client).open()) for _ in range(4)]
    _, waiting = await asyncio.wait(opened, timeout=0.5)
    assert len(waiting) >= 2  # the kernel's queue holds the first
    await client.sim.faults.clear()
    async with asyncio.timeout(30):
        await asyncio.gather(*opened)
    assert (await client.send(ONE)).code == "000000"


async def test_refuse_with_a_condition_begins_at_that_request(client):
    await arm(client, {"fault": "refuse", "nth": [2]})
    assert (await client.send(ONE)).code == "000000"
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.send(ONE)
    with pytest.raises(ConnectionRefusedError):
        await Raw(client).open()
    assert client.sim.ledger.numbers == 1


async def test_refuse_spares_the_connection_that_sets_it(client):
    url = client.sim.url + "/_faults"
    async with client.session.put(url, json={"fault": "refuse"}) as response:
        assert (await response.json())["injected"] == {"refuse": 1}
    with pytest.raises(ConnectionRefusedError):
        await Raw(client).open()
    async with client.session.delete(url) as response:  # over the spared connection
        assert response.status == 200
    assert (await client.send(ONE)).code == "000000"


async def test_a_second_simulator_cannot_share_a_port(client, start):
    with pytest.raises(OSError, match="in use"):
        await start(listen=urlsplit(client.sim.url).netloc)


async def test_reset_ends_the_connection_before_reading(client):
    await arm(client, {"fault": "reset"})
    raw = Raw(client)
    await raw.open()
    raw.writer.write(raw.head + raw.body)
    with pytest.raises(ConnectionResetError):
        await raw.read_all()
    assert client.sim.ledger.numbers == 0
    assert client.sim.journal[0].http_status == 0


async def test_stall_before_reading_leaves_the_body_unread(client):
    await arm(client, {"fault": "stall-before-reading"})
    raw = Raw(client)
    await raw.open()
    raw.writer.transport.set_write_buffer_limits(high=0)
    raw.writer.write(raw.head.replace(b"Content-Length: ", b"Content-Length: 9999999"))
    raw.writer.write(b" " * 60_000_000)
    with pytest.raises(TimeoutError):  # the kernel's buffers are full: the server does not read
        async with asyncio.timeout(0.5):
            await raw.writer.drain()
    await client.sim.faults.clear()
    with pytest.raises(ConnectionResetError):
        await raw.read_all()
    assert client.sim.ledger.numbers == 0


@pytest.mark.parametrize("accept", [True, False])
async def test_stall_after_reading_sends_no_answer(client, accept):
    await arm(client, {"fault": "stall-after-reading", "accept": accept})
    raw = Raw(client)
    await raw.send()
    await client.sim.until(lambda: client.sim.journal and client.sim.journal[0].faults)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await raw.reader.read(1)
    assert client.sim.ledger.numbers == int(accept)
    await client.sim.faults.clear()
    assert await raw.read_all() == b""


@pytest.mark.parametrize("reset", [True, False])
async def test_cut_accepts_and_sends_no_byte(client, reset):
    await arm(client, {"fault": "cut", "reset": reset})
    raw = Raw(client)
    await raw.send()
    if reset:
        with pytest.raises(ConnectionResetError):
            await raw.read_all()
    else:
        assert await raw.read_all() == b""
    assert client.sim.ledger.counts() == {"+8613800000000": 1}
    assert client.sim.journal[0].http_status == 0
    assert client.sim.journal[0].accepted == 1


async def test_half_answer_sends_half_of_the_body(client):
    await arm(client, {"fault": "half-answer"})
    raw = Raw(client)
    await raw.send()
    head, _, body = (await raw.read_all()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    promised = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert len(body) == promised // 2
    assert body.startswith(b'{"result"')
    assert client.sim.ledger.numbers == 1
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.send(ONE)


@pytest.mark.parametrize(
    ("form", "begins", "has"),
    [
        ("bom", b'\xef\xbb\xbf{"result"', b"+8613800000000"),
        ("gbk", b'{"result"', "\u6210\u529f".encode("gbk")),
        ("stranger", b'{"result":[{"total":1,"originTo":"+8613999999999"', b"+8613800000000"),
        ("words", b"OK", b""),
        ("empty", b"", b""),
        ("list", b"[]", b""),
        ("deep", b"[[[", b""),
    ],
)
async def test_an_odd_answer_has_its_form_and_its_numbers_are_accepted(client, form, begins, has):
    await arm(client, {"fault": "odd-answer", "form": form})
    raw = Raw(client)
    await raw.send()
    head = await raw.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    body = await raw.reader.readexactly(
        int(head.lower().partition(b"content-length: ")[2].split()[0])
    )
    assert body.startswith(begins)
    assert has in body
    assert client.sim.ledger.numbers == 1


async def test_clearing_a_delay_sends_the_whole_answer(client):
    await arm(client, {"fault": "delay", "seconds": 3600})
    late = asyncio.create_task(client.send(ONE))
    await client.sim.until(lambda: client.sim.ledger.numbers == 1)
    assert not late.done()
    await client.sim.faults.clear()
    assert (await late).code == "000000"


async def test_delay_answers_after_its_seconds(client):
    await arm(client, {"fault": "delay", "seconds": 0.3})
    before = time.monotonic()
    assert (await client.send(ONE)).code == "000000"
    assert time.monotonic() - before >= 0.3


@pytest.mark.parametrize("accept", [True, False])
@pytest.mark.parametrize("html", [True, False])
@pytest.mark.parametrize("status", [200, 429, 500, 502, 503])
async def test_http_answers_with_html_or_an_empty_body(client, status, html, accept):
    fault = {"fault": "http", "status": status, "html": html, "accept": accept, "retry_after": 7}
    await arm(client, fault)
    answer = await client.send(ONE)
    assert answer.status == status
    assert answer.body.startswith(b"<html>") if html else answer.body == b""
    assert answer.headers["Retry-After"] == "7"
    assert client.sim.ledger.numbers == int(accept)
    assert (client.sim.journal[0].http_status, client.sim.journal[0].code) == (status, "")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"fault": "code", "code": "E000000"}, 400, "E000000"),
        ({"fault": "code", "code": "E000045"}, 400, "E000045"),
        ({"fault": "code", "code": "E000101"}, 401, "E000101"),
        ({"fault": "code", "code": "E000112"}, 401, "E000112"),
        ({"fault": "code", "code": "E000620"}, 403, "E000620"),
        ({"fault": "code", "code": "E000510"}, 400, "E000510"),
        ({"fault": "code", "code": "E000623", "http_status": 200}, 200, "E000623"),
        ({"fault": "code", "code": "E999999"}, 400, "E999999"),
        ({"fault": "white-list"}, 403, "E000620"),
        ({"fault": "quota"}, 403, "E000623"),
        ({"fault": "country-closed", "country": "CN"}, 403, "E000630"),
        ({"fault": "country-closed", "prefix": "+86"}, 403, "E000630"),
        ({"fault": "bad-entry", "param": "062569"}, 400, "E000503"),
        ({"fault": "bad-entry", "template": "t" * 32, "code": "E000027"}, 400, "E000027"),
    ],
)
async def test_a_code_refuses_the_whole_request_with_its_status(client, fault, status, code):
    await arm(client, fault)
    answer = await client.send(ONE)
    assert (answer.status, answer.code) == (status, code)
    assert "result" not in answer.json
    assert client.sim.ledger.numbers == 0
    assert client.sim.journal[0].faults == [fault["fault"]]


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "country-closed", "country": "GA"},
        {"fault": "country-closed", "prefix": "+241"},
        {"fault": "bad-entry", "param": "bad"},
        {"fault": "bad-entry", "template": "other"},
        {"fault": "code", "code": "E000000", "numbers": ["+8613800000001"]},
    ],
)
async def test_a_request_without_matching_content_passes(client, fault):
    await arm(client, fault)
    assert (await client.send(ONE)).code == "000000"
    assert client.sim.faults.injected == {}


async def test_quota_and_white_list_refuse_under_their_conditions(client):
    await arm(client, {"fault": "quota", "after_accepted": 3})
    assert (await client.send(body_of(*numbers(2)))).code == "000000"
    assert (await client.send(body_of(*numbers(2)))).code == "000000"
    assert (await client.send(ONE)).code == "E000623"
    started = time.monotonic()
    await arm(client, {"fault": "white-list", "for_seconds": 3.0})
    first = (await client.send(ONE)).code
    assert first == "E000620" or time.monotonic() - started >= 3.0
    while (answer := await client.send(ONE)).code == "E000620":
        await asyncio.sleep(0.02)
        assert time.monotonic() - started < 30
    assert answer.code == "000000"
    assert time.monotonic() - started >= 3.0


async def test_number_code_refuses_the_matching_numbers_alone(client):
    await arm(client, {"fault": "number-code", "code": "E200031", "prefix": "+241"})
    answer = await client.send(body_of("+8613800000000", "+2412000000"))
    assert (answer.status, answer.code) == (400, "E000510")
    assert answer.statuses == {"+8613800000000": "000000", "+2412000000": "E200031"}
    assert client.sim.ledger.counts() == {"+8613800000000": 1}
    (rule,) = (await client.get("/_faults"))["faults"]
    assert (rule["injected"], rule["refused"]) == (1, 1)


async def test_several_number_codes_apply_and_may_be_unknown(client):
    await arm(
        client,
        {"fault": "number-code", "code": "E299999", "numbers": ["+8613800000001"]},
        {"fault": "number-code", "share": 1.0},
    )
    answer = await client.send(body_of(*numbers(3)))
    assert list(answer.statuses.values()) == ["E200015", "E299999", "E200015"]
    assert client.sim.ledger.numbers == 0


async def test_a_share_refuses_the_same_numbers_for_the_same_seed(start):
    async def refused(seed: int) -> list[str]:
        client = await start()
        await arm(client, {"fault": "number-code", "share": 0.3, "seed": seed})
        codes: list[str] = []
        for _ in range(2):
            answer = await client.send(body_of(*numbers(500)))
            assert client.sim.ledger.numbers == codes.count("000000") + list(
                answer.statuses.values()
            ).count("000000")
            codes += answer.statuses.values()
        assert codes[:500] != codes[500:]
        return codes

    first = await refused(1)
    assert 230 < first.count("E200015") < 370
    assert first == await refused(1)
    assert first != await refused(2)


async def test_numbers_above_a_rate_are_refused_for_that_second():
    (fault,) = read_faults('{"fault": "number-code", "per_second": 150}')
    state = FaultState(accepted=0, now=10.0, salt="0")
    raw = json.dumps(body_of(*numbers(100))).encode()
    sms_request = read_request(raw, "application/json", Options())

    def refused(now: float) -> list[int]:
        codes = ["000000"] * 100
        fault.refuse_numbers(sms_request, codes, state, ordinal=1, now=now)
        return [at for at, code in enumerate(codes) if code == "E200015"]

    assert refused(10.1) == []
    assert refused(10.5) == list(range(50, 100))
    assert refused(10.9) == list(range(100))
    assert refused(11.0) == []


async def test_a_request_above_the_rate_has_a_result_per_number(client):
    await arm(client, {"fault": "number-code", "per_second": 150})
    answer = await client.send(body_of(*numbers(200)))
    assert list(answer.statuses.values()) == ["000000"] * 150 + ["E200015"] * 50
    assert client.sim.ledger.numbers == 150


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", ["E000510", "E200037", "000000"])
async def test_mixed_answer_sets_any_code_and_status(client, status, code):
    await arm(
        client,
        {"fault": "number-code", "numbers": ["+8613800000001"]},
        {"fault": "mixed-answer", "code": code, "http_status": status},
    )
    answer = await client.send(body_of(*numbers(2)))
    assert (answer.status, answer.code) == (status, code)
    assert list(answer.statuses.values()) == ["000000", "E200015"]
    assert (await client.send(body_of("+8613800000000"))).code == "000000"
    assert client.sim.faults.injected["mixed-answer"] == 1


async def test_lack_repeat_and_reorder_change_the_result(client):
    sent = numbers(20)

    async def results(*faults) -> list[tuple[str, str]]:
        await arm(client, *faults)
        answer = await client.send(body_of(*sent))
        return [(row["originTo"], row["status"]) for row in answer.json["result"]]

    plain = [(number, "000000") for number in sent]
    assert await results({"fault": "lack", "count": 2}) == plain[:-2]
    assert await results({"fault": "repeat"}) == [*plain, plain[0]]
    assert await results({"fault": "repeat", "code": "E200041"}) == [*plain, (sent[0], "E200041")]
    reordered = await results({"fault": "reorder"})
    assert reordered != plain
    assert sorted(reordered) == plain
    both = await results({"fault": "lack"}, {"fault": "reorder"})
    assert sorted(both) == plain[:-1]
    assert client.sim.ledger.numbers == 5 * 20


async def test_clock_changes_date_and_with_checks_the_signature_check(client):
    for offset, checks, code in ((3600, False, "000000"), (-3600, True, "E000044")):
        await arm(client, {"fault": "clock", "offset": offset, "checks": checks})
        before = time.time()
        answer = await client.send(ONE)
        assert answer.code == code
        date = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert int(before) + offset <= date <= time.time() + offset


@pytest.mark.parametrize(
    ("condition", "affected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"nth": [2, 5]}, [2, 5]),
        ({"every": 3}, [3, 6]),
        ({"first": 2}, [1, 2]),
        ({"after": 4}, [5, 6]),
        ({"times": 1}, [1]),
        ({"every": 2, "after": 2, "times": 1}, [4]),
        ({"probability": 0.0}, []),
        ({"probability": 1.0}, [1, 2, 3, 4, 5, 6]),
        ({"for_seconds": 0.0}, []),
    ],
)
async def test_conditions_count_requests_since_the_fault_was_set(client, condition, affected):
    await client.send(ONE)
    await arm(client, {"fault": "code", "code": "E000000", **condition})
    codes = [(await client.send(ONE)).code for _ in range(6)]
    assert [at for at, code in enumerate(codes, 1) if code == "E000000"] == affected


async def test_probability_depends_on_the_seed_and_the_fault(start):
    async def faults_of_requests(seed: int) -> list[list[str]]:
        client = await start()
        chance = {"probability": 0.5, "seed": seed}
        await arm(client, {"fault": "clock", "offset": 1, **chance}, {"fault": "lack", **chance})
        for _ in range(20):
            await client.send(ONE)
        return [sorted(record.faults) for record in client.sim.journal]

    first = await faults_of_requests(1)
    assert first == await faults_of_requests(1)
    assert first != await faults_of_requests(2)
    assert {(), ("clock",), ("lack",), ("clock", "lack")} == {tuple(names) for names in first}


async def test_the_first_of_two_faults_that_end_a_request_applies(client):
    await arm(client, {"fault": "code", "code": "E000000"}, {"fault": "cut"})
    assert (await client.send(ONE)).code == "E000000"
    await arm(client, {"fault": "cut"}, {"fault": "code", "code": "E000000"})
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.send(ONE)
    assert client.sim.faults.injected == {"code": 1, "cut": 1}


async def test_faults_are_set_shown_and_cleared_over_http(client):
    url = client.sim.control_url + "/_faults"
    script = [{"fault": "code", "code": "E000000", "nth": [1]}, {"fault": "lack", "count": 3}]
    async with client.session.put(url, json=script) as response:
        assert response.status == 200
    await client.send(ONE)
    shown = await client.get("/_faults")
    assert shown["injected"] == {"code": 1}
    assert [(rule["fault"], rule["injected"]) for rule in shown["faults"]] == [
        ("code", 1),
        ("lack", 0),
    ]
    async with client.session.delete(url) as response:
        assert await response.json() == {"faults": [], "injected": {"code": 1}}
    assert (await client.send(ONE)).code == "000000"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('{"fault": "cutt"}', "cutt"),
        ('[{"fault": "cut"}, {"fault": "cut", "sooner": 1}]', "$[1]"),
        ('{"fault": "number-code", "share": 1.5}', "<= 1.0"),
        ("[", "not JSON"),
    ],
)
async def test_an_invalid_script_is_refused_with_its_position(client, script, message):
    with pytest.raises(ConfigTextError) as caught:
        read_faults(script)
    assert message in str(caught.value)
    url = client.sim.control_url + "/_faults"
    async with client.session.put(url, data=script) as response:
        assert response.status == 400
        assert message in (await response.json())["error"]
