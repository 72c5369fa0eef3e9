"""What a run takes: time, processor time, WAL and memory."""

from time import monotonic

from msgspec import Struct

from dispatcher.bench import processes
from dispatcher.bench.children import Child
from dispatcher.bench.stage import Stage, postmaster, statement
from dispatcher.db.database import OwnConnection


class Sample(Struct):
    """What one run took."""

    seconds: float
    workers: float  # processor seconds
    server: float | None
    simulator: float | None
    wal: int
    memory: int  # bytes, of the largest worker


class Meter:
    """Counters of a run: taken once before it and once after."""

    def __init__(
        self, stage: Stage, connection: OwnConnection, workers: list[Child], sim: Child | None
    ) -> None:
        self._stage = stage
        self._connection = connection
        self._workers = workers
        self._simulator = sim

    async def begin(self) -> None:
        """Take the counters before the run."""
        self._lsn = await self._connection.fetchval(statement("wal_position"))
        self._postmaster = await postmaster(self._connection) if self._stage.local else None
        self._before = self._processors()
        self._began = monotonic()

    async def end(self) -> Sample:
        """Take them again; return the differences."""
        took = monotonic() - self._began
        workers, server, simulator = self._processors()
        wal = await self._connection.fetchval(statement("wal_since"), self._lsn)
        return Sample(
            took,
            workers - self._before[0],
            None if server is None else server - (self._before[1] or 0.0),
            None if simulator is None else simulator - (self._before[2] or 0.0),
            int(wal),
            max(processes.peak_memory(each.pid) for each in self._workers),
        )

    def _processors(self) -> tuple[float, float | None, float | None]:
        return (
            sum(processes.seconds(each.pid) for each in self._workers),
            None if self._postmaster is None else processes.server_seconds(self._postmaster),
            None if self._simulator is None else processes.seconds(self._simulator.pid),
        )
