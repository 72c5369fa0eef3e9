"""Finds the header of a list, and what its columns are."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from dispatcher.core.language import _

MAX_NAMES_SHOWN = 5  # of columns, in a message
MAX_NAME_CHARACTERS = 60  # of each
MAX_KNOWN_CHARACTERS = 200  # a longer name is none of ours; NFKC of 16,000 marks takes seconds
MAX_LINES_BEFORE = 20  # titles and blank lines that may stand before the header
OWN = ("line", "reason")  # columns that a file of rejects has side by side
PARAM = re.compile(r"param_([1-9]\d?)")

# What people call a column, in the form that `_plain` gives.
_WORDS = {
    "recipient": (
        "recipient", "phone", "phonenumber", "phoneno", "mobile", "mobilephone", "mobilenumber",
        "mobileno", "msisdn", "tel", "telephone", "telephonenumber", "cellphone", "手机号",
        "手机号码", "手机", "号码", "电话", "电话号码", "联系电话", "接收号码", "接收人号码",
        "短信接收人号码", "手機號", "手機號碼", "手機", "號碼", "電話", "電話號碼",
    ),
    "template_id": ("templateid", "template", "模板", "模板id", "模板编号", "模版", "模版id"),
    "params": ("params", "parameters", "templateparas", "模板变量"),
    "app": ("app", "应用"),
    "sender": ("sender", "from", "通道号", "签名通道号"),
    "signature": ("signature", "签名", "短信签名", "签名名称"),
    "idempotency_key": ("idempotencykey",),
    "reference": ("reference", "参考号"),
    "campaign": ("campaign", "活动", "活动名称"),
    "priority": ("priority", "优先级"),
    "send_at": ("sendat", "sendtime", "发送时间", "定时发送时间"),
    "expires_at": ("expiresat", "expires", "过期时间", "失效时间"),
}  # fmt: skip
_COLUMN_OF = {word: column for column, words in _WORDS.items() for word in words}
_VARIABLE = re.compile(
    r"(?:param|parameter|var|variable|变量|模板变量|参数|變數|變量|參數)(?:([1-9]\d?)|([一二三四五六七八九十]))"
)
_NOTE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")  # behind a name: (必填), [optional]
_LANGUAGES = re.compile(r"[/|\n]")  # between the names that one column has: 手机号/Phone
COLUMNS = tuple(_WORDS)


class HeaderError(ValueError):
    """A header is none of messages; the text says why."""


class Header(Struct, frozen=True):
    """The columns of a list."""

    names: list[str]  # as they stand in the file
    places: Mapping[str, int]  # of the columns that are used, by our name
    ignored: list[str]  # names of columns that are not used
    unnamed: Collection[int] = ()  # places of columns without a name, which are empty

    @property
    def is_of_rejects(self) -> bool:
        """Whether the file was written by us: its cells are then restored."""
        return all(name in self.places for name in OWN)

    @property
    def variables(self) -> int:
        """How many variables have a column of their own."""
        return sum(PARAM.fullmatch(name) is not None for name in self.places)


def column_of(name: str, given: Mapping[str, str] | None = None) -> str | None:
    """Return which column a person means by *name*; None if it is none of ours.

    *given*: columns by the names that the user of the command said, in plain form.
    """
    name = name.strip()
    plain = _plain(name)
    if given and plain in given:
        return given[plain]
    if len(name) > MAX_KNOWN_CHARACTERS:
        return None
    if column := _column(plain):
        return column
    bare = _NOTE.sub("", unicodedata.normalize("NFKC", name))
    columns = {_column(_plain(part)) for part in _LANGUAGES.split(bare) if part.strip()}
    return columns.pop() if len(columns) == 1 else None


def _column_said(name: str, given: Mapping[str, str], said: Collection[str]) -> str | None:
    """Return which column *name* is; no known name is one of those that the user *said*."""
    column = column_of(name, given)
    return column if column not in said or _plain(name) in given else None


def _column(plain: str) -> str | None:
    """Return which column a name in plain form is of; None if it is none of ours."""
    if found := _VARIABLE.fullmatch(plain):
        return f"param_{found[1] or int(unicodedata.numeric(found[2]))}"
    return _COLUMN_OF.get(plain)


def given_columns(pairs: Iterable[str]) -> dict[str, str]:
    """Return columns by name, of pairs such as ``recipient=手机号``; raises HeaderError."""
    given: dict[str, str] = {}
    for pair in pairs:
        column, equals, name = pair.partition("=")
        if not equals or not name or not (column in _WORDS or PARAM.fullmatch(column)):
            raise HeaderError(
                _(
                    "--column takes pairs such as recipient=手机号 or param_1=name, and not {pair}"
                ).format(pair=shown_names([f"{pair!r}"]))
            )
        given[_plain(name)] = column
    return given


def recognised(cells: Sequence[str], given: Mapping[str, str]) -> int:
    """Return how many of *cells* name a column; 0 if none names the recipient."""
    columns = [column_of(cell, given) for cell in cells]
    return sum(column is not None for column in columns) if "recipient" in columns else 0


def own_places(names: Sequence[str], given: Mapping[str, str] | None = None) -> dict[str, int]:
    """Return the places of the columns that a file of rejects has before those of its list.

    None of a list that has such a name itself, alone or because the user says what it is.
    """
    plain = list(map(_plain, names))
    if any(plain.count(name) == 1 for name in OWN if name in (given or {})):
        return {}
    first = next((place for place, pair in enumerate(pairwise(plain)) if pair == OWN), None)
    return {name: first + at for at, name in enumerate(OWN)} if first is not None else {}


def read_header(
    cells: Sequence[str],
    given: Mapping[str, str],
    *,
    ignore_others: bool = False,
    empty: Collection[int] = (),
) -> Header:
    """Return the columns that *cells* name; raises HeaderError if they are not ones of messages.

    *given*: our names by those that the user of the command said; another column with a name of
    ours is then none of ours. *empty*: places that need no name, for there is nothing in their
    columns.
    """
    names = header_names(cells)
    said = {column for name in names if (column := given.get(_plain(name)))}
    places = own_places(names, given)
    unnamed = [place for place, name in enumerate(names) if not name and place in empty]
    known = {*places.values(), *unnamed}
    others: list[str] = []
    for place, name in enumerate(names):
        if place in known:
            continue
        column = _column_said(name, given, said)
        if column is None:
            others.append(name or _("(column {value}, without a name)").format(value=place + 1))
        elif column in places:
            raise HeaderError(
                _("has two columns for {column}: {other} and {name}").format(
                    column=column,
                    other=shown_names([names[places[column]]]),
                    name=shown_names([name]),
                )
            )
        else:
            places[column] = place
    if "recipient" not in places:
        raise HeaderError(_("has no column recipient"))
    if missing := set(given.values()) - places.keys():
        raise HeaderError(
            _("has not the column that --column names for {name}").format(name=min(missing))
        )
    variables = sorted(int(found[1]) for name in places if (found := PARAM.fullmatch(name)))
    if variables != list(range(1, len(variables) + 1)):
        missed = min(set(range(1, variables[-1])) - {*variables})
        raise HeaderError(
            _("has param_{last}, and no param_{missed}").format(last=variables[-1], missed=missed)
        )
    if variables and "params" in places:
        raise HeaderError(_("has both params and param_1: use one of them"))
    if others and not ignore_others:
        raise HeaderError(
            (
                _(
                    "has an unknown column {names}: leave them out with --ignore-others, or say"
                    " what they are with --column"
                )
                if len(others) == 1
                else _(
                    "has unknown columns {names}: leave them out with --ignore-others, or say"
                    " what they are with --column"
                )
            ).format(names=shown_names([repr(other) for other in others]))
        )
    return Header(names, places, others, unnamed)


def header_names(cells: Sequence[str]) -> list[str]:
    """Return the names in a header, without the empty columns that spreadsheets add at its end."""
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    return names


def shown_names(names: Sequence[str]) -> str:
    """Return some of *names*, and how many more there are."""
    shown = ", ".join(name[:MAX_NAME_CHARACTERS] for name in names[:MAX_NAMES_SHOWN])
    if len(names) <= MAX_NAMES_SHOWN:
        return shown
    return _("{names} and {count} more").format(
        names=shown, count=f"{len(names) - MAX_NAMES_SHOWN:,}"
    )


def _plain(name: str) -> str:
    """Return *name* in lower case, without blanks, marks that are not seen, and punctuation.

    Nor has it what a file of rejects adds to a name that a spreadsheet would run. A name that is
    too long for a known one stays as it is.
    """
    if len(name) > MAX_KNOWN_CHARACTERS:
        return name
    return "".join(
        character
        for character in unicodedata.normalize("NFKC", name).lower()
        if character not in "_-()[]*.:'=\"" and unicodedata.category(character) not in _BLANK
    )


_BLANK = frozenset({"Zs", "Cc", "Cf", "Zl", "Zp"})
