"""Text files as odd programs and people make them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from zipfile import ZipFile
from zoneinfo import ZoneInfo

import pytest
from openpyxl import Workbook

from dispatcher.core.errors import ListError
from dispatcher.core.language import in_english, use_language
from dispatcher.core.number import DoubtfulNumber, ReadNumber, possible_forms
from dispatcher.core.templates import Template
from dispatcher.lists.header import given_columns
from dispatcher.lists.messages import COLUMNS, Line, MessageList, Whole, read_array
from dispatcher.lists.numbers import read_numbers
from dispatcher.lists.reading import Form, open_list
from dispatcher.lists.rejects import RejectsFile
from dispatcher.lists.shown_texts import list_text

NOW = datetime(2026, 11, 29, tzinfo=UTC)
GOOD = "+8613112345678"
KOREAN = "안녕하세요 고객님 주문하신 상품이 배송되었습니다"


def wide(text: str) -> str:
    """Return *text* in the full-width forms that Chinese keyboards write."""
    return "".join(chr(ord(sign) + 0xFEE0) for sign in text)


def write(path: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


def opened(path: Path, form: Form | None = None, whole: Whole | None = None) -> MessageList:
    found = open_list(path, form or Form())
    return MessageList(found, whole or Whole(), now=NOW, templates={})


def read(path: Path, form: Form | None = None, whole: Whole | None = None) -> list[Line]:
    return list(opened(path, form, whole))


def value(line: Line, column: str) -> object:
    assert not line.reason
    return line.values[COLUMNS.index(column)]


def test_a_column_without_a_name_may_be_empty(tmp_path):
    file = write(tmp_path / "x.csv", ",recipient,,template_id", f",{GOOD},,t1", f",{GOOD},x,t1")
    with pytest.raises(ListError, match=r"unknown column '\(column 3, without a name\)'"):
        open_list(file, Form())
    many = [f",{GOOD},,t1"] * 30
    good, bad = read(write(file, ",recipient,,template_id", *many, f"x,{GOOD},,t1"))[-2:]
    assert value(good, "recipient") == GOOD
    assert bad.reason == "column 1 has no name in the header, and here it is not empty"


def test_a_name_may_have_its_note_on_a_line_of_its_own(tmp_path):
    (line,) = read(write(tmp_path / "x.csv", '"手机号\n（必填）","模板\n[ID]\n"', f"{GOOD},t1"))
    assert [value(line, name) for name in ("recipient", "template_id")] == [GOOD, "t1"]


@pytest.mark.parametrize("error", ["#N/A", "#REF!", " #NAME? ", "########", "Err:502"])
def test_an_error_of_a_spreadsheet_is_no_text(tmp_path, error):
    rows = [f"{GOOD},t1,{text},{error}" for text in (error, "#1 #N/A")]
    file = write(tmp_path / "x.csv", "recipient,template_id,param_1,note", *rows)
    bad, good = read(file, Form(ignore_others=True))
    assert bad.reason == f"param_1: it holds the error {error.strip()}"
    assert value(good, "params") == ["#1 #N/A"]


def test_every_reason_is_shown_in_chinese(tmp_path):
    """The console stores reasons in English, and shows them in the reader's language."""
    rows = [f"{GOOD},t1,#N/A", f"{GOOD},t1,x", f"{GOOD},t1", f"{GOOD},t1,"]
    found = open_list(write(tmp_path / "x.csv", "phone,template,var1", *rows), Form())
    money = {"t1": Template("t1", ["MONEY"])}
    reasons = [line.reason for line in MessageList(found, Whole(), now=NOW, templates=money)]
    assert reasons[1] == "variable 1 is no MONEY: at most 20 digits and ."
    with in_english():  # at the end
        use_language("zh-CN")
        shown = [list_text(reason) for reason in reasons]
        again = MessageList(found, Whole(), now=NOW, templates=money)
        assert [line.reason for line in again] == shown
    assert not [text for text in shown if re.search("[a-z]{2} [a-z]{2}", text)]


def test_a_quote_behind_a_blank_is_around_its_cell(tmp_path):
    rows = [f'{GOOD}, t1, "王, 先生"', f'"{GOOD}", t1, "a ""b"""', f'{GOOD}, t1, c "d"']
    lines = read(write(tmp_path / "x.csv", 'recipient, template_id, "param_1"', *rows))
    assert [value(line, "params") for line in lines] == [["王, 先生"], ['a "b"'], ['c "d"']]


