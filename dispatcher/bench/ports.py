"""Ports for servers that must know theirs before they listen."""

import random
import socket

LOOPBACK = "127.0.0.1"
PORTS = range(15_000, 30_000)  # below those that clients are given


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has, and nobody gets who asks for any."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
