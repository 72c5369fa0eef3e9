"""The file of refused lines is safe in a spreadsheet, and can be loaded again."""

import csv

from dispatcher.lists.header import Header, given_columns, read_header
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