def test_codes_and_times_lose_what_is_not_seen(tmp_path):
    head = "template_id,recipient,sender,priority,send_at"
    codes = ",".join(map(wide, ("1069", "5", "2027-05-01")))
    row = f"\ufefft1\u200b,{GOOD},{codes}\u3000{wide('09:30')}"
    (line,) = read(write(tmp_path / "x.csv", head, row), None, Whole(zone=ZoneInfo("UTC")))
    assert [value(line, name) for name in ("template_id", "sender", "priority")] == [
        "t1",
        "1069",
        5,
    ]
    assert value(line, "send_at") == datetime(2027, 5, 1, 9, 30, tzinfo=UTC)


def test_a_variable_keeps_its_text_without_a_mark_of_files(tmp_path):
    head, row = "param_1,recipient,template_id,param_2", f"\ufeff小王,{GOOD},t1,{wide('10')}\u200d "
    (line,) = read(write(tmp_path / "x.csv", head, row))
    assert value(line, "params") == ["小王", wide("10") + "\u200d"]


def test_full_width_semicolons_part_cells(tmp_path):
    (line,) = read(write(tmp_path / "x.csv", f"手机号{wide(';')}模板", f"{GOOD}{wide(';')}t1"))
    assert value(line, "template_id") == "t1"


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_where_only_cr_ends_lines_a_bad_one_is_alone(tmp_path, encoding):
    lines = [
        "手机号,模板,变量1",
        f"{GOOD},t1,小王",
        f"{GOOD},t1,\N{REPLACEMENT CHARACTER}",
        f"{GOOD},t1,小李",
    ]
    file = write(tmp_path / "x.csv", *lines, encoding=encoding, end="\r")
    broken = "\N{REPLACEMENT CHARACTER}".encode(encoding)
    file.write_bytes(file.read_bytes().replace(broken, b"\xff\xff"))
    first, bad, last = read(file)
    assert [value(line, "params") for line in (first, last)] == [["小王"], ["小李"]]
    assert bad.reason.startswith("it is not")


def test_korean_text_is_not_taken_for_chinese(tmp_path):
    lines = ["recipient,template_id,param_1", f"{GOOD},t1,{KOREAN}"]
    file = write(tmp_path / "x.csv", *lines, encoding="cp949")
    with pytest.raises(ListError, match="cp949 would read “안녕하세요"):
        open_list(file, Form())
    (line,) = read(file, Form(encoding="cp949"))
    assert value(line, "params") == [KOREAN]


@pytest.mark.parametrize(
    "texts", [("谢",), ("郑", "谦"), ("小A", "谢", "JANE"), ("毛",), ("谢", "谢", "王")]
)
def test_chinese_that_is_utf_8_by_chance_is_asked_for(tmp_path, texts):
    rows = [f"{GOOD},t1,{text}" for text in texts]
    file = write(tmp_path / "x.csv", "recipient,template_id,param_1", *rows, encoding="gb18030")
    with pytest.raises(ListError, match=f"GB18030, such as “{texts[0]}”: say which"):
        open_list(file, Form())
    lines = read(file, Form(encoding="gb18030"))
    assert [value(line, "params") for line in lines] == [[text] for text in texts]
    assert value(read(file, Form(encoding="utf-8"))[0], "params") != [texts[0]]


@pytest.mark.parametrize("head", ["recipient,name", "13112345678,Bo"])
def test_names_beside_numbers_may_be_in_doubt(tmp_path, head):
    file = write(tmp_path / "x.csv", head, f"{GOOD},谢", encoding="gb18030")
    (*_others, (_line, number)) = read_numbers(file)
    assert number.e164 == GOOD


