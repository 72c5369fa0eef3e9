"""`./dev research`: benchmarks that compare designs; `dispatcher bench` is for users.

baselines   send beside the same SQL alone, and beside one table with UPDATEs
scaling     send and claim beside finished, scheduled and due messages, and a held snapshot
rate        whether the rate limit holds, with workers that are killed
enqueue     inserts per second, with the queue's trigger and without
peers       other job queues (PgQueuer, Procrastinate, Graphile Worker, pg-boss) beside send
blackbox    what minutes of a sick provider cost: unsure, rejected, accepted twice, time to drain
reports     the report receiver beside an HTTP handler that only parses and answers
console     each page of the console, and its list by every filter, beside ten million messages
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import baselines, blackbox, console_pages, enqueue, http_baseline, peers, rate, scaling
from bench.plot import plot
from dispatcher.bench.children import ChildError
from dispatcher.bench.runner import Benchmark, print_progress, run_benchmarks, temporary_environment

SINGLE_INSERT_SECONDS = 3.0
REPORT_CONNECTIONS = 64


def main() -> int:
    """Run the benchmarks that the command line names; return the exit code."""
    given = parse_arguments()
    benchmarks = all_benchmarks(given)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
    try:
        with temporary_environment(given.server) as environment:
            wanted = [benchmarks[name] for name in given.names]
            measured = run_benchmarks(environment, wanted, console, given.json)
    except ChildError as error:
        print_progress(str(error))
        return 1
    if given.plot:
        plot(measured, given.plot)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="./dev research",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ("baselines", "scaling", "rate", "enqueue", "peers", "reports", "blackbox", "console")
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help="what to measure")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--messages", type=int, default=200_000, help="of one run (200000)")
    parser.add_argument(
        "--million", type=int, default=1_000_000, help="messages to a million (scaling, console)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="of one run (rate, reports), or of the snapshot held while 10 million go out (scaling)"
        " (60)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="for which the providers are sick (blackbox) (10)",
    )
    parser.add_argument("--server", help="address of the PostgreSQL (default: an embedded one)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument(
        "--plot", type=Path, help="draw FILE.png or FILE.svg; needs matplotlib (extra `bench`)"
    )
    return parser.parse_args()


def all_benchmarks(given: argparse.Namespace) -> dict[str, Benchmark]:
    """Return each benchmark by name, with the arguments that it takes."""
    messages, seconds = given.messages, given.seconds
    rounds = {"rounds": given.rounds, "progress": print_progress}
    return {
        "baselines": lambda environment: baselines.measure(
            environment, messages=messages, **rounds
        ),
        "scaling": lambda environment: scaling.measure(
            environment,
            messages=messages,
            million=given.million,
            snapshot_seconds=seconds,
            **rounds,
        ),
        "rate": lambda environment: rate.measure(
            environment, seconds=seconds, progress=print_progress
        ),
        "enqueue": lambda environment: enqueue.measure(
            environment, messages=messages, seconds=SINGLE_INSERT_SECONDS, **rounds
        ),
        "peers": lambda environment: peers.measure(
            environment, jobs=messages // 10, messages=messages, **rounds
        ),
        "blackbox": lambda environment: blackbox.measure(
            environment, minutes=given.minutes, progress=print_progress
        ),
        "console": lambda environment: console_pages.measure(
            environment, messages=10 * given.million, **rounds
        ),
        "reports": lambda environment: http_baseline.measure(
            environment, seconds=seconds, connections=REPORT_CONNECTIONS, **rounds
        ),
    }


sys.exit(main())
