"""Workers on hosts of their own, a database host, a provider host, and an application's load."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import asyncpg
from hosts import Host, Network, network
from support.exactness import Books, read_books
from support.fixtures import Workers, working
from support.messages import insert
from support.provider import ProviderProcess, app_at, provider_process
from support.tcp_postgres import loopback_server
from support.worker import Settings, WorkerProcess

from dispatcher.db.database import connect
from dispatcher.db.migrate import migrate

PORT = 8080
PROVIDER_PORT = 8000
STEP = 20  # messages inserted at once
LATENCY = 0.1  # seconds until the provider answers: something is always on its way


@dataclass
class Site:
    """A worker, and the host it is on."""

    host: Host
    worker: WorkerProcess
    id: int

    def says(self, event: str) -> int:
        """How often it has logged *event*."""
        return sum(one.get("event") == event for one in self.worker.events())

    async def ready(self) -> tuple[int, str]:
        """Return what its /readyz answers on its own host."""
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> tuple[int, str]:
        with self.host.inside():
            try:
                with urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=20) as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as refused:
                return refused.code, refused.read().decode()


class Scene:
    """All of them."""

    def __init__(
        self,
        net: Network,
        place: "Place",
        db: asyncpg.Connection,
        *,
        provider: ProviderProcess,
        workers: Workers,
    ) -> None:
        self.network = net
        self.place = place
        self.db = db
        self.provider = provider
        self.inserted = 0
        self._workers = workers

    async def add(self, name: str, app: Settings, **settings: object) -> Site:
        """Start a worker on a new host, and wait until it works."""
        host = self.network.host(name)
        with host.inside():
            worker = self._workers.launch(
                {"default": app_at(self.provider.url, **app)},
                listen=f"127.0.0.1:{PORT}",
                data_dir=self._workers.folder / name,
                **settings,
            )
        return Site(host, worker, await worker.started())

    @asynccontextmanager
    async def loaded(self, rate: float) -> AsyncIterator[None]:
        """Have an application insert *rate* messages a second as long as the context lasts."""
        over = asyncio.Event()
        task = asyncio.create_task(self._insert(rate, over))
        try:
            yield
        finally:
            over.set()
            await task

    async def _insert(self, rate: float, over: asyncio.Event) -> None:
        own = await connect(self.place.dsn)
        while not over.is_set():
            await insert(own, STEP, first=self.inserted)
            self.inserted += STEP
            await asyncio.sleep(STEP / rate)
        await own.close()

    async def batches(self, *sites: Site) -> dict[int, int]:
        """Return how many batches each of *sites* has made so far."""
        rows = await self.db.fetch(
            "SELECT s.id, (SELECT count(*) FROM dispatcher.batch b WHERE b.worker = s.id)"
            " FROM unnest($1::bigint[]) AS s (id)",
            [site.id for site in sites],
        )
        return dict(rows)

    async def books(self) -> Books:
        """Read both books."""
        return await read_books(self.db, await self.provider.ledger())


@dataclass(frozen=True)
class Place:
    """Where everything is that workers need."""

    database: Host
    provider: Host
    dsn: str


@asynccontextmanager
async def scene(folder: Path, programs: Path | None) -> AsyncIterator[Scene]:
    """Set up a network with the hosts of the database and of the provider."""
    with network() as net, ExitStack() as stack:
        database, provider = net.host("database"), net.host("provider")
        with database.inside():
            dsn = stack.enter_context(loopback_server(programs, host=database.address))
        await migrate(dsn)
        workers = stack.enter_context(working(dsn, folder))
        async with provider_process(
            listen=f"{provider.address}:{PROVIDER_PORT}",
            faults=json.dumps([{"fault": "delay", "seconds": LATENCY}]),
            inside=provider.inside,
        ) as process:
            db = await connect(dsn)
            place = Place(database, provider, dsn)
            yield Scene(net, place, db, provider=process, workers=workers)
            await db.close()
