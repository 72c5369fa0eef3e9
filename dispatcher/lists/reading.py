"""Opens a list of any kind: finds what it is, its encoding, its delimiter and its header."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from msgspec import Struct

from dispatcher.core.errors import ListError
from dispatcher.core.language import N_, _
from dispatcher.core.number import ReadNumber, read_number
from dispatcher.lists import header as headers
from dispatcher.lists.cells import Record, Sheet
from dispatcher.lists.encoding import FoundEncoding, find_encoding
from dispatcher.lists.header import MAX_LINES_BEFORE, Header, HeaderError
from dispatcher.lists.text import TextSheet, unreadable

DELIMITERS = ",;\t，；|"  # each may divide cells
_OF_REJECTS = (",", ";", "\t")  # those of a file of rejects
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second one begins a zip file that is empty
_NOTHING = b"\xef\xbb\xbf\r\n \t\0"  # bytes that are no text; NUL fills what was never written
MAX_LINES_JUDGED = 20  # to see whether a column without a name is empty, or what divides cells
_OLD_EXCEL = (b"\xd0\xcf\x11\xe0", *(bytes((9, version)) for version in (0, 2, 4, 8)))
_OTHER_KINDS = {  # by how they begin
    b"%PDF": "PDF",
    b"{\\rtf": "RTF",
    b"ID;P": "SYLK",
    b"\x1f\x8b": N_("a packed file"),
    b"7z\xbc\xaf": N_("a packed file"),
    b"Rar!": N_("a packed file"),
    b"\x89PNG": N_("a picture"),
    b"\xff\xd8\xff": N_("a picture"),
}


class Form(Struct, frozen=True):
    """What the user says of the form of a file."""

    encoding: str | None = None  # None: detected
    columns: Mapping[str, str] = {}  # our names by those of the file, see header.given_columns
    ignore_others: bool = False  # columns that are none of a message
    recipients_only: bool = False  # no header: each line is a number
    sheet: str | None = None  # of a workbook
    numbers_only: bool = False  # nothing else of the file is used


class OpenedList(Struct, frozen=True):
    """A list whose header is read."""

    sheet: Sheet
    header: Header
    data_from: int  # the first line after the header
    notes: list[str]  # for the user: what was decided
    encoding: str = ""


def open_list(path: Path, form: Form) -> OpenedList:
    """Return the list in *path*. Raises :class:`ListError` if the file is none."""
    if not path.is_file():
        raise ListError(
            _("{path} can be read only once: save the list as a file.").format(path=path),
            misused=True,
        )
    try:
        return _opened(path, form)
    except OSError as error:
        raise unreadable(path, error) from None


def _opened(path: Path, form: Form) -> OpenedList:
    with path.open("rb") as stream:
        head = stream.read(8)
    if not head.strip(_NOTHING):
        _must_hold_something(path)
    for begins, kind in _OTHER_KINDS.items():
        if head.startswith(begins):
            raise _other_kind(path, _(kind))
    if head.startswith(_OLD_EXCEL):
        raise ListError(
            _(
                "{path} is an old or a protected Excel file: save it as .xlsx without a"
                " password, or as CSV UTF-8."
            ).format(path=path),
            misused=True,
        )
    if head.startswith(_ZIP):
        from dispatcher.lists.workbook import WorkbookSheet

        book = WorkbookSheet(path, form.sheet)
        return _with_header(path, [book], form, [], "xlsx")
    found = find_encoding(path, form.encoding, numbers_only=form.numbers_only)
    notes = []
    if found.sample:
        notes.append(
            _(
                "The text is read as {name}, such as “{sample}”; --encoding names another encoding."
            ).format(name=found.name, sample=found.sample)
        )
    opened = _with_header(path, _text_sheets(path, found, form), form, notes, found.name)
    # The rejects of a workbook's sheet are loaded with the options that the sheet was.
    if form.sheet is not None and not opened.header.is_of_rejects:
        raise _without_sheets()
    return opened


def sheets_of(path: Path, form: Form) -> Sequence[Sheet]:
    """Return the workbook in *path*, or the text file with each delimiter that it may have.

    Raises :class:`ListError` if the file is neither, or not as *form* says.
    """
    with path.open("rb") as stream:
        head = stream.read(8)
    if head.startswith(_ZIP):
        from dispatcher.lists.workbook import WorkbookSheet

        return [WorkbookSheet(path, form.sheet)]
    if form.sheet is not None:
        raise _without_sheets()
    found = find_encoding(path, form.encoding, numbers_only=form.numbers_only)
    return _text_sheets(path, found, form)


def _without_sheets() -> ListError:
    return ListError(_("--sheet is for Excel workbooks."), misused=True)


def _other_kind(path: Path, kind: str) -> ListError:
    return ListError(
        _("{path} is {kind}, and no list: save or export it as .xlsx, or as CSV UTF-8.").format(
            path=path, kind=kind
        ),
        misused=True,
    )


def _must_hold_something(path: Path) -> None:
    with path.open("rb") as stream:
        if any(piece.strip(_NOTHING) for piece in iter(lambda: stream.read(65_536), b"")):
            return
    raise ListError(_("{path} is empty.").format(path=path), misused=True)


def _text_sheets(path: Path, found: FoundEncoding, form: Form) -> list[TextSheet]:
    """Return the file as it is with each delimiter that it may have."""
    with path.open(encoding=found.name, errors="replace") as stream:
        first = stream.readline(100).strip().strip('"')
    if first.lower().startswith("sep=") and len(first) == len("sep=,"):
        return [TextSheet(path, found.name, first[-1], skip=1)]
    if form.recipients_only:
        whole = TextSheet(path, found.name, "\0")
        if not _are_rejects(whole) and not _is_divided(path, found):
            return [whole]
    return [TextSheet(path, found.name, delimiter) for delimiter in DELIMITERS]


def _are_rejects(sheet: Sheet) -> bool:
    """Tell whether a list of numbers alone is its own file of rejects, which has a header."""
    first = next((record for record in sheet if not record.is_blank), None)
    line = ",".join(first.cells) if first is not None else ""
    return any(headers.own_places(line.split(delimiter)[:2]) for delimiter in _OF_REJECTS)


def numbers_first(sheet: Sheet) -> int:
    """Return in how many of the first lines of *sheet* the first cell is a number."""
    return sum(
        isinstance(read_number("".join(record.cells[:1]), other_mainland=True), ReadNumber)
        for record in islice(sheet, MAX_LINES_JUDGED)
    )


def _is_divided(path: Path, found: FoundEncoding) -> bool:
    """Tell whether lines end with delimiters that divide nothing, as of a sheet's one column."""
    with path.open(encoding=found.name, errors="replace") as stream:
        return any(line.strip()[-1:] in {*DELIMITERS} for line in islice(stream, 20))


