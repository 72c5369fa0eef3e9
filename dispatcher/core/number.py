"""Reads telephone numbers as people and systems write them, into one canonical form (E.164).

Two spellings of one number must not meet in a request, a suppressed number stays suppressed in
every spelling, and a report may use another spelling than the message. So there is one reader:

- `read_number` for what people write: it reads every usual spelling, and refuses what is doubtful
  with a reason for the person who can correct it;
- `core.message.to_e164` for a recipient that the database has accepted, on the hot path;
- `possible_forms` for what the provider writes: it only makes spellings comparable. So does
  `forms_in_request`, among the numbers of one request.

The database refuses the spellings that `to_e164` would misread (see misread_recipient in
0002_functions.sql), so all three agree. Facts: provider.md, Numbers.
"""

import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import unquote

from msgspec import Struct

from dispatcher.core.language import _

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

MIN_DIGITS = 7  # the shortest international numbers, country code included
MAX_DIGITS = 20  # 21 characters with the plus (provider.md, Numbers)
MAX_TEXT_CHARACTERS = 64  # a longer text is no number

# After +86. Mobile numbers have 11 digits; those of things 13; fixed lines an area code without
# its 0, and 7 or 8 digits more. No area code begins with 0, 65 or 86; 400 and 800 are services, and
# 852 and 853 joined 851 in 2014.
_MOBILE = re.compile("1[3-9][0-9]{9}")
_OF_THINGS = re.compile("(?:1064|14[0-9]{2})[0-9]{9}")
_FIXED = re.compile("10[0-9]{8}|2[0-9]{9}|(?!65|86|85[23]|[48]00)[3-9][0-9]{9,10}")
_ABROAD = re.compile("85[23][0-9]{8}|65[3689][0-9]{7}")  # Hong Kong, Macau, Singapore
# Those of companies and carriers: 10086, 95588, 12306, 106..., 400 and 800 with 7 digits more.
_SERVICE = re.compile("1[0-2][0-9]{1,4}|9[56][0-9]{3,4}|106[0-9]{5,17}|[48]00[0-9]{7}")

