"""Templates as operators define them; checks the variables of a message before it is sent.

The API cannot return a template, so the check uses the definition of an operator. Kinds and
lengths: provider.md, Templates and length. Where the rule is not known (the form of a date) any
value is accepted, and the provider decides.
"""

import re
import unicodedata
from collections.abc import Sequence

from msgspec import Struct

from dispatcher.core.language import _

MAX_ID_CHARACTERS = 32
MAX_VARIABLES = 20
MAX_VARIABLE_LENGTH = 20  # characters of one variable of any kind
KIND_PATTERN = re.compile(r"(NUM|TXT)_([1-9]\d?)|DATE|TIME|PHONE|CHARDIGIT|DATETIME|MONEY|TEXT")
_MAX_PLAIN_CHARACTERS = 200  # a longer text is no code; NFKC of 16,000 marks takes seconds
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")

# The pattern of a kind, and its description.
_FIXED_KINDS = {
    "DATE": (r"[^{}]{1,20}", "a date"),
    "TIME": (r"[^{}]{1,20}", "a time"),
    "DATETIME": (r"[^{}]{1,20}", "a date or a time"),
    "PHONE": (r"[0-9+-]{1,15}", "at most 15 digits, + and -"),
    "CHARDIGIT": (r"[A-Za-z0-9]{1,20}", "at most 20 letters and digits"),
    "MONEY": (r"[0-9.]{1,20}", "at most 20 digits and ."),
    "TEXT": (r"[^.。'<>{}]{1,20}", "at most 20 characters, none of . 。 ' < > { }"),
}


_SAMPLES = {
    "NUM": "12345678901234567890",
    "TXT": "xxxxxxxxxxxxxxxxxxxx",
    "DATE": "2026-12-31",
    "TIME": "23:59",
    "DATETIME": "2026-12-31 23:59",
    "PHONE": "010-12345678",
    "CHARDIGIT": "ABCDE1234567890abcde",
    "MONEY": "123456.78",
    "TEXT": "xxxxxxxxxxxxxxxxxxxx",
}


_KINDS = frozenset(
    (*_FIXED_KINDS, *(f"{kind}_{most}" for kind in ("NUM", "TXT") for most in range(1, 21)))
)


class Template(Struct, frozen=True):
    """An operator's definition of one template."""

    template_id: str
    kinds: list[str]  # of its variables, in their order
    promotional: bool | None = None  # None: as the app says


class TemplateError(ValueError):
    """The template is invalid; the text says why."""


def plain_code(text: str) -> str:
    """Return a code that was copied from elsewhere, in plain characters and in seen ones only."""
    if text.isascii() or len(text) > _MAX_PLAIN_CHARACTERS:
        return text.strip()
    plain = unicodedata.normalize("NFKC", text)
    return "".join(sign for sign in plain if unicodedata.category(sign) != "Cf").strip()


def read_template_id(text: str) -> str:
    """Return the id of a template, as lists read it too; raises TemplateError."""
    template_id = plain_code(text)
    if not (
        1 <= len(template_id) <= MAX_ID_CHARACTERS
        and template_id.isprintable()
        and " " not in template_id
    ):
        raise TemplateError(
            _("a template's id has 1 to {count} characters, and no blanks").format(
                count=MAX_ID_CHARACTERS
            )
        )
    return template_id


def readable_kinds(kinds: Sequence[object]) -> bool:
    """Return whether *kinds*, as the database has them, are the kinds of a template's variables."""
    return all(isinstance(kind, str) and kind in _KINDS for kind in kinds)


def variable_kinds(text: str) -> list[str]:
    """Return the kinds of the variables in a template's text, such as ``${NUM_6}``.

    Raises TemplateError for a variable of no known kind.
    """
    return check_kinds(_VARIABLE.findall(text))


def check_kinds(kinds: Sequence[str]) -> list[str]:
    """Return *kinds*; raises TemplateError if one is not a kind of variable."""
    for kind in kinds:
        found = KIND_PATTERN.fullmatch(kind)
        if found is None or (found[2] and int(found[2]) > MAX_VARIABLE_LENGTH):
            raise TemplateError(
                _(
                    "{kind} is no kind of variable: there are NUM_1 to"
                    " NUM_{max_variable_length}, TXT_1 to TXT_{max_variable_length}, DATE, TIME,"
                    " PHONE, CHARDIGIT, DATETIME, MONEY and TEXT"
                ).format(kind=f"{kind!r}", max_variable_length=MAX_VARIABLE_LENGTH)
            )
    if len(kinds) > MAX_VARIABLES:
        raise TemplateError(
            _("a template has at most {max_variables} variables").format(
                max_variables=MAX_VARIABLES
            )
        )
    return list(kinds)


def sample_text(text: str) -> str:
    """Return a template's text with a value of the longest length for each variable."""

    def value(found: re.Match[str]) -> str:
        name, _, most = found[1].partition("_")
        return _SAMPLES[name][: int(most)] if most else _SAMPLES[name]

    return _VARIABLE.sub(value, text)


def template_mismatch(template: Template, params: Sequence[str]) -> str | None:
    """Return why *params* do not fit *template*, without their values; None if they fit."""
    if len(params) != len(template.kinds):
        return f"It has {_count(len(params))}, and the template takes {len(template.kinds)}."
    for place, (kind, value) in enumerate(zip(template.kinds, params, strict=True), start=1):
        pattern, words = _rule(kind)
        if re.fullmatch(pattern, value, re.DOTALL) is None:
            return f"Variable {place} is no {kind}: {words}."
    return None


def _rule(kind: str) -> tuple[str, str]:
    name, _, most = kind.partition("_")
    match name:
        case "NUM":
            return rf"[0-9]{{1,{most}}}", f"digits only, at most {most}"
        case "TXT":
            return rf"[^{{}}]{{1,{most}}}", f"at most {most} characters, no braces"
        case _:
            return _FIXED_KINDS[kind]


def _count(variables: int) -> str:
    return f"{variables} {'variable' if variables == 1 else 'variables'}"
