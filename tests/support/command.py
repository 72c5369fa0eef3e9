"""Runs the real command in a process of its own, without settings of this process."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.forked import ForkedProcess

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
    left_out = ("DISPATCHER_", "PYTHONUNBUFFERED")  # users have a buffer
    rest = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    named = {f"DISPATCHER_{name}": str(value) for name, value in settings.items()}
    return rest | {"LC_ALL": "C.UTF-8"} | named  # English on every machine


@pytest.fixture
def command(tmp_path) -> Command:
    """Runs ``dispatcher ARGUMENTS`` to its end; settings are keyword arguments."""

    async def run(*arguments: object, locale: str = "C.UTF-8", **settings: object) -> Ended:
        environ = _environment(**{"DATA_DIR": tmp_path / "data", **settings})
        with TemporaryDirectory(dir=tmp_path) as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            process = ForkedProcess(
                [str(each) for each in arguments], environ | {"LC_ALL": locale}, out=out, err=err
            )
            try:
                async with asyncio.timeout(DEADLINE):
                    code = await process.ended()
            finally:
                process.kill()
            ended = Ended(code, *(_text(each) for each in (out, err)))
        assert "Traceback" not in ended.err, ended.err
        return ended

    return run


def _text(file: Path) -> str:
    return file.read_text("utf-8")


@pytest.fixture
def operate(command, dsn) -> Command:
    """Runs a command on this test's own database."""

    async def run(*arguments: object, **settings: object) -> Ended:
        return await command(*arguments, **{"DATABASE_URL": dsn, **settings})

    return run