_PREFIX = re.compile(
    r"(?:tel|phone|mobile|mob|cell|sms|联系电话|电话号码|电话|手机号码|手机号|手机)\s*[:.]?\s*(?=[(\[+0-9])",
    re.IGNORECASE,
)
_FORMULA = re.compile(r'=\s*"(.*)"\s*')  # as a spreadsheet keeps a number that is text
_PLAIN = re.compile(r"\+?[0-9]+")
_CANONICAL = re.compile(r"\+[1-9][0-9]{4,}")
_FORM = re.compile(r"\+(?!0+$)[0-9*]{5,}")  # a canonical form, perhaps masked
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_USUAL = re.compile(r"(\+86)?(1[3-9][0-9]{9})")  # what nearly every line of a list holds
_ROUNDED = re.compile(r"[0-9]+(?:[.,][0-9]+)?E\+?[0-9]+", re.IGNORECASE)
# As a spreadsheet has a number; four digits after the point may be the end of 1311234.5678.
_DECIMAL = re.compile(r"(\+?[0-9]{7,})[.]0{1,3}")
_FRACTION = re.compile(r"\+?[0-9]{7,}[.](?!0+$)[0-9]{1,3}")
_NEGATIVE = re.compile(r"-[0-9]+(?:[.,]0+)?")  # +86-131..., which a spreadsheet has calculated
_THOUSANDS = re.compile(r"\+?[0-9]{1,3}(?:,[0-9]{3}){2,}(?:[.]0+)?")  # 13,112,345,678
_TRUNK = re.compile(r"^(\+?\d{1,4})\(0\)")  # +86 (0)131...: the 0 is for calls within the country
_BETWEEN_NUMBERS = re.compile(
    r"[/\\;,、|&\n\r]|(?<=\d)(?:或者?|和|及|\s+(?:or|and)\s+)(?=[+(\d])"
    r"|(?<=\d{7})[^\d*•xX]+(?=\+?\d{7})",
    re.IGNORECASE,
)
# What an exchange dials after the number; people of China write 转 for it, or one more dash.
_EXTENSION = re.compile(
    r"(?:[,;#]+\s*(?:ext\w*)?|ext\w*|x|转|分机)[\s.:=#-]*[0-9]{1,6}", re.IGNORECASE
)
_APART = re.compile(r"(.{11,})[-(]\s*[0-9]{1,6}\)?")
# A whole number of mainland China. Digits without 0 or 86 may be the first part of a number abroad,
# and nine that begin with 1064 that of a thing.
_WHOLE = re.compile(
    r"(?:(?:\+|00)?860?|0)(?:(?:10(?!64)|2[0-9]|[3-9][0-9]{2})[0-9]{7,8}|1064[0-9]{6})"
    rf"|(?:(?:\+|00)?86)?0?{_MOBILE.pattern}"
)
_PUNCTUATION = re.compile(r"[\s()\[\]{}<>«»‹›「」『』【】《》〈〉.。'`´‘’\"“”_\u00b7・-]")
# 1 (305) 555-0123: a number of the US or Canada. Its digits may be those of a mobile number of
# mainland China, which people write 3-4-4. After 86 only brackets tell them apart.
_NORTH_AMERICAN = re.compile(
    r"\(?1[ .()-]+\d{3}[ .()-]+\d{3}[ .-]*\d{4}"
    r"|(?:1 *-|\(1\)) *\d{10}"
    r"|\(?(?:\+|00)?86\)?[ .-]*1[ .-]*\(\d{3}\)[ .-]*\d{3}[ .-]*\d{4}"
)
_CLOCK = "[0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,9})?)?"
_ZONE = "(?:Z|[+-][0-2][0-9]:?[0-5][0-9])?"
# What has many digits and is no number: ids, times and addresses of machines.
_NO_NUMBER = (
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:_[0-9]{1,10})?",
    r"(?=[0-9]*[a-f])[0-9a-f]{16,}+",
    r"20[0-9]{6}T[0-9]{6}Z?",
    rf"(?:19|20)[0-9]{{2}}[-.][01][0-9][-.][0-3][0-9](?:[T ]{_CLOCK})?{_ZONE}",
    r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})[.]){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})",
)
_NAMED = re.compile(
    rf"(?P<other>(?<![0-9a-z])(?:{'|'.join(_NO_NUMBER)})(?![0-9a-z]|[-.][0-9]))"
    r"|[+\uff0b]?\d(?:(?:[^\S\n]|[-.()\u2010-\u2015\u2212\uff0d]){0,3}\d){6,}",
    re.IGNORECASE,
)
_STARS = re.compile(r"[*•xX]{2,}")
_DASHES = frozenset("\u2212\u30fc")  # the minus sign, and the long mark of Japanese
_NO_SPACE_LEFT = frozenset({"Cf", "Cc", "Mn", "Me"})  # marks that nobody sees


class ReadNumber(Struct, frozen=True):
    """A number in its canonical form."""

    e164: str
    assumed_mainland: bool = False  # it was written without its country, so it is taken as +86


class DoubtfulNumber(Struct, frozen=True):
    """A text that is no number, or may be one of several."""

    reason: str  # for the person who can correct it; contains no digit of the number


def possible_forms(text: str) -> list[str]:
    """Return the canonical forms that a number written by the provider may have, likeliest first.

    Other than `read_number` it refuses nothing, and only makes spellings comparable. A masked
    number keeps its stars (see `fits_mask`). A blank in front may be a plus that was not encoded,
    and %2B one that was encoded twice. What holds no number (null, 0, 1.3E10) has no form.
    """
    if _CANONICAL.fullmatch(text):  # nearly always
        return [text]
    return [form for form in _forms(_unescaped(text)) if _FORM.fullmatch(form)]


def _unescaped(text: str) -> str:
    return unquote(text) if _ESCAPE.search(text) else text


def _forms(text: str) -> list[str]:
    cleaned = _cleaned(text)
    if not cleaned.strip("+"):
        return []
    if cleaned[:1] == "+":
        return ["+" + cleaned.lstrip("+").removeprefix("00")]
    form = _with_plus(cleaned)
    blank_is_plus = text[:1] == " " and "+" + cleaned != form
    return ["+" + cleaned, form] if blank_is_plus else [form]


def forms_in_request(text: str) -> list[str]:
    """Return the forms that *text* may have among the numbers of one request, likeliest first.

    Beside those of `possible_forms` it is the number that lacks only its plus. Elsewhere digits
    without a plus are a number of mainland China.
    """
    forms = possible_forms(text)
    if forms == [text]:
        return forms
    digits = _cleaned(_unescaped(text))
    if digits[:1] in {"", "+", "0"} or "+" + digits in forms or not _FORM.fullmatch("+" + digits):
        return forms
    return [*forms, "+" + digits]


