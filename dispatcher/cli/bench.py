"""``dispatcher bench``: measures how fast the dispatcher is on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.core.errors import os_reason
from dispatcher.core.language import _

if TYPE_CHECKING:
    from dispatcher.bench.runner import Benchmark


class BenchmarkName(StrEnum):
    """A benchmark."""

    SEND = "send"
    LATENCY = "latency"
    RETENTION = "retention"
    REPORTS = "reports"


def bench(
    what: Annotated[
        list[BenchmarkName] | None,
        typer.Argument(
            metavar="WHAT", help="What to measure: send, latency, retention or reports."
        ),
    ] = None,
    *,
    rounds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Rounds; the results are their medians.")
    ] = 5,
    messages: Annotated[
        int, typer.Option(min=1000, metavar="N", help="Messages of one run (send, retention).")
    ] = 200_000,
    million: Annotated[
        int,
        typer.Option(
            min=1000, metavar="N", help="Messages to a million (latency's backlog, retention: 20)."
        ),
    ] = 1_000_000,
    seconds: Annotated[
        float, typer.Option(min=3, metavar="N", help="Seconds of one run (reports).")
    ] = 60.0,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Compare one receiver with so many on one port (reports).",
        ),
    ] = 1,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of the PostgreSQL to measure on.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures to this file.")
    ] = None,
) -> None:
    """Measure on this machine: interleaved rounds, medians and ranges.

    It creates databases and drops them again, on the PostgreSQL of --server or
    DISPATCHER_DATABASE_URL, or on an embedded one. The simulator runs as a separate process.
    """
    from dispatcher.bench.children import ChildError
    from dispatcher.bench.runner import run_benchmarks, temporary_environment
    from dispatcher.cli.connection import explained, read_settings
    from dispatcher.cli.output import screen
    from dispatcher.db.migrate import MigrationError
    from dispatcher.postgres.programs import EmbeddedError
    from dispatcher.settings.types import is_address

    benchmarks = _benchmarks(
        rounds=rounds, messages=messages, million=million, seconds=seconds, processes=processes
    )
    wanted = [benchmarks[name] for name in what or [BenchmarkName.SEND]]
    settings = read_settings()
    if server is not None and not is_address(server):
        raise CommandError(
            _("--server takes a PostgreSQL address: postgresql://user:password@host:5432/name."),
            code=USED_WRONGLY,
        )
    if json is not None:
        _try_to_write(json)
    configured = settings.database_direct_url or settings.database_url
    address = server or (configured.get_secret_value() if configured else None)
    try:
        with temporary_environment(address) as environment, explained(environment.address):
            run_benchmarks(environment, wanted, screen(), json)
    except (ChildError, EmbeddedError, MigrationError) as error:
        raise CommandError(str(error)) from error
    except CommandError as error:
        if server is None:
            raise
        named = (line.replace("DISPATCHER_DATABASE_URL", "--server") for line in error.lines)
        raise CommandError(*named, code=error.code) from None


def _try_to_write(file: Path) -> None:
    """Raise CommandError if *file* cannot be written: it is written after hours of work."""
    try:
        file.open("a").close()
    except OSError as error:
        raise CommandError(
            _("{path} cannot be written: {strerror}. Nothing was measured.").format(
                path=file, strerror=os_reason(error)
            )
        ) from None


def _benchmarks(
    *, rounds: int, messages: int, million: int, seconds: float, processes: int
) -> "dict[BenchmarkName, Benchmark]":
    from dispatcher.bench import latency, reports, retention, send
    from dispatcher.bench.runner import print_progress as progress

    return {
        BenchmarkName.SEND: lambda environment: send.measure(
            environment, rounds=rounds, messages=messages, progress=progress
        ),
        BenchmarkName.LATENCY: lambda environment: latency.measure(
            environment, rounds=rounds, urgent=200, backlog=million, progress=progress
        ),
        BenchmarkName.RETENTION: lambda environment: retention.measure(
            environment, rounds=rounds, messages=messages, history=20 * million, progress=progress
        ),
        BenchmarkName.REPORTS: lambda environment: reports.measure(
            environment,
            rounds=rounds,
            seconds=seconds,
            connections=64,
            processes=processes,
            progress=progress,
        ),
    }
