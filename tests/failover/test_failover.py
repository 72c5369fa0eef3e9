"""A primary that dies or freezes, and the standby promoted: nothing lost, nothing twice."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections import Counter

import pytest
from postgres_pair import running_pair

from dispatcher.db.database import connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS
from dispatcher.db.migrate import migrate
from dispatcher.simulator import Simulator

# Seconds from the promotion to the next accepted messages: about 6 alone, more on a busy machine.
BACK_WITHIN = 20.0
DEADLINE = 60.0


class Application:
    """Inserts messages as an application would, and knows which were acknowledged."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.acknowledged: set[str] = set()
        self.numbers = map("+86131{:08d}".format, itertools.count(1))

    async def run(self) -> None:
        while True:
            with contextlib.suppress(*UNAVAILABLE_ERRORS):
                connection = await connect(self.dsn, command_timeout=2.0)
                try:
                    await self._insert(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.1)

    async def _insert(self, connection) -> None:
        while True:
            numbers = list(itertools.islice(self.numbers, 50))
            await connection.executemany(
                "INSERT INTO dispatcher.message (recipient, template_id) VALUES ($1, 'failover')",
                [(number,) for number in numbers],
            )
            self.acknowledged.update(numbers)
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def worker(dsn: str, simulator: Simulator, folder):
    """A worker process; it must stop in good order."""
    settings = {
        "DATABASE_URL": dsn,
        "DATA_DIR": str(folder),
        "LISTEN": "127.0.0.1:0",
        "LEASE": "30",
        "POLL_INTERVAL": "0.1",
        "APPS__DEFAULT__ENDPOINT": simulator.url,
        "APPS__DEFAULT__APP_KEY": "key",
        "APPS__DEFAULT__APP_SECRET": "secret",
        "APPS__DEFAULT__SENDER": "csms100000001",
        "APPS__DEFAULT__TIMEOUT": "20",
        "APPS__DEFAULT__NUMBERS_PER_SECOND": "none",
    }
    log = (folder / "worker.log").open("wb")
    with log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dispatcher",
            "run",
            env={**os.environ, **{f"DISPATCHER_{name}": value for name, value in settings.items()}},
            stderr=log,
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 0, (folder / "worker.log").read_text()[-3000:]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("fate", ["killed", "frozen"])
@pytest.mark.timeout(240)
async def test_a_lost_primary_loses_nothing_and_doubles_nothing(fate, programs, tmp_path):
    with running_pair(programs) as pair:
        await migrate(pair.dsn)
        async with Simulator(keys={"key": "secret"}) as simulator:
            async with worker(pair.dsn, simulator, tmp_path):
                application = Application(pair.dsn)
                inserting = asyncio.create_task(application.run())
                await until(lambda: simulator.ledger.numbers > 500)

                pair.kill_primary() if fate == "killed" else pair.freeze_primary()
                await asyncio.to_thread(pair.promote_standby)
                promoted = time.monotonic()
                before = simulator.ledger.numbers
                await until(lambda: simulator.ledger.numbers > before + 100)
                back = time.monotonic() - promoted

                inserting.cancel()
                await asyncio.wait([inserting])
                if fate == "frozen":
                    pair.thaw_primary()  # too late: nobody writes there any more
                states = await settled(pair.ports[1])

            accepted = {row.number: row for row in simulator.ledger.rows()}
            assert not simulator.ledger.repeated()
            assert application.acknowledged <= states.keys()
            assert set(states.values()) == {"accepted"}, states_of(states)
            assert accepted.keys() == states.keys()
            assert back < BACK_WITHIN, f"working again {back:.1f} s after the promotion"


async def test_check_says_that_the_only_host_is_a_standby(programs, command):
    with running_pair(programs) as pair:
        await migrate(pair.dsn)
        app = {"ENDPOINT": "http://127.0.0.1:1", "APP_KEY": "key", "APP_SECRET": "secret"}
        settings = {f"APPS__DEFAULT__{name}": value for name, value in app.items()}
        standby = f"postgresql://postgres@127.0.0.1:{pair.ports[1]}/postgres"
        alone = await command("check", DATABASE_URL=standby, **settings)
        both = await command("check", DATABASE_URL=pair.dsn, **settings)
    line = "FAIL  database      is a standby, and takes no writes: name the primary in"
    assert (line in alone.out, line in both.out) == (True, False)


async def until(condition) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - another process moves it
            await asyncio.sleep(0.02)


async def settled(port: int) -> dict[str, str]:
    """Wait until nothing is on its way any more; return every number's state."""
    connection = await connect(f"postgresql://postgres@127.0.0.1:{port}/postgres")
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                rows = await connection.fetch(
                    "SELECT recipient, state FROM dispatcher.message_status"
                )
                states = {row["recipient"]: row["state"] for row in rows}
                if not {"queued", "sending", "unsure"} & set(states.values()):
                    return states
                await asyncio.sleep(0.2)
    except TimeoutError:
        return states
    finally:
        await connection.close()


def states_of(states: dict[str, str]) -> str:
    return str(Counter(states.values()))
