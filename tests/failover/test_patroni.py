"""A switch-over and a crash under Patroni, at 2,000 messages a second; see CONTRIBUTING.md."""

import asyncio
import shutil
import time
from collections import Counter
from contextlib import suppress

import pytest
from patroni_cluster import Cluster, Node, patroni_cluster
from support.fixtures import working
from support.provider import app_at, provider_process
from support.waiting import until

from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS
from dispatcher.db.migrate import migrate

RATE = 2000  # messages a second
STEP = 100  # messages in one transaction
USUAL = 5.0  # seconds of load before and after
BACK_WITHIN = 10.0  # seconds from the promotion until messages that came after it are sent
SETTINGS = {"lease": "13s", "poll_interval": "100ms"}
APP = {"timeout": "3s"}


class Application:
    """Inserts RATE messages a second, as far as it can, and knows which were acknowledged."""

    def __init__(self, dsn: str) -> None:
        self.acknowledged: list[str] = []
        self._dsn = dsn
        self._made = 0

    async def run(self) -> None:
        """Insert until cancelled; what was not acknowledged is not inserted again."""
        while True:
            with suppress(*UNAVAILABLE_ERRORS):
                connection = await connect(self._dsn, command_timeout=2.0)
                try:
                    await self._insert(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.1)

    async def _insert(self, connection: OwnConnection) -> None:
        due = time.monotonic()
        while True:
            numbers = [f"+86131{n:08d}" for n in range(self._made, self._made + STEP)]
            self._made += STEP
            await connection.execute(
                "INSERT INTO dispatcher.message (recipient, template_id)"
                " SELECT unnest($1::text[]), 'failover'",
                numbers,
            )
            self.acknowledged += numbers
            due += STEP / RATE
            await asyncio.sleep(due - time.monotonic())


@pytest.fixture
def tools(request):
    """The folder of Patroni's programs, as the command line names it."""
    folder = request.config.getoption("--patroni")
    if folder is None:
        pytest.skip("takes a minute: asked for with --patroni FOLDER (see CONTRIBUTING.md)")
    for program in (folder / "patroni", folder / "patronictl"):
        if not program.exists():
            pytest.skip(f"{program} is missing: pip install 'patroni[etcd3,psycopg3]'")
    if shutil.which("etcd") is None:
        pytest.skip("etcd is missing: apt install etcd-server")
    return folder


@pytest.mark.timeout(400)
async def test_a_switch_over_and_a_crash_lose_nothing_and_double_nothing(
    tools, programs, tmp_path, capsys
):
    with patroni_cluster(tools, programs) as cluster:
        await cluster.start()
        await migrate(cluster.dsn)
        async with provider_process() as provider:
            with working(cluster.dsn, tmp_path) as workers:
                for name in ("one", "two"):
                    folder = {"data_dir": tmp_path / name}
                    await workers.start(
                        {"default": app_at(provider.url, **APP)}, **SETTINGS, **folder
                    )
                application = Application(cluster.dsn)
                inserting = asyncio.create_task(application.run())
                await asyncio.sleep(USUAL)

                backs = {}
                for fail_over in (switch_over, crash):
                    # A leader without a synchronous standby acknowledges what is on it alone.
                    await until(cluster.whole, deadline=60, every=0.3, what="all nodes follow")
                    old = await cluster.leader()
                    assert old is not None
                    began, before = time.monotonic(), len(application.acknowledged)
                    asking = asyncio.create_task(fail_over(cluster, old))
                    new, promoted = await promotion(cluster, old)
                    backs[fail_over.__name__] = promoted - began, await working_again(new, promoted)
                    await asking
                    assert len(application.acknowledged) > before
                    await asyncio.sleep(USUAL)

                inserting.cancel()
                await asyncio.wait([inserting])
                states = await settled(new)
            accepted = Counter(row.number for row in await provider.ledger())

    with capsys.disabled():  # the figures of the drill
        for name, (until_promoted, back) in backs.items():
            print(f"\n{name}: promoted after {until_promoted:.1f} s, working {back:.1f} s later")  # noqa: T201 - as above
        print(f"{len(application.acknowledged)} acknowledged, {len(states)} sent")  # noqa: T201 - as above
    assert max(accepted.values()) == 1
    assert set(application.acknowledged) <= states.keys()
    assert set(states.values()) == {"accepted"}, Counter(states.values())
    assert accepted.keys() == states.keys()
    for name, (_, back) in backs.items():
        assert back < BACK_WITHIN, f"{name}: working again {back:.1f} s after the promotion"


async def switch_over(cluster: Cluster, old: Node) -> None:
    await cluster.switch_over(old)


async def crash(_: Cluster, old: Node) -> None:
    old.crash()


async def promotion(cluster: Cluster, old: Node) -> tuple[Node, float]:
    """Wait until another node than *old* takes writes; return it, and when it was seen to."""
    others = [node for node in cluster.nodes.values() if node is not old]

    async def promoted() -> Node | None:
        for node in others:
            with suppress(*UNAVAILABLE_ERRORS):
                async with asyncio.timeout(1):
                    connection = await connect(node.dsn)
                    try:
                        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
                            return node
                    finally:
                        connection.terminate()
        return None

    new = await until(promoted, deadline=60, every=0.05, what="another node is promoted")
    return new, time.monotonic()


async def working_again(new: Node, promoted: float) -> float:
    """Wait until a second's load that came after the promotion is sent; return how long it took."""
    connection = await connect(new.dsn)
    last = await connection.fetchval("SELECT coalesce(max(id), 0) FROM dispatcher.message")
    await until(
        lambda: connection.fetchval(
            "SELECT count(*) >= $2 FROM dispatcher.outcome WHERE message_id > $1", last, RATE
        ),
        deadline=60,
        every=0.1,
        what="it works again",
    )
    await connection.close()
    return time.monotonic() - promoted


async def settled(new: Node) -> dict[str, str]:
    """Wait until nothing is on its way any more; return every number's state."""
    connection = await connect(new.dsn)
    try:
        await until(
            lambda: connection.fetchval(
                "SELECT NOT EXISTS (SELECT FROM dispatcher.queue)"
                " AND NOT EXISTS (SELECT FROM dispatcher.bulk)"
                " AND NOT EXISTS (SELECT FROM dispatcher.batch WHERE state <> 'closed')"
            ),
            deadline=90,
            every=0.2,
            what="everything has its end",
        )
        rows = await connection.fetch("SELECT recipient, state FROM dispatcher.message_status")
        return {row["recipient"]: row["state"] for row in rows}
    finally:
        await connection.close()