def test_a_day_of_a_workbook_is_no_midnight(tmp_path):
    book = Workbook()
    book.active.append(["recipient", "template_id", "send_at"])
    for form in ("yyyy-mm-dd", "yyyy-mm-dd h:mm"):
        book.active.append([GOOD, "t1", datetime(2027, 5, 1)])  # noqa: DTZ001 - a cell has no zone
        book.active.cell(book.active.max_row, 3).number_format = form
    book.save(tmp_path / "x.xlsx")
    day, midnight = read(tmp_path / "x.xlsx", None, Whole(zone=ZoneInfo("UTC")))
    assert day.reason == "send_at has no time of day: write it too, such as 2026-01-31 09:00"
    assert value(midnight, "send_at") == datetime(2027, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize("end", [",", ";", "\t", wide(","), wide(";"), "|", "; ", ";;"])
def test_bare_numbers_may_end_with_what_divides_cells(tmp_path, end):
    numbers = ["13112345678", "+86 131 1234 5679"]
    file = write(tmp_path / "x.txt", *(number + end for number in numbers))
    read_as = read(file, Form(recipients_only=True), Whole(template="t1"))
    assert [value(line, "recipient") for line in read_as] == [GOOD, "+8613112345679"]


def test_the_mark_of_a_file_is_stronger_than_an_option(tmp_path):
    lines = ["recipient,template_id,param_1", f"{GOOD},t1,Jérôme"]
    file = write(tmp_path / "x.csv", *lines, encoding="utf-8-sig")
    (line,) = read(file, Form(encoding="cp1252"))  # as its list was loaded
    assert value(line, "params") == ["Jérôme"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rejects_of_bare_numbers_are_read_as_their_list_was(tmp_path, delimiter):
    form, whole = Form(recipients_only=True), Whole(template="t1")
    messages = opened(write(tmp_path / "x.txt", GOOD, "123", "+86 131, 1234 5679"), form, whole)
    refused = [line for line in messages if line.reason]
    rejects = tmp_path / "x.rejects.csv"
    with RejectsFile(rejects, messages.header, delimiter=delimiter) as file:
        file.add((line, line.reason) for line in refused)
    rejects.write_text(rejects.read_text("utf-8").replace("123", "13112345670", 1), "utf-8")
    assert [value(line, "recipient") for line in read(rejects, form, whole) if line.values] == [
        "+8613112345670"
    ]


@pytest.mark.parametrize(
    ("content", "words"), [(b"\0" * 100, "is empty"), (None, "is a zip file, and not an Excel")]
)
def test_a_file_without_anything_in_it_is_named(tmp_path, content, words):
    file = tmp_path / "x.xlsx"
    if content is None:
        with ZipFile(file, "w"):
            pass
    else:
        file.write_bytes(content)
    with pytest.raises(ListError, match=words):
        open_list(file, Form())


@pytest.mark.parametrize(
    ("lines", "doubts"),
    [
        ((f"{GOOD},13112345679",), 1),
        (("手机号,联系电话", f"{GOOD},13112345679"), 1),
        (("姓名,手机号,备用手机", f"a,{GOOD},+13055550123"), 1),
        (("手机号,单号", f"{GOOD},20260501"), 0),
        (("手机号,联系电话", f"{GOOD},131 1234 5678"), 0),
    ],
)
def test_a_second_number_of_a_line_is_named(tmp_path, lines, doubts):
    found = [one for _line, one in read_numbers(write(tmp_path / "x.csv", *lines))]
    assert [one.e164 for one in found if isinstance(one, ReadNumber)] == [GOOD]
    assert [one.reason for one in found if isinstance(one, DoubtfulNumber)] == [
        "there is another number in the line: give it a line of its own"
    ] * doubts


def test_numbers_of_a_workbook_need_no_header(tmp_path):
    book = Workbook()
    book.active.append([13112345678])
    book.active.append([])
    book.active.append(["+86 131 1234 5679"])
    book.save(tmp_path / "x.xlsx")
    found = [(line, one.e164) for line, one in read_numbers(tmp_path / "x.xlsx")]
    assert found == [(1, GOOD), (3, "+8613112345679")]


MARKS = "\u0315\u0300" * 16_000  # NFKC sorts them: a second for so many, if it is asked to


def test_a_cell_of_combining_marks_takes_no_time(tmp_path):
    columns = ("app", "sender", "template_id", "priority", "send_at", "expires_at")
    head = ",".join(("recipient", *columns))
    rows = [
        ",".join((GOOD, *(MARKS if each == wide_one else "5" for each in columns)))
        for wide_one in columns
    ]
    began = process_time()
    reasons = [line.reason for line in read(write(tmp_path / "x.csv", head, *rows))]
    assert process_time() - began < 1
    assert reasons[1:4] == [
        "sender has more than 21 characters",
        "template_id has more than 32 characters",
        "priority is 0 first to 9 last",
    ]
    assert all(reasons)


def test_a_column_named_by_combining_marks_is_unknown(tmp_path):
    began = process_time()
    with pytest.raises(ListError, match="unknown columns"):
        open_list(write(tmp_path / "x.csv", f"recipient,{MARKS},a{MARKS}"), Form())
    assert process_time() - began < 1


def test_a_long_name_is_still_one_that_can_be_given(tmp_path):
    long = "号" * 300
    columns = {long: "recipient"}
    file = write(tmp_path / "x.csv", f" {long} ,template_id", f"{GOOD},t1")
    [line] = read(file, Form(columns=columns))
    assert value(line, "recipient") == GOOD


def test_a_number_of_combining_marks_takes_no_time():
    began = process_time()
    possible_forms("1" + MARKS)
    assert process_time() - began < 0.5


def test_an_array_in_an_array_without_end_is_refused(tmp_path):
    nested = "[" * 30_000
    file = write(tmp_path / "x.csv", "recipient;template_id;params", f"{GOOD};t1;{nested}")
    assert "params is no list" in read(file)[0].reason


def test_an_array_of_blanks_takes_no_time():
    began = process_time()
    for text in (
        "{" + " " * 30_000 + "b{}",
        "{a" + " " * 30_000 + "b{}",
        "{" + "a " * 15_000 + "{}",
    ):
        with pytest.raises(ValueError, match="params is no list"):
            read_array(text)
    assert process_time() - began < 1


def test_items_of_an_array_keep_what_stands_between_blanks():
    spaced = '{ a b  c , "d e" ,\\ f\\ , \t"g\\"h"\n}'
    assert read_array(spaced) == ["a b  c", "d e", " f ", 'g"h']
    for wrong in ("{a,,b}", '{a "b"}', '{"a" b}', "{a,}", "{NULL}", "{a\\}"):
        with pytest.raises(ValueError, match="params is no list"):
            read_array(wrong)


def test_two_columns_with_one_long_name_are_named_in_part(tmp_path):
    note = "x" * 150
    with pytest.raises(ListError, match="has two columns for recipient") as error:
        open_list(write(tmp_path / "x.csv", f"phone({note}),phone[{note}]"), Form())
    assert "x" * 61 not in str(error.value)


@pytest.mark.parametrize("fills", [(90_000, 0), (70_000, 70_000), (20_000,) * 9])
def test_no_line_of_a_quote_around_long_lines_is_lost(tmp_path, fills):
    long = [f"{GOOD},t1," + "东" * fill for fill in fills]
    lines = [f'{GOOD},t1,"a', *long, f'{GOOD},t1,"b', f"{GOOD},t1,c"]
    found = read(write(tmp_path / "x.csv", "recipient,template_id,param_1", *lines))
    assert [line.number for line in found] == list(range(2, len(lines) + 2))
    *swallowed, last = found
    why = f"a quote opened in line 2 is closed only in line {len(lines)}"
    assert all(why in line.reason for line in swallowed)
    assert value(last, "params") == ["c"]


def test_a_cell_that_is_too_long_on_its_lines_is_refused_alone(tmp_path):
    text = "\n".join(["东" * 30_000] * 5)
    lines = [f'{GOOD},t1,"{text}"', f"{GOOD},t1,c"]
    long, last = read(write(tmp_path / "x.csv", "recipient,template_id,param_1", *lines))
    assert (long.number, long.lines) == (2, 5)
    assert long.reason == "it has more than 100,000 characters"
    assert value(last, "params") == ["c"]


def numbers(path: Path, **said: object) -> list[str]:
    return [one.e164 if isinstance(one, ReadNumber) else one.reason
            for _line, one in read_numbers(path, **said)]  # fmt: skip


def test_no_number_of_a_list_is_swallowed_by_a_quote(tmp_path):
    lines = [f'{GOOD},"a', "13112345679,b", '13112345670,"c', '13112345671,"two\nlines"']
    found = list(read_numbers(write(tmp_path / "x.csv", "phone,name", *lines)))
    why = "a quote opened in line 2 is closed only in line 4: 3 lines were read as one cell"
    assert [(line, one.reason) for line, one in found[:3]] == [(at, why) for at in (2, 3, 4)]
    assert [(line, one.e164) for line, one in found[3:]] == [(5, "+8613112345671")]


def test_a_cell_over_several_lines_is_no_wrong_quote(tmp_path):
    """Names and addresses in front of the number, notes with dates behind it."""
    file = write(tmp_path / "x.csv", "name,phone", f'"Li\nWei",{GOOD}')
    assert numbers(file) == [GOOD]
    assert numbers(write(file, "phone,note", f'{GOOD},"stop\non 2026-11-30"')) == [GOOD]
    assert numbers(write(file, "phone,note", f'{GOOD},"room 5,\n100081 Beijing, 12"')) == [GOOD]


# Two lines with a wrong quote each: the number of the first, or of the second, is in the text.
SWALLOWED = [
    '"5 inch,{}\n6" inch,13112345678',
    '"Al,{}\nBo",13112345678',
    '"Al, Co,{}\nBo",13112345678',
    '"a\nAl,{}\nBo",13112345678',
]
SPELLINGS = [
    *("13112345679", "131\N{EN DASH}1234\N{EN DASH}5679", wide("13112345679"), "1.31E+10"),
    "+86 131 1234 5679",
]


@pytest.mark.parametrize("text", SPELLINGS)
@pytest.mark.parametrize("lines", [*SWALLOWED, '13112345678,"a\n{},b"'])
def test_two_lines_with_a_wrong_quote_are_both_refused(tmp_path, lines, text):
    head = "phone,param_1" if lines[0] == "1" else "param_1,phone"
    rows = lines.format(text).split("\n")
    why = f"a quote opened in line 2 is closed only in line {len(rows) + 1}: {len(rows)} lines were"
    file = write(tmp_path / "x.csv", head, *rows)
    found = read(file, None, Whole(template="t1"))
    assert [line.number for line in found] == list(range(2, len(rows) + 2))
    assert all(line.reason.startswith(why) for line in found)
    assert all(reason.startswith(why) for reason in numbers(file))


@pytest.mark.parametrize(
    "text",
    [
        "Room 5, 100081 Beijing\nChina",
        "Beijing,\n100081, China",
        "Dear Al, your order, 3 boxes,\nis ready",
        "Dear Al, 2026-11-30\nat nine",
        "Li, 110101199003071234\nBo",
        "order 20261130123456, paid\nthanks",
        "Dear Al,400-123-4567\nthanks",
        "your order,202605010001\nis ready",
        "sale,2026.5.1-5.31\nwelcome",
        "at,2026-05-01 09\nthanks",
    ],
)
def test_a_text_over_two_lines_is_kept(tmp_path, text):
    file = write(tmp_path / "x.csv", "param_1,phone,param_2", f'"{text}",{GOOD},13912345678')
    (line,) = read(file, None, Whole(template="t1"))
    assert value(line, "params") == [text, "13912345678"]
    assert numbers(write(file, "note,phone", f'"{text}",{GOOD}')) == [GOOD]


@pytest.mark.parametrize("rounded", ["1.23457E+14", "1,23457E+14", " 1E+05 "])
def test_a_cell_that_excel_has_rounded_is_no_text(tmp_path, rounded):
    why = "a spreadsheet has rounded it: format the column as text and export again"
    for column in ("template_id", "param_1", "reference"):
        names = ["template_id", "param_1", "reference", "note"]
        cells = [f'"{rounded}"' if name in (column, "note") else "t1" for name in names]
        head = ",".join(["phone", *names])
        file = write(tmp_path / "x.csv", head, ",".join([GOOD, *cells]))
        (line,) = read(file, Form(ignore_others=True))
        assert line.reason == f"{column}: {why}"


@pytest.mark.parametrize(
    "text", ["1E5", "E+14", "5E+10 Pa", "12.3E+10", "1.2e+14", "1E+5", "A1E+14"]
)
def test_a_text_like_a_rounded_number_is_kept(tmp_path, text):
    rows = "phone,template,note,param_1", f"{GOOD},t1,1E+05,{text}"
    (line,) = read(write(tmp_path / "x.csv", *rows), Form(ignore_others=True))
    assert value(line, "params") == [text]


def test_a_line_with_esc_is_no_text(tmp_path):
    """ISO-2022-JP is ASCII in the bytes of its letters."""
    rows = [f"{GOOD},t1,山田", f"{GOOD},t1,Bo"]
    file = write(tmp_path / "x.csv", "phone,template,param_1", *rows, encoding="iso-2022-jp")
    bad, good = read(file)
    assert bad.reason.startswith("it has an ESC character")
    assert value(good, "params") == ["Bo"]
    assert value(read(file, Form(encoding="iso-2022-jp"))[0], "params") == ["山田"]


def test_japanese_is_among_the_guesses(tmp_path):
    rows = [f"{GOOD},t1,{name}" for name in ("山田太郎", "鈴木①", "ヤマダ")]
    for encoding in ("cp932", "euc_jp"):
        text = [row.replace("①", "") for row in rows] if encoding == "euc_jp" else rows
        file = write(tmp_path / "x.csv", "phone,template,param_1", *text, encoding=encoding)
        with pytest.raises(ListError, match=f"{encoding} would read “山田太郎”"):
            open_list(file, Form())


@pytest.mark.parametrize("alone", ["reason", "line"])
def test_a_column_with_a_name_of_rejects_is_one_as_any_other(tmp_path, alone):
    file = write(tmp_path / "x.csv", f"phone,template,{alone}", f"{GOOD},t1,'late")
    with pytest.raises(ListError, match=f"unknown column '{alone}'"):
        open_list(file, Form())
    assert open_list(file, Form(ignore_others=True)).notes == [f"Not used: {alone}."]
    with pytest.raises(ListError, match="unknown columns 'reason', 'line'"):
        open_list(write(tmp_path / "y.csv", "reason,line,phone,template"), Form())
    form = Form(columns=given_columns([f"param_1={alone}"]))
    assert value(read(file, form)[0], "params") == ["'late"]
    with pytest.raises(ValueError, match="--column takes pairs"):
        given_columns([f"{alone}=phone"])


def test_rejects_of_a_list_with_a_reason_are_loaded_as_it_was(tmp_path):
    form = Form(columns=given_columns(["param_1=reason"]))
    file = write(tmp_path / "x.csv", "phone,template,reason", "1,t1,'late")
    messages = opened(file, form)
    rejects = tmp_path / "x.rejects.csv"
    with RejectsFile(rejects, messages.header) as out:
        out.add((line, line.reason) for line in messages)
    assert rejects.read_text("utf-8-sig").splitlines()[0] == "line,reason,phone,template,reason"
    mended = rejects.read_text("utf-8-sig").replace("digits,1,", f"digits,{GOOD},")
    (line,) = read(write(file, mended.removesuffix("\n")), form)
    assert value(line, "params") == ["'late"]


def test_a_cell_of_a_workbook_has_swallowed_no_line(tmp_path):
    """It has no quotes; a number in a note is another person's."""
    book = Workbook()
    assert book.active is not None
    for row in (["phone", "note"], [GOOD, "call\n13112345679"]):
        book.active.append(row)
    book.save(file := tmp_path / "x.xlsx")
    assert numbers(file) == [GOOD]


def test_columns_that_are_said_need_a_header(tmp_path):
    file = write(tmp_path / "x.csv", f"{GOOD},谢", f"{GOOD},王")
    with pytest.raises(ListError, match="no header, and --column needs one: line 1"):
        numbers(file, columns=given_columns(["recipient=电话"]))


def test_numbers_are_read_as_the_user_says(tmp_path):
    file = write(tmp_path / "x.csv", "客户,备用,称呼", f"{GOOD},,谢")
    columns = given_columns(["recipient=客户"])
    assert numbers(file, columns=columns) == [GOOD]
    both = write(file, "手机,电话", f"131,{GOOD}")
    assert numbers(both, columns=given_columns(["recipient=电话"])) == [GOOD]
    with pytest.raises(ListError, match="such as --column recipient="):
        numbers(write(file, "卡号,称呼", f"{GOOD},谢"), columns=columns)
    latin = write(file, "téléphone,nom", f"{GOOD},Jérôme", encoding="cp1252")
    said = given_columns(["recipient=téléphone"])
    assert numbers(latin, encoding="cp1252", columns=said) == [GOOD]
    with pytest.raises(ListError, match="there is no encoding 'latin-0'"):
        numbers(latin, encoding="latin-0")
    with pytest.raises(ListError, match="--sheet is for Excel workbooks"):
        numbers(latin, sheet="一月")
    book = Workbook()
    book.active.append([13112345678])
    book.create_sheet("二月").append([13112345679])
    book.save(tmp_path / "x.xlsx")
    with pytest.raises(ListError, match="name one with --sheet"):
        numbers(tmp_path / "x.xlsx")
    assert numbers(tmp_path / "x.xlsx", sheet="二月") == ["+8613112345679"]


def test_numbers_in_another_column_need_a_header(tmp_path):
    with pytest.raises(ListError, match="its first column has no numbers") as error:
        numbers(write(tmp_path / "x.csv", f"Bo,{GOOD}", "Al,13112345679"))
    assert "--" not in str(error.value)


def test_a_column_that_is_said_to_be_one_is_the_only_one(tmp_path):
    file = write(tmp_path / "x.csv", "手机,电话,模板", f"{GOOD},131,t1")
    with pytest.raises(ListError, match="has two columns for recipient"):
        read(file)
    columns = given_columns(["recipient=手机"])
    with pytest.raises(ListError, match="unknown column '电话'"):
        read(file, Form(columns=columns))
    (line,) = read(file, Form(columns=columns, ignore_others=True))
    assert value(line, "recipient") == GOOD
