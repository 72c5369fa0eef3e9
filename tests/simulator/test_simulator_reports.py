"""Status reports as the provider documents them, and with each kind of disorder."""

import asyncio
import json
import re
import time
from collections import Counter
from types import SimpleNamespace
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aiohttp import web
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from provider_client import body_of, numbers

from dispatcher.simulator import (
    ConfigTextError,
    Options,
    ReportOptions,
    read_faults,
    read_reports,
)


class Receiver:
    """A callback address that stores the posts and answers with a set status."""

    def __init__(self) -> None:
        self.posts: list[SimpleNamespace] = []
        self.status = 200
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.arrived = asyncio.Event()

    @property
    def reports(self) -> list[dict[str, str]]:
        return [report for post in self.posts for report in post.reports]

    async def start(self) -> None:
        self.server = web.Server(self.receive, access_log=None)
        self.accepting = await asyncio.get_running_loop().create_server(self.server, "127.0.0.1", 0)
        port = self.accepting.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/reports/secret"

    async def stop(self) -> None:
        self.accepting.close()
        self.server.pre_shutdown()
        await self.server.shutdown(timeout=1)

    async def receive(self, request: web.BaseRequest) -> web.Response:
        raw = await request.read()
        if request.content_type == "application/json":
            reports = json.loads(raw)["statusReportList"]
        else:
            reports = [dict(parse_qsl(raw.decode(), strict_parsing=True))]
        self.posts.append(
            SimpleNamespace(
                headers=request.headers, raw=raw, reports=reports, path=request.raw_path
            )
        )
        self.arrived.set()
        await self.may_answer.wait()
        return web.json_response({"returnCode": 0, "returnCodeDesc": "x"}, status=self.status)


@pytest.fixture
async def receiver():
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


async def reported(client) -> None:
    async with asyncio.timeout(60):
        await client.sim.until(lambda: client.sim.reports.idle)


async def test_each_number_gets_a_form_with_the_documented_fields(start, receiver):
    client = await start(reports=ReportOptions())
    answer = await client.send(
        body_of("+8613800000000", "13800000001", token="batch-1", statusCallback=receiver.url)
    )
    await reported(client)
    given = {row["originTo"]: row["smsMsgId"] for row in answer.json["result"]}
    assert {report["to"]: report["smsMsgId"] for report in receiver.reports} == given
    first = receiver.posts[0]
    assert first.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Authorization" not in first.headers
    (report,) = first.reports
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", report.pop("updateTime"))
    assert report == {
        "smsMsgId": given[report["to"]],
        "total": "1",
        "sequence": "1",
        "status": "DELIVRD",
        "source": "2",
        "orgCode": "000",
        "extend": "batch-1",
        "to": report["to"],
    }


async def test_without_extend_a_report_has_no_number(start, receiver):
    client = await start(reports=ReportOptions())
    await client.send(body_of("+8613800000000", statusCallback=receiver.url))
    await reported(client)
    (report,) = receiver.reports
    assert "to" not in report
    assert "extend" not in report


async def test_without_callback_or_options_no_report_is_sent(start, client, receiver):
    await client.send(body_of("+8613800000000", statusCallback=receiver.url))
    assert client.sim.reports.idle
    silent = await start(reports=ReportOptions())
    await silent.send(body_of("+8613800000000"))
    assert silent.sim.reports.idle
    assert receiver.posts == []


async def test_refused_numbers_get_no_report(start, receiver):
    client = await start(reports=ReportOptions(), options=Options(refused={"+2412": "E200031"}))
    body = body_of("+8613800000000", "+2412000000", token="t", statusCallback=receiver.url)
    await client.send(body)
    await reported(client)
    assert [report["to"] for report in receiver.reports] == ["+8613800000000"]


async def test_a_long_message_gets_one_report_per_segment(start, receiver):
    client = await start(reports=ReportOptions(), options=Options(segments=3))
    await client.send(body_of("+8613800000000", statusCallback=receiver.url))
    await reported(client)
    assert sorted(report["sequence"] for report in receiver.reports) == ["1", "2", "3"]
    assert {report["total"] for report in receiver.reports} == {"3"}


