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
    ],
)
def test_an_id_or_code_that_may_be_a_number_is_masked(text, shown):
    assert mask_if_number(text) == shown
