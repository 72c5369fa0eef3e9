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

from support.worker import Settings, WorkerProcess, environment

TIMEOUT = 3.0  # seconds for a request
LEASE = TIMEOUT + 10.0  # the shortest that goes with it
PAST_LEASE = LEASE * 1.2
KILLED, COULD_NOT_START = -9, 1
STOPPED = frozenset({0, 1, -15})  # 1: the database was away at the end, -15: only just started


@dataclass(frozen=True)
class Blow:
    """Something that was done to a worker."""

    worker: int
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
    ) -> None:
        self.done: Counter[str] = Counter()  # what was done to workers, by name
        self.blows: list[Blow] = []
        self.troubles: list[str] = []  # what a worker must not do
        self._dsn = dsn
        self._apps = apps
        self._callback = (
            {}
            if callback is None
            else {"callback_url": callback, "report_path_token": callback.rpartition("/")[2]}
        )
        self._folder = folder
        self._dice = dice
        self._numbers = itertools.count(1)
        self._places: list[WorkerProcess] = []
        self._busy: set[int] = set()  # places where something is being done
        self._may_end: dict[WorkerProcess, frozenset[int]] = {}  # exit codes, of those we ended

    @property
    def places(self) -> tuple[WorkerProcess, ...]:
        """The worker of each place, alive or not."""
        return tuple(self._places)

    def launch(self, size: int) -> None:
        """Start so many workers."""
        self._places = [self._launch(place) for place in range(size)]

    async def suffer(self) -> None:
        """Do something to some worker, again and again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_up())
            while True:
                await asyncio.sleep(self._dice.uniform(0.5, 4.0))
                place = self._dice.randrange(len(self._places))
                if place not in self._busy:
                    act = self._dice.choices(
                        (self._kill, self._freeze, self._freeze_long, self._stop), (5, 4, 1, 3)
                    )[0]
                    tasks.create_task(act(place))

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
            "shutdown_timeout": "8s",
            "data_dir": self._folder / f"place-{place}",
            **self._callback,
        }
        environ = environment(self._dsn, self._apps, settings)
        return WorkerProcess(environ, self._folder / f"worker-{next(self._numbers):04d}.log")

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
        begin = time.time()
        try:
            yield worker
        finally:
            self._busy.discard(place)
            for event in worker.events():
                if event.get("event") == "worker started":
                    self.blows.append(Blow(event["worker"], begin, time.time()))

    async def _kill(self, place: int) -> None:
        with self._doing(place, "killed") as worker:
            self._may_end[worker] = frozenset({KILLED})
            worker.kill()
            await asyncio.sleep(self._dice.uniform(0.0, 2.0))

    async def _freeze(self, place: int) -> None:
        with self._doing(place, "frozen") as worker:
            worker.freeze()
            await asyncio.sleep(self._dice.uniform(0.2, 4.0))
            worker.thaw()

    async def _freeze_long(self, place: int) -> None:
        with self._doing(place, "frozen past its lease") as worker:
            worker.freeze()
            await asyncio.sleep(PAST_LEASE)
            worker.thaw()

    async def _stop(self, place: int) -> None:
        with self._doing(place, "stopped") as worker:
            self._may_end[worker] = STOPPED
            worker.terminate()
            await worker.ended(60.0)

    def _judge(self, worker: WorkerProcess) -> None:
        """Note a worker that stumbled, or ended otherwise than it may."""
        text = worker.log.read_text(encoding="utf-8")
        started = "worker started" in text
        expected = self._may_end.pop(worker, None)
        if expected is None and not started and worker.code == COULD_NOT_START:
            self.done["could not start without the database"] += 1
        elif worker.stumbled:
            self.troubles.append(f"{worker.log.name}: {worker.stumbled}")
        elif worker.code not in (expected or ()):
            self.troubles.append(f"{worker.log.name} ended with {worker.code}: {text[-500:]}")
