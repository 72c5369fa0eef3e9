"""``dispatcher demo``: runs everything on this machine, and removes it again.

PostgreSQL, the simulated provider and the worker are started by the real commands; the demo loads
``sample.csv`` and shows the results. ``provider.json`` has the simulator's options: the templates
of the sample, and the numbers that it refuses.
"""

import signal
from types import FrameType
from typing import Annotated

import typer


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running until Ctrl-C, to look around.")
    ] = False,
) -> None:
    """See it work on this machine, without an account.

    A PostgreSQL, a simulated provider, a worker and 3,000 messages: nothing is sent to anybody,
    and nothing is left behind.
    """
    from dispatcher.cli.demo.scenario import run_demo

    # The end of a terminal or a SIGTERM cleans up as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    run_demo(keep=keep)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
