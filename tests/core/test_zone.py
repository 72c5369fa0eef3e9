"""Names of time zones come from forms and options."""

import pytest

from dispatcher.core.zone import find_zone


@pytest.mark.parametrize("name", ["Asia", "../etc", "Moon/Sea", "x" * 999, "a\0b", ""])
def test_a_name_of_no_zone_finds_none(name):
    assert find_zone(name) is None


def test_a_name_of_a_zone_finds_it():
    assert find_zone("Asia/Shanghai").key == "Asia/Shanghai"
