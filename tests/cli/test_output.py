"""Tables on wide and on narrow screens, and times."""

import io
import json
from datetime import UTC, datetime

import pytest
from rich.console import Console

from dispatcher.cli.output import moment, table_of

LONG = "a reason of many words that no narrow column can hold without cutting it"


def shown(width: int, *columns: str, rows: list[tuple[str, ...]]) -> str:
    table = table_of(*columns)
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
