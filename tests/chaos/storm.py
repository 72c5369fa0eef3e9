"""Runs a storm: everything at once, then quiet, then the verdict."""

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic

import asyncpg
from support.fast_forward import let_pass
from support.messages import finished
from support.provider import app_at, provider

from chaos import report_sender
from chaos.application import Application, Memory
from chaos.database import Database, Server, running_server
from chaos.fault_schedule import Weather
from chaos.leaks import EVERY, PageCollector, leaks, password
from chaos.matrix import (
    CLOCKS,
    CONNECTIONS_ENDED,
    DATABASE_DOWN,
    DATABASE_FROZEN,
    SPOOLS,
    WORKER_FROZEN,
    WORKER_KILLED,
    WORKER_STOPPED,
    Period,
    count,
)
from chaos.verdict import Still, Verdict, judge
from chaos.workers import CLOCK_WRONG, LEASE, TIMEOUT, Fleet
from dispatcher.db.database import connect
from dispatcher.db.queries import sql
from dispatcher.simulator import Simulator

HASTE = 20.0  # seconds that pass in each second of the storm, for waits and pauses
WATCH = 0.05  # seconds between two looks at the clock
QUIET = 120.0  # seconds until everything must have settled


# What the matrix calls what is done to the database and to workers.
BY_ACT = {
    "terminate": CONNECTIONS_ENDED,
    "restart": DATABASE_DOWN,
    "crash": DATABASE_DOWN,
    "freeze": DATABASE_FROZEN,
}
BY_BLOW = {
    "killed": WORKER_KILLED,
    "frozen": WORKER_FROZEN,
    "frozen past its lease": WORKER_FROZEN,
    "stopped": WORKER_STOPPED,
    CLOCK_WRONG: CLOCKS,
    "started on a foreign spool": SPOOLS,
}


@dataclass(frozen=True)
class Plan:
    """How long, how hard, and by which dice."""

    seconds: float
    seed: int
    workers: int = 3
    rate: float = 400.0  # messages inserted a second, about
    reports: bool = False  # whether status reports come, and settle what is unsure


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
        server = await stack.enter_async_context(running_server(folder / "server"))
        options = report_sender.OPTIONS if plan.reports else None
        simulator = await stack.enter_async_context(provider(reports=options))
        account = app_at(simulator.url, timeout=f"{TIMEOUT}s")
        receiver = None
        if plan.reports:
            receiver = report_sender.Receiver(server.dsn, folder)
            stack.callback(receiver.kill)
            await receiver.started()
            account |= {"on_unsure": "resend", "resend_after": f"{report_sender.SILENCE}s"}
        apps = {"default": account, "paced": account | {"numbers_per_second": 300, "auth": "wsse"}}
        callback = receiver and receiver.callback
        fleet = Fleet(server.dsn, apps, folder, Random(dice.random()), callback)
        stack.callback(fleet.kill_all)
        fleet.database_id = await _database_id(server.dsn)
        fleet.launch(plan.workers)
        await fleet.settle()  # a storm on workers that are still starting tests only that
        ears = PageCollector()
        aftermath = await _storm(plan, dice, Scene(server, simulator, fleet, receiver, ears))
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


async def _storm(plan: Plan, dice: Random, scene: Scene) -> Aftermath:
    server, simulator, fleet = scene.server, scene.simulator, scene.fleet
    application = Application(server.dsn, ["default", "default", "paced"], Random(dice.random()))
    weather = Weather(simulator, Random(dice.random()))
    blows: Counter[str] = Counter()
    periods: list[Period] = []
    stills: list[Still] = []
    try:
        async with asyncio.timeout(plan.seconds), asyncio.TaskGroup() as tasks:
            tasks.create_task(application.work(plan.rate))
            tasks.create_task(weather.blow())
            tasks.create_task(fleet.suffer())
            tasks.create_task(_shake(server, blows, periods, Random(dice.random())))
            tasks.create_task(_hasten(Database(server.dsn)))
            tasks.create_task(_listen(scene))
            tasks.create_task(_watch(stills))
            if scene.receiver is not None:
                odd = report_sender.post_odd_reports(
                    scene.receiver.callback, Random(dice.random()), blows
                )
                tasks.create_task(odd)
    except TimeoutError:
        pass
    began = monotonic()
    await weather.calm()
    await server.order("restart")  # also one that was cut off in the middle of an order is up again
    await fleet.settle()
    problems = await _settle(scene)
    settled_in = monotonic() - began
    await scene.ears.listen(fleet.places)
    await fleet.end()
    db = await connect(server.dsn)
    verdict = await judge(db, simulator, application.memory, fleet.blows, stills)
    await db.close()
    return Aftermath(
        plan,
        verdict,
        [*problems, *verdict.problems, *fleet.troubles],
        application.memory,
        weather.struck,
        fleet.done + blows + _reports(simulator),
        settled_in,
        scene.ears.pages,
        [
            *periods,
            *weather.periods,
            *(Period(BY_BLOW[what], *times) for what, *times in fleet.periods),
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


async def _shake(server: Server, blows: Counter[str], periods: list[Period], dice: Random) -> None:
    """Restart, kill and freeze the database, and take its connections away."""
    base = Database(server.dsn)
    while True:
        await asyncio.sleep(dice.uniform(2.0, 10.0))
        act = dice.choices(("terminate", "restart", "crash", "freeze"), (4, 2, 2, 2))[0]
        began = monotonic()
        if act == "terminate":
            blows["database: connections ended"] += await base.ask(_terminate) or 0
        elif act == "freeze":
            blows["database: frozen"] += 1
            await server.order(f"freeze {dice.uniform(0.5, 6.0):.1f}")
        else:
            blows[f"database: {'restarted' if act == 'restart' else 'killed'}"] += 1
            await server.order(act)
        periods.append(Period(BY_ACT[act], began, monotonic()))


async def _terminate(db: asyncpg.Connection) -> int:
    return await db.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'dispatcher' AND random() < 0.7"
    )


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
    if not await _until_told(base, finished):
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


async def _until_told(
    base: Database, condition: Callable[[asyncpg.Connection], Awaitable[bool]]
) -> bool:
    deadline = monotonic() + QUIET + 2 * LEASE
    while monotonic() < deadline:
        await base.ask(lambda db: let_pass(db, 600.0))
        if await base.ask(condition):
            return True
        await asyncio.sleep(0.3)
    return False
