"""A place where a process of the service runs: killed, frozen, and started again."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from everystep.fork_server import ForkServer
from everystep.steps import Script

KILLED = -signal.SIGKILL
COULD_NOT_START = 1
MOST_FAILED_STARTS = 5  # in a row while PostgreSQL runs; a step of a start is struck once
QUICK_SECONDS = 5.0  # a start that fails later ran out of time on a busy machine: it is no sign
SETTLE_SECONDS = 0.5  # until the next start after one that failed


class Place:
    """One process at a time; the next begins where the last one ended."""

    def __init__(
        self,
        name: str,
        script: Script,
        forks: ForkServer,
        folder: Path,
        crash: Callable[[], None],
        *,
        database_up: asyncio.Event,
        frozen_for: float,
        on_freeze: Callable[["Place"], None],
        arguments: tuple[str, ...],
    ) -> None:
        """*database_up*: set while PostgreSQL runs; a start meanwhile must not fail for long."""
        self.name = name
        self.role = name.rstrip("0123456789")
        self.struck_at: float | None = None  # seconds since 1970
        self.ended_at: float = 0.0  # of what was done to it
        self.pids: list[int] = []
        self.problems: list[str] = []
        self.environ: Mapping[str, str] = {}
        self.crash_postgres = crash
        self.no_start = ""  # why it cannot start at all
        self._database_up = database_up
        self._failed_starts = 0
        self._started_at = 0.0
        self._script = script
        self._forks = forks
        self._folder = folder
        self._frozen_for = frozen_for
        self._on_freeze = on_freeze
        self._arguments = arguments
        self._killed = False
        self._thawed = asyncio.Event()
        self._thawed.set()

    def reach(self, name: str, *, most: int, turn: bool) -> str | None:
        """Count a step that this process makes."""
        fault = self._script.reach(name, most=most, turn=turn)
        if fault is not None:
            self.struck_at = time.time()
        return fault

    async def start(self) -> None:
        """Start the next process."""
        log = self._folder / f"{self.name}-{len(self.pids) + 1}.log"
        self._killed = False
        self._started_at = time.time()
        self.pids.append(await self._forks.start(self.environ, log, *self._arguments))

    @property
    def code(self) -> int | None:
        """How its process ended; None while it runs."""
        return self._forks.ended.get(self.pids[-1]) if self.pids else None

    def kill(self) -> None:
        """Kill -9."""
        self._killed = True
        os.kill(self.pids[-1], signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it as a hypervisor does, for as long as this scene says."""
        self._thawed.clear()
        os.kill(self.pids[-1], signal.SIGSTOP)
        asyncio.get_running_loop().call_later(self._frozen_for, self.thaw)
        self._on_freeze(self)

    @property
    def frozen(self) -> bool:
        """Whether it is."""
        return not self._thawed.is_set()

    def thaw(self) -> None:
        """Let it go on; it believes that nothing happened."""
        if not self._thawed.is_set():
            if self.code is None:
                os.kill(self.pids[-1], signal.SIGCONT)
            self.ended_at = time.time()
            self._thawed.set()

    async def thawed(self) -> None:
        """Wait until it is not frozen."""
        await self._thawed.wait()

    async def keep_up(self, died: Callable[[int], object]) -> None:
        """Start it again whenever it has ended; *died* gets the id of a process that was killed."""
        while True:
            await asyncio.sleep(0.05)
            code = self.code
            if code is None:
                continue
            pid = self.pids[-1]
            if self._killed or self._started(-1):
                self._failed_starts = 0
            elif self._database_up.is_set() and time.time() - self._started_at < QUICK_SECONDS:
                self._failed_starts += 1
            if not self._killed and (code != COULD_NOT_START or self._started(-1)):
                self.problems.append(f"{self.name} ended by itself with {code}")
            if self._failed_starts >= MOST_FAILED_STARTS:
                last = self._text(len(self.pids)).splitlines()[-1:]
                self.no_start = f"{self.name} does not start: {' '.join(last)[:500]}"
                return
            await died(pid)  # type: ignore[misc]
            if self._failed_starts:
                await asyncio.sleep(SETTLE_SECONDS)
            await self.start()

    def end(self) -> None:
        """Leave nothing behind."""
        if self.pids and self.code is None:
            os.kill(self.pids[-1], signal.SIGKILL)

    @property
    def works(self) -> bool:
        """Whether its present process has started."""
        return self.code is None and self._started(-1)

    def _started(self, which: int) -> bool:
        wanted = ("worker started", "listening")[self.role == "receiver"]
        number = len(self.pids) + 1 + which
        return f'"event":"{wanted}"' in self._text(number) or f'"event": "{wanted}"' in self._text(
            number
        )

    def _text(self, number: int) -> str:
        try:
            return (self._folder / f"{self.name}-{number}.log").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def stumbles(self) -> list[str]:
        """Return what its processes said when they fell over errors of their own."""
        found = []
        for number in range(1, len(self.pids) + 1):
            lines = self._text(number).splitlines(keepends=True)
            said = "".join(line for line in lines if not line.startswith("{"))
            if "Traceback" in said:
                found.append(f"{self.name} stumbled: {said[-600:]}")
        return found

    def worker_ids(self) -> set[int]:
        """Return the ids that its processes had as workers."""
        ids = set()
        for number in range(1, len(self.pids) + 1):
            for line in self._text(number).splitlines():
                if line.startswith("{") and line.endswith("}") and "worker started" in line:
                    ids.add(int(json.loads(line)["worker"]))
        return ids
