"""Runs a storm: everything at once, then quiet, then the verdict."""

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic

import asyncpg
from support.fast_forward import let_pass
from support.messages import finished
from support.provider import app_at, provider

from chaos import report_sender
from chaos.aim import (
    AIMED_APPS,
    AIMED_PACE,
    CLOCK_JUMPS,
    CRASH,
    FAULT_OF,
    FREEZE,
    FREEZE_LONG,
    FREEZE_STOPS,
    HOLD_COMMITS,
    RESTART,
    RESTORE,
    SILENT_STOPS,
    TERMINATE,
    TO_DATABASE,
    aimed,
)
from chaos.application import Application, Memory
from chaos.clocks import CACHE_SECONDS, HAS_FAKE_TIME, FakedPostgres, set_clock
from chaos.database import Database, Server, running_server
from chaos.deck import Deck
from chaos.fault_schedule import DELAY, MAKERS, SILENCE, Weather
from chaos.leaks import EVERY, PageCollector, leaks, password
from chaos.matrix import Period, count
from chaos.operator import settle_what_was_taken
from chaos.restore import Restorer
from chaos.verdict import Still, Verdict, judge
from chaos.workers import LEASE, TIMEOUT, TO_WORKER, Blow, Fleet
from dispatcher.db.database import connect
from dispatcher.db.queries import sql
from dispatcher.simulator import Simulator

HASTE = 20.0  # seconds that pass in each second of the storm, for waits and pauses
WATCH = 0.05  # seconds between two looks at the clock
QUIET = 120.0  # seconds until everything must have settled
CLOCK_AHEAD_SECONDS = 86_400.0
CLOCK_JUMP_SECONDS = (3600.0, -3600.0, CLOCK_AHEAD_SECONDS, -CLOCK_AHEAD_SECONDS)
CLOCK_WRONG_SECONDS = (1.5, 5.0)  # how long the database's clock is
BACKUP_SECONDS = (3.0, 8.0)  # until it is restored
CUT_OFF_SECONDS = 1.2  # from a stop on: longer than the shorter time-out of a shutdown
LONG_SECONDS = (6.5, 12.0)  # of a frozen database: leases end, and a worker that stops gives up


@dataclass(frozen=True)
class Plan:
    """How long, how hard, and by which dice."""

    seconds: float
    seed: int
    workers: int = 3
    rate: float = 400.0  # messages inserted a second, about
    reports: bool = False  # whether status reports come, and settle what is unsure
    # By how much what is done leads to what the storm is to reach (see `chaos.aim`).
    aim: Mapping[str, float] = field(default_factory=dict)

    @property
    def pace(self) -> float:
        """Of the usual time between two acts."""
        return AIMED_PACE if self.aim else 1.0

    @property
    def apps(self) -> list[str]:
        """The names of the apps; `paced` has a rate limit and other signatures."""
        more = AIMED_APPS - 2 if self.aim else 0
        return ["default", "paced", *(f"more-{number}" for number in range(more))]


@dataclass(frozen=True)
class Aftermath:
    """What happened, and how it ended."""

    plan: Plan
    verdict: Verdict
    problems: list[str]
    memory: Memory
    faults: dict[str, int]  # of the provider, by kind
    blows: Counter[str]  # to workers and to the database, by kind
    settled_in: float  # seconds of quiet until the last message had its end
    pages: int  # read of the workers' metrics and health
    periods: list[Period]  # when which fault struck
    branches: Counter[tuple[str, str]] = field(default_factory=Counter)  # by branch and fault


