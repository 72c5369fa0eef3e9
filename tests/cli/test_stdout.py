"""Output that cannot be written is no trouble of the database, and never a traceback."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

COMMANDS = (
    ("campaign", "list"),
    ("status",),
    ("suppress",),
    ("export", "--since", "1h"),
    ("--help",),
    ("status", "--json"),
    ("audit", "--json"),
    ("reports", "--json"),
)


async def run(environ, *arguments, stdout) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dispatcher", *arguments),
        env=environ,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, err.decode()


@pytest.mark.parametrize("arguments", COMMANDS)
async def test_a_full_disk_is_named_in_one_line(environment, dsn, arguments):
    with Path("/dev/full").open("w") as full:  # noqa: ASYNC230 - it is no file
        code, err = await run(environment(DATABASE_URL=dsn), *arguments, stdout=full)
    assert (code, err) == (
        1, "dispatcher: the output cannot be written: No space left on device.\n",
    )  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS)
async def test_a_closed_pipe_ends_a_command_quietly(environment, dsn, arguments):
    read, write = os.pipe()
    os.close(read)
    code, err = await run(environment(DATABASE_URL=dsn), *arguments, stdout=write)
    os.close(write)
    assert (code, err) == (1, "")


@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
async def test_a_closed_output_is_named_in_one_line(environment, dsn, closed):
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "dispatcher", "status"),
        env=environment(DATABASE_URL=dsn),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (
        1, "dispatcher: the output cannot be written: Bad file descriptor.\n",
    )  # fmt: skip


async def test_an_error_that_cannot_be_told_keeps_its_exit_code(environment):
    with Path("/dev/full").open("w") as full:  # noqa: ASYNC230 - it is no file
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dispatcher", "nonsense"), env=environment(), stderr=full
        )
        assert await asyncio.wait_for(process.wait(), 60) == 2


async def test_json_is_utf8_in_every_locale(environment, dsn, db, tmp_path):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, reference)"
        " VALUES ('+8613112345678', 't', '订单')"
    )
    environ = environment(DATABASE_URL=dsn) | {"PYTHONIOENCODING": "gbk"}
    with (tmp_path / "out").open("wb") as out:
        await run(environ, "find", "订单", "--json", stdout=out)
    (found,) = json.loads((tmp_path / "out").read_bytes())
    assert found["reference"] == "订单"


async def test_an_error_after_output_to_a_full_disk_is_told(environment, dsn):
    with Path("/dev/full").open("w") as full:  # noqa: ASYNC230 - it is no file
        environ = environment(DATABASE_URL=dsn)
        code, err = await run(environ, "export", "--app", "x", stdout=full)
    assert (code, err) == (1, "dispatcher: no app is called x: no worker has run here yet.\n")


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "cp1252"])
@pytest.mark.slow
async def test_no_locale_breaks_a_command(environment, dsn, db, encoding, tmp_path):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign)"
        " VALUES ('+8613112345678', 't', '春节 🧧')"
    )
    environ = environment(DATABASE_URL=dsn) | {"PYTHONIOENCODING": encoding, "COLUMNS": "40"}
    for arguments in (("campaign", "list"), ("campaign", "show", "春节 🧧"), ("status",)):
        with (tmp_path / "out").open("wb") as out:
            code, err = await run(environ, *arguments, stdout=out)
        assert "Traceback" not in err
        assert code in (0, 1), err
        assert (tmp_path / "out").stat().st_size