def _with_header(
    path: Path, sheets: Sequence[Sheet], form: Form, notes: list[str], encoding: str
) -> OpenedList:
    if form.recipients_only and not _are_rejects(sheets[0]):
        names = Header(["recipient"], {"recipient": 0}, [])
        return OpenedList(max(sheets, key=numbers_first), names, 1, notes, encoding)
    sheet, before = _best(path, sheets, form)
    *titles, record = before
    titles = [title for title in titles if not title.is_blank]
    _must_be_titles(path, titles, record)
    if titles:
        lines = ", ".join(str(title.line) for title in titles)
        notes.append(_("Skipped before the header: line {lines}.").format(lines=lines))
    try:
        header = headers.read_header(
            _header_cells(record),
            form.columns,
            ignore_others=form.ignore_others,
            empty=_empty_columns(sheet, record),
        )
    except HeaderError as error:
        raise ListError(
            _(
                "the header of {path} {error}. It names recipient (phone, 手机号) and template_id,"
                " and may name param_1, param_2, ... (变量1) or params, and app, sender,"
                " signature, priority, send_at, expires_at, idempotency_key, reference,"
                " campaign."
            ).format(path=path, error=error),
            misused=True,
        ) from None
    if header.ignored:
        notes.append(_("Not used: {names}.").format(names=headers.shown_names(header.ignored)))
    return OpenedList(sheet, header, record.line + record.lines, notes, encoding)


def _empty_columns(sheet: Sheet, header: Record) -> set[int]:
    """Return the places without a name of which the columns look empty."""
    names = headers.header_names(_header_cells(header))
    places = {place for place, name in enumerate(names) if not name}
    if places:
        data = (record for record in sheet if record.line > header.line)
        for record in islice(data, MAX_LINES_JUDGED):
            places -= {place for place in places if any(map(str.strip, record.cells[place:][:1]))}
    return places


def _best(path: Path, sheets: Sequence[Sheet], form: Form) -> tuple[Sheet, list[Record]]:
    """Return the sheet whose header names most columns, and its records up to the header."""
    best: tuple[int, Sheet, list[Record]] | None = None
    for sheet in sheets:
        before: list[Record] = []
        for record in islice(sheet, MAX_LINES_BEFORE + 1):
            before.append(record)
            score = headers.recognised(_header_cells(record), form.columns)
            if score:
                if best is None or score > best[0]:
                    best = (score, sheet, before)
                break
    if best is None:
        raise _without_header(path, sheets[0], form)
    return best[1:]


def _must_be_titles(path: Path, titles: Sequence[Record], header: Record) -> None:
    """Raise ListError if a line before the header is one of the list."""
    for title in titles:
        if any(isinstance(read_number(cell), ReadNumber) for cell in title.cells):
            raise ListError(
                _(
                    "line {line} of {path} holds a number, and stands before the header in line"
                    " {line2}: move it below, or remove it."
                ).format(line=title.line, path=path, line2=header.line),
                misused=True,
            )


def _header_cells(record: Record) -> list[str]:
    """Return the cells of a header; with a quote that is not closed they are taken without it."""
    if not record.open_quote:
        return record.cells
    return [cell.replace('"', "") for cell in record.cells]


def _without_header(path: Path, sheet: Sheet, form: Form) -> ListError:
    first = next((record for record in sheet if not record.is_blank), None)
    if first is None:
        return ListError(
            _("{path} is empty: it has no lines but blank ones.").format(path=path), misused=True
        )
    text = first.cells[0].strip()
    if text.startswith(("<", "{", "[{")):
        return _other_kind(path, _("a web page or XML") if text[0] == "<" else "JSON")
    if any(isinstance(read_number(cell), ReadNumber) for cell in first.cells):
        if form.columns:
            return ListError(
                _(
                    "{path} has no header, and --column needs one: line {line} has a"
                    " number already."
                ).format(path=path, line=first.line),
                misused=True,
            )
        if form.numbers_only:
            return ListError(
                _(
                    "{path} has no header, and its first column has no numbers: write a first line"
                    " that names the columns, such as name,phone."
                ).format(path=path),
                misused=True,
            )
        return ListError(
            _(
                "{path} has no header: line {line} holds a number already. Write a header with"
                " recipient, template_id, param_1 ..., or load numbers alone with"
                " --recipients-only."
            ).format(path=path, line=first.line),
            misused=True,
        )
    return ListError(
        _(
            "the header of {path} has no column recipient (phone, 手机号): say which one it is,"
            " such as --column recipient=客户电话."
        ).format(path=path),
        misused=True,
    )
