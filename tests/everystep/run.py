"""One run: the scene is played, one step of it is struck, and all must end well."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Self
from urllib.parse import parse_qs

import asyncpg
from support.exactness import read_books
from support.fast_forward import forget_heartbeat
from support.provider import app_at, provider
from support.worker import environment

from dispatcher.bench.ports import free_port
from dispatcher.db.database import connect
from dispatcher.simulator import Simulator
from everystep import verdict
from everystep.fork_server import ForkServer
from everystep.http_proxy import CONNECT, Exchange, HttpProxy
from everystep.place import Place
from everystep.postgres_proxy import PostgresProxy
from everystep.scene import (
    APPS,
    CIRCUIT_UNKNOWN,
    LOOK,
    REPORTS,
    Application,
    pass_time,
    provider_faults,
)
from everystep.servers import TEMPLATE, Server
from everystep.steps import CUTS, FREEZE, KILL, Script

# Seconds for a request. Reports that come before an answer hold it up, and the receiver waits up to
# five seconds for a database that is gone or locked.
TIMEOUT = 12.0
LEASE = TIMEOUT + 10.0  # the shortest that goes with it
FROZEN = {"worker": LEASE + 8.0, "receiver": 6.0}  # seconds; a receiver has no lease
GIVEN_UP = LEASE + 3.0  # seconds frozen until others send again what was surely not sent
SILENCE = 3600.0  # seconds before the policy sends again
PATIENCE = 200.0  # seconds for each part of a run
THE_SCENE = "the scene"
PORT_IS_TAKEN = "address already in use"  # by another process of this machine
REPORT_TOKEN = "everystep-reports-token"


class NoStartError(Exception):
    """A process of the service ends at each start, although nothing is struck any more."""


@dataclass(frozen=True)
class Job:
    """What to strike, and with what; nothing for a run that only counts."""

    label: str | None = None
    fault: str | None = None


@dataclass
class Result:
    """How a run ended."""

    job: Job
    reached: bool = False
    problems: list[str] = field(default_factory=list)
    unsure: int = 0  # batches that were for a time
    lost_reports: int = 0  # that were sent and not taken
    by_hand: int = 0  # batches that a person had to settle
    seconds: float = 0.0
    folder: str = ""
    broken: str = ""  # an error of the machine: the run shows nothing, and is repeated
    stalled: str = ""  # the scene ran out of time; a problem if it does so on a calm machine too
    steps: dict[str, bool] = field(default_factory=dict)

    def fail(self, error: Exception, doing: str) -> None:
        """Note that *error* ended the run while it was *doing* something."""
        why = f"{type(error).__name__}: {error} ({doing})"
        if isinstance(error, TimeoutError) and doing == THE_SCENE:
            self.stalled = why
        elif isinstance(error, NoStartError) and PORT_IS_TAKEN in why:
            self.broken = why
        else:
            self.problems.append(why)

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Self:
        """Return the result that `dataclasses.asdict` made into *fields*."""
        return cls(**fields | {"job": Job(**fields["job"])})


async def run(job: Job, server: Server, forks: ForkServer, folder: Path, *, keep: bool) -> Result:
    """Do *job* on a database of its own; the logs are kept if anything is wrong, or *keep*."""
    began = monotonic()
    folder.mkdir(parents=True)  # noqa: ASYNC240 - in memory
    result = Result(job, folder=str(folder))
    name = f"run_{folder.name.replace('-', '_')}"
    admin = await connect(server.dsn("postgres"))
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    await admin.close()
    try:
        async with _stage(job, server, forks, folder, name) as stage:
            try:
                await stage.play_or_fail(result)
            except Exception as error:  # noqa: BLE001 - a run that fails is a finding too
                result.fail(error, stage.doing)
            result.problems += stage.troubles()
            result.steps = stage.script.steps
            result.reached = stage.script.struck
    finally:
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            admin = await connect(server.dsn("postgres"))
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await admin.close()
    result.seconds = monotonic() - began
    if not (result.problems or result.stalled or keep):
        shutil.rmtree(folder)
        result.folder = ""
    return result


@asynccontextmanager
async def _stage(
    job: Job, server: Server, forks: ForkServer, folder: Path, database: str
) -> AsyncIterator["_Stage"]:
    async with provider(faults=provider_faults(), reports=REPORTS) as simulator:
        stage = _Stage(
            job,
            server,
            forks,
            folder=folder,
            dsn=server.dsn(database),
            simulator=simulator,
        )
        try:
            await stage.set_up()
            yield stage
        finally:
            await stage.clear()


class _Stage:
    """All that takes part in one run."""

    def __init__(
        self,
        job: Job,
        server: Server,
        forks: ForkServer,
        *,
        folder: Path,
        dsn: str,
        simulator: Simulator,
    ) -> None:
        self.script = Script(job.label, job.fault)
        self.doing = "start"
        self._job = job
        self._server = server
        self._simulator = simulator
        self._dsn = dsn
        self._folder = folder
        self._application = Application(dsn, simulator)
        self._watch = Application(dsn, simulator)
        self._watch_frozen = Application(dsn, simulator)
        self._look = Application(dsn, simulator)
        self._looking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._restarting: asyncio.Task[None] | None = None
        self._http: list[HttpProxy] = []
        self._databases: list[PostgresProxy] = []
        self._places = {
            name: Place(
                name,
                self.script,
                forks,
                folder,
                self._crash,
                database_up=server.up,
                frozen_for=FROZEN[name.rstrip("12")],
                on_freeze=self._give_up,
                arguments=("--only", "reports" if name == "receiver" else "worker"),
            )
            for name in ("worker1", "worker2", "receiver")
        }

    async def set_up(self) -> None:
        """Start proxies, then processes."""
        port = free_port()
        receiver = self._places["receiver"]
        posts = HttpProxy(
            receiver, lambda: ("127.0.0.1", port), self._name_of_post, what="report",
            at_client=False,
        )  # fmt: skip
        address = f"http://127.0.0.1:{await posts.start()}"
        callback = f"{address}/reports/{REPORT_TOKEN}"
        self._application.reply_url = f"{address}/replies/{REPORT_TOKEN}"
        self._http.append(posts)
        host, _, number = self._simulator.url.removeprefix("http://").partition(":")
        for name, place in self._places.items():
            database = PostgresProxy(place, self._server.socket, self._has_work)
            self._databases.append(database)
            path = self._dsn.partition("@")[2].partition("?")[0]
            address = f"127.0.0.1:{await database.start()}{path}?sslmode=disable"
            settings: dict[str, object] = {
                "data_dir": self._folder / name,
                "poll_interval": "3s",
                "lease": f"{LEASE}s",
            }
            apps: dict[str, dict[str, object]] = {}
            if name == "receiver":
                settings |= {"listen": f"127.0.0.1:{port}", "report_path_token": REPORT_TOKEN}
            else:
                settings |= {"callback_url": callback, "report_path_token": REPORT_TOKEN}
                way = HttpProxy(
                    place, lambda: (host, int(number)), _name_of_request, what="request",
                    at_client=True,
                )  # fmt: skip
                url = f"http://127.0.0.1:{await way.start()}"
                self._http.append(way)
                apps = {
                    app: app_at(
                        url,
                        timeout=f"{TIMEOUT}s",
                        on_unsure=policy,
                        circuit_unknown=CIRCUIT_UNKNOWN.get(app, 3),
                        resend_after=f"{SILENCE}s",
                    )
                    for app, policy in APPS.items()
                }
            # The provider is reached over HTTP: the certificates of this machine need not be read.
            place.environ = environment(f"postgresql://postgres@{address}", apps, settings) | {
                "SSL_CERT_FILE": "/dev/null",
                "SSL_CERT_DIR": "/dev/null",
            }
        for place in self._places.values():
            await place.start()
            self._task(place.keep_up(self._died))

    async def clear(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()
        for place in self._places.values():
            place.end()
        for proxy in (*self._http, *self._databases):
            proxy.close()
        self._application.close()
        self._watch.close()
        self._look.close()
        self._watch_frozen.close()
        if self._restarting is not None:
            await self._restarting

    async def play_or_fail(self, result: Result) -> None:
        """Play the scene to its end, and judge; stop as soon as a process cannot start."""
        playing = asyncio.ensure_future(self._play(result))
        try:
            while not playing.done():
                await asyncio.wait([playing], timeout=1.0)
                if failed := [place.no_start for place in self._places.values() if place.no_start]:
                    raise NoStartError(failed[0])
        finally:
            playing.cancel()
            await asyncio.wait([playing])
        playing.result()

    async def _play(self, result: Result) -> None:
        places = self._places
        await self._wait(
            lambda: (
                places["receiver"].works
                and any(p.works for p in places.values() if p.role == "worker")
            ),
            "the receiver and a worker start",
        )
        self.doing = THE_SCENE
        async with asyncio.timeout(PATIENCE):
            await self._application.play()
        await self._wait(lambda: all(place.works for place in places.values()), "all work again")
        for place in places.values():
            await place.thawed()
        if self._job.label and not self.script.struck:
            self.script.closed = True
            return
        await self._until(Application.nothing_waits, "everything has its end")
        reports = self._simulator.reports
        await self._wait(lambda: reports.idle, "all reports are sent")
        acknowledged = {one.sms_msg_id for one in reports.acknowledged()}
        result.lost_reports = reports.sent - reports.answers["200"]
        self.doing = "reports are matched"
        await self._until(self._matched(acknowledged), "taken reports are matched", fail=False)
        # Those that were kept on disk are stored after the reports.
        await self._until(self._has_replies, "taken replies are stored", fail=False)
        self.script.closed = True
        await self._judge(result, acknowledged)

    async def _judge(self, result: Result, acknowledged: set[str]) -> None:
        ask = self._watch.ask
        rows = await ask(_ever_unsure)
        result.unsure = len(rows)
        strike = next((p for p in self._places.values() if p.struck_at is not None), None)
        workers: set[int] = set()
        if strike is not None and self._job.fault in (KILL, FREEZE):
            workers = strike.worker_ids()
        struck = next((way.struck for way in self._http if way.struck), None)
        token = struck.token if struck and self._job.fault in CUTS else None
        if struck == CONNECT and strike is not None:  # one request was about to use it
            mine = strike.worker_ids()
            token = next((row["token"] for row in rows if row["worker"] in mine), None)
        result.problems += verdict.of_unsure(
            rows,
            workers=workers,
            struck_at=max(strike.struck_at or 0.0, strike.ended_at) if strike else 0.0,
            token=token,
        )
        ledger = list(self._simulator.ledger.rows())
        books = await ask(lambda db: read_books(db, ledger))
        result.problems += verdict.of_reports(books, acknowledged)
        result.problems += verdict.of_replies(
            await ask(_stored_replies), self._simulator.reports.replies["200"]
        )
        if result.lost_reports and not self._may_lose_reports():
            result.problems.append(f"{result.lost_reports} reports were not taken")
        self.doing = "what is still unsure is settled"
        await ask(_keep_silent)
        await self._settle_all(result)
        ledger = list(self._simulator.ledger.rows())
        books = await ask(lambda db: read_books(db, ledger))
        result.problems += verdict.of_ends(books)

    async def _settle_all(self, result: Result) -> None:
        """Settle what is unsure, by policy or by hand, until every message has its end."""
        ask = self._watch.ask
        end = monotonic() + PATIENCE
        while True:
            requeued = await ask(self._application.requeue)
            if not requeued and await ask(_nothing_open) and await ask(Application.nothing_waits):
                return
            if monotonic() > end:
                raise TimeoutError
            await ask(pass_time)
            if await ask(_only_held):
                sent = [row.token for row in self._simulator.ledger.rows()]
                result.by_hand += await ask(lambda db, sent=sent: _settle(db, sent))
            await asyncio.sleep(LOOK)

    def _may_lose_reports(self) -> bool:
        """Tell whether a report may be lost: the way of it was cut, or its receiver killed."""
        receiver = self._places["receiver"]
        return receiver.struck_at is not None and self._job.fault in (*CUTS, KILL)

    def troubles(self) -> list[str]:
        """Return what no process may do."""
        return [
            trouble
            for place in self._places.values()
            for trouble in (*place.problems, *place.stumbles())
        ]

    def _crash(self) -> None:
        self._server.crash()
        self._restarting = asyncio.create_task(self._restart())

    async def _restart(self) -> None:
        await asyncio.sleep(0.2)
        await self._server.start()

    def _give_up(self, place: Place) -> None:
        # What the proxy holds of a request that is half written would pass at the thaw: nobody
        # can know that, and no policy is so quick.
        if place.role == "worker" and not (self._job.label or "").startswith("request"):
            self._task(self._send_again(place))

    async def _send_again(self, place: Place) -> None:
        """While *place* is frozen, have the others send what it has claimed and not sent.

        The policy and an operator do so where no report came; when it thaws, it must not send.
        """
        await asyncio.sleep(GIVEN_UP)
        while place.frozen:
            if self._simulator.reports.idle:
                sent = [row.token for row in self._simulator.ledger.rows()]
                await self._watch_frozen.ask(lambda db, sent=sent: _resend(db, sent))
            await asyncio.sleep(LOOK)

    async def _died(self, pid: int) -> None:
        """Let the lease of a dead worker run out at once."""

        async def forget(db: asyncpg.Connection) -> bool:
            for row in await db.fetch("SELECT id FROM dispatcher.worker WHERE pid = $1", pid):
                await forget_heartbeat(db, row["id"])
            return True

        database = Application(self._dsn, self._simulator)
        await database.ask(forget)
        database.close()

    async def _has_work(self, app: str) -> bool:
        """Tell whether messages of *app* are due, so that a claim will find some."""
        if self.script.struck or self.script.closed:
            return False

        async def due(db: asyncpg.Connection) -> bool:
            return bool(
                await db.fetchval(
                    "SELECT EXISTS (SELECT FROM dispatcher.queue"
                    " WHERE app = $1 AND due_at <= clock_timestamp())"
                    " OR EXISTS (SELECT FROM dispatcher.bulk"
                    " WHERE app = $1 AND due_at <= clock_timestamp())",
                    app,
                )
            )

        async with self._looking:
            return await self._look.ask(due)

    def _name_of_post(self, body: bytes) -> Exchange:
        """Name a report by when it comes: before the answer of its request, or after."""
        fields = parse_qs(body.decode())
        if "status" not in fields:
            return Exchange("reply")
        token = fields.get("extend", [""])[0]
        closed = any(
            record.token == token and record.seconds is not None
            for record in self._simulator.journal
        )
        return Exchange("after its answer" if closed else "before its answer")

    def _task(self, work: Awaitable[None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    async def _wait(self, condition: Callable[[], bool], what: str) -> None:
        self.doing = what
        end = monotonic() + PATIENCE
        while not condition():
            if monotonic() > end:
                raise TimeoutError(what)
            await asyncio.sleep(0.05)

    async def _until(
        self,
        condition: Callable[[asyncpg.Connection], Awaitable[bool]],
        what: str,
        *,
        fail: bool = True,
    ) -> None:
        self.doing = what
        end = monotonic() + PATIENCE
        while not await self._watch.ask(condition):
            if monotonic() > end:
                if fail:
                    raise TimeoutError(what)
                return
            await self._watch.ask(pass_time)
            await asyncio.sleep(LOOK)

    def _matched(self, acknowledged: set[str]) -> Callable[[asyncpg.Connection], Awaitable[bool]]:
        async def matched(db: asyncpg.Connection) -> bool:
            books = await read_books(db, self._simulator.ledger.rows())
            return not verdict.of_reports(books, acknowledged)

        return matched

    async def _has_replies(self, db: asyncpg.Connection) -> bool:
        return len(await _stored_replies(db)) >= self._simulator.reports.replies["200"]


def _name_of_request(body: bytes) -> Exchange:
    """Name a request by the first of its messages."""
    try:
        told = json.loads(body)
        names = [entry["templateParas"][0] for entry in told.get("smsContent", ())]
    except (ValueError, LookupError, TypeError, AttributeError):
        return Exchange("unreadable")
    return Exchange(min(names) if names else "probe", told.get("extend"))


async def _stored_replies(db: asyncpg.Connection) -> list[str]:
    return [
        row["provider_id"] for row in await db.fetch("SELECT provider_id FROM dispatcher.reply")
    ]


async def _ever_unsure(db: asyncpg.Connection) -> list[asyncpg.Record]:
    return await db.fetch(
        "SELECT b.token, b.worker, b.code, extract(epoch FROM b.opened_at)::float8 AS opened,"
        " array(SELECT m.params[1] FROM dispatcher.message m WHERE m.id = ANY (b.message_ids))"
        " AS names FROM dispatcher.batch b WHERE b.unsure_at IS NOT NULL"
    )


async def _keep_silent(db: asyncpg.Connection) -> bool:
    await db.execute(
        "UPDATE dispatcher.batch SET unsure_at = unsure_at - make_interval(secs => $1)"
        " WHERE state = 'unsure'",
        2 * SILENCE,
    )
    return True


async def _nothing_open(db: asyncpg.Connection) -> bool:
    """Tell whether every request is closed: none is open, none unsure."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.batch WHERE state <> 'closed')"
    )


