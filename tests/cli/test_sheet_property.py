"""Random sheets: every line is loaded or refused, and every number is the one the sheet means."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as some

from dispatcher.core.errors import ListError
from dispatcher.lists.messages import COLUMNS, MessageList, Whole
from dispatcher.lists.reading import Form, open_list

NOW = datetime(2026, 11, 29, tzinfo=UTC)
RECIPIENT, PARAMS = COLUMNS.index("recipient"), COLUMNS.index("params")
MANY_ROWS = 3
SPELLINGS = (
    "+86{0}", "{0}", "86{0}", "0086{0}", "'{0}", '="{0}"', "{0}.0", "tel:+86{0}", " {0} ",
    "\u202a+86{0}\u202c", "(+86){0}",
)  # fmt: skip

texts = some.text("东门公园便利店，。北京ab 12", min_size=1, max_size=8).filter(str.strip)
rows = some.lists(
    some.tuples(some.integers(0, 99_999_999), some.sampled_from(SPELLINGS), texts), max_size=25
)
quotes = some.lists(some.tuples(some.integers(0, 24), some.integers(0, 200)), max_size=4)


def quoted(cell: str, delimiter: str) -> str:
    if delimiter in cell or '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


@settings(max_examples=150, deadline=None)
@given(
    rows=rows,
    quotes=quotes,
    delimiter=some.sampled_from(",;\t|，"),
    encoding=some.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030"]),
    end=some.sampled_from(["\n", "\r\n", "\r"]),
    title=some.booleans(),
)
def test_no_line_is_lost_and_no_number_is_another(  # noqa: PLR0917
    tmp_path_factory, rows, quotes, delimiter, encoding, end, title
):
    numbers = [f"131{number:08d}" for number, _, _ in rows]
    lines = [
        delimiter.join(
            (quoted(form.format(number), delimiter), "t1", quoted(f"{at}#{text}", delimiter))
        )
        for at, ((_, form, text), number) in enumerate(zip(rows, numbers, strict=True))
    ]
    broken = set()
    for line, place in quotes:  # a quote too much, anywhere
        if line < len(lines):
            at = place % (len(lines[line]) + 1)
            lines[line] = lines[line][:at] + '"' + lines[line][at:]
            broken.add(line)
    head = ["名单", ""] if title else []
    file = tmp_path_factory.mktemp("sheet") / "x.csv"
    text = end.join((*head, delimiter.join(("手机号", "模板", "变量1")), *lines, ""))
    file.write_bytes(text.encode(encoding, "surrogatepass"))
    # A short text gives no sign of UTF-16 without its mark, nor of GB18030.
    is_told = encoding == "gb18030" or (encoding == "utf-16-le" and len(rows) < MANY_ROWS)
    opened = open_list(file, Form(encoding=encoding if is_told else None))
    read = list(MessageList(opened, Whole(), now=NOW, templates={}))
    first = len(head) + 2
    covered = [line.number + extra for line in read for extra in range(line.lines)]
    assert covered == list(range(first, first + len(lines)))
    for line in read:
        if line.values:
            place = line.number - first
            assert line.values[RECIPIENT] == "+86" + numbers[place]
            assert line.lines == 1
            if place not in broken:
                assert line.values[PARAMS] == [f"{place}#{rows[place][2]}".strip()]
    clean = {line.number - first for line in read if line.values}
    if not broken:
        assert clean == set(range(len(lines)))


@settings(max_examples=100, deadline=None)
@given(content=some.binary(max_size=300))
def test_any_bytes_at_all_are_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("bytes") / "x.csv"
    file.write_bytes(b"recipient,template_id\n" + content)
    try:
        opened = open_list(file, Form())
    except ListError:
        return
    lines = list(MessageList(opened, Whole(), now=NOW, templates={}))
    assert all(line.values or line.reason or line.is_blank for line in lines)