async def test_statuses_follow_the_weights_of_the_mix(start, receiver):
    mix = {"DELIVRD": 6, "SMGPERR:52": 3, "EXPIRED": 1}
    client = await start(reports=ReportOptions(mix=mix, batch=50, seed=7))
    await client.send(body_of(*numbers(500), token="t", statusCallback=receiver.url))
    await reported(client)
    counts = Counter(report["status"] for report in receiver.reports)
    assert counts.total() == 500
    assert all(0.6 * share < counts[status] / 50 < 1.4 * share for status, share in mix.items())
    for report in receiver.reports:
        made_up = report["status"] == "EXPIRED"
        assert ("updateTime" not in report) == made_up
        assert report["source"] == ("1" if made_up else "2")


async def test_batches_of_50_go_to_the_callback_or_the_batch_url(start, receiver):
    client = await start(reports=ReportOptions(batch=50))
    await client.send(body_of(*numbers(120), token="t", statusCallback=receiver.url))
    await reported(client)
    assert sorted(len(post.reports) for post in receiver.posts) == [20, 50, 50]
    assert receiver.posts[0].headers["Content-Type"] == "application/json"
    receiver.posts.clear()
    other = await start(reports=ReportOptions(batch_url=receiver.url))
    await other.send(body_of(*numbers(60), token="t"))
    await reported(other)
    assert sorted(len(post.reports) for post in receiver.posts) == [10, 50]


async def test_reports_are_lost_repeated_and_interim_by_share(start, receiver):
    options = ReportOptions(lost=0.2, duplicates=0.3, interim=0.5, batch=50, reorder=True)
    client = await start(reports=options)
    await client.send(body_of(*numbers(500), token="t", statusCallback=receiver.url))
    await reported(client)
    final = Counter(r["to"] for r in receiver.reports if r["status"] == "DELIVRD")
    assert 360 < len(final) < 440
    assert 80 < sum(1 for copies in final.values() if copies == 2) < 160
    assert 150 < sum(1 for r in receiver.reports if r["status"] == "ACCEPTD") < 350
    assert client.sim.reports.lost > 100
    assert client.sim.reports.sent == len(receiver.reports)
    in_order = [r["to"] for r in receiver.posts[0].reports]
    assert in_order != sorted(in_order)


async def test_one_seed_makes_one_sequence_of_reports(start, receiver):
    async def sequence(seed: int) -> list[tuple[str, str]]:
        receiver.posts.clear()
        options = ReportOptions(
            mix={"DELIVRD": 1, "UNDELIV": 1}, lost=0.3, reorder=True, connections=1, seed=seed
        )
        client = await start(reports=options)
        await client.send(body_of(*numbers(20), token="t", statusCallback=receiver.url))
        await reported(client)
        return [(report["to"], report["status"]) for report in receiver.reports]

    first = await sequence(1)
    assert first == await sequence(1)
    assert first != await sequence(2)


async def test_before_answer_sends_reports_before_the_answer(start, receiver):
    client = await start(reports=ReportOptions(before_answer=1.0))
    receiver.may_answer.clear()
    sent = asyncio.create_task(
        client.send(body_of(*numbers(30), token="t", statusCallback=receiver.url))
    )
    async with asyncio.timeout(30):
        await receiver.arrived.wait()
    with pytest.raises(TimeoutError):  # the answer waits for the receiver
        await asyncio.wait_for(asyncio.shield(sent), 0.2)
    receiver.may_answer.set()
    assert (await sent).code == "000000"
    assert client.sim.reports.answers == {"200": 30}
    assert client.sim.reports.idle


async def test_a_request_with_a_cut_answer_gets_its_reports(start, receiver):
    client = await start(reports=ReportOptions())
    await client.sim.faults.arm(read_faults('{"fault": "cut"}'))
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.send(body_of(*numbers(5), token="t", statusCallback=receiver.url))
    await reported(client)
    assert sorted(report["to"] for report in receiver.reports) == numbers(5)
    assert {report["extend"] for report in receiver.reports} == {"t"}


async def test_reports_are_sent_after_the_delay(start, receiver):
    client = await start(reports=ReportOptions(delay=(0.3, 0.4)))
    before = time.monotonic()
    await client.send(body_of("+8613800000000", statusCallback=receiver.url))
    # Unless this process stood still for as long.
    assert client.sim.reports.waiting == 1 or time.monotonic() - before >= 0.3
    await reported(client)
    assert time.monotonic() - before >= 0.3
    assert len(receiver.reports) == 1


