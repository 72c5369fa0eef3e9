"""Times as people write them in lists and commands."""

import pytest

from dispatcher.lists.times import read_time


@pytest.mark.parametrize("text", ["9999-12-31T23:00-05:00", "0001-01-01T00:00+14:00"])
def test_a_time_that_is_none_in_utc_is_refused(text):
    with pytest.raises(ValueError, match="there is no such day or time"):
        read_time("send_at", text, None)
