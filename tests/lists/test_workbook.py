"""Workbooks as Excel and others write them, and as an attacker would."""

import re
import tracemalloc
import zlib
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZipFile

import pytest
from openpyxl import Workbook
from openpyxl.xml.constants import SHEET_MAIN_NS

from dispatcher.core.errors import ListError
from dispatcher.lists.reading import Form, open_list
from dispatcher.lists.workbook import WorkbookSheet
from dispatcher.lists.workbook_parts import MAX_WHOLE_PART_BYTES

# What Excel offers for whole numbers, and others that show them as they are.
NUMBER_FORMS = (
    "0", "0_ ", "0_);\\(0\\)", "0_);[Red]\\(0\\)", "0;[Red]0", "0_ ;[Red]\\-0\\ ",
    "#", "###########", "#0", "G/通用格式", "[Blue]0", "[$-804]0", "[$-409]General",
)  # fmt: skip
STYLES, TEXTS = "xl/styles.xml", "xl/sharedStrings.xml"
BOOK, RELATIONS = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
SHEET, TYPES = "xl/worksheets/sheet1.xml", "[Content_Types].xml"
DATA, END = "<sheetData>", "</sheetData>"
STRINGS_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"


def workbook(path: Path, rows: str, *, before: str = "", strings: str = "") -> Path:
    """Write a workbook with the XML of its rows, and of its shared strings."""
    book = Workbook()
    book.active.append(["a"])
    book.save(path)
    with ZipFile(path) as made:
        parts = {name: made.read(name).decode() for name in made.namelist()}
    begin, end = parts[SHEET].index(DATA), parts[SHEET].index(END)
    parts[SHEET] = before + parts[SHEET][: begin + len(DATA)] + rows + parts[SHEET][end:]
    if strings:
        part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{STRINGS_TYPE}"/></Types>'
        parts[TYPES] = parts[TYPES].replace("</Types>", part)
        space = SHEET_MAIN_NS
        parts["xl/sharedStrings.xml"] = f'<sst xmlns="{space}">{strings}</sst>'
    with ZipFile(path, "w") as changed:
        for name, text in parts.items():
            changed.writestr(name, text)
    return path


def pack(path: Path, parts: dict[str, str], method: int = ZIP_DEFLATED) -> Path:
    with ZipFile(path, "w", method) as packed:
        for name, text in parts.items():
            packed.writestr(name, text)
    return path


def unpack(path: Path) -> dict[str, str]:
    with ZipFile(path) as packed:
        return {name: packed.read(name).decode() for name in packed.namelist()}


def change(parts: dict[str, str], name: str, find: str, written: str) -> None:
    """Change a part; writers differ (lxml closes an empty element without a space)."""
    changed = re.sub(find, written, parts[name], flags=re.DOTALL)
    assert changed != parts[name], f"{find} is not in {name}"
    parts[name] = changed


def cells(path: Path) -> list[list[str]]:
    return [record.cells for record in WorkbookSheet(path)]


def test_texts_are_read_whole_and_without_how_they_are_spoken(tmp_path):
    rich = "<r><t>东</t></r><r><t>门</t></r><rPh><t>dong</t></rPh>"
    row = (
        f'<row r="2"><c r="A2" t="s"><v>1</v></c><c r="C2" t="inlineStr"><is>{rich}</is></c></row>'
        '<row><c t="str"><f>A1</f><v>x</v></c></row>'
    )
    strings = f"<si><t>a</t></si><si>{rich}</si>"
    file = workbook(tmp_path / "x.xlsx", row, strings=strings)
    read = [(record.line, record.cells) for record in WorkbookSheet(file)]
    assert read == [(2, ["东门", "", "东门"]), (3, ["x"])]


def test_a_formula_may_give_an_empty_text(tmp_path):
    rows = (
        '<row r="1"><c t="str"><f>A1</f><v></v></c><c><f>A1</f><v></v></c></row>'
        '<row r="2"><c t="str"><f>A1</f><v></v></c></row>'
    )
    mixed, blank = WorkbookSheet(workbook(tmp_path / "x.xlsx", rows))
    assert mixed.doubts == {1: "it holds a formula without a result: save the file in Excel"}
    assert blank.is_blank