@pytest.mark.parametrize("batch", [0, 50])
@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_post_is_signed_as_the_official_sdk_signs(start, receiver, batch, keep_alive):
    options = ReportOptions(push_key="push", push_secret="hush", batch=batch, keep_alive=keep_alive)
    client = await start(reports=options)
    callback = receiver.url + "?a=1"
    await client.send(body_of("+8613800000000", token="t", statusCallback=callback))
    await reported(client)
    (post,) = receiver.posts
    names = "connection;content-length;content-type;host;x-sdk-date"
    found = re.fullmatch(
        rf"SDK-HMAC-SHA256 Access=push,SignedHeaders={names},Signature=([0-9a-f]{{64}})",
        post.headers["Authorization"],
    )
    assert post.headers["Connection"] == ("keep-alive" if keep_alive else "close")
    assert post.headers["Content-Length"] == str(len(post.raw))
    headers = {name: post.headers[name] for name in names.split(";")}
    path, _, query = post.path.partition("?")
    request = SdkRequest(
        method="POST",
        schema="http",
        host=headers["host"],
        resource_path=path,
        query_params=[tuple(query.split("="))],
        header_params=headers,
        body=post.raw,
    )
    signer = Signer(SimpleNamespace(ak="push", sk="hush"))
    # The signer leaves the body of a form out of the hash; the provider's push page does not.
    signer._process_content_header = lambda _: None
    signer.sign(request)
    assert request.header_params["Authorization"].endswith("Signature=" + found[1])


async def test_a_report_is_sent_once_and_kept_if_answered_200(start, receiver):
    client = await start(reports=ReportOptions(), options=Options(segments=2))
    body = body_of("+8613800000000", token="a", statusCallback=receiver.url)
    answer = await client.send(body)
    await reported(client)
    receiver.status = 503
    await client.send(body)
    await reported(client)
    await receiver.stop()
    await client.send(body)
    await reported(client)
    shown = await client.get("/_reports")
    assert shown["answers"] == {"200": 2, "503": 2, "refused": 2}
    assert shown["sent"] == 6
    assert len(receiver.reports) == 4
    given = answer.json["result"][0]["smsMsgId"]
    assert sorted(await client.get("/_reports/answered"), key=str) == [
        {"smsMsgId": given, "sequence": 1, "status": "DELIVRD"},
        {"smsMsgId": given, "sequence": 2, "status": "DELIVRD"},
    ]


async def test_a_receiver_without_an_answer_times_out(start):
    async def swallow(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as silent_server:
        port = silent_server.sockets[0].getsockname()[1]
        client = await start(reports=ReportOptions(timeout=0.2))
        callback = f"http://127.0.0.1:{port}/"
        await client.send(body_of("+8613800000000", statusCallback=callback))
        await reported(client)
        assert client.sim.reports.answers == {"timeout": 1}


@pytest.mark.parametrize("callback", ["nonsense", "http://[", "ftp://127.0.0.1/"])
async def test_an_invalid_callback_does_not_stop_other_reports(start, receiver, callback):
    client = await start(reports=ReportOptions(connections=1))
    await client.send(body_of("+8613800000000", statusCallback=callback))
    await client.send(body_of("+8613800000000", statusCallback=receiver.url))
    await reported(client)
    assert client.sim.reports.answers == {"no address": 1, "200": 1}


async def test_reports_are_switched_over_http(client, receiver):
    url = client.sim.control_url + "/_reports"
    body = body_of("+8613800000000", token="t", statusCallback=receiver.url)
    async with client.session.put(url, json={"mix": {"UNDELIV": 1}}) as response:
        assert response.status == 200
    await client.send(body)
    await reported(client)
    assert [report["status"] for report in receiver.reports] == ["UNDELIV"]
    async with client.session.put(url, json={"mixed": 1}) as response:
        assert response.status == 400
        assert "mixed" in (await response.json())["error"]
    async with client.session.delete(url) as response:
        assert response.status == 200
    await client.send(body)
    assert client.sim.reports.idle
    assert len(receiver.reports) == 1
    with pytest.raises(ConfigTextError):
        read_reports('{"batch": 51}')


async def test_each_report_of_many_requests_is_sent_once(start, receiver):
    client = await start(reports=ReportOptions())
    for at in range(4):
        body = body_of(*numbers(500, at * 500), token=f"t{at}", statusCallback=receiver.url)
        await client.send(body)
    await reported(client)
    assert client.sim.reports.answers == {"200": 2_000}
    assert len({report["smsMsgId"] for report in receiver.reports}) == 2_000
    assert len(receiver.reports) == 2_000
