"""Segments are counted as networks do; the bill adds them up by app and country."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.cost import Bill, BilledMessage, fill_template, segments
from dispatcher.simulator.number_results import count_segments


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("[" * 80, 1),
        ("[" * 81, 2),
        ("\f" * 80, 1),
        ("a" * 158 + "€", 1),
        ("a" * 159 + "€", 2),
        ("您" * 70, 1),
        ("您" * 71, 2),
        ("您" * 134, 2),
        ("您" * 135, 3),
        ("a" * 69 + "您", 1),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
    ],
)
def test_parts_are_those_of_the_facts(text, parts):
    assert segments(text, mainland=False) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [("", 1), ("a" * 70, 1), ("a" * 71, 2), ("[" * 70, 1), ("a" * 134, 2), ("a" * 135, 3),
     ("您" * 70, 1), ("您" * 71, 2), ("😀" * 35, 1), ("😀" * 36, 2)],
)  # fmt: skip
def test_in_mainland_china_every_character_counts_one_of_70(text, parts):
    assert segments(text, mainland=True) == parts


def test_a_text_is_filled_in_and_signed():
    text = "${NUM_6} in ${NUM_2} min"
    assert fill_template(text, ["123456", "5"], None, mainland=True) == "123456 in 5 min"
    assert fill_template("${NUM_6}", ["1"], "Shop", mainland=True) == "【Shop】1"
    assert fill_template("${NUM_6}", ["1"], "Shop", mainland=False) == "1"
    assert fill_template("${A}${B}", ["1"], None, mainland=True) == "1"


def test_a_bill_counts_what_was_reported_and_what_was_estimated():
    bill = Bill({"t": "${TXT_20}" + "a" * 60}, {"CN": (Decimal("0.05"), "CNY")})
    bill.add(
        [
            BilledMessage("shop", "CN", "t", ["b" * 20], None, 2, charged=2),
            BilledMessage("shop", "CN", "t", ["b"], "s" * 7, 2, charged=1, open=1),
            BilledMessage("shop", "CN", "other", [], None, None, open=1),
            BilledMessage("shop", "DE", "t", ["b"], None, 1, charged=1),
        ]
    )
    line = bill.lines["shop", "CN"]
    assert (line.messages, line.reported, line.unreported) == (3, 4, 1)
    assert (line.estimated, line.unknown) == (3, 1)
    assert (line.charged, line.open) == (3, 2)
    assert bill.lines["shop", "DE"].cost is None
    assert bill.sums() == {"CNY": Decimal("0.15")}
    assert bill.sums(most=True) == {"CNY": Decimal("0.25")}


def test_what_was_not_counted_is_billed_as_estimated():
    bill = Bill({"t": "a" * 161}, {"CN": (Decimal("0.05"), "CNY")})
    bill.add(
        [
            BilledMessage("shop", "CN", "t", [], None, 1, charged=1),
            BilledMessage("shop", "CN", "t", [], None, None, open=1),
            BilledMessage("shop", "CN", "t", [], None, None, charged=1),
        ]
    )
    line = bill.lines["shop", "CN"]
    assert (line.reported, line.estimated, line.charged, line.open) == (1, 9, 4, 3)


ALPHABETS = ("a9 ", "aé@\n", "a[€\f", "aç`", "中a，", "a\U0001f600\u200d", "\ud83d")


@given(st.sampled_from(ALPHABETS), st.integers(0, 330), st.randoms(), st.booleans())
def test_every_text_has_the_segments_that_the_provider_counts(alphabet, length, dice, mainland):
    text = "".join(dice.choice(alphabet) for _ in range(length))
    assert segments(text, mainland=mainland) == count_segments(text, mainland=mainland)
    more = segments(text + "a", mainland=mainland) - segments(text, mainland=mainland)
    assert more in (0, 1)