def test_dates_that_have_the_form_of_a_language_are_dates(tmp_path):
    file = workbook(tmp_path / "x.xlsx", '<row><c s="1"><v>46508.375</v></c></row>')
    parts = unpack(file)
    change(parts, STYLES, "(<cellXfs.*?)</cellXfs>", r'\1<xf numFmtId="31"/></cellXfs>')
    (record,) = WorkbookSheet(pack(file, parts))
    assert record.cells == ["2027-05-01 09:00:00"]
    assert record.doubts == {0: "it is a date: format the column as text"}


DAYS = (
    "yyyy-mm-dd", "m/d/yyyy;@", 'yyyy"年"m"月"d"日"', "[$-409]d\\-mmm\\-yy;@", "mm-dd-yy",
    "[$-F800]dddd\\,\\ mmmm\\ dd\\,\\ yyyy", 'd "hours" mmm', "yyyy/m/d_h",
)  # fmt: skip
TIMES = (
    "yyyy-mm-dd h:mm:ss", "m/d/yy h:mm", 'yyyy"年"m"月"d"日" h"时"mm"分"', "yyyy/m/d\\ HH:mm;@",
    "[$-409]m/d/yy h:mm AM/PM;@", "yyyy/m/d 上午/下午h时", "mm:ss", "[h]:mm:ss",
)  # fmt: skip


@pytest.mark.parametrize(
    ("forms", "midnight"), [(DAYS, "2027-05-01"), (TIMES, "2027-05-01 00:00:00")]
)
def test_a_day_is_a_midnight_only_where_hours_are_shown(tmp_path, forms, midnight):
    book = Workbook()
    for form in forms:
        book.active.append([46508, 46508.375])
        for cell in book.active[book.active.max_row]:
            cell.number_format = form
    book.save(tmp_path / "x.xlsx")
    assert cells(tmp_path / "x.xlsx") == [[midnight, "2027-05-01 09:00:00"]] * len(forms)


def test_a_midnight_is_one_in_a_local_format_with_hours(tmp_path):
    row = "".join(f'<c s="{style}"><v>46508</v></c>' for style in (1, 2, 3))
    file = workbook(tmp_path / "x.xlsx", f"<row>{row}</row>")
    parts = unpack(file)
    forms = "".join(f'<xf numFmtId="{number}"/>' for number in (31, 32, 33))
    change(parts, STYLES, "(<cellXfs.*?)</cellXfs>", rf"\1{forms}</cellXfs>")
    midnight = "2027-05-01 00:00:00"
    assert cells(pack(file, parts)) == [["2027-05-01", midnight, midnight]]


def test_a_day_in_iso_8601_is_a_midnight_only_where_hours_are_shown(tmp_path):
    times = ("2027-05-01", "2027-05-01T00:00:00", "2027-05-01T00:00:00.000", "2027-05-01T09:00")
    row = "".join(f'<c t="d" s="{style}"><v>{time}</v></c>' for style in (1, 2) for time in times)
    file = workbook(tmp_path / "x.xlsx", f"<row>{row}</row>")
    parts = unpack(file)
    forms = '<xf numFmtId="14"/><xf numFmtId="22"/>'
    change(parts, STYLES, "(<cellXfs.*?)</cellXfs>", rf"\1{forms}</cellXfs>")
    assert cells(pack(file, parts)) == [
        [
            *("2027-05-01", "2027-05-01", "2027-05-01", "2027-05-01 09:00"),
            *(time.replace("T", " ") for time in times),
        ]
    ]


@pytest.mark.parametrize(
    ("part", "find", "written"),
    [
        (STYLES, "<fills.*?</fills>", "<fills><fill/></fills>"),
        (STYLES, "<fonts.*?</fonts>", "<fonts><font><family val='99'/></font></fonts>"),
        (STYLES, "<borders.*?</borders>", "<borders><border><left style='x'/></border></borders>"),
        (BOOK, "<bookViews.*?</bookViews>", "<bookViews><workbookView xWindow='1.5'/></bookViews>"),
        ("docProps/core.xml", "^.*$", "<broken"),
        (RELATIONS, 'Target="/xl/', 'Target="'),
        (TEXTS, None, "xl/SharedStrings.xml"),
        (TEXTS, None, "xl\\sharedStrings.xml"),
    ],
)
def test_what_other_programs_write_their_way_is_read(tmp_path, part, find, written):
    row = '<row><c t="s"><v>0</v></c></row>'
    file = workbook(tmp_path / "x.xlsx", row, strings="<si><t>东门</t></si>")
    parts = unpack(file)
    if find is None:
        parts[written] = parts.pop(part)
    else:
        change(parts, part, find, written)
    assert cells(pack(file, parts)) == [["东门"]]


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
def test_a_sheet_that_is_not_seen_is_not_read(tmp_path, state):
    file = workbook(tmp_path / "x.xlsx", "<row><c><v>1</v></c></row>")
    parts = unpack(file)
    change(parts, BOOK, 'state="visible"', f'state="{state}"')
    with pytest.raises(ListError, match="no visible sheet has rows"):
        WorkbookSheet(pack(file, parts))


