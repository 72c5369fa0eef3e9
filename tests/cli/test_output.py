"""Tables on wide and on narrow screens, and times."""

import io
import json
from datetime import UTC, datetime

import pytest
from rich.console import Console

from dispatcher.cli.output import list_of, moment, table_of
from dispatcher.core.format import columns

LONG = "a reason of many words that no narrow column can hold without cutting it"


def shown(width: int, *names: str, rows: list[tuple[str, ...]]) -> str:
    table = table_of(*names)
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(table)
    return console.file.getvalue()


def test_a_narrow_screen_has_a_block_for_each_row():
    rows = [("7", "shop", "", LONG), ("8", "x", "E1", "short")]
    narrow = shown(99, "Id", "App", "Code", "Why", rows=rows)
    assert [line.rstrip() for line in narrow.splitlines()] == [
        *("7", "  App: shop", f"  Why: {LONG}"),
        *("8", "  App: x", "  Code: E1", "  Why: short"),
    ]
    wide = shown(100, "Id", "App", "Code", "Why", rows=rows)
    assert wide.splitlines()[0].split() == ["Id", "App", "Code", "Why"]


@pytest.mark.parametrize("width", [40, 80])
def test_no_word_is_cut_at_any_width(width):
    text = shown(width, "Id", "App", "Code", "Why", rows=[("7", "shop", "E1", LONG)])
    assert "…" not in text
    assert text.split() == ["7", "App:", "shop", "Code:", "E1", "Why:", *LONG.split()]


@pytest.mark.parametrize("width", range(30, 160, 9))
def test_a_long_chinese_cell_is_wrapped_and_never_cut(width):
    reason = "变量与模板不符（个数、长度、禁用字符；没有变量的模板不应有变量）。" * 3
    text = shown(width, "错误码", "说明", rows=[("E1", reason), ("0123456789abcdef" * 2, "短")])
    assert "…" not in text
    assert max(map(columns, text.splitlines())) <= width
    assert reason in "".join(text.split()).replace("E1", "")
    assert not [line for line in text.splitlines() if line.lstrip()[:1] in set("，。；：、）")]


@pytest.mark.parametrize("width", [30, 50, 80])
def test_a_message_is_shown_whole_at_any_width(width):
    reason = "变量与模板不符（个数、长度、禁用字符；没有变量的模板不应有变量）。" * 3
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(list_of([("处理方法", reason), ("批次标识", "0123456789abcdef" * 2)]))
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(columns, text.splitlines())) <= width
    assert "".join(text.split()) == f"处理方法{reason}批次标识{'0123456789abcdef' * 2}"


def test_text_of_a_row_moves_no_cursor():
    console = Console(file=io.StringIO(), width=80, markup=False)
    console.print(list_of([("params", "a\x1b]0;x\x07\x9b2J\u202eb\nc")]))
    text = console.file.getvalue()
    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert [line.split() for line in text.splitlines()] == [
        ["params", "a", "]0;x", "2J", "b"],
        ["c"],
    ]


def test_numbers_of_a_table_stay_on_its_right():
    table = table_of("应用")
    table.add_column("短信", justify="right")
    table.add_row("shop", "7")
    table.add_row("shop", "12,345")
    console = Console(file=io.StringIO(), width=80, markup=False)
    console.print(table)
    rows = console.file.getvalue().splitlines()[2:]
    assert [row.index(end) for row, end in zip(rows, ["7", "5"], strict=True)] == [12, 12]


def test_a_time_names_its_zone():
    time = datetime(2026, 1, 31, 1, 0, tzinfo=UTC)
    assert datetime.fromisoformat(moment(time)) == time
    assert moment(None) == "-"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("migrate", "--status"), 0),
        (("check",), 1),  # no app is configured
        (("explain", "E200028"), 0),
        (("audit",), 0),
        (("campaign", "list"), 0),
        (("template", "list"), 0),
        (("suppress",), 0),
        (("limit", "default"), 0),
        (("cost",), 0),
        (("reports",), 0),
        (("status",), 0),
    ],
)
async def test_every_list_is_there_for_programs(operate, arguments, code):
    ended = await operate(*arguments, "--json")
    assert (ended.code, ended.err) == (code, "")
    assert isinstance(json.loads(ended.out), list | dict)
