"""The help of commands and errors of use: in the reader's language, within the screen."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.cli.commands import app
from dispatcher.core.format import wrapped

CHINESE = "zh_CN.UTF-8"
GROUPS = [one.name for one in app.registered_groups]
NO_LINE_BEGINS_WITH = "，。；：、）”！？…"


def columns(line):
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)


@pytest.mark.parametrize(
    ("arguments", "english", "chinese"),
    [
        (["audit", "--last", "0"],
         "Invalid value for '--last': it must be 1 or more: see `dispatcher audit --help`.",
         "'--last' 的值无效：不能小于 1。参见 `dispatcher audit --help`。"),
        (["audit", "--last", "1.5"],
         "Invalid value for '--last': it must be a whole number: see `dispatcher audit --help`.",
         "'--last' 的值无效：必须是整数。参见 `dispatcher audit --help`。"),
        (["status", "--every", "x"],
         "Invalid value for '--every': it must be a number: see `dispatcher status --help`.",
         "'--every' 的值无效：必须是数字。参见 `dispatcher status --help`。"),
        (["run", "--processes", "65"],
         "Invalid value for '--processes': it must be 64 or less: see `dispatcher run --help`.",
         "'--processes' 的值无效：不能大于 64。参见 `dispatcher run --help`。"),
        (["bench", "x", "--json", "f"],
         "Invalid value for 'WHAT': 'x' is not one of 'send', 'latency', 'retention', 'reports'",
         "'WHAT' 的值无效：'x' 不是以下之一：'send', 'latency', 'retention', 'reports'"),
        (["stats"],
         "No such command 'stats'. Did you mean 'status'? See `dispatcher --help`.",
         "没有命令 'stats'。是否为 'status'？参见 `dispatcher --help`。"),
        (["status", "--watc"],
         "No such option: --watc (Possible options: --watch): see `dispatcher status --help`.",
         "没有选项 --watc（是否为 --watch）。参见 `dispatcher status --help`。"),
        (["show"],
         "Missing argument 'ID': see `dispatcher show --help`.",
         "缺少参数 'ID'。参见 `dispatcher show --help`。"),
        (["show", "1", "2"],
         "Got unexpected extra argument(s) (2): see `dispatcher show --help`.",
         "多余的参数：2。参见 `dispatcher show --help`。"),
        (["enqueue", "nowhere.csv"],
         "Invalid value for 'FILE': file 'nowhere.csv' does not exist",
         "'FILE' 的值无效：文件 'nowhere.csv' 不存在。"),
    ],
)  # fmt: skip
async def test_an_error_of_use_is_one_plain_line(command, arguments, english, chinese):
    for locale, line in (("C", english), (CHINESE, chinese)):
        ended = await command(*arguments, locale=locale)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert ended.err.startswith(f"dispatcher: {line}")


@pytest.mark.parametrize("name", GROUPS)
async def test_a_group_without_a_command_shows_its_help(command, name):
    ended = await command(name)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"Usage: dispatcher {name} ")
    assert "\nCommands:\n" in ended.err


@pytest.mark.parametrize("name", [None, *(one.name for one in app.registered_commands)])
async def test_the_whole_help_is_chinese_and_fits_the_screen(command, name):
    page = (await command(*filter(None, [name]), "--help", locale=CHINESE)).out
    assert page.startswith("用法：dispatcher")
    assert "\n选项：\n" in page
    assert "显示此帮助并退出。" in page
    for word in ("Usage", "Options", "Arguments", "Commands", "default", "required", "Show "):
        assert word not in page
    assert max(map(columns, page.splitlines())) <= 80 or "--not-promotional" in page


async def test_the_notes_of_typer_are_shown_in_plain_words(command):
    english = (await command("bench", "--help")).out
    chinese = (await command("bench", "--help", locale=CHINESE)).out
    assert "--rounds N " in english
    assert "[default: 5; x>=1]" in english
    assert "[默认：5；x>=1]" in chinese
    assert not re.search(r"<\w+", english + chinese)


@given(st.text("中文短信，。（）“” abc `x` -1.", max_size=80), st.integers(4, 40))
def test_wrapping_keeps_every_character(text, width):
    assert "".join("".join(wrapped(text, width)).split()) == "".join(text.split())


def test_no_line_is_too_wide_or_begins_with_a_full_stop():
    text = "先检查，在您看到结果之前（`dispatcher enqueue --dry-run`）不会写入任何短信。" * 5
    for width in range(24, 60):
        lines = list(wrapped(text, width))
        assert max(map(columns, lines)) <= width
        assert not [line for line in lines if line[0] in NO_LINE_BEGINS_WITH]
