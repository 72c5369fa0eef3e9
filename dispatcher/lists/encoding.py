"""Finds the encoding of a text file; a guess is only made where the text then makes sense."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

from msgspec import Struct

from dispatcher.core.errors import ListError
from dispatcher.core.language import _

UTF_8 = "utf-8-sig"  # with a byte order mark or without
_MARKS_OF_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PIECE_BYTES = 1_000_000
SAMPLE_CHARACTERS = 24  # of the text, shown with a guess
HEAD_BYTES = 4_096  # looked at to recognise UTF-16
MAX_LINES_KEPT = 200  # lines that are no ASCII, kept to judge a guess
MIN_COMMON_SHARE = 0.7  # of the characters of a guess that are in common use
_FIRST_TRAIL = 0xA1  # second bytes of GB 2312 begin here
_IN_USE = ((0xA1, 0xA3), (0xB0, 0xD7))  # first bytes: signs and letters, characters in common use
# Of 12 different characters some have a second half of the first bytes. Korean has none there, and
# is otherwise like Chinese.
MIN_DISTINCT = 12
_SECOND_HALF = 0xC9
# The capitals of cp1251 and cp1253, Russian and Greek, are like Chinese in pairs. One in five of
# the characters in common use has two such bytes: eight of eight in one list of 400,000.
MIN_CAPITALS = 8
_CAPITALS = frozenset((0xA8, *range(0xC0, 0xE0)))
_THREE_BYTES = 0xE0  # a character of UTF-8 that begins so has three bytes or more
# What UTF-8 writes in two bytes and people write so. Alone in a cell, é is 茅 and ½ is 陆.
_DELIMITERS = re.compile("[,;|\t]")
# Words of Russian and Greek, not what may be a name: a capital and a letter (小谢), two capitals
# (肖笑), one letter twice (谢谢), two letters of Greek (魏维).
_WORDS = re.compile(
    r"\b(?=[\u0400-\u042f]?[\u0430-\u045f]{2,}\b|[\u0400-\u042f]{3,}\b|[\u0386-\u03ce]{3,}\b)"
    r"(\w)(?!\1\b)\w+"
)
_LETTERS = re.compile("[\xad\xb4\xc0-\xd6\xd8-\xf6\xf8-\u017f\u01a1\u01af\u01b0]")  # beside ASCII
# 5 £, 20 °C, ¿Qué?; ¥5 but not 25楼; m² and 5½, not 鲁A12345 or 陆A; ½ kg; Col·legi, not 5路.
_SIGNS = re.compile(
    "[\xa1-\xa3\xa7\xa9-\xab\xae\xb0\xb1\xb5\xba\xbb\xbf]|(?<![0-9A-Za-z])\xa5"
    "|(?<=[0-9A-Za-z])[\xb2\xb3\xb9\xbc-\xbe]|[\xbc-\xbe](?= )|\xb7(?=[A-Za-z ])"
)
MIN_DOUBTED_SHARE = 0.9  # of characters in common use: Russian and Greek of a few words have less
FEW = 10  # one line in so many may be broken in a file that is otherwise ASCII
# Of Python, and no character sets; some read \\n in a text as a line end.
_NO_CHARACTER_SETS = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")
# Named as candidates, never chosen. Windows and Excel in Japan write cp932, which Shift-JIS is not.
_OTHERS = ("cp1252", "big5", "cp932", "euc_jp", "cp949", "cp1251")


class FoundEncoding(Struct, frozen=True):
    """How the text of a file is encoded."""

    name: str
    sample: str = ""  # some of its text, if the encoding is a guess


class _Seen(Struct):
    """What is seen of the lines of a file."""

    lines: int = 0
    right: int = 0  # those that are no ASCII, and UTF-8
    wrong: int = 0  # those that are not
    is_narrow: bool = True  # no right line has a character of three bytes
    kept_right: list[bytes] = []
    kept_wrong: list[bytes] = []


def find_encoding(path: Path, wanted: str | None, *, numbers_only: bool = False) -> FoundEncoding:
    """Return how the text of *path* is encoded: as *wanted*, or as all of it shows.

    Of a list of which *numbers_only* are used, the text may be in doubt.

    Raises :class:`ListError` if *wanted* is no encoding, or if no guess makes sense.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        if wanted is not None:
            # A mark is more certain, such as that of rejects that are loaded as their list was.
            return FoundEncoding(_marked(head) or _known(wanted, head))
        if wide := _utf_32(head) or _utf_16(head):
            return FoundEncoding(wide)
        stream.seek(0)
        seen = _see(stream)
    # A few lines that are not UTF-8 are bad lines; when most are not, it is another encoding.
    if seen.wrong <= seen.right:
        if seen.is_narrow and not numbers_only:
            _must_not_be_chinese(path, seen.kept_right)
        return FoundEncoding(UTF_8)
    found = _chinese(seen.kept_wrong)
    if found is None and seen.wrong * FEW <= seen.lines:
        return FoundEncoding(UTF_8)
    return found or _refused(path, seen.kept_wrong)


