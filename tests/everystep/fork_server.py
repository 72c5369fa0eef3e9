"""Forks processes of the service from one that has imported it: a start takes 50 ms, not a second.

It reads one JSON a line from its socket (`environment`, `log`, `arguments`), answers with the
process id, and reports each process that has ended. `ForkServer` is the other end.
"""

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Self

from support.worker import ROOT

PR_SET_PDEATHSIG = 1
ENDED = 0  # no process has this id


class ForkServer:
    """Starts processes, and remembers how they ended. An async context manager."""

    def __init__(self) -> None:
        self.ended: dict[int, int] = {}  # process id: exit code, negative for a signal
        self._asking = asyncio.Lock()
        self._pids: asyncio.Queue[int] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        ours, theirs = socket.socketpair()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "everystep.fork_server", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
        )
        theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()
        self._task.cancel()
        self._writer.close()

    async def start(self, environ: Mapping[str, str], log: Path, *arguments: str) -> int:
        """Start `dispatcher run ARGUMENTS`; return its process id."""
        order = {"environment": dict(environ), "log": str(log), "arguments": arguments}
        async with self._asking:
            self._writer.write(json.dumps(order).encode() + b"\n")
            pid = await self._pids.get()
        if pid == ENDED:
            raise RuntimeError("the process that forks has ended, see what it says above")
        return pid

    async def _listen(self) -> None:
        while line := await self._reader.readline():
            match json.loads(line):
                case {"started": pid}:
                    self.ended.pop(pid, None)  # ids come again
                    self._pids.put_nowait(pid)
                case {"ended": pid, "code": code}:
                    self.ended[pid] = code
        self._pids.put_nowait(ENDED)


def main() -> None:
    """Serve until the socket is closed."""
    import typer.main  # noqa: PLC0415

    from dispatcher.cli import commands  # noqa: PLC0415
    from dispatcher.db.queries import statements  # noqa: PLC0415

    for name in ("uvloop", "dispatcher.cli.run", "dispatcher.service.run"):
        importlib.import_module(name)
    statements()
    # Typer makes its commands from the functions' annotations at each call: a fifth of a start.
    command = typer.main.get_command(commands.app)
    typer.main.get_command = lambda _: command
    orders = socket.socket(fileno=int(sys.argv[1]))
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    gc.collect()
    gc.freeze()
    _serve(orders, awake, prctl)


def _serve(orders: socket.socket, awake: int, prctl: object) -> None:
    import selectors  # noqa: PLC0415

    selector = selectors.DefaultSelector()
    selector.register(orders, selectors.EVENT_READ)
    selector.register(awake, selectors.EVENT_READ)
    rest = b""
    while True:
        for key, _ in selector.select():
            if key.fd == awake:
                os.read(awake, 4096)
                continue
            some = orders.recv(1 << 16)
            if not some:
                return
            *lines, rest = (rest + some).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    orders.close()
                    _become(json.loads(line), prctl)
                _tell(orders, {"started": pid})
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                code = os.waitstatus_to_exitcode(ended[1])
                _tell(orders, {"ended": ended[0], "code": code})


def _tell(orders: socket.socket, what: object) -> None:
    orders.sendall(json.dumps(what).encode() + b"\n")


def _become(order: dict[str, object], prctl: object) -> NoReturn:
    """Be a process of the service, in this fork, until it ends."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # type: ignore[operator]
        log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(order["environment"])  # type: ignore[arg-type]
        import random  # noqa: PLC0415

        random.seed()
        sys.argv = ["dispatcher", "run", *order["arguments"]]  # type: ignore[misc]
        from dispatcher.cli import main as dispatcher_main  # noqa: PLC0415

        dispatcher_main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