async def _only_held(db: asyncpg.Connection) -> bool:
    """Tell whether only a person can settle what is left: the policy is hold, or a report came."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.batch b WHERE b.state = 'unsure' AND b.app = 'one'"
        " AND NOT EXISTS (SELECT FROM dispatcher.report r WHERE r.token = b.token))"
        " OR EXISTS (SELECT FROM dispatcher.queue) OR EXISTS (SELECT FROM dispatcher.bulk)"
        " OR EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')"
    )


async def _resend(db: asyncpg.Connection, sent: list[str | None]) -> bool:
    """Settle as not sent what is unsure and not *sent*: by hand, or by letting the policy do it."""
    rows = await db.fetch(
        "SELECT token, app FROM dispatcher.batch WHERE state = 'unsure' AND token <> ALL ($1)",
        [token for token in sent if token],
    )
    for row in rows:
        if APPS[row["app"]] == "hold":
            await db.execute("SELECT dispatcher.settle($1, 'resend')", row["token"])
        else:
            await db.execute(
                "UPDATE dispatcher.batch SET unsure_at = unsure_at - make_interval(secs => $2)"
                " WHERE token = $1 AND state = 'unsure'",
                row["token"],
                2 * SILENCE,
            )
    return True


async def _settle(db: asyncpg.Connection, sent: list[str | None]) -> int:
    """Settle by hand: the provider's ledger is the witness."""
    rows = await db.fetch("SELECT token FROM dispatcher.batch WHERE state = 'unsure'")
    for row in rows:
        how = "sent" if row["token"] in sent else "resend"
        await db.execute("SELECT dispatcher.settle($1, $2)", row["token"], how)
    return len(rows)
