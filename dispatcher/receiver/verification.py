"""Verifies who sent a report: the signature of the push, and the network of the client."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from dispatcher.core.signing import AppKey, UnverifiedPush, Verified, verify_push
from dispatcher.receiver.plain_posts import Post


class Signatures(Struct, frozen=True):
    """Verifies the signatures of pushes; without keys each push passes."""

    keys: Sequence[AppKey]
    clock: Callable[[], datetime]
    assume: Mapping[str, str]  # host, connection: as they were before a proxy changed them
    callback: str | None = None  # the public address, whose path a proxy may have changed

    def refuse(self, post: Post) -> str | None:
        """Return why *post* is not the provider's, or None if it is, or there are no keys."""
        if not self.keys:
            return None
        verdict = self._verify(post, post.path)
        if isinstance(verdict, UnverifiedPush) and self.callback is not None:
            public = _public_path(urlsplit(self.callback).path, post.path)
            if public != post.path:
                verdict = self._verify(post, public)
        return verdict.reason if isinstance(verdict, UnverifiedPush) else None

    def _verify(self, post: Post, path: str) -> Verified | UnverifiedPush:
        return verify_push(
            self.keys,
            method="POST",
            path=path,
            query=post.query,
            headers=post.headers,
            body=post.body,
            now=self.clock(),
            assume=self.assume,
        )


def _public_path(callback: str, path: str) -> str:
    """Return the path that a client of the public address used, if *path* is what came here.

    *callback* is the public path of reports; replies come beside it.
    """
    if not path.startswith("/replies/"):
        return callback
    return callback.rpartition("/reports/")[0] + path


Network = IPv4Network | IPv6Network
ClientAddress = IPv4Address | IPv6Address

# Some proxies write an IPv4 address, or an IPv6 one in brackets, with the port of the client.
_WITH_PORT = re.compile(r"(?:(\d[\d.]*)|\[([0-9A-Fa-f:.]+)\])(?::\d{1,5})?", re.ASCII)
MAX_PROXY_HOPS: Final = 20  # X-Forwarded-For entries that are read


def client_address(
    peer: str | None, forwarded: Sequence[str], trusted: Iterable[Network]
) -> ClientAddress | None:
    """Return the address of the client, or None if it is unknown.

    *peer* is the other end of the connection, *forwarded* the X-Forwarded-For headers in their
    order. The chain is read from its end, as far as trusted proxies wrote it: entries before
    them may be forged.
    """
    hops = [hop.strip() for header in forwarded for hop in header.split(",")]
    address = _address(peer)
    networks = list(trusted)
    for hop in reversed(hops[-MAX_PROXY_HOPS:]):
        if address is None or not within(address, networks):
            break
        address = _address(hop)
    return address


def within(address: ClientAddress, networks: Iterable[Network]) -> bool:
    """Tell whether *address* lies in one of *networks*."""
    return any(address in network for network in networks)


def _address(text: str | None) -> ClientAddress | None:
    written = _WITH_PORT.fullmatch(text or "")
    try:
        address = ip_address((written and (written[1] or written[2])) or text or "")
    except ValueError:
        return None
    # An IPv4 client of an IPv6 socket is the IPv4 client.
    return getattr(address, "ipv4_mapped", None) or address