def without_numbers(text: str) -> str:
    """Return words from outside with "…" for each number that they may name."""
    return _NAMED.sub(lambda found: found["other"] or "…", text)


def is_masked(form: str) -> bool:
    """Tell whether a part of a number is hidden."""
    return "*" in form


def fits_mask(number: str, form: str) -> bool:
    """Tell whether *number* may be the one that *form* shows in part; both are canonical.

    Part by part from the left, each where it first fits: a regular expression takes time that
    grows with each star.
    """
    if "*" * 2 in form and len(number) != len(form):
        return False
    first, *parts, last = re.split(r"\*+", form)
    place = len(first)
    for part in parts:
        found = number.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return number.startswith(first) and number.endswith(last) and len(number) >= place + len(last)


def read_number(text: str, *, other_mainland: bool = False) -> ReadNumber | DoubtfulNumber:
    """Return the number that a person wrote, or why it is doubtful.

    *other_mainland*: fixed lines and numbers of things may be written without +86 too; their 0 in
    front is dropped then. Without it only a mobile number may.
    """
    if usual := _USUAL.fullmatch(text):
        return ReadNumber("+86" + usual[2], assumed_mainland=usual[1] is None)
    if len(text) > MAX_TEXT_CHARACTERS:
        return DoubtfulNumber(
            _("it has more than {max_text_characters} characters").format(
                max_text_characters=MAX_TEXT_CHARACTERS
            )
        )
    if doubt := _doubt_of_form(_spaced(text)):
        return DoubtfulNumber(doubt)
    number = _cleaned(text)
    if not _PLAIN.fullmatch(number):
        return DoubtfulNumber(_no_number(number))
    if number.startswith("000"):
        return DoubtfulNumber(_("it begins with three zeros: write it with + and its country code"))
    if number.startswith("00"):
        number = "+" + number[2:]
    if number[0] == "+":
        return _international(number)
    if number.startswith("86") and _MOBILE.fullmatch(number[2:]):
        return ReadNumber("+" + number)
    return _without_plus(number, other_mainland=other_mainland)


def _doubt_of_form(spaced: str) -> str | None:
    """Return why a text is doubtful for how it is written, whatever its digits; else None."""
    if not spaced:
        return _("it is empty")
    if _ROUNDED.fullmatch(spaced.replace(" ", "")):
        return _("a spreadsheet has rounded it: format the column as text and export again")
    if _NEGATIVE.fullmatch(spaced):
        return _(
            "it is negative: a spreadsheet has calculated it, as it does where + and a dash are"
            " written; format the column as text, and write it again"
        )
    if _FRACTION.fullmatch(spaced):
        return _("it has decimals, as a result of a calculation")
    if _THOUSANDS.fullmatch(spaced):
        return _("a spreadsheet has put commas into it: format the column as text and export again")
    if _are_several(spaced):
        return _("there are two numbers: give each its own line")
    if _has_extension(spaced):
        return _("it has an extension, and no text reaches one: leave the extension out")
    if _NORTH_AMERICAN.fullmatch(spaced):
        return _("it is written like a number of the US or Canada: write it with +1, or with +86")
    return None


def _are_several(spaced: str) -> bool:
    """Tell whether two parts of a text are long enough to be numbers."""
    parts = _BETWEEN_NUMBERS.split(spaced)
    return len(parts) > 1 and sum(_digits(part) >= MIN_DIGITS for part in parts) > 1


def _has_extension(spaced: str) -> bool:
    """Tell whether a number is followed by an extension."""
    for found in _EXTENSION.finditer(spaced):
        if found.end() == len(spaced) and _digits(spaced[: found.start()]) >= MIN_DIGITS:
            return True
    apart = _APART.fullmatch(spaced)
    return bool(apart and _WHOLE.fullmatch(_PUNCTUATION.sub("", apart[1])))


def _digits(text: str) -> int:
    return sum(character.isdecimal() for character in text)


