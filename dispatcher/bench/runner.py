"""Runs benchmarks one after the other on a PostgreSQL server."""

import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop
from rich.console import Console

from dispatcher.bench.environment import Environment, describe, open_environment
from dispatcher.bench.results import Results, show, write_json

Benchmark = Callable[[Environment], Awaitable[Results]]


@contextmanager
def temporary_environment(address: str | None) -> Iterator[Environment]:
    """Use the server at *address*, or an embedded one; logs go to a temporary folder."""
    with tempfile.TemporaryDirectory(
        prefix="dispatcher-bench-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o711)  # started by root, PostgreSQL runs as another user and passes through
        with open_environment(address, folder) as environment:
            yield environment


def run_benchmarks(
    environment: Environment, benchmarks: Sequence[Benchmark], console: Console, json: Path | None
) -> list[Results]:
    """Run *benchmarks*; print each result, and write all results so far to the file *json*.

    Raises:
        ChildError: a process of a benchmark failed.

    """
    machine = uvloop.run(describe(environment))
    console.print(
        *(f"{name}: {value}" for name, value in machine.items()), sep="\n", soft_wrap=True
    )
    measured: list[Results] = []
    for benchmark in benchmarks:
        measured.append(uvloop.run(_measure(benchmark, environment)))
        show(measured[-1], console)
        if json is not None:  # after each: a failure later loses no result
            write_json(json, machine, measured)
    return measured


def print_progress(line: str) -> None:
    """Print *line* on stderr, apart from the results."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress of a long command


async def _measure(benchmark: Benchmark, environment: Environment) -> Results:
    return await benchmark(environment)
