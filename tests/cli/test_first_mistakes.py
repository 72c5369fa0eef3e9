"""The mistakes of a first start: each is one line that says what, where and what to do."""

import contextvars
import errno
import os
import socket

import pytest

from dispatcher.core.language import use_language
from dispatcher.service.http import ListenError

CHINESE = "zh_CN.UTF-8"


async def both(command, *arguments, **settings) -> list[str]:
    """Return the line that a failed command prints in each language."""
    lines = []
    for locale in ("C", CHINESE):
        ended = await command(*arguments, locale=locale, **settings)
        assert ended.code in (1, 2), ended.out
        assert "Traceback" not in ended.err
        lines.append(ended.line.removeprefix("dispatcher: "))
    return lines


@pytest.mark.parametrize("arguments", [("migrate",), ("status",)])
async def test_a_data_directory_that_is_a_file_is_one_line(command, tmp_path, arguments):
    file = tmp_path / "data"
    file.write_text("")
    english, chinese = await both(command, *arguments, DATA_DIR=str(file))
    assert english == (
        f"{file} cannot be written (Not a directory): set DISPATCHER_DATA_DIR to a directory of"
        " yours, or DISPATCHER_DATABASE_URL to a PostgreSQL that runs."
    )
    assert chinese == (
        f"无法写入 {file}（不是目录）：请将 DISPATCHER_DATA_DIR 设为您有权限的目录，"
        "或将 DISPATCHER_DATABASE_URL 设为正在运行的 PostgreSQL 的地址。"
    )


async def test_a_data_directory_that_cannot_be_made_is_one_line(command):
    english, chinese = await both(command, "migrate", DATA_DIR="/proc/dispatcher")
    assert "(No such file or directory): set DISPATCHER_DATA_DIR to a directory" in english
    assert "（没有该文件或目录）：请将 DISPATCHER_DATA_DIR 设为" in chinese


async def test_a_database_that_does_not_answer_stops_a_start(command):
    app = {"ENDPOINT": "http://127.0.0.1:1", "APP_KEY": "k", "APP_SECRET": "s"}
    settings = {f"APPS__DEFAULT__{name}": value for name, value in app.items()}
    settings["DATABASE_URL"] = "postgresql://u@127.0.0.1:1/x"
    english, chinese = await both(command, "run", **settings)
    assert english.startswith("No PostgreSQL answers at 127.0.0.1:1/x (connection refused): start")
    assert chinese.startswith("127.0.0.1:1/x 没有 PostgreSQL 响应（连接被拒绝）：请启动它，")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("run", "--only", "worker"), "CONSOLE_USER_HEADER"),
        (("run", "--only", "reports"), "APPS__DEFAULT__PUSH_KEY"),
        (("run",), "CONSOLE_USER_HEADER"),
        (("run",), "APPS__DEFAULT__PUSH_KEY"),
        (("check",), "CONSOLE_USER_HEADER"),
    ],
)
async def test_what_does_not_fit_together_stops_a_start(command, arguments, name):
    app = {"ENDPOINT": "http://127.0.0.1:1", "APP_KEY": "k", "APP_SECRET": "s"}
    settings = {f"APPS__DEFAULT__{field}": value for field, value in app.items()}
    ended = await command(*arguments, REPORT_PATH_TOKEN="t" * 16, **settings, **{name: "x"})
    assert (ended.code, "needs" in ended.line) == (2, True)


async def test_tables_that_are_missing_are_made_by_migrate(command, empty_dsn):
    english, chinese = await both(command, "status", DATABASE_URL=empty_dsn)
    assert "The tables of this release are not in " in english
    assert "run `dispatcher migrate`, which makes them" in english
    assert "请运行 `dispatcher migrate` 建表" in chinese


def test_an_unknown_host_is_told_without_its_number():
    error = ListenError("nowhere.example", 80, socket.gaierror(-2, "Name or service not known"))
    assert str(error).startswith("cannot listen on nowhere.example:80 (unknown host name): set")


def test_an_address_in_use_is_told_in_the_readers_language():
    error = ListenError(
        "::1", 80, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    )  # made where logs are English

    def chinese() -> str:
        use_language("zh-CN")
        return str(error)

    assert str(error).startswith("cannot listen on [::1]:80 (address already in use): set DISP")
    assert contextvars.copy_context().run(chinese) == (
        "无法监听 [::1]:80（地址已被占用）：请将 DISPATCHER_LISTEN 设为其他地址，"
        "或停止占用该地址的程序。"
    )
