"""Finds the encoding of a text file; a guess is only made where the text then makes sense."""

import codecs
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from dispatcher.core.errors import ListError
from dispatcher.core.language import _

UTF_8 = "utf-8-sig"  # with a byte order mark or without
SAMPLE_CHARACTERS = 24  # of the text, shown with a guess
HEAD_BYTES = 4_096  # looked at to recognise UTF-16
MAX_LINES_KEPT = 200  # lines that are no ASCII, kept to judge a guess
MIN_COMMON_SHARE = 0.7  # of the characters of a guess that are in common use
_FIRST_TRAIL = 0xA1  # second bytes of GB 2312 begin here
_IN_USE = ((0xA1, 0xA3), (0xB0, 0xD7))  # first bytes: signs and letters, characters in common use
FEW = 10  # one line in so many may be broken in a file that is otherwise ASCII
# Of Python, and no character sets; some read \\n in a text as a line end.
_NO_CHARACTER_SETS = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")
_OTHERS = ("cp1252", "big5", "shift_jis", "cp1251")  # named as candidates, never chosen


class FoundEncoding(Struct, frozen=True):
    """How the text of a file is encoded."""

    name: str
    sample: str = ""  # some of its text, if the encoding is a guess


def find_encoding(path: Path, wanted: str | None) -> FoundEncoding:
    """Return how the text of *path* is encoded: as *wanted*, or as all of it shows.

    Raises :class:`ListError` if *wanted* is no encoding, or if no guess makes sense.
    """
    if wanted is not None:
        return FoundEncoding(_known(wanted, path))
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        if wide := _utf_32(head) or _utf_16(head):
            return FoundEncoding(wide)
        stream.seek(0)
        lines = right = wrong = 0
        kept: list[bytes] = []
        for line in stream:
            lines += 1
            if line.isascii():
                continue
            if _decodes(line, "utf-8"):
                right += 1
            else:
                wrong += 1
                if len(kept) < MAX_LINES_KEPT:
                    kept.append(line)
    # A few lines that are not UTF-8 are bad lines; when most are not, it is another encoding.
    if wrong <= right:
        return FoundEncoding(UTF_8)
    found = _chinese(kept)
    if found is None and wrong * FEW <= lines:
        return FoundEncoding(UTF_8)
    return found or _refused(path, kept)


def _known(name: str, path: Path) -> str:
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
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        marked = _utf_32(head) if plain == "utf-32" else _utf_16(head)
        return marked or f"{plain}-le"
    return UTF_8 if plain in ("utf-8", UTF_8) else name


def _utf_32(head: bytes) -> str | None:
    """Return UTF-32 if *head* has its mark, which begins like that of UTF-16."""
    return "utf-32" if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) else None


def _utf_16(head: bytes) -> str | None:
    """Return which UTF-16 *head* is; without a mark it shows by the zeros of its ASCII."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
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
    if text and len(readable) * 2 > len(lines) and _share_in_use(text) >= MIN_COMMON_SHARE:
        return FoundEncoding("gb18030", text[:SAMPLE_CHARACTERS])
    return None


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


def _share_in_use(text: str) -> float:
    """Return which share of *text* is in the first level of GB 2312, ordered by common use."""
    return sum(map(_is_in_use, text)) / len(text)


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