def test_days_of_a_workbook_from_1904_are_its_own(tmp_path):
    file = formatted(tmp_path / "x.xlsx", "45046.375", "yyyy-mm-dd")
    parts = unpack(file)
    change(parts, BOOK, r"<workbookPr\b", '<workbookPr date1904="1"')
    (record,) = WorkbookSheet(pack(file, parts))
    assert record.cells == ["2027-05-01 09:00:00"]


@pytest.mark.parametrize(
    ("rows", "before"),
    [
        ('<row r="9"><c><v>1</v></c></row><row r="3"/>', ""),
        ('<row r="99999999999"><c><v>1</v></c></row>', ""),
        (f'<row r="1"><c t="inlineStr"><is><t>{"x" * 40_000}</t></is></c></row>', ""),
        ("<row><c><v>&e;</v></c></row>", '<!DOCTYPE a [<!ENTITY e "1">]>'),
        ("<row><c><v>1</v></c></row></row>", ""),
        ('<row><c t="s"><v>7</v></c></row>', ""),
    ],
)
def test_what_excel_never_writes_is_refused(tmp_path, rows, before):
    file = workbook(tmp_path / "x.xlsx", '<row r="1"><c><v>1</v></c></row>', before="")
    assert [record.cells for record in WorkbookSheet(file)] == [["1"]]
    with pytest.raises(ListError, match=r"is damaged|that can be read"):
        list(WorkbookSheet(workbook(tmp_path / "x.xlsx", rows, before=before)))


def test_a_sheet_that_does_not_say_its_size_is_not_read_to_find_it(tmp_path):
    row = "<row><c><v>1</v></c></row>"
    file = workbook(tmp_path / "x.xlsx", row * 20_000)
    with ZipFile(file) as made:
        parts = {name: made.read(name).decode() for name in made.namelist()}
    parts[SHEET] = re.sub("<dimension[^>]*>", "", parts[SHEET])
    with ZipFile(file, "w") as changed:
        for name, text in parts.items():
            changed.writestr(name, text)
    sheet = WorkbookSheet(file)
    shares = [sheet.progress() for record in sheet if record.line % 5_000 == 0]
    assert shares == sorted(shares)
    assert 0.1 < shares[0] < 0.5 < shares[-1] <= 1


@pytest.mark.parametrize("value", ["1E+3000000", "-1E-3000000", "0E+3000000", "Infinity", "NaN"])
def test_a_number_too_long_to_be_written_is_doubtful(tmp_path, value):
    file = workbook(tmp_path / "x.xlsx", f"<row><c><v>{value}</v></c></row>")
    (record,) = WorkbookSheet(file)
    assert record.cells == [value]
    assert record.doubts == {0: "it is no number that can be read"}


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        ("19.899999999999999", "General", "19.9"),  # as Excel writes 19.9
        ("0.30000000000000004", "@", "0.3"),
        ("2.6749999999999998", "0.00", "2.68"),
        ("-5", "000", "-005"),
        ("100", "General", "100"),
        ("1.3100000001E10", "General", "13100000001"),
        ("13112345678", "0." + "0" * 18, "13112345678." + "0" * 18),
        *(("13112345678", form, "13112345678") for form in NUMBER_FORMS),
        ("-5", "0_ ", "-5"),
        ("0", "0;[Red]0", "0"),
    ],
)
def test_a_number_has_the_digits_that_excel_shows(tmp_path, value, form, text):
    assert cells(formatted(tmp_path / "x.xlsx", value, form)) == [[text]]


@pytest.mark.parametrize(
    ("value", "form", "why"),
    [
        ("13100000004.5", "0", "its format hides decimals"),
        ("12345678901234567", "General", "more digits than Excel keeps"),
        ("0.15", "0%", "it is a number in the format 0%"),
        ("-5", "0;[Red]0", "it is a number in the format"),  # shown without its minus
        ("0", "0;-0;;@", "it is a number in the format"),  # not shown
        ("5", "[DBNum1][$-804]General", "it is a number in the format"),  # shown as 五
        ("5", "[$-2010000]0", "it is a number in the format"),  # in Arabic digits
        ("0", "#", "it is a number in the format #"),
        ("0.5", "#.00", "it is a number in the format"),
        ("13112345678", "000 0000 0000", "it is a number in the format"),
        ("13112345678", '0"a"', "it is a number in the format"),
    ],
)
def test_a_number_that_its_format_changes_is_doubtful(tmp_path, value, form, why):
    (record,) = WorkbookSheet(formatted(tmp_path / "x.xlsx", value, form))
    assert why in record.doubts[0]


