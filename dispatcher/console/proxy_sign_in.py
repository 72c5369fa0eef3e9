"""Sign-in by a reverse proxy, such as oauth2-proxy with OpenID Connect.

The proxy signs the operator in and names him in a header. Anyone can send a header, so it counts
only on connections from the proxies' own networks, and the proxy must replace what a browser sends.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web
from msgspec import Struct

from dispatcher.core.roles import ROLES, Role
from dispatcher.settings.types import ANY_GROUP

MAX_OPERATOR_LENGTH = 100  # characters of a name; an address of e-mail fits


class SignedIn(Struct, frozen=True):
    """An operator whom a proxy has signed in."""

    name: str
    role: Role


class ProxySignIn(Struct, frozen=True):
    """Which header of which proxies names an operator, and what its groups may do."""

    networks: Sequence[IPv4Network | IPv6Network]  # of the proxies
    user_header: str
    groups_header: str | None
    roles: Mapping[str, Role]  # by group; ANY_GROUP: of everyone who is signed in

    def operator(self, request: web.Request) -> SignedIn | None:
        """Return the operator of *request*; None if no proxy of ours has signed anyone in."""
        if not self._is_proxy(request.remote):
            return None
        named = request.headers.getall(self.user_header, [])
        name = " ".join(named[0].split()) if len(named) == 1 else ""
        if not name or len(name) > MAX_OPERATOR_LENGTH or not name.isprintable():
            return None
        listed = request.headers.getall(self.groups_header, []) if self.groups_header else []
        if len(listed) > 1:  # the browser's too; a proxy leaves out the line of who has no group
            return None
        groups = {ANY_GROUP, *(group.strip() for line in listed for group in line.split(","))}
        granted = {self.roles[group] for group in groups if group in self.roles}
        return SignedIn(name, max(granted, key=ROLES.index)) if granted else None

    def _is_proxy(self, peer: str | None) -> bool:
        try:
            address = ip_address(peer or "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any(
            address in network or (mapped is not None and mapped in network)
            for network in self.networks
        )
