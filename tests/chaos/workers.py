"""Workers that are killed, frozen and stopped, and started anew as an operator's system would."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from support.worker import ROOT, Settings, WorkerProcess, environment

from chaos.clocks import HAS_FAKE_TIME, faked, set_clock
from chaos.deck import Deck
from dispatcher.core.message import Batch, Entry, Message, RequestDraft
from dispatcher.core.outcome import Accepted, Resolved
from dispatcher.core.result import BatchResult, serialize
from dispatcher.db.spool import Spool
from dispatcher.worker.recorder import SPOOL_KIND

TIMEOUT = 3.0  # seconds for a request
LEASE = TIMEOUT + 10.0  # the shortest that goes with it
PAST_LEASE = LEASE * 1.2
SHUTDOWN_TIMEOUTS = ("8s", "1s", "1s")  # one of 1 s cuts requests off that are not answered
KILLED_CODE, COULD_NOT_START = -9, 1
# 1: the database was away at the end, -15: only just started
STOPPED_CODES = frozenset({0, 1, -15})


STRIKE_STARTS = 0.2  # of the acts that meet a worker while it starts
STOP_SHARE = 0.7  # of the workers, when several are stopped at once
# What is done to a worker, and how often beside each other.
KILLED, FROZEN, FROZEN_LONG, STOPPED = "killed", "frozen", "frozen past its lease", "stopped"
CLOCK_WRONG = "clock wrong"  # it is no reason for an unsure request
FOREIGN_SPOOL = "started on a foreign spool"
TO_WORKER = {
    KILLED: 5.0,
    FROZEN: 4.0,
    FROZEN_LONG: 1.0,
    STOPPED: 3.0,
    CLOCK_WRONG: 2.0,
    FOREIGN_SPOOL: 1.0,
}
MODULES = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


@dataclass(frozen=True)
class Blow:
    """Something that was done to a worker, or to the database of all of them."""

    worker: int | None  # None: any
    begin: float  # seconds since 1970
    end: float


class Fleet:
    """Some workers on one database; each place has one folder for its data."""

    def __init__(
        self,
        dsn: str,
        apps: Mapping[str, Settings],
        folder: Path,
        dice: Random,
        callback: str | None = None,
        *,
        weights: Mapping[str, float] = TO_WORKER,
        pace: float = 1.0,
    ) -> None:
        """*weights*: of what is done to workers; *pace*: of the usual time between two acts."""
        self.done: Counter[str] = Counter()  # what was done to workers, by name
        self.periods: list[tuple[str, float, float]] = []  # of it, on the monotonic clock
        self.blows: list[Blow] = []
        self.troubles: list[str] = []  # what a worker must not do
        self.database_id = ""  # of the database of this storm
        self._dsn = dsn
        self._apps = apps
        self._callback = (
            {}
            if callback is None
            else {"callback_url": callback, "report_path_token": callback.rpartition("/")[2]}
        )
        self._folder = folder
        self._dice = dice
        can = {act: each for act, each in weights.items() if HAS_FAKE_TIME or act != CLOCK_WRONG}
        self._deck = Deck(can, dice)
        self._pace = pace
        self._numbers = itertools.count(1)
        self._places: list[WorkerProcess] = []
        self._busy: set[int] = set()  # places where something is being done
        self._may_end: dict[WorkerProcess, frozenset[int]] = {}  # exit codes, of those we ended
        self._forgotten: set[WorkerProcess] = set()  # of which a restored database may not know

    @property
    def places(self) -> tuple[WorkerProcess, ...]:
        """The worker of each place, alive or not."""
        return tuple(self._places)

    async def suffer(self) -> None:
        """Do something to some worker, again and again."""
        acts = {
            KILLED: self._kill,
            FROZEN: self._freeze,
            FROZEN_LONG: self._freeze_long,
            STOPPED: self._stop,
            CLOCK_WRONG: self._jump,
            FOREIGN_SPOOL: self._leave_spool,
        }
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_up())
            while True:
                await asyncio.sleep(self._pace * self._dice.uniform(0.5, 4.0))
                place = self._dice.randrange(len(self._places))
                if place not in self._busy and self._may_strike(self._places[place]):
                    tasks.create_task(acts[self._deck.draw()](place))

    def _may_strike(self, worker: WorkerProcess) -> bool:
        """Tell whether *worker* is to be struck: it works, or sometimes while it starts.

        One that was killed just before is not there to be stopped. On a busy machine a start takes
        so long that otherwise no worker would ever send anything.
        """
        started = "worker started" in worker.log.read_text(encoding="utf-8")
        return worker.code is None and (started or self._dice.random() < STRIKE_STARTS)

    def forget(self) -> None:
        """Note that the database is restored: workers that it does not know end by themselves."""
        self._forgotten.update(self._places)

    async def begin(self, size: int) -> None:
        """Start so many workers; raises RuntimeError if one cannot work at all."""
        self._places = [self._launch(place) for place in range(size)]
        for worker in self._places:
            if not await worker.starts() and worker.stumbled:
                raise RuntimeError(worker.stumbled)
        await self.settle()

    async def settle(self) -> None:
        """Have each place filled with a worker that works."""
        for place, worker in enumerate(self._places):
            worker.thaw()
            if worker in self._may_end:
                await worker.ended(60.0)
            self._replace_if_gone(place)
        for place in range(len(self._places)):
            # One that was started just before may have met the database on its way down.
            while not await self._places[place].starts():
                self._replace_if_gone(place)

    async def end(self) -> None:
        """Stop all, and see that they end well."""
        for worker in self._places:
            worker.terminate()
            self._may_end[worker] = frozenset({0})
        for worker in self._places:
            await worker.ended()
            self._judge(worker)

    def kill_all(self) -> None:
        """Leave nothing behind."""
        for worker in self._places:
            worker.kill()

    def _launch(self, place: int) -> WorkerProcess:
        settings = {
            "lease": f"{LEASE}s",
            "shutdown_timeout": self._dice.choice(SHUTDOWN_TIMEOUTS),
            "data_dir": self._folder / f"place-{place}",
            **self._callback,
        }
        environ = environment(self._dsn, self._apps, settings) | MODULES
        if HAS_FAKE_TIME:
            set_clock(self._clock(place), 0.0)
            environ |= faked(self._clock(place))
        log = self._folder / f"worker-{next(self._numbers):04d}.log"
        return WorkerProcess(environ, log, module="chaos.branches")

    def _clock(self, place: int) -> Path:
        """Return the file of the wall clock of a place's workers, which signs their requests."""
        return self._folder / f"clock-{place}"

    async def _keep_up(self) -> None:
        """Start again what has ended by itself, because the database was away at its start."""
        while True:
            await asyncio.sleep(0.3)
            for place in range(len(self._places)):
                if place not in self._busy:
                    self._replace_if_gone(place)

    def _replace_if_gone(self, place: int) -> None:
        worker = self._places[place]
        if worker.code is not None:
            self._judge(worker)
            self._places[place] = self._launch(place)

    @contextmanager
    def _doing(self, place: int, what: str) -> Iterator[WorkerProcess]:
        """Note what is done at a place, and to which worker, however it ends."""
        worker = self._places[place]
        self.done[what] += 1
        self._busy.add(place)
        begin, began = time.time(), time.monotonic()
        try:
            yield worker
        finally:
            self._busy.discard(place)
            self.periods.append((what, began, time.monotonic()))
            for event in worker.events() if what != CLOCK_WRONG else ():
                if event.get("event") == "worker started":
                    self.blows.append(Blow(event["worker"], begin, time.time()))

    async def _kill(self, place: int) -> None:
        with self._doing(place, KILLED) as worker:
            self._may_end[worker] = frozenset({KILLED_CODE})
            worker.kill()
            await asyncio.sleep(self._dice.uniform(0.0, 2.0))

    async def _freeze(self, place: int) -> None:
        with self._doing(place, FROZEN) as worker:
            worker.freeze()
            await asyncio.sleep(self._dice.uniform(0.2, 4.0))
            worker.thaw()

    async def _freeze_long(self, place: int) -> None:
        with self._doing(place, FROZEN_LONG) as worker:
            worker.freeze()
            await asyncio.sleep(PAST_LEASE)
            worker.thaw()

    async def _jump(self, place: int) -> None:
        with self._doing(place, CLOCK_WRONG):
            ahead = self._dice.choice((-86_400.0, -1200.0, 1200.0, 10_000_000.0))
            set_clock(self._clock(place), ahead)
            await asyncio.sleep(self._dice.uniform(1.0, 4.0))
            set_clock(self._clock(place), 0.0)

    async def _leave_spool(self, place: int) -> None:
        """Stop a worker, and start it on answers of another database, or of one restored since."""
        with self._doing(place, FOREIGN_SPOOL) as worker:
            self._may_end[worker] = STOPPED_CODES
            worker.terminate()
            await worker.ended(60.0)
            folder = self._folder / f"place-{place}" / "spool"
            database = self._dice.choice((self.database_id, str(self._dice.randrange(10**9))))
            spool = Spool(folder, f"{database}.{SPOOL_KIND}")
            spool.append([serialize(_foreign_result(self._dice))])
            spool.close()

    async def _stop(self, place: int) -> None:
        with self._doing(place, STOPPED) as worker:
            # All are stopped at once sometimes, and one may be killed in the same moment.
            self._may_end[worker] = STOPPED_CODES | self._may_end.get(worker, frozenset())
            worker.terminate()
            await worker.ended(60.0)

    async def stop_some(self) -> None:
        """Stop most of the workers at once, as an upgrade does."""
        async with asyncio.TaskGroup() as tasks:
            for place, worker in enumerate(self._places):
                chosen = self._dice.random() < STOP_SHARE
                if chosen and place not in self._busy and self._may_strike(worker):
                    tasks.create_task(self._stop(place))

    def _judge(self, worker: WorkerProcess) -> None:
        """Note a worker that stumbled, or ended otherwise than it may."""
        text = worker.log.read_text(encoding="utf-8")
        started = "worker started" in text
        expected = self._may_end.pop(worker, None)
        if expected is None and not started and worker.code == COULD_NOT_START:
            self.done["could not start without the database"] += 1
        elif worker.stumbled:
            self.troubles.append(f"{worker.log.name}: {worker.stumbled}")
        elif worker in self._forgotten and worker.code == 1 and "is gone from" in text:
            self.done["ended: a restored database did not know it"] += 1
        elif worker.code not in (expected or ()):
            self.troubles.append(f"{worker.log.name} ended with {worker.code}: {text[-500:]}")


def _foreign_result(dice: Random) -> BatchResult:
    """Return an answer to a request that this database does not have, though it has its ids."""
    message = Message(dice.randrange(1, 1000), "", "t", [])
    batch = Batch(
        dice.randrange(1, 50),
        "default",
        f"{dice.getrandbits(128):032x}",
        RequestDraft(None, [Entry(b"", [message])], 0),
        0.0,
    )
    outcome = Accepted(message, "of-another-database", 1)
    return BatchResult(batch, Resolved([outcome]), 200, "000000", "", 1, 0.1)
