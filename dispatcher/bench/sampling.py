"""Samples what a run takes: time, processor time, WAL and memory."""

from time import monotonic

from msgspec import Struct

from dispatcher.bench import proc
from dispatcher.bench.children import Child
from dispatcher.bench.environment import Environment, postmaster
from dispatcher.bench.statements import query
from dispatcher.db.database import OwnConnection


class Sample(Struct):
    """Resources used by one run."""

    seconds: float
    worker_cpu: float  # seconds, of all workers
    server_cpu: float | None
    simulator_cpu: float | None
    wal_bytes: int
    peak_memory_bytes: int  # of the largest worker


class Sampler:
    """Reads the counters before and after a run."""

    def __init__(
        self,
        environment: Environment,
        connection: OwnConnection,
        workers: list[Child],
        sim: Child | None,
    ) -> None:
        self._environment = environment
        self._connection = connection
        self._workers = workers
        self._simulator = sim

    async def start(self) -> None:
        """Read the counters before the run."""
        self._lsn = await self._connection.fetchval(query("wal_position"))
        self._postmaster = await postmaster(self._connection) if self._environment.local else None
        self._before = self._cpu_seconds()
        self._started_at = monotonic()

    async def finish(self) -> Sample:
        """Read the counters again; return the differences."""
        took = monotonic() - self._started_at
        workers, server, simulator = self._cpu_seconds()
        wal = await self._connection.fetchval(query("wal_bytes_since"), self._lsn)
        return Sample(
            took,
            workers - self._before[0],
            None if server is None else server - (self._before[1] or 0.0),
            None if simulator is None else simulator - (self._before[2] or 0.0),
            int(wal),
            max(proc.peak_memory(each.pid) for each in self._workers),
        )

    def _cpu_seconds(self) -> tuple[float, float | None, float | None]:
        return (
            sum(proc.seconds(each.pid) for each in self._workers),
            None if self._postmaster is None else proc.server_seconds(self._postmaster),
            None if self._simulator is None else proc.seconds(self._simulator.pid),
        )