def _spaced(text: str) -> str:
    """Return *text* in plain characters, without marks that nobody sees and without its frame.

    A text that is too long for a number stays as it is: NFKC of 16,000 marks takes seconds.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        return text
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(_seen(character) for character in text)
    else:
        text = text.replace("\0", "")
    text = text.strip()
    if formula := _FORMULA.fullmatch(text):
        text = formula[1]
    text = text.strip(" \t'\"`’‘")
    return _PREFIX.sub("", text, count=1) if text[:1].isalpha() else text


def _seen(character: str) -> str:
    """Return how *character* counts: a dash is one dash, and a blank one blank."""
    kind = unicodedata.category(character)
    if kind in _NO_SPACE_LEFT and character not in "\t\n\r":
        return ""
    match kind:
        case "Pd":
            return "-"
        case "Zs" | "Zl" | "Zp":
            return " "
        case "Nd":
            return str(unicodedata.decimal(character))
        case _:
            return "-" if character in _DASHES else character


def _cleaned(text: str) -> str:
    """Return *text* without anything that only makes a number easier to read."""
    if _PLAIN.fullmatch(text) and text.isascii():
        return text
    bare = _spaced(text).replace(" ", "")
    if decimal := _DECIMAL.fullmatch(bare):
        return decimal[1]
    if trunk := _TRUNK.match(bare):
        bare = trunk[1] + bare[trunk.end() :]
    return _PUNCTUATION.sub("", _STARS.sub(lambda stars: "*" * len(stars[0]), bare))


def _with_plus(number: str) -> str:
    """Return *number*, written without plus, with the plus that it stands for."""
    if number.startswith("00"):
        return "+" + number[2:]
    if number.startswith("86") and len(number) == len("8613112345678"):
        return "+" + number
    return "+86" + number


def _no_number(text: str) -> str:
    if is_masked(text):
        return _("a part of it is masked")
    if any(character.isalpha() for character in text):
        return _("it holds letters")
    if text.count("+") > 1:
        return _("there are two plus signs in it")
    return (
        _("it holds something else than digits") if text not in ("", "+") else _("it has no digits")
    )


def _international(number: str) -> ReadNumber | DoubtfulNumber:
    """Return the number, whose country is written."""
    digits = number[1:]
    if digits.startswith("00"):
        return DoubtfulNumber(_("it has both + and 00 in front: write one of them"))
    if digits.startswith("0") or not digits:
        return DoubtfulNumber(_("after + comes the code of a country, and none begins with 0"))
    if len(digits) < MIN_DIGITS:
        return DoubtfulNumber(
            _("it is too short: {digits} digits after +").format(digits=len(digits))
        )
    if len(digits) > MAX_DIGITS:
        return DoubtfulNumber(
            _("it is too long: {digits} digits after +").format(digits=len(digits))
        )
    if digits.startswith("86"):
        return _mainland(digits[2:])
    import phonenumbers  # noqa: PLC0415 - a tenth of the start of every command

    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return DoubtfulNumber(_("no country has the code that it begins with"))
    doubt = _doubt_of_length(_length(parsed))
    if doubt and not phonenumbers.is_valid_number(parsed):  # as one of a network may be
        return DoubtfulNumber(doubt.format(country_code=parsed.country_code))
    # Not for the doubtful zeros of Italy and others, which are a part of their numbers.
    sent = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    if sent != number:
        return DoubtfulNumber(
            _(
                "after +{country_code} it has what is dialled within the country only: leave that"
                " out"
            ).format(country_code=parsed.country_code)
        )
    if _MOBILE.fullmatch(digits) and not phonenumbers.is_valid_number(parsed):
        return DoubtfulNumber(_("no number of +1 begins like this: is 86 missing?"))
    return ReadNumber(number)


def _length(parsed: "PhoneNumber") -> int:
    """Return what the library says of a number's length.

    Only mobile numbers and fixed lines count: a free or service number is often as long as a mobile
    number with a digit missing. The codes of no country, such as those of satellites, may have
    neither, so all their lengths count.
    """
    import phonenumbers  # noqa: PLC0415 - as above

    if parsed.country_code in phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS:
        return phonenumbers.is_possible_number_with_reason(parsed)
    return phonenumbers.is_possible_number_for_type_with_reason(
        parsed, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE
    )


def _doubt_of_length(result: int) -> str | None:
    """Return why no number of its country is so long, by the library; None if one is."""
    from phonenumbers import ValidationResult  # noqa: PLC0415 - as above

    match result:
        case ValidationResult.IS_POSSIBLE:
            return None
        case ValidationResult.TOO_LONG:
            return _("it is too long for a number of +{country_code}")
        case ValidationResult.TOO_SHORT:
            return _("it is too short for a number of +{country_code}")
        case ValidationResult.IS_POSSIBLE_LOCAL_ONLY:
            return _("it has no area code after +{country_code}, or a digit is missing")
        case _:
            return _(
                "no number of +{country_code} has so many digits: is one missing, or one too many?"
            )


def _mainland(national: str) -> ReadNumber | DoubtfulNumber:
    """Return the number that follows +86."""
    if _MOBILE.fullmatch(national) or _OF_THINGS.fullmatch(national) or _FIXED.fullmatch(national):
        return ReadNumber("+86" + national)
    if national.startswith("0"):
        return DoubtfulNumber(_("it has a 0 after +86: leave that out"))
    if national.startswith("86"):
        return DoubtfulNumber(_("it has 86 twice"))
    return DoubtfulNumber(
        _doubt_of_86(national)
        or _(
            "no number of mainland China has {national} digits and begins like this after +86"
        ).format(national=len(national))
    )


def _doubt_of_86(national: str) -> str | None:
    """Return what it is instead of a number of mainland China that follows 86, if that is plain."""
    # 106 may begin a number of Beijing, 10, with a digit missing.
    if _SERVICE.fullmatch(national) and not national.startswith("106"):
        return _("it looks like a service number of mainland China, which no text reaches")
    if _ABROAD.fullmatch(national):
        return _("it looks like a number of Hong Kong, Macau or Singapore after 86: leave 86 out")
    return None


def _without_plus(number: str, *, other_mainland: bool) -> ReadNumber | DoubtfulNumber:
    """Return the number that was written without its country: a mainland one, or doubtful."""
    if _MOBILE.fullmatch(number):
        return ReadNumber("+86" + number, assumed_mainland=True)
    national = number.removeprefix("0")
    fixed, of_things = _FIXED.fullmatch(national), _OF_THINGS.fullmatch(national)
    if other_mainland and (fixed or of_things):
        return ReadNumber("+86" + national, assumed_mainland=True)
    if _SERVICE.fullmatch(number) and not of_things:
        return DoubtfulNumber(
            _("it looks like a service number of mainland China, which no text reaches")
        )
    if number.startswith("0"):
        return DoubtfulNumber(_doubt_of_zero(national, is_fixed=fixed is not None))
    if len(number) < MIN_DIGITS:
        return DoubtfulNumber(_("it is too short: {number} digits").format(number=len(number)))
    if number.startswith("86"):
        return DoubtfulNumber(
            _doubt_of_86(number[2:])
            or _(
                "after 86 come {value} digits, and a mobile number of mainland China has 11"
            ).format(value=len(number) - 2)
        )
    if code := _calling_code(number):
        return DoubtfulNumber(_("it looks like +{code}…: the + is missing").format(code=code))
    if of_things:
        return DoubtfulNumber(_("it looks like the number of a thing: write it with +86"))
    if len(number) == len("13112345678"):
        return DoubtfulNumber(
            _(
                "it has 11 digits, but no mobile number of mainland China begins like this: is a"
                " digit wrong, or + and the code of its country missing?"
            )
        )
    return DoubtfulNumber(
        _(
            "it has {number} digits, and a mobile number of mainland China has 11: is a digit"
            " wrong, or + and the code of its country missing?"
        ).format(number=len(number))
    )


def _doubt_of_zero(national: str, *, is_fixed: bool) -> str:
    """Return why a number that begins with 0 is doubtful; *national* is what follows the 0."""
    if is_fixed:
        return _("it looks like a fixed line: write it with +86 and without the 0")
    if _MOBILE.fullmatch(national):
        return _(
            "it looks like a mobile number of mainland China with a 0 in front: leave that out"
        )
    if len(national) < MIN_DIGITS - 1:
        return _("it is too short: {number} digits").format(number=len(national) + 1)
    return _("it begins with 0: write it with + and the code of its country")


def _calling_code(number: str) -> str | None:
    """Return the code of the country of which *number* would be a valid number, were + before it.

    Numbers that begin like a mobile number of mainland China have one digit too few or too many.
    """
    if re.match("1[3-9]", number) and len(number) in (10, 12):
        return None
    import phonenumbers  # noqa: PLC0415 - as above

    try:
        parsed = phonenumbers.parse("+" + number, None)
    except phonenumbers.NumberParseException:
        return None
    return str(parsed.country_code) if phonenumbers.is_valid_number(parsed) else None
