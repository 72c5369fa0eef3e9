"""``dispatcher bench``: how fast it is here, and whether it keeps what was measured elsewhere."""

import sys
import tempfile
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.failure import Failure

if TYPE_CHECKING:
    from dispatcher.bench.results import Figure, Results
    from dispatcher.bench.stage import Stage


class What(StrEnum):
    """A benchmark."""

    SEND = "send"
    ENQUEUE = "enqueue"
    LATENCY = "latency"
    FLAT = "flat"
    PACE = "pace"
    PEERS = "peers"
    REPORTS = "reports"
    KEEP = "keep"


Measure = Callable[["Stage"], Awaitable["Results"]]


def bench(
    what: Annotated[list[What] | None, typer.Argument(help="What to measure.")] = None,
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are told of them.")] = 5,
    messages: Annotated[
        int, typer.Option(min=1000, help="Messages of one run (not latency, pace, reports).")
    ] = 200_000,
    million: Annotated[
        int,
        typer.Option(min=1000, help="Messages to a million (flat, latency's backlog, keep: 20)."),
    ] = 1_000_000,
    seconds: Annotated[
        float, typer.Option(min=3, help="Seconds of one run (pace, reports), or snapshot (flat).")
    ] = 60.0,
    server: Annotated[
        str | None, typer.Option(help="Address of the PostgreSQL to measure on.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a picture: FILE.png or FILE.svg.")] = None,
) -> None:
    """Measure on this machine: interleaved rounds, medians and ranges.

    It uses databases of its own, which it drops again, on the PostgreSQL of --server or
    DISPATCHER_DATABASE_URL, or on an embedded one. The simulator is a process of its own.
    """
    import uvloop

    from dispatcher.bench.children import ChildError
    from dispatcher.bench.stage import describe, stage
    from dispatcher.cli.database import explained
    from dispatcher.cli.settings import read_settings
    from dispatcher.db.migrations import MigrationError
    from dispatcher.postgres.programs import EmbeddedError

    wanted = what or [What.SEND]
    measures = _measures(rounds=rounds, messages=messages, million=million, seconds=seconds)
    settings = read_settings()
    configured = settings.database_direct_url or settings.database_url
    address = server or (configured.get_secret_value() if configured else None)
    with tempfile.TemporaryDirectory(
        prefix="dispatcher-bench-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, PostgreSQL runs as somebody who must get through it
        try:
            with (
                stage(address, folder) as where,
                explained(where.address),
            ):
                machine = uvloop.run(describe(where))
                typer.echo("\n".join(f"{key}: {value}" for key, value in machine.items()))
                measured = []
                for each in wanted:
                    measured.append(uvloop.run(_one(measures[each], where)))
                    _show(measured[-1])
                    if json is not None:  # after each: a long run that breaks is not lost
                        _write(json, machine, measured)
        except (ChildError, EmbeddedError, MigrationError) as error:
            raise Failure(str(error)) from error
    if plot is not None:
        _plot(plot, measured)


async def _one(measure: Measure, where: "Stage") -> "Results":
    return await measure(where)


def _measures(*, rounds: int, messages: int, million: int, seconds: float) -> dict[What, Measure]:
    from dispatcher.bench import enqueue, flat, keep, latency, pacing, peers, reports, send

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress, apart from the results

    return {
        What.SEND: lambda where: send.measure(where, rounds=rounds, messages=messages, say=say),
        What.ENQUEUE: lambda where: enqueue.measure(
            where, rounds=rounds, messages=messages, seconds=3.0, say=say
        ),
        What.LATENCY: lambda where: latency.measure(
            where, rounds=rounds, urgent=200, backlog=million, say=say
        ),
        What.FLAT: lambda where: flat.measure(
            where, rounds=rounds, messages=messages, million=million, held=seconds, say=say
        ),
        What.PACE: lambda where: pacing.measure(where, seconds=seconds, say=say),
        What.PEERS: lambda where: peers.measure(
            where, rounds=rounds, jobs=messages // 10, messages=messages, say=say
        ),
        What.REPORTS: lambda where: reports.measure(
            where, rounds=rounds, seconds=seconds, connections=64, say=say
        ),
        What.KEEP: lambda where: keep.measure(
            where, rounds=rounds, messages=messages, history=20 * million, say=say
        ),
    }


def _show(results: "Results") -> None:
    from rich.table import Table

    from dispatcher.cli.screen import screen

    table = Table(title=results.benchmark, title_justify="left")
    for name in ("", "", "median", "lowest", "highest"):
        table.add_column(name, justify="right" if name else "left")
    for rows in (results.figures, results.ratios):
        for row in rows:
            table.add_row(
                row.variant, f"{row.name} {row.unit}".strip(), *map(_number, _summary(row))
            )
        table.add_section()
    screen().print(table, *results.notes, sep="\n")


def _summary(figure: "Figure") -> tuple[float, float, float]:
    return figure.median, min(figure.values), max(figure.values)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits tell


def _write(file: Path, machine: dict[str, str], measured: "list[Results]") -> None:
    from datetime import UTC, datetime

    import msgspec

    from dispatcher import __version__

    whole = {
        "version": __version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "benchmarks": measured,
    }
    file.write_bytes(msgspec.json.format(msgspec.json.encode(whole)) + b"\n")


def _plot(file: Path, measured: "list[Results]") -> None:
    from dispatcher.bench.plot import plot

    try:
        plot(measured, file)
    except ImportError:
        raise Failure("--plot needs matplotlib: pip install 'dispatcher[bench]'") from None