def formatted(path: Path, value: str, form: str) -> Path:
    """Write a workbook with one number in a format."""
    book = Workbook()
    book.active.append([1])
    book.active["A1"].number_format = form
    book.save(path)
    parts = unpack(path)
    parts[SHEET] = parts[SHEET].replace("<v>1</v>", f"<v>{value}</v>")
    return pack(path, parts)


def test_characters_that_excel_escapes_are_read(tmp_path):
    text = "a_x000D_\nb _x005F_x000D_ _x0000__xD800_"
    row = f'<row><c t="s"><v>0</v></c><c t="inlineStr"><is><t>{text}</t></is></c></row>'
    file = workbook(tmp_path / "x.xlsx", row, strings=f"<si><t>{text}</t></si>")
    assert cells(file) == [["a\r\nb _x000D_ _x0000__xD800_"] * 2]


def test_a_strict_workbook_is_read(tmp_path):
    day = '<c t="d"><v>2036-12-01T09:00:00</v></c>'
    file = workbook(tmp_path / "x.xlsx", f"<row><c><v>1</v></c>{day}</row>")
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    strict = {
        name: text.replace(SHEET_MAIN_NS, "http://purl.oclc.org/ooxml/spreadsheetml/main").replace(
            office, "http://purl.oclc.org/ooxml/officeDocument/relationships"
        )
        for name, text in unpack(file).items()
    }
    (record,) = WorkbookSheet(pack(file, strict))
    assert record.cells == ["1", "2036-12-01 09:00:00"]
    assert "it is a date" in record.doubts[1]


def test_what_of_a_sheet_is_not_seen_in_its_cells_is_told(tmp_path):
    file = tmp_path / "x.xlsx"
    book = Workbook()
    sheet = book.active
    for row in (["May", None], ["phone", "template"], ["13100000001", "t1"], ["13100000002", None]):
        sheet.append(row)
    sheet.merge_cells("A1:B1")  # of the title
    sheet.merge_cells("B3:B4")
    sheet.column_dimensions["B"].hidden = True
    sheet.column_dimensions["D"].hidden = True
    book.save(file)
    opened = open_list(file, Form())
    assert len(list(opened.sheet)) == 4
    assert opened.sheet.remarks(opened.header, opened.data_from) == [
        "Merged in the sheet: B3:B4. Only the first cell of each has its text.",
        "Hidden in the sheet, and read: template.",
    ]


def test_what_merges_no_cells_is_not_told(tmp_path):
    odd = ["A1:B" + "9" * 5_000, "x" * 5_000, "B3:B4", "$B$3:$B$4", ""]
    ranges = "".join(f'<mergeCell ref="{one}"/>' for one in odd)
    file = workbook(tmp_path / "x.xlsx", "<row><c><v>1</v></c></row>")
    parts = unpack(file)
    parts[SHEET] = parts[SHEET].replace(END, f"{END}<mergeCells>{ranges}</mergeCells>")
    opened = open_list(pack(file, parts), Form(recipients_only=True))
    assert len(list(opened.sheet)) == 1
    assert opened.sheet.remarks(opened.header, opened.data_from) == [
        "Merged in the sheet: B3:B4. Only the first cell of each has its text."
    ]


def test_what_is_kept_of_a_sheets_form_does_not_grow(tmp_path):
    file = workbook(tmp_path / "x.xlsx", "<row><c><v>1</v></c></row>")
    parts = unpack(file)
    hidden = f'<col min="1" max="{"9" * 4_000}" hidden="1"/>' * 2_000
    merged = "<mergeCells>" + '<mergeCell ref="A1:A2"/>' * 2_000 + "</mergeCells>"
    parts[SHEET] = parts[SHEET].replace(END, f"{END}<cols>{hidden}</cols>{merged}")
    sheet = WorkbookSheet(pack(file, parts))
    assert len(list(sheet)) == 1
    assert len(sheet._rows.merged) == len(sheet._rows.hidden) == 1_000
    assert max(columns.stop for columns in sheet._rows.hidden) == 16_384


