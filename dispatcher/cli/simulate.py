"""``dispatcher simulate``: the provider as a process."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError

if TYPE_CHECKING:
    from dispatcher.simulator import Simulator

Told = TypeVar("Told")
OBJECTS = 50_000  # made between two looks for cyclic garbage; by default 700


def simulate(
    *,
    key: Annotated[str, typer.Option(metavar="KEY", help="The app key it knows.")],
    secret: Annotated[str, typer.Option(metavar="SECRET", help="The secret of that key.")],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where; port 0 takes a free one.")
    ] = ("127.0.0.1:0"),
    control: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="A second one for the control paths, which no fault touches."
        ),
    ] = None,
    options: Annotated[
        str, typer.Option(metavar="JSON", help="What it knows and allows: JSON, or a file of it.")
    ] = "{}",
    faults: Annotated[
        str, typer.Option(metavar="JSON", help="What goes wrong: JSON, or a file of it.")
    ] = "[]",
    reports: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Send status reports, and how: JSON ('{}' will do), or a file of it.",
        ),
    ] = None,
) -> None:
    """Play the provider on this machine until SIGTERM or Ctrl-C.

    Prints its address in the first line; with --control, that of the control paths in the second.
    Ask it what it accepted: GET /_accepted, /_ledger, /_requests, /_reports. Set and count faults:
    PUT, GET, DELETE /_faults.
    """
    import gc

    import uvloop

    from dispatcher.simulator import Simulator, read_faults, read_options, read_reports

    simulator = Simulator(
        {key: secret},
        listen=listen,
        control=control,
        options=_told("--options", options, read_options),
        faults=_told("--faults", faults, read_faults),
        reports=None if reports is None else _told("--reports", reports, read_reports),
    )
    # Entries and answers are in no cycle: looking for some took an eighth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, 20, 100)
    uvloop.run(_play(simulator))


def _told(name: str, value: str, read: Callable[[bytes | str], Told]) -> Told:
    """Read JSON that was given as it is, or as the name of a file."""
    from dispatcher.simulator import TextError

    try:
        given = value.lstrip()[:1] in ("{", "[")
        return read(value if given else Path(value).read_bytes())
    except OSError as error:
        raise CommandError(
            f"{name}: {value} is neither JSON nor a file that can be read ({error.strerror}).",
            code=USED_WRONGLY,
        ) from error
    except TextError as error:
        raise CommandError(f"{name}: {error}.", code=USED_WRONGLY) from error


async def _play(simulator: "Simulator") -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await simulator.start()
    except OSError as error:
        raise CommandError(f"the simulator cannot listen: {error.strerror or error}.") from error
    except ValueError as error:
        raise CommandError(f"{error}.", code=USED_WRONGLY) from error
    try:
        print(simulator.url, flush=True)  # noqa: T201 - whoever started it reads this line
        if simulator.control_url != simulator.url:
            print(simulator.control_url, flush=True)  # noqa: T201 - and this one
        await stopping.wait()
    finally:
        await simulator.stop()
