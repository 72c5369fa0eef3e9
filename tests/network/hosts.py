"""Hosts on one machine: a network namespace each, and a router between them that can lose packets.

Nothing but root and `ip` (iproute2) is needed. What is started inside of a host is a process of
that host; the test itself sits behind the router too, and reaches every host.
"""

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
NETWORKS = 512  # of 256 addresses each in 198.18.0.0/15, which is set apart for tests
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Host:
    """A host: its namespace, its address, and the router's end of its cable."""

    namespace: str
    address: str
    port: str

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be on this host: what this thread starts or opens meanwhile is there. Do not await."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            with Path("/run/netns", self.namespace).open("rb") as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())


class Network:
    """A router, and hosts around it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._name = f"sms{os.getpid()}"
        number = os.getpid() % NETWORKS
        self._base = f"198.{18 + number // 256}.{number % 256}"
        self._numbers = itertools.count()
        self._router = self._namespace("router")
        ip("netns", "exec", self._router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        self._add("test", None)  # this process
        ip("route", "add", f"{self._base}.0/24", "via", f"{self._base}.1")

    def host(self, name: str) -> Host:
        """Add a host."""
        return self._add(name, self._namespace(name))

    def unplug(self, host: Host) -> None:
        """Pull the cable of *host*: it can notice."""
        ip("-n", self._router, "link", "set", host.port, "down")

    def plug(self, host: Host) -> None:
        """Put the cable back."""
        ip("-n", self._router, "link", "set", host.port, "up")

    def lose(self, one: Host, other: Host) -> None:
        """Lose every packet between two hosts: no reset, no refusal, only silence."""
        self._rules("add", one, other)

    def carry(self, one: Host, other: Host) -> None:
        """Carry packets between two hosts again."""
        self._rules("del", one, other)

    def _rules(self, action: str, one: Host, other: Host) -> None:
        for sender, receiver in ((one, other), (other, one)):
            rule = ("from", sender.address, "to", receiver.address, "blackhole")
            ip("-n", self._router, "rule", action, *rule)

    def _namespace(self, name: str) -> str:
        namespace = f"{self._name}-{name}"
        ip("netns", "add", namespace)
        self._stack.callback(ip, "netns", "del", namespace)  # its cables go with it
        ip("-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _add(self, name: str, namespace: str | None) -> Host:
        """Lay a cable from the router to a namespace; None is the one that this process is in."""
        first = 4 * next(self._numbers)
        gateway, address = f"{self._base}.{first + 1}", f"{self._base}.{first + 2}"
        port, end = f"to-{name}"[:15], f"{self._name}-{first}"
        ip("-n", self._router, "link", "add", port, "type", "veth", "peer", "name", end)
        ip("-n", self._router, "link", "set", end, "netns", namespace or str(os.getpid()))
        there = ("-n", namespace) if namespace else ()
        for where, link, its in (((*there,), end, address), (("-n", self._router), port, gateway)):
            ip(*where, "address", "add", f"{its}/30", "dev", link)
            ip(*where, "link", "set", link, "up")
        if namespace:
            ip(*there, "route", "add", "default", "via", gateway)
        else:  # gone at once; that of a namespace only some time after it
            self._stack.callback(ip, "link", "del", end)
        return Host(namespace or "", address, port)


@contextmanager
def network() -> Iterator[Network]:
    """Give a router without hosts; all of it goes again."""
    with ExitStack() as stack:
        yield Network(stack)


def skip_without_namespaces() -> None:
    """Skip the test, and say why, where no hosts can be made."""
    if os.geteuid() != 0:
        pytest.skip("hosts are network namespaces, and only root may make them")
    if shutil.which("ip") is None:
        pytest.skip("ip is missing: apt install iproute2")
    name = f"sms-may-we-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no network namespaces here: {made.stderr.decode().strip()}")
    ip("netns", "del", name)


def ip(*arguments: str) -> None:
    """Run `ip`; what it complains of is the error's text."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


def _enter(namespace: int) -> None:
    if LIBC.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