TOO_BIG = "is too big when it is unpacked"


@pytest.mark.parametrize("padding", [" " * MAX_WHOLE_PART_BYTES, "<xf/>" * 500_000])
def test_a_part_that_grows_too_much_is_refused(tmp_path, padding):
    file = workbook(tmp_path / "x.xlsx", "")
    parts = unpack(file)
    end = parts[STYLES].index("</cellXfs>")
    parts[STYLES] = parts[STYLES][:end] + padding + parts[STYLES][end:]
    with pytest.raises(ListError, match=TOO_BIG):
        WorkbookSheet(pack(file, parts))


def test_a_workbook_that_grows_too_much_is_refused(tmp_path, monkeypatch):
    file = workbook(tmp_path / "x.xlsx", "<row><c><v>1</v></c></row>")
    assert cells(file) == [["1"]]
    monkeypatch.setattr("dispatcher.lists.workbook_parts.MAX_BYTES", 5_000)
    with pytest.raises(ListError, match=TOO_BIG):
        WorkbookSheet(file)


def test_a_part_that_says_too_little_does_not_grow(tmp_path):
    file = workbook(tmp_path / "x.xlsx", "<row><c><v>1</v></c></row>")
    parts = unpack(file)
    said = len(parts[STYLES])
    parts[STYLES] += " " * 30_000_000
    with ZipFile(file, "w", ZIP_DEFLATED) as packed:
        for name, text in parts.items():
            packed.writestr(name, text)
        styles = packed.getinfo(STYLES)
        styles.file_size, styles.CRC = said, zlib.crc32(parts[STYLES][:said].encode())
    del parts
    tracemalloc.start()
    assert cells(file) == [["1"]]
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_workbook_that_is_packed_as_none_is_is_refused(tmp_path):
    file = workbook(tmp_path / "x.xlsx", "<row><c><v>1</v></c></row>")
    with pytest.raises(ListError, match="that can be read"):
        WorkbookSheet(pack(file, unpack(file), ZIP_BZIP2))


@pytest.mark.slow
def test_a_workbook_of_a_million_rows_is_opened(tmp_path):
    row = f'<row><c t="inlineStr"><is><t>+8613112345678</t></is></c><c><v>{"1" * 70}</v></c></row>'
    parts = unpack(workbook(tmp_path / "x.xlsx", row * 10))
    parts[SHEET] = parts[SHEET].replace(END, row * (155_000_000 // len(row)) + END)
    sheet = WorkbookSheet(pack(tmp_path / "x.xlsx", parts))
    assert next(iter(sheet)).cells[0] == "+8613112345678"


def test_a_workbook_that_was_read_is_closed(tmp_path):
    file = workbook(tmp_path / "x.xlsx", "<row><c><v>1</v></c></row>")
    assert cells(file) == [["1"]]
    opened = list(Path("/proc/self/fd").iterdir())
    assert file not in [each.readlink() for each in opened if each.is_symlink()]


def test_what_is_quoted_of_a_sheet_is_short(tmp_path):
    long = "#,##0" + "x" * 30_000
    rows = f'<row r="1"><c r="A1" t="e"><v>{long}</v></c><c r="B1" s="1"><v>5</v></c></row>'
    parts = unpack(workbook(tmp_path / "x.xlsx", rows))
    parts[STYLES] = (
        f'<styleSheet xmlns="{SHEET_MAIN_NS}"><numFmts><numFmt numFmtId="200" formatCode="{long}"/>'
        '</numFmts><cellXfs><xf numFmtId="0"/><xf numFmtId="200"/></cellXfs></styleSheet>'
    )
    [record] = WorkbookSheet(pack(tmp_path / "x.xlsx", parts))
    error, form = record.doubts.values()
    assert (error[:25], form[:34]) == (
        "it holds the error #,##0x",
        "it is a number in the format #,##0",
    )
    assert max(len(error), len(form)) < 150


def test_a_sheet_with_a_long_title_is_named_in_part(tmp_path):
    parts = unpack(workbook(tmp_path / "x.xlsx", ""))
    parts[BOOK] = parts[BOOK].replace('name="Sheet"', f'name="{"x" * 9000}"')
    with pytest.raises(ListError, match="has no sheet") as error:
        WorkbookSheet(pack(tmp_path / "x.xlsx", parts), "y" * 9000)
    assert len(error.value.lines[0]) < 400