async def run(plan: Plan) -> Aftermath:
    """Run one storm; if anything was violated, the logs of all workers are kept."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    dice = Random(plan.seed)
    async with AsyncExitStack() as stack:
        postgres = None
        if HAS_FAKE_TIME:
            postgres = FakedPostgres()
            stack.callback(postgres.remove)
        server = await stack.enter_async_context(
            running_server(folder / "server", postgres and postgres.programs)
        )
        options = report_sender.OPTIONS if plan.reports else None
        simulator = await stack.enter_async_context(provider(reports=options))
        account = app_at(simulator.url, timeout=f"{TIMEOUT}s")
        receiver = None
        if plan.reports:
            receiver = report_sender.Receiver(server.dsn, folder)
            stack.callback(receiver.kill)
            await receiver.started()
            account |= {"on_unsure": "resend", "resend_after": f"{report_sender.SILENCE}s"}
        # Those that are added go on sending while results are unknown.
        apps = dict.fromkeys(plan.apps, account | {"circuit_unknown": 100})
        apps["default"] = account
        apps["paced"] = account | {"numbers_per_second": 300, "auth": "wsse"}
        callback = receiver and receiver.callback
        fleet = Fleet(
            server.dsn,
            apps,
            folder,
            Random(dice.random()),
            callback,
            weights=aimed(TO_WORKER, plan.aim),
            pace=plan.pace,
        )
        stack.callback(fleet.kill_all)
        fleet.database_id = await _database_id(server.dsn)
        # A storm on workers that are still starting tests only that.
        await fleet.begin(plan.workers)
        ears = PageCollector()
        aftermath = await _storm(
            plan, dice, Scene(server, simulator, fleet, receiver, ears, postgres)
        )
        secrets = [*password(server.dsn), *(receiver.secrets if receiver else ())]
    aftermath.branches.update(count(folder, aftermath.periods))
    said = [*aftermath.problems, *ears.lines]
    aftermath.problems.extend(leaks(folder, said, secrets))
    if aftermath.problems:
        aftermath.problems.append(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return aftermath


@dataclass(frozen=True)
class Scene:
    """Who takes part, besides the application."""

    server: Server
    simulator: Simulator
    fleet: Fleet
    receiver: report_sender.Receiver | None
    ears: PageCollector
    postgres: FakedPostgres | None  # whose clock can be set


async def _storm(plan: Plan, dice: Random, scene: Scene) -> Aftermath:
    server, simulator, fleet = scene.server, scene.simulator, scene.fleet
    apps = ["default", *plan.apps]
    application = Application(server.dsn, apps, Random(dice.random()))
    weights = aimed(dict.fromkeys(MAKERS, 1.0), plan.aim)
    weather = Weather(simulator, Random(dice.random()), weights)
    restorer = Restorer(server, fleet, application, simulator)
    shaking = Shaking(scene, plan, Random(dice.random()), restorer, weather)
    stills: list[Still] = []
    watching = asyncio.create_task(_watch(stills))  # also after the faults, until all is sent
    try:
        async with asyncio.timeout(plan.seconds), asyncio.TaskGroup() as tasks:
            tasks.create_task(application.work(plan.rate))
            tasks.create_task(weather.blow())
            tasks.create_task(fleet.suffer())
            tasks.create_task(shaking.shake())
            tasks.create_task(_hasten(Database(server.dsn)))
            tasks.create_task(_listen(scene))
            if scene.receiver is not None:
                odd = report_sender.post_odd_reports(
                    scene.receiver.callback, Random(dice.random()), shaking.done
                )
                tasks.create_task(odd)
                tasks.create_task(
                    settle_what_was_taken(
                        Database(server.dsn), simulator, Random(dice.random()), shaking.done
                    )
                )
    except TimeoutError:
        pass
    began = monotonic()
    await weather.calm()
    await asyncio.gather(shaking.end_restore(), fleet.settle())
    await server.order("restart")  # also one that was cut off in the middle of an order is up again
    await fleet.settle()
    problems = await _settle(scene)
    settled_in = monotonic() - began
    await scene.ears.listen(fleet.places)
    await fleet.end()
    watching.cancel()
    db = await connect(server.dsn)
    blows = [*fleet.blows, *shaking.blows, *restorer.blows]
    verdict = await judge(
        db, simulator, application.memory, blows, stills, forgotten=restorer.forgotten
    )
    await db.close()
    return Aftermath(
        plan,
        verdict,
        [*problems, *verdict.problems, *fleet.troubles, *restorer.problems],
        application.memory,
        weather.struck,
        fleet.done + shaking.done + restorer.done + _reports(simulator),
        settled_in,
        scene.ears.pages,
        [
            *shaking.periods,
            *restorer.periods,
            *weather.periods,
            *(Period(FAULT_OF[what], *times) for what, *times in fleet.periods),
        ],
    )


async def _database_id(dsn: str) -> str:
    db = await connect(dsn)
    found = await db.fetchval(sql("database_id"))
    await db.close()
    return str(found)


def _reports(simulator: Simulator) -> Counter[str]:
    return Counter(
        {f"reports: {answer}": count for answer, count in simulator.reports.answers.items()}
    )


class Shaking:
    """Restarts, kills and freezes the database, takes its connections away, and sets it back.

    It also does what takes several: workers are stopped while nothing answers them.
    """

    def __init__(
        self, scene: Scene, plan: Plan, dice: Random, restorer: Restorer, weather: Weather
    ) -> None:
        self.done: Counter[str] = Counter()
        self.periods: list[Period] = []
        self.blows: list[Blow] = []  # its clock jumped: leases may have ended
        self._server = scene.server
        self._postgres = scene.postgres
        self._fleet = scene.fleet
        self._weather = weather
        self._base = Database(scene.server.dsn)
        self._restorer = restorer
        self._restore: asyncio.Task[None] | None = None
        left_out = set()
        if scene.postgres is None:
            left_out.add(CLOCK_JUMPS)
        if plan.reports:  # the provider repeats none of those that a backup lacks
            left_out.add(RESTORE)
        can = {act: each for act, each in TO_DATABASE.items() if act not in left_out}
        self._deck = Deck(aimed(can, plan.aim), dice)
        self._pace = plan.pace
        self._dice = dice

    async def shake(self) -> None:
        """Do something to the database, again and again."""
        while True:
            await asyncio.sleep(self._pace * self._dice.uniform(2.0, 10.0))
            act = self._deck.draw()
            began = monotonic()
            count = await self._do(act)
            if act == RESTORE:  # the storm may be over before it is
                continue
            self.done[act] += count
            self.periods.append(Period(FAULT_OF[act], began, monotonic()))

    async def _do(self, act: str) -> int:
        """Do *act*; return how often that is."""
        if act == TERMINATE:
            return await self._base.ask(partial(_terminate, "random() < 0.7")) or 0
        if act == HOLD_COMMITS:
            return await self._hold_commits()
        if act == CLOCK_JUMPS:
            return await self._jump()
        if act == RESTORE:
            return await self._go_back()
        if act in (SILENT_STOPS, FREEZE_STOPS):
            return await self._stop_unanswered(act)
        orders = {
            RESTART: "restart",
            CRASH: "crash",
            FREEZE: f"freeze {self._dice.uniform(0.5, 6.0):.1f}",
            FREEZE_LONG: f"freeze {self._dice.uniform(*LONG_SECONDS):.1f}",
        }
        await self._server.order(orders[act])
        return 1

    async def _stop_unanswered(self, act: str) -> int:
        """Stop workers while the provider answers no request, or when no answer can be written."""
        fault = SILENCE if act == SILENT_STOPS else DELAY
        async with asyncio.TaskGroup() as tasks, self._weather.holding(fault):
            if act == FREEZE_STOPS:
                seconds = self._dice.uniform(*LONG_SECONDS)
                tasks.create_task(self._server.order(f"freeze {seconds:.1f}"))
            tasks.create_task(self._fleet.stop_some())
            await asyncio.sleep(CUT_OFF_SECONDS)
        return 1

    async def _jump(self) -> int:
        """Let the database's clock be wrong for a moment."""
        assert self._postgres is not None
        ahead = self._dice.choice(CLOCK_JUMP_SECONDS)
        began = time.time()
        set_clock(self._postgres.clock, ahead)
        try:
            await asyncio.sleep(self._dice.uniform(*CLOCK_WRONG_SECONDS))
        finally:
            set_clock(self._postgres.clock, 0.0)
            end = time.time() + CACHE_SECONDS
            self.blows += [Blow(None, began, end), Blow(None, began + ahead, end + ahead)]
        await asyncio.sleep(CACHE_SECONDS)
        return 1

    async def _go_back(self) -> int:
        """Restore a backup some seconds after it was made; that is done to its end."""

        async def restore() -> None:
            await self._restorer.back_up()
            await asyncio.sleep(self._dice.uniform(*BACKUP_SECONDS))
            await self._restorer.restore()

        self._restore = asyncio.create_task(restore())
        await asyncio.shield(self._restore)
        return 1

    async def end_restore(self) -> None:
        """Wait until the last restore is over, with what an operator does after it."""
        if self._restore is not None:
            await self._restore

    async def _hold_commits(self) -> int:
        """Let COMMITs wait as for a standby, and end their connections: they have committed."""
        await self._base.ask(partial(_wait_for_standby, "nobody"))
        try:
            await asyncio.sleep(self._dice.uniform(0.2, 1.0))
            return await self._base.ask(partial(_terminate, "wait_event = 'SyncRep'")) or 0
        finally:
            released = None
            while released is None:  # the database may be away
                released = await self._base.ask(partial(_wait_for_standby, ""))
                await asyncio.sleep(WATCH)


