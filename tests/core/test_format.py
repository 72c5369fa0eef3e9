import pytest

from dispatcher.core.format import mask_if_number


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("DELIVRD", "DELIVRD"),
        ("601", "601"),
        ("E000629", "E000629"),
        ("2ea20735-f856-4376-afbf-570bd70a46ee_11840135",) * 2,
        ("+8613112345678", "+86131****5678"),
        ("13112345678", "131****5678"),
        ("+8613112345678+8613112345678", "+86131****5678"),
        ("ERR13112345678", "ERR…"),
        ("to_13112345678", "to_…"),
        ("131-1234-5678", "…"),
        ("131 1234 5678", "…"),
        ("x(131) 1234\uff0d5678.", "x(…."),
        ("\uff11\uff13\uff11\uff11\uff12\uff13\uff14x1", "…x1"),
        ("x" + "1" * 25, "x…"),
        ("SGIP:-43 MK:0005",) * 2,
        ("2EA20735F8564376AFBF570BD70A46EE",) * 2,
        ("2ea20735-f856-4376-afbf-570bd70a46ee_13112345678", "2ea20735-f…-afbf-570bd70a46ee_…"),
    ],
)
def test_an_id_or_code_that_may_be_a_number_is_masked(text, shown):
    assert mask_if_number(text) == shown
