"""The file of refused lines is safe in a spreadsheet, and can be loaded again."""

import csv

import pytest

from dispatcher.lists.header import Header, column_of, given_columns, read_header
from dispatcher.lists.messages import Line
from dispatcher.lists.rejects import RejectsFile


def test_names_of_columns_run_nothing_and_are_found_again(tmp_path):
    names = ["手机号", "=HYPERLINK(A1)", "@x", "2026-05"]
    path = tmp_path / "x.rejects.csv"
    with RejectsFile(path, Header(names, {"recipient": 0}, names[1:])) as file:
        file.add([(Line(2, 1, ["1", "a", "b", "c"], ()), "too short")])
    with path.open(encoding="utf-8-sig", newline="") as text:
        written = next(csv.reader(text))
    assert written[2:] == ["手机号", "'=HYPERLINK(A1)", "'@x", '="2026-05"']
    pairs = [f"param_{place}={name}" for place, name in enumerate(names[1:], 1)]
    found = read_header(written, given_columns(pairs))
    assert [found.places[f"param_{place}"] for place in (1, 2, 3)] == [3, 4, 5]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("手机号（必填）", "recipient"),
        ("*手机号*", "recipient"),
        ("Phone Number (required)", "recipient"),
        ("Mobile No.", "recipient"),
        ("手机号/Phone", "recipient"),
        ("手机号\nPhone", "recipient"),
        ("手机号码：", "recipient"),
        ("模板ID[必填]", "template_id"),
        ("变量一", "param_1"),
        ("参数十 (姓名)", "param_10"),
        ("变量(1)", "param_1"),
        ("param[2]", "param_2"),
        ("手机号/模板", None),
        ("备注(手机号)", None),
        ("上次/发送时间", None),
        ("变量十一", None),
        ("#", None),
    ],
)
def test_a_name_is_known_with_what_people_write_around_it(name, column):
    assert column_of(name) == column