def _see(stream: IO[bytes]) -> _Seen:
    """Return what of a file is UTF-8."""
    seen = _Seen()
    for line in _lines(stream):
        seen.lines += 1
        if line.isascii():
            continue
        if _decodes(line, "utf-8"):
            seen.right += 1
            # It takes a microsecond a line, until the first line with such a character.
            seen.is_narrow = seen.is_narrow and max(line) < _THREE_BYTES
            kept = seen.kept_right
        else:
            seen.wrong += 1
            kept = seen.kept_wrong
        if len(kept) < MAX_LINES_KEPT:
            kept.append(line)
    return seen


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, whatever ends them; one that is too long for a list in pieces."""
    rest = b""
    while piece := stream.read(_PIECE_BYTES):
        *lines, rest = (rest + piece).splitlines(keepends=True)
        yield from lines
        if len(rest) > _PIECE_BYTES:
            yield rest
            rest = b""
    yield rest


def _marked(head: bytes) -> str | None:
    """Return the encoding that the mark at the begin of a file names; None: it has none."""
    if head.startswith(codecs.BOM_UTF8):
        return UTF_8
    return _utf_32(head) or ("utf-16" if head.startswith(_MARKS_OF_UTF_16) else None)


def _known(name: str, head: bytes) -> str:
    """Return the encoding that the user means by *name*; raises ListError if there is none."""
    try:
        plain = codecs.lookup(name).name.replace("_", "-")
        if plain not in _NO_CHARACTER_SETS:
            "".encode(name)  # raises LookupError if it is none of texts, such as hex
    except (LookupError, ValueError):
        plain = _NO_CHARACTER_SETS[0]
    if plain in _NO_CHARACTER_SETS:
        raise ListError(_("there is no encoding {name}.").format(name=f"{name!r}"), misused=True)
    if plain in ("utf-16", "utf-32"):  # without a mark it is as Windows writes it
        return (_utf_16(head) if plain == "utf-16" else None) or f"{plain}-le"
    return UTF_8 if plain in ("utf-8", UTF_8) else name


def _utf_32(head: bytes) -> str | None:
    """Return UTF-32 if *head* has its mark, which begins like that of UTF-16."""
    return "utf-32" if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) else None


def _utf_16(head: bytes) -> str | None:
    """Return which UTF-16 *head* is; without a mark it shows by the zeros of its ASCII."""
    if head.startswith(_MARKS_OF_UTF_16):
        return "utf-16"
    pairs = len(head) // 2
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > pairs * 0.3 and even < pairs * 0.02:
        return "utf-16-le"
    if even > pairs * 0.3 and odd < pairs * 0.02:
        return "utf-16-be"
    return None


def _chinese(lines: list[bytes]) -> FoundEncoding | None:
    """Return GB18030 if most *lines* are that, and then hold characters in common use."""
    readable = [line for line in lines if _decodes(line, "gb18030")]
    text = "".join(_not_ascii(line.decode("gb18030")) for line in readable)
    if text and len(readable) * 2 > len(lines) and _is_chinese(text):
        return FoundEncoding("gb18030", text[:SAMPLE_CHARACTERS])
    return None


def _must_not_be_chinese(path: Path, lines: list[bytes]) -> None:
    """Raise ListError if *lines*, which are UTF-8, may as well be GB18030.

    Some Chinese characters, such as 谢 and 郑, have bytes that are a letter in UTF-8.
    """
    chinese = _not_ascii("".join(line.decode("gb18030") for line in lines))
    if sum(map(_is_in_use, chinese)) < MIN_DOUBTED_SHARE * len(chinese):
        return
    strange = [line for line in lines if _is_strange(line.decode())]
    if len(strange) * 2 > len(lines):
        raise ListError(
            _(
                "the text of {path} may be UTF-8, such as “{sample}”, or GB18030, such as"
                " “{other}”: say which with --encoding utf-8 or --encoding gb18030."
            ).format(
                path=path,
                sample=_sample(strange[0], "utf-8"),
                other=_sample(strange[0], "gb18030"),
            ),
            misused=True,
        )


def _is_strange(line: str) -> bool:
    """Tell whether most of a line that is not ASCII is unusual in cells of a list in UTF-8."""
    strange = 0
    for cell in _DELIMITERS.split(line):
        rest = _WORDS.sub("a", cell)
        if re.search("[A-Za-z]", rest):
            rest = _LETTERS.sub("", rest)
        if re.search("[0-9A-Za-z]", rest):
            rest = _SIGNS.sub("", rest)
        strange += len(_not_ascii(rest))
    return strange * 2 > len(_not_ascii(line))


def _refused(path: Path, lines: list[bytes]) -> NoReturn:
    candidates = [
        _("{name} would read “{sample}”").format(name=name, sample=_sample(lines[0], name))
        for name in ("gb18030", *_OTHERS)
        if all(_decodes(line, name) for line in lines)
    ]
    guesses = _(" As a guess, {names}.").format(names="; ".join(candidates)) if candidates else ""
    raise ListError(
        _(
            "the text of {path} is not UTF-8, and not clearly anything else: save it as UTF-8,"
            " or give its encoding with --encoding.{guesses}"
        ).format(path=path, guesses=guesses),
        misused=True,
    )


def _is_chinese(text: str) -> bool:
    """Tell whether most of *text* is in the first level of GB 2312, ordered by common use."""
    distinct = {character.encode("gb18030") for character in text}
    if len(distinct) >= MIN_DISTINCT and all(code[0] < _SECOND_HALF for code in distinct):
        return False
    if len(distinct) >= MIN_CAPITALS and all(map(_CAPITALS.issuperset, distinct)):
        return False
    return sum(map(_is_in_use, text)) / len(text) >= MIN_COMMON_SHARE


def _is_in_use(character: str) -> bool:
    code = character.encode("gb18030")
    if len(code) != 2 or code[1] < _FIRST_TRAIL:  # noqa: PLR2004 - GB 2312 has two bytes each
        return False
    return any(first <= code[0] <= last for first, last in _IN_USE)


def _sample(line: bytes, encoding: str) -> str:
    text = line.decode(encoding)
    place = next((at for at, character in enumerate(text) if not character.isascii()), 0)
    begin = max(0, place - SAMPLE_CHARACTERS // 3)
    cut = text[begin : begin + SAMPLE_CHARACTERS].replace(";", ",").split(",")
    return next((cell for cell in cut if not cell.isascii()), "").strip()


def _not_ascii(text: str) -> str:
    return "".join(character for character in text if not character.isascii())


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
