"""Names of time zones come from forms and options."""

import pytest

from dispatcher.core.zone import read_zone


@pytest.mark.parametrize("name", ["Asia", "../etc", "Moon/Sea", "x" * 999, "a\0b", ""])
def test_a_name_of_no_zone_finds_none(name):
    with pytest.raises(ValueError, match="there is no time zone"):
        read_zone(name)


@pytest.mark.parametrize("name", ["Etc/GMT+8", "Etc/GMT-8", "etc/gmt+14", "Etc/GMT-10"])
def test_a_zone_whose_sign_is_reversed_is_refused(name):
    with pytest.raises(ValueError, match="has its sign reversed"):
        read_zone(name)


@pytest.mark.parametrize("name", ["Asia/Shanghai", "Etc/GMT+0", "Etc/GMT", "UTC"])
def test_a_name_of_a_zone_finds_it(name):
    assert read_zone(name).key == name
