"""Fixtures of every test that looks at worker processes from outside."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatcher.simulator import Simulator
from support.provider import app_at, provider
from support.worker import Settings, WorkerProcess, environment

Provide = Callable[..., Awaitable[Simulator]]


class Workers:
    """Starts workers on one database; all of them end with the test."""

    def __init__(self, dsn: str, folder: Path, *, forked: bool) -> None:
        self._dsn = dsn
        self.folder = folder
        self.forked = forked  # else each is a new interpreter
        self._numbers = itertools.count(1)
        self.all: list[WorkerProcess] = []

    def launch(
        self,
        apps: Mapping[str, Settings] | str,
        *,
        dsn: str | None = None,
        arguments: tuple[str, ...] = (),
        **settings: object,
    ) -> WorkerProcess:
        """Start one, without waiting for it; *apps*: their settings, or the one's endpoint."""
        if isinstance(apps, str):
            apps = {"default": app_at(apps)}
        given = {"data_dir": self.folder / "data", **settings}
        environ = environment(dsn or self._dsn, apps, given)
        log = self.folder / f"worker-{next(self._numbers)}.log"
        worker = WorkerProcess(environ, log, *arguments, forked=self.forked)
        self.all.append(worker)
        return worker

    async def start(self, apps: Mapping[str, Settings] | str, **more: Any) -> WorkerProcess:
        """Start one, and wait until it works."""
        worker = self.launch(apps, **more)
        await worker.started()
        return worker


@pytest.fixture
def workers(dsn, tmp_path) -> Iterator[Workers]:
    """Start workers on this test's database; none of them may stumble."""
    with working(dsn, tmp_path, forked=True) as made:
        yield made


@contextmanager
def working(dsn: str, folder: Path, *, forked: bool = False) -> Iterator[Workers]:
    """Start workers on the database at *dsn*, as above."""
    made = Workers(dsn, folder, forked=forked)
    try:
        yield made
    finally:
        _end(made)


def _end(made: Workers) -> None:
    for worker in made.all:
        worker.kill()
    for worker in made.all:
        print(f"--- {worker.log.name}", worker.text(), sep="\n")  # noqa: T201 - shown if it failed
    assert not [worker.stumbled for worker in made.all if worker.stumbled]


@pytest.fixture
async def provide() -> AsyncIterator[Provide]:
    """Start providers in this process."""
    async with AsyncExitStack() as stack:

        async def make(**arguments: Any) -> Simulator:
            return await stack.enter_async_context(provider(**arguments))

        yield make


@pytest.fixture
async def sim(provide) -> Simulator:
    """A provider without faults until a test adds some."""
    return await provide()
