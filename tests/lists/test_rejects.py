"""The file of refused lines is safe in a spreadsheet, and can be loaded again."""

import csv
import os
from contextlib import suppress
from pathlib import Path

import pytest

from dispatcher.core.errors import ListError
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


HEADER = Header(["phone"], {"recipient": 0}, [])


def written(path: Path, number: str, source: Path | None = None) -> Path:
    """Write rejects of one line to *path*, and return where they are."""
    with RejectsFile(path, HEADER, source=source) as file:
        file.add([(Line(2, 1, [number], ()), "bad")])
    return file.path


def test_rejects_that_nobody_changed_are_replaced(tmp_path):
    path = tmp_path / "x.csv"
    path.touch(0o640)
    for number in ("1", "2"):
        assert written(path, number) == path
        assert path.read_text("utf-8-sig").splitlines()[1] == f"2,bad,{number}"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_change_counts_whatever_the_time_of_the_file_says(tmp_path):
    path = written(tmp_path / "x.csv", "1")
    state = path.stat()
    path.write_bytes(path.read_bytes().replace(b",1", b",3"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert written(tmp_path / "x.csv", "1") == tmp_path / "x-2.csv"
    assert path.read_text("utf-8-sig").splitlines()[1] == "2,bad,3"


def test_the_list_itself_is_no_place_for_rejects(tmp_path):
    path = written(tmp_path / "x.csv", "1")
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    assert written(link, "2", source=path) == tmp_path / "link-2.csv"
    assert written(link, "2") == link
    assert link.is_symlink()
    assert "2,bad,2" in path.read_text("utf-8-sig")


def test_rejects_that_cannot_be_written_leave_nothing(tmp_path):
    (tmp_path / "x.csv").mkdir()
    for path in (tmp_path / "x.csv", tmp_path / "none" / "x.csv"):
        with pytest.raises(ListError, match="refused lines cannot be written"):
            written(path, "1")
    with suppress(KeyboardInterrupt), RejectsFile(tmp_path / "y.csv", HEADER) as file:
        file.add([(Line(2, 1, ["1"], ()), "bad")])
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
    assert written(Path("/dev/null"), "1") == Path("/dev/null")


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
