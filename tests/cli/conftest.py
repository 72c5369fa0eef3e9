"""Runs the real command in a process, without settings of this process."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

DEADLINE = 60  # seconds for a command; the machine may be busy


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr; fails where there are several, or none."""
        (line,) = self.err.splitlines()
        return line


Command = Callable[..., Awaitable[Ended]]


@pytest.fixture
def environment() -> Callable[..., dict[str, str]]:
    """Makes this process's environment with the given settings as its only DISPATCHER_ ones."""
    return _environment


def _environment(**settings: object) -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    return rest | {f"DISPATCHER_{name}": str(value) for name, value in settings.items()}


@pytest.fixture
def command(tmp_path) -> Command:
    """Runs ``dispatcher ARGUMENTS`` to its end; settings are keyword arguments."""

    async def run(*arguments: object, **settings: object) -> Ended:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dispatcher",
            *map(str, arguments),
            env=_environment(**{"DATA_DIR": tmp_path / "data", **settings}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DEADLINE):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
        assert "Traceback" not in err.decode(), err.decode()
        return Ended(process.returncode, out.decode(), err.decode())

    return run


@pytest.fixture
def operate(command, dsn) -> Command:
    """Runs a command on this test's own database."""

    async def run(*arguments: object, **settings: object) -> Ended:
        return await command(*arguments, **{"DATABASE_URL": dsn, **settings})

    return run
