"""`blackbox`: what minutes of a sick provider cost, with default settings, for each sickness."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from time import monotonic

import asyncpg
from support.messages import SENDER
from support.provider import KEY, SECRET, provider
from support.waiting import until
from support.worker import WorkerProcess, environment

from dispatcher.bench.environment import Environment
from dispatcher.bench.results import Results
from dispatcher.db.database import connect
from dispatcher.simulator import Simulator
from dispatcher.simulator import faults as f

SICKNESSES: dict[str, f.Fault] = {
    "http-502": f.Http(status=502),
    "http-503": f.Http(status=503),
    "http-504": f.Http(status=504),
    "cut": f.Cut(accept=False),
    "stall": f.StallAfterReading(),
    "e000027": f.RequestCode(code="E000027"),
    "e000000": f.RequestCode(code="E000000"),
    "unknown-400": f.RequestCode(code="E999999", http_status=400),
}
MESSAGES = 20_000  # that wait for each app: 40 s at the default pace
DRAIN_SECONDS = 180.0  # for which the end is waited for


async def measure(
    environment_: Environment, *, minutes: float, progress: Callable[[str], None]
) -> Results:
    """Let eight apps of one worker have a provider each, all sick at once; heal one by one.

    An app is healed when the one before is out: each has the machine for itself then.
    """
    results = Results("blackbox", {"minutes": minutes, "messages": MESSAGES})
    async with environment_.template(), environment_.database() as dsn, AsyncExitStack() as stack:
        providers = {
            name: await stack.enter_async_context(provider(faults=[fault]))
            for name, fault in SICKNESSES.items()
        }
        apps = {
            name: {"endpoint": sim.url, "app_key": KEY, "app_secret": SECRET, "sender": SENDER}
            for name, sim in providers.items()
        }
        variables = environment(dsn, apps, {"data_dir": environment_.folder / "data"})
        del variables["DISPATCHER_POLL_INTERVAL"]  # the settings are the defaults
        worker = WorkerProcess(variables, environment_.log("blackbox"))
        stack.callback(worker.kill)
        await worker.started()
        db = await connect(dsn)
        stack.push_async_callback(db.close)
        for name in SICKNESSES:
            await _load(db, name)
        await asyncio.sleep(60 * minutes)
        for name, simulator in providers.items():
            await _heal(db, name, simulator, results, progress)
        results.notes.append(f"the worker runs: {worker.code is None and not worker.stumbled}")
    return results


async def _load(db: asyncpg.Connection, app: str) -> None:
    """Insert messages of different texts."""
    await db.execute(
        "INSERT INTO dispatcher.message (app, recipient, template_id, params)"
        " SELECT $1, '+86138' || lpad(n::text, 8, '0'), 't', ARRAY[n::text]"
        " FROM generate_series(1, $2::int) AS n",
        app,
        MESSAGES,
    )


async def _heal(
    db: asyncpg.Connection,
    app: str,
    simulator: Simulator,
    results: Results,
    progress: Callable[[str], None],
) -> None:
    """Heal the provider of *app*, wait until all is out, and add what it cost."""
    before = await _states(db, app)
    requests = sum(1 for visit in simulator.journal if visit.numbers)
    await simulator.faults.clear()
    began = monotonic()
    with suppress(AssertionError):  # the figure shows that it was not within that time
        await until(lambda: _is_out(db, app), deadline=DRAIN_SECONDS, every=0.5)
    took = monotonic() - began
    after = await _states(db, app)
    twice = sum(count > 1 for count in simulator.ledger.counts().values())
    figures = {
        "unsure": after["unsure"],
        "rejected": after["rejected"],
        "deferred": after["queued"],
        "accepted twice": twice,
        "requests while sick": requests,
        "accepted while sick": before["accepted"],
    }
    for name, value in figures.items():
        results.add(app, name, value)
    results.add(app, "time until all is out", took, "s")
    said = ", ".join(f"{name} {value}" for name, value in figures.items())
    progress(f"{app}: {said}; all out after {took:.0f} s")


async def _states(db: asyncpg.Connection, app: str) -> Counter[str]:
    rows = await db.fetch(
        "SELECT state, count(*) FROM dispatcher.message_status WHERE app = $1 GROUP BY state", app
    )
    return Counter(dict(rows))


async def _is_out(db: asyncpg.Connection, app: str) -> bool:
    """Tell whether nothing is on its way, and nothing waits but what was deferred."""
    out: bool = await db.fetchval(
        "SELECT NOT EXISTS (SELECT FROM dispatcher.queue WHERE app = $1"
        "   AND (code IS NULL OR code NOT IN ('E000000', 'E000027', 'E999999')))"
        " AND NOT EXISTS (SELECT FROM dispatcher.bulk WHERE app = $1)"
        " AND NOT EXISTS (SELECT FROM dispatcher.batch WHERE app = $1 AND state = 'open')",
        app,
    )
    return out
