"""``dispatcher demo`` shows correct results, ends, and removes everything."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from dispatcher.cli.demo.screen import http_command
from dispatcher.simulator import Simulator

DEADLINE = 120  # seconds for a whole demo on a busy machine; by itself it takes 15


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the demo puts its files: TMPDIR, which also marks all of its processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def environ(environment, folder) -> dict[str, str]:
    """The demo's environment; a setting of the user's own must not reach what it starts."""
    return environment(LISTEN="nonsense") | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}


@asynccontextmanager
async def demo(environ: dict[str, str], *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher", "demo", *options,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=_heed,
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _heed() -> None:
    """Heed signals that the shell which runs the tests in the background has them ignore."""
    for sign in (signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, signal.SIG_DFL)


async def read_until(process: asyncio.subprocess.Process, words: str) -> str:
    """Return what the demo printed, up to the line with *words*."""
    printed = ""
    while words not in printed:
        line = await process.stdout.readline()
        assert line, printed + (await process.stderr.read()).decode()
        printed += line.decode()
    return printed


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that the demo's TMPDIR marks."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            marked = str(folder).encode() in (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            name = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has ended, or is another user's
        if marked and state != "Z":
            found.append(name)
    return found


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def opens(console: str, token: str) -> bool:
    """Tell whether *token* opens the console."""
    form = {"token": token, "actor": "Ana"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{console}/login", data=form, allow_redirects=False) as answer,
    ):
        return answer.status == 303


async def nothing_is_left(folder: Path) -> None:
    async with asyncio.timeout(30):
        # The end of a process that is not our child cannot be awaited.
        while processes_of(folder) or files_in(folder):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_demo_ends_and_shows_the_outcomes(folder, environ):
    async with demo(environ) as process:
        out, err = (stream.decode() for stream in await process.communicate())
    assert (process.returncode, err) == (0, ""), out
    rows = re.findall(r"^ *(\S+(?: in)?)  +(\S*)  .*?([\d,]+) +ID \d+ *$", out, re.MULTILINE)
    assert {tuple(row) for row in rows} >= {
        ("accepted", "000000", "3,000"),
        ("rejected", "E200028", "15"),
        ("rejected", "E200031", "14"),
    }
    assert "line 1706, refused: priority is 0 first to 9 last" in out
    assert "line 349, refused: expires_at is past" in out
    assert "the provider counts 3,000 accepted numbers as well" in out
    assert re.search("DISPATCHER_APPS__DEFAULT__ENDPOINT=https://... +# from the provider's", out)
    assert re.findall(rf"^  {sys.prefix}/bin/dispatcher (\w+)$", out, re.MULTILINE) == [
        "migrate",
        "check",
        "run",
    ]
    await nothing_is_left(folder)


async def shell(line: str, **environ: str) -> tuple[int | None, str]:
    """Run a printed line where neither this environment nor curl is on the PATH."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", line,
        env={"PATH": "/nowhere"} | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_the_printed_lines_set_and_clear_faults_without_curl(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    async with Simulator({"key": "secret"}) as provider:
        address = f"{provider.url}/_faults"
        for method, body, armed in (("PUT", '[{"fault": "quota"}]', 1), ("DELETE", "", 0)):
            assert await shell(http_command(method, address, body)) == (0, "")
            assert len(provider.faults.describe()["faults"]) == armed
    (tmp_path / "curl").touch(0o755)
    assert http_command("PUT", "http://h/", "[]") == "curl -X PUT http://h/ -d '[]'"


@pytest.mark.slow
async def test_a_demo_that_is_kept_can_be_looked_at_until_ctrl_c(folder, environ):
    async with demo(environ, "--keep") as process:
        out = await read_until(process, "Ctrl-C ends it")
        data = re.search(r"export DISPATCHER_DATA_DIR=(\S+)", out)[1]
        status = re.search(r"^  (\S+ status) --watch$", out, re.MULTILINE)[1]
        code, seen = await shell(status, DISPATCHER_DATA_DIR=data)
        assert code == 0, seen
        assert re.search(r"^ ?default +idle", seen, re.MULTILINE), seen
        assert await opens(*re.search(r"(http\S+/console)\n +Token: (\S+)", out).groups())
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
    await nothing_is_left(folder)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.slow
async def test_a_demo_that_is_stopped_half_way_leaves_nothing(folder, environ, sign):
    async with demo(environ, "--keep") as process:  # it has not ended, however late the signal is
        await read_until(process, "inserted into dispatcher.message")
        assert len(processes_of(folder)) > 4  # itself, the broom, PostgreSQL, simulator, worker
        process.send_signal(sign)
        out, err = await process.communicate()
    if sign is not signal.SIGKILL and b"Ctrl-C ends it" not in out:
        assert (process.returncode, err) == (1, b"dispatcher: interrupted.\n")
    await nothing_is_left(folder)


@pytest.mark.slow
async def test_the_demo_is_chinese_where_the_locale_is(environ):
    async with demo(environ | {"LC_ALL": "zh_CN.UTF-8"}) as process:
        out, err = await process.communicate()
    said = out.decode()
    assert (process.returncode, err) == (0, b"")
    for words in (
        "全部在本机运行，不会向任何人发送短信。",
        "s  服务商      模拟，地址 http://",
        "已受理 3,000，已拒绝 29，剩余 0",
        "已拒绝   E200028   变量与模板不符。",
        "第 349 行被拒绝：expires_at 已过",
        "对账        服务商同样受理了 3,000 个号码",
        "已全部停止并清除",
    ):
        assert words in said
