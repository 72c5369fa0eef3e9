"""The service as a process of its own, to be killed, frozen and stopped."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dispatcher.postgres.programs import signal_on_parent_exit
from support.forked import ForkedProcess
from support.waiting import until

ROOT = Path(__file__).parents[2]  # `python -m` takes the package that lies in its directory
START = 90.0  # seconds; a second on a quiet machine
Settings = Mapping[str, object]


def environment(dsn: str, apps: Mapping[str, Settings], settings: Settings) -> dict[str, str]:
    """Return the environment of a worker: nothing of ours that begins with DISPATCHER_."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    given: dict[str, object] = {
        "DATABASE_URL": dsn,
        "LISTEN": "127.0.0.1:0",
        "POLL_INTERVAL": "50ms",
        "LOG_FORMAT": "json",
        **{name.upper(): value for name, value in settings.items()},
    }
    for app, values in apps.items():
        for name, value in values.items():
            given[f"APPS__{app}__{name}".upper()] = value
    return mine | {f"DISPATCHER_{name}": str(value) for name, value in given.items()}


class WorkerProcess:
    """One `dispatcher run`. What it says goes to *log*, one JSON a line."""

    def __init__(
        self,
        environ: Mapping[str, str],
        log: Path,
        *arguments: str,
        module: str = "dispatcher",
        forked: bool = False,
    ) -> None:
        """Start it: *forked*, or in a new interpreter, which runs *module* as `dispatcher`."""
        self.log = log
        self._process: ForkedProcess | subprocess.Popen[bytes]
        if forked:
            log.write_bytes(b"")
            self._process = ForkedProcess(
                ["run", *arguments], environ, out=log, err=log, folder=ROOT
            )
            return
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "run", *arguments],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one system call
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    async def started(self) -> int:
        """Wait until it works; return its worker id."""

        def said() -> dict[str, Any] | None:
            assert self.code is None, f"it ended: {self.text()}"
            return next((e for e in self.events() if e.get("event") == "worker started"), None)

        return int((await until(said, deadline=START, what="a worker starts"))["worker"])

    async def starts(self) -> bool:
        """Wait until it works, or has ended; return whether it works."""

        def told() -> bool:
            return self.code is not None or self._works()

        await until(told, deadline=START, what="a worker starts, or gives up")
        return self.code is None

    def _works(self) -> bool:
        return any(event.get("event") == "worker started" for event in self.events())

    async def ended(self, deadline: float = 60.0) -> int:
        """Wait until it has ended; return its exit code."""
        await until(lambda: self.code is not None, deadline=deadline, what="a worker ends")
        assert self.code is not None
        return self.code

    def events(self) -> list[dict[str, Any]]:
        """What it has logged so far, as far as the lines are whole."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    @property
    def stumbled(self) -> str:
        """What it said when it fell over an error of its own; empty if it did not."""
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        said = "".join(line for line in lines if not line.startswith("{"))
        return said[-3000:] if "Traceback" in said else ""

    def text(self) -> str:
        """The end of its log, for people."""
        return self.log.read_text(encoding="utf-8")[-4000:]

    @property
    def peak(self) -> int:
        """The MB of memory that it had at most so far; 0 where there is no /proc."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        except FileNotFoundError:
            return 0
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) // 1024

    def freeze(self) -> None:
        """Stop it as a hypervisor does: in the middle of anything."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; it believes that nothing happened."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once, and reap it."""
        self._process.kill()
        self._process.wait()
