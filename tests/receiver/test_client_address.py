"""Who sent a request, when proxies stand before us and anybody may write what they write."""

from ipaddress import ip_address, ip_network

import pytest

from dispatcher.receiver.verification import MAX_PROXY_HOPS, client_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1")]
CASES = [
    # the other end of the connection, X-Forwarded-For, and who it was
    ("9.9.9.9", [], "9.9.9.9"),
    ("9.9.9.9", ["117.78.29.5"], "9.9.9.9"),  # no proxy of ours: its word counts for nothing
    ("10.0.0.1", [], "10.0.0.1"),
    ("10.0.0.1", ["117.78.29.5"], "117.78.29.5"),
    ("10.0.0.1", ["117.78.29.5, 9.9.9.9"], "9.9.9.9"),  # the client wrote the first one itself
    ("10.0.0.1", ["117.78.29.5", "9.9.9.9"], "9.9.9.9"),  # in a header of its own, too
    ("10.0.0.1", ["117.78.29.5, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
    ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
    ("10.0.0.1", ["117.78.29.5:4711"], "117.78.29.5"),
    ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
    ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
    ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
    ("::ffff:10.0.0.1", ["::ffff:117.78.29.5"], "117.78.29.5"),
    ("fd00::1", ["117.78.29.5"], "117.78.29.5"),
    ("10.0.0.1", ["117.78.29.5, "], None),
    ("10.0.0.1", ["unknown"], None),
    ("10.0.0.1", ["_hidden, 10.0.0.2"], None),
    ("10.0.0.1", ["117.78.29.5 9.9.9.9"], None),
    ("10.0.0.1", ["117.78.29.05"], None),
    ("10.0.0.1", ["1975397637"], None),
    (None, ["117.78.29.5"], None),
    ("10.0.0.1", ["117.78.29.5" + ", 10.0.0.2" * MAX_PROXY_HOPS], "10.0.0.2"),  # no further
    ("10.0.0.1", ["1.1.1.1, " * 100_000 + "9.9.9.9"], "9.9.9.9"),
]


@pytest.mark.parametrize(("peer", "forwarded", "client"), CASES, ids=lambda v: str(v)[:30])
def test_the_chain_is_read_from_its_end_as_far_as_it_is_trusted(peer, forwarded, client):
    expected = client and ip_address(client)
    assert client_address(peer, forwarded, TRUSTED) == expected
