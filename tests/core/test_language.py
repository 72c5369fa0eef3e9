"""Texts are English where nothing was chosen, and in the catalogue where something was."""

import contextvars

import pytest
from lint.languages import CATALOGUES, complaints

from dispatcher.core.format import duration, plural
from dispatcher.core.language import (
    LANGUAGES,
    _,
    accepted_language,
    language,
    locale_language,
    use_language,
)


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_every_text_has_a_translation_with_the_same_fields(catalogue):
    assert complaints(catalogue) == []


def test_every_language_but_english_has_a_catalogue():
    assert {*CATALOGUES} == {tag.replace("-", "_") for tag in LANGUAGES} - {"en"}


def test_a_choice_of_language_holds_in_its_context_only():
    def chinese() -> tuple[str, str, str]:
        use_language("zh-CN")
        return _("Log in"), plural(2, "message"), duration(125)

    assert contextvars.copy_context().run(chinese) == ("登录", "2 条短信", "2 分钟")
    assert (language(), _("Log in")) == ("en", "Log in")
    assert (plural(2, "message"), duration(125)) == ("2 messages", "2 min")


def test_a_text_without_translation_stays_english():
    def chinese() -> str:
        use_language("zh-CN")
        return _("no such text is in the catalogue")

    assert contextvars.copy_context().run(chinese) == "no such text is in the catalogue"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("zh;q=0.5, en;q=0.7", "en"),
        ("zh-Hant-TW", "zh-CN"),
        ("de, fr;q=0.9, zh;q=0.2", "zh-CN"),
        ("zh;q=0, de", "en"),
        ("zh;q=x", "en"),
        ("*", "en"),
        (";;,,=", "en"),
    ],
)
def test_a_browser_gets_the_language_it_prefers(header, expected):
    assert accepted_language(header) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh-CN"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C.UTF-8", "LC_MESSAGES": "zh_CN"}, "zh-CN"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh-CN"),
    ],
)
def test_a_command_speaks_the_language_of_its_locale(environ, expected):
    assert locale_language(environ) == expected
