"""`dispatcher run --only reports --processes N`: several receivers on one port."""

import os
import re
import signal
import socket
from pathlib import Path

import aiohttp
import pytest
from receiving_end import FORM, TOKEN, form, stored
from support.waiting import until

COUNT = 2
TAKEN = re.compile(r'^dispatcher_reports_taken_total{place="database"} (\S+)$', re.MULTILINE)


@pytest.fixture
async def receivers(workers, dsn):
    """Start receivers that share a port; return their process and their address."""
    made = workers.launch(
        {},
        dsn=dsn,
        arguments=("--only", "reports", "--processes", str(COUNT)),
        report_path_token=TOKEN,
    )

    def listening() -> list:
        return [event for event in made.events() if event.get("event") == "listening"]

    await until(lambda: len(listening()) == COUNT, deadline=60, what="they listen")
    (address,) = {(event["host"], event["port"]) for event in listening()}
    return made, "http://{}:{}".format(*address)


async def post(url: str, name: str) -> None:
    async with (  # a connection for each, so that the kernel may choose
        aiohttp.ClientSession() as session,
        session.post(
            f"{url}/reports/{TOKEN}", data=form(name), headers={"Content-Type": FORM}
        ) as answer,
    ):
        assert answer.status == 200


async def taken(url: str) -> float:
    """Return how many reports /metrics shows, whichever process answers."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        found = TAKEN.findall(await answer.text())
    assert len(found) == 1
    return float(found[0])


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
async def test_receivers_of_one_port_show_their_sums(receivers, db):
    made, url = receivers
    processes = children(made.pid)
    assert len(processes) == COUNT
    names = [f"p{number:02}" for number in range(30)]
    for name in names:
        await post(url, name)
    assert [row[0] for row in await stored(db)] == names
    assert [await taken(url) for _ in range(6)] == [30.0] * 6
    made.terminate()
    assert await made.ended() == 0
    for pid in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
async def test_all_stop_when_one_receiver_is_lost(receivers):
    made, _ = receivers
    processes = children(made.pid)
    os.kill(processes[0], signal.SIGKILL)
    assert await made.ended() == 1
    assert "a receiver ended with an error" in made.text()
    with pytest.raises(ProcessLookupError):
        os.kill(processes[1], 0)


@pytest.mark.parametrize("shared", [False, True])  # as by another group of receivers
async def test_an_address_in_use_is_one_line(workers, dsn, shared):
    with socket.create_server(("127.0.0.1", 0), reuse_port=shared) as taken_already:
        at = f"127.0.0.1:{taken_already.getsockname()[1]}"
        made = workers.launch(
            {},
            dsn=dsn,
            arguments=("--only", "reports", "--processes", "2"),
            report_path_token=TOKEN,
            listen=at,
        )
        assert await made.ended() == 1
    assert f"dispatcher: cannot listen on {at} (address already in use)" in made.text()


@pytest.mark.slow
async def test_workers_do_not_share_a_port(workers, dsn):
    made = workers.launch({}, dsn=dsn, arguments=("--processes", "2"), report_path_token=TOKEN)
    assert await made.ended() == 2
