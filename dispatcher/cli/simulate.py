"""``dispatcher simulate``: runs the simulated provider as a process."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.core.errors import os_reason
from dispatcher.core.language import N_, _, with_stop
from dispatcher.core.stored_texts import stored_text

if TYPE_CHECKING:
    from dispatcher.simulator import Simulator

Config = TypeVar("Config")
_ERRORS = (N_("{at} is not HOST:PORT"),)  # the simulator knows no other language
GC_THRESHOLD_OBJECTS = 50_000  # allocated between two collections; by default 700


def simulate(
    *,
    key: Annotated[str, typer.Option(metavar="KEY", help="The app key to accept.")],
    secret: Annotated[str, typer.Option(metavar="SECRET", help="The secret of that key.")],
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Address to listen on; port 0 takes a free one."),
    ] = ("127.0.0.1:0"),
    control: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Second address, for the control paths; no fault affects it."
        ),
    ] = None,
    options: Annotated[
        str, typer.Option(metavar="JSON", help="Options of the provider: JSON, or a JSON file.")
    ] = "{}",
    faults: Annotated[
        str,
        typer.Option(
            metavar="JSON", show_default="none", help="Faults to inject: JSON, or a JSON file."
        ),
    ] = "[]",
    reports: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Send status reports with these options: JSON ('{}': defaults), or a JSON file.",
        ),
    ] = None,
) -> None:
    """Simulate the provider on this machine until SIGTERM or Ctrl-C.

    Prints its address in the first line; with --control, that of the control paths in the second.
    GET /_accepted, /_ledger, /_bill, /_requests and /_reports show what it accepted; PUT, GET and
    DELETE /_faults set, count and clear faults.
    """
    import gc

    import uvloop

    from dispatcher.simulator import Simulator, read_faults, read_options, read_reports

    simulator = Simulator(
        {key: secret},
        listen=listen,
        control=control,
        options=_read_config("--options", options, read_options),
        faults=_read_config("--faults", faults, read_faults),
        reports=None if reports is None else _read_config("--reports", reports, read_reports),
    )
    # Requests and answers form no cycles: the search for cycles took an eighth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS, 20, 100)
    uvloop.run(_run_until_signal(simulator))


def _read_config(name: str, value: str, read: Callable[[bytes | str], Config]) -> Config:
    """Read JSON that is given directly or as the name of a file."""
    from dispatcher.simulator import ConfigTextError

    try:
        given = value.lstrip()[:1] in ("{", "[")
        return read(value if given else Path(value).read_bytes())
    except OSError as error:
        raise CommandError(
            _("{name}: {value} is neither JSON nor a file that can be read ({why}).").format(
                name=name, value=value, why=os_reason(error)
            ),
            code=USED_WRONGLY,
        ) from error
    except ConfigTextError as error:
        raise CommandError(f"{name}: {error}.", code=USED_WRONGLY) from error


async def _run_until_signal(simulator: "Simulator") -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await simulator.start()
    except OSError as error:
        raise CommandError(
            _(
                "the simulator cannot listen ({why}): name another address with --listen, or stop"
                " what uses this one."
            ).format(why=_(os.strerror(error.errno)) if error.errno else error)
        ) from error
    except ValueError as error:
        said = stored_text(str(error), _ERRORS)
        raise CommandError(with_stop(said), code=USED_WRONGLY) from error
    try:
        print(simulator.url, flush=True)  # noqa: T201 - the starting process reads this line
        if simulator.control_url != simulator.url:
            print(simulator.control_url, flush=True)  # noqa: T201 - and this one
        await stopping.wait()
    finally:
        await simulator.stop()
