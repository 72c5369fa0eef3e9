"""The language of what people read: English as the code has it, or another by its catalogue.

`_` returns a text in the language of the present context: of the request for a page, or of the
command. Without a choice that is English, so logs, metrics, JSON and whatever is stored stay
English. A text is wrapped where it is shown, or marked by `N_` in a table and wrapped where the
table is read. `zh_CN.po` beside this module is the Chinese catalogue; it is read at its first use
(some milliseconds for a thousand texts). CONTRIBUTING.md, Languages, says how to add to it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources
from types import MappingProxyType

__all__ = [
    "ENGLISH",
    "LANGUAGES",
    "N_",
    "_",
    "accepted_language",
    "in_all_languages",
    "in_english",
    "language",
    "locale_language",
    "use_language",
]

ENGLISH = "en"
LANGUAGES: Mapping[str, str] = MappingProxyType({ENGLISH: "English", "zh-CN": "中文"})
_LANGUAGE: ContextVar[str] = ContextVar("language", default=ENGLISH)


def use_language(chosen: str) -> None:
    """Use *chosen*, a key of `LANGUAGES`, from now on in this context."""
    _LANGUAGE.set(chosen)


@contextmanager
def in_english() -> Iterator[None]:
    """Use English within this: for a text that is stored, for all to read."""
    before = _LANGUAGE.set(ENGLISH)
    try:
        yield
    finally:
        _LANGUAGE.reset(before)


def language() -> str:
    """Return the language of the present context."""
    return _LANGUAGE.get()


def _(text: str) -> str:
    """Return *text* in the language of the present context."""
    chosen = _LANGUAGE.get()
    return text if chosen == ENGLISH else _catalogue(chosen).get(text, text)


def in_all_languages(text: str) -> list[str]:
    """Return *text* in every language: what a reader writes may be what another has read."""
    return [text if each == ENGLISH else _catalogue(each).get(text, text) for each in LANGUAGES]


def with_stop(text: object) -> str:
    """Return a text, such as that of an error, as a sentence: with a full stop."""
    return _("{sentence}.").format(sentence=text)


def N_(text: str) -> str:  # noqa: N802 - the name that gettext's programs know
    """Return *text* as it is, and mark it: it is in the catalogue, and translated where shown."""
    return text


def accepted_language(header: str) -> str:
    """Return the language that a browser's Accept-Language prefers: ``zh-CN,zh;q=0.9,en;q=0.8``."""
    preferred = []
    for place, part in enumerate(header.split(",")):
        tag, _sep, weight = part.partition(";")
        quality = weight.strip().removeprefix("q=") or "1"
        chosen = _known(tag)
        if chosen is not None and quality.replace(".", "", 1).isdecimal() and float(quality) > 0:
            preferred.append((-float(quality), place, chosen))
    return min(preferred)[2] if preferred else ENGLISH


def locale_language(environ: Mapping[str, str]) -> str:
    """Return the language of a command's environment: LC_ALL, else LC_MESSAGES, else LANG."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environ.get(name):
            return _known(value) or ENGLISH
    return ENGLISH


def _known(tag: str) -> str | None:
    """Return the language that is nearest to ``zh_CN.UTF-8``, ``zh-Hans`` or ``en-GB``."""
    first = tag.strip().lower().replace("_", "-").partition("-")[0].partition(".")[0]
    return next((each for each in LANGUAGES if each.partition("-")[0] == first), None)


@cache
def _catalogue(chosen: str) -> Mapping[str, str]:
    from babel.messages.pofile import read_po  # noqa: PLC0415 - English does without it

    name = chosen.replace("-", "_") + ".po"
    with resources.files("dispatcher.core").joinpath(name).open("rb") as file:
        return {
            message.id: message.string
            for message in read_po(file)
            if message.id and isinstance(message.id, str) and isinstance(message.string, str)
            and message.string and not message.fuzzy
        }  # fmt: skip
