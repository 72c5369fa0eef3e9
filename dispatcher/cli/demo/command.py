"""The command ``dispatcher demo``."""

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
    from dispatcher.cli.demo.demo import play

    # The end of a terminal or a SIGTERM is as good a reason as Ctrl-C to clean up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants it to go on
            signal.signal(number, _interrupt)
    play(keep=keep)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
