"""Variables are checked by the kinds of the provider's pages."""

import pytest

from dispatcher.core.templates import (
    Template,
    TemplateError,
    check_kinds,
    template_mismatch,
    variable_kinds,
)

FITS = [
    ("NUM_6", ["0", "000000", "123456"], ["", "1234567", "12a", "\uff11\uff12", "-1", "1\n"]),
    ("TXT_3", ["a", "abc", "取件码", "a b"], ["", "abcd", "{a}", "a}"]),
    ("DATE", ["2026-11-01"], ["", "x" * 21, "{}"]),
    ("TIME", ["08:00"], [""]),
    ("PHONE", ["+86-10-1234", "123456789012345"], ["", "1234567890123456", "12 3"]),
    ("CHARDIGIT", ["A1", "a" * 20], ["", "a" * 21, "a-b", "é"]),
    ("DATETIME", ["2026-11-01 08:00"], [""]),
    ("MONEY", ["12.50"], ["", "12,50", "$1", "1" * 21]),
    ("TEXT", ["您好", "a" * 20], ["", "a.b", "a。", "it's", "<b>", "{x}", "a" * 21]),
]


@pytest.mark.parametrize(("kind", "good", "bad"), FITS)
def test_each_kind_accepts_its_documented_values(kind, good, bad):
    template = Template("t", [kind])
    assert [value for value in good if template_mismatch(template, [value])] == []
    assert [value for value in bad if not template_mismatch(template, [value])] == []


def test_the_reason_names_the_place_and_never_the_value():
    template = Template("t", ["TXT_20", "NUM_6"])
    assert template_mismatch(template, ["Ana", "83x465"]) == (
        "Variable 2 is no NUM_6: digits only, at most 6."
    )
    assert template_mismatch(template, ["Ana"]) == "It has 1 variable, and the template takes 2."
    assert template_mismatch(Template("t", []), []) is None


def test_kinds_are_read_from_the_text():
    text = "您有${NUM_2}件包裹已到${TXT_20}\uff0c取件码${NUM_6}。"
    assert variable_kinds(text) == ["NUM_2", "TXT_20", "NUM_6"]
    assert variable_kinds("no variable") == []


@pytest.mark.parametrize(
    "kind", ["", "NUM", "NUM_0", "NUM_21", "TXT_99", "num_6", "WORD", "NUM_6 "]
)
def test_other_kinds_are_none(kind):
    with pytest.raises(TemplateError, match="is no kind of variable"):
        check_kinds([kind])


def test_a_template_has_at_most_20_variables():
    assert len(check_kinds(["DATE"] * 20)) == 20
    with pytest.raises(TemplateError, match="at most 20"):
        check_kinds(["DATE"] * 21)