async def _terminate(condition: str, db: asyncpg.Connection) -> int:
    return await db.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        f" WHERE application_name = 'dispatcher' AND {condition}"
    )


async def _wait_for_standby(name: str, db: asyncpg.Connection) -> bool:
    await db.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    return await db.fetchval("SELECT pg_reload_conf()")


async def _hasten(base: Database) -> None:
    while True:
        await asyncio.sleep(1.0)
        await base.ask(lambda db: let_pass(db, HASTE))


async def _listen(scene: Scene) -> None:
    while True:
        await asyncio.sleep(EVERY)
        await scene.ears.listen(scene.fleet.places)


async def _watch(stills: list[Still]) -> None:
    """Note when this process, which is the provider too, comes late to what it has to do."""
    while True:
        due = time.time() + WATCH
        await asyncio.sleep(WATCH)
        if (now := time.time()) > due + WATCH:
            stills.append((due, now))


async def _settle(scene: Scene) -> list[str]:
    """Wait until every message has its end; return what did not come to one.

    The leases of the dead run out in their own time.
    """
    base = Database(scene.server.dsn)
    if not await _until_told(base, _nothing_returned_ahead, pass_seconds=0.0):
        return ["what a clock that was ahead returned to the queue waits until then"]
    # What was to wait by a clock that was a day ahead.
    await _until_told(base, partial(_let_pass, CLOCK_AHEAD_SECONDS))
    if not await _until_told(base, _resumed_and_finished):
        return [f"not everything had its end after {QUIET:.0f} s of quiet"]
    if scene.receiver is None:
        return []
    if not await report_sender.all_in(scene.simulator, base):
        return ["not all reports were matched"]
    await base.ask(report_sender.settle_by_hand)
    await base.ask(report_sender.keep_silent)
    settled = await _until_told(base, report_sender.nothing_unsure)
    troubles = await scene.receiver.end()
    return troubles if settled else [*troubles, "some messages stayed unsure"]


async def _nothing_returned_ahead(db: asyncpg.Connection) -> bool:
    return not await db.fetchval(
        "SELECT count(*) FROM dispatcher.queue WHERE waits_since > clock_timestamp()"
    )


async def _resumed_and_finished(db: asyncpg.Connection) -> bool:
    """Be the operator of paused apps, and tell whether all has its end.

    A start pauses them: a day ahead, the data look like a backup. So does the brake of spikes, for
    which days pass in a storm as well. Those of a restored backup are resumed before (see
    `chaos.restore`).
    """
    await db.execute(
        "SELECT dispatcher.resume(name) FROM dispatcher.app WHERE paused_by = 'operator'"
    )
    return await finished(db)


async def _let_pass(seconds: float, db: asyncpg.Connection) -> bool:
    await let_pass(db, seconds)
    return True


async def _until_told(
    base: Database,
    condition: Callable[[asyncpg.Connection], Awaitable[bool]],
    *,
    pass_seconds: float = 600.0,
) -> bool:
    deadline = monotonic() + QUIET + 2 * LEASE
    while monotonic() < deadline:
        if pass_seconds:
            await base.ask(partial(_let_pass, pass_seconds))
        if await base.ask(condition):
            return True
        await asyncio.sleep(0.3)
    return False
