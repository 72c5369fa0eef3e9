"""Runs several receivers that share one port, each in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Final

import structlog

from dispatcher.postgres.programs import signal_on_parent_exit
from dispatcher.service.http import ListenError
from dispatcher.settings import Settings

log = structlog.get_logger(__name__)

POLL_INTERVAL_SECONDS: Final = 0.1  # between two looks whether a receiver has ended


class ReceiverError(Exception):
    """A receiver ended with an error, which it has printed."""

    def __init__(self) -> None:
        super().__init__("a receiver ended with an error: see its line above.")


def run_receivers(settings: Settings, dsn: str, count: int) -> None:
    """Run *count* receivers until SIGTERM or SIGINT.

    The kernel gives each connection to one of them (SO_REUSEPORT). If one ends, all are stopped,
    as one process stops when a part of it fails: what started this starts it again.

    Raises ListenError if the address cannot be bound, and ReceiverError.
    """
    with (
        _reserved_address(settings.listen) as listen,
        tempfile.TemporaryDirectory(prefix="dispatcher-metrics-") as metrics,
    ):
        environment = {"DISPATCHER_LISTEN": listen, "PROMETHEUS_MULTIPROC_DIR": metrics}
        if settings.database_url is None:  # of the embedded PostgreSQL, which this process runs
            environment["DISPATCHER_DATABASE_URL"] = dsn
        receivers = [_start(environment) for _ in range(count)]

        def stop(signum: int, _: FrameType | None) -> None:
            log.info("stopping the receivers", signal=signal.Signals(signum).name)
            for receiver in receivers:
                receiver.terminate()

        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, stop)
        while all(receiver.poll() is None for receiver in receivers):
            time.sleep(POLL_INTERVAL_SECONDS)
        for receiver in receivers:
            receiver.terminate()
        codes = [receiver.wait() for receiver in receivers]
    if any(codes):
        raise ReceiverError


def _start(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dispatcher", "run", "--only", "reports", "--shared-port"],
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C reaches this process only, which stops the receivers
        preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - one prepared call
    )


@contextmanager
def _reserved_address(listen: str) -> Iterator[str]:
    """Bind *listen* without listening, so that it stays free for the receivers; give it back.

    Port 0 becomes one port for all of them, and an address in use is found before they start: also
    one that another such group of this user holds, which the kernel would let these share.
    """
    host, port = listen.rsplit(":", 1)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        reserved = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(host.strip("[]"), int(port), error) from error
    alone = socket.socket(family, kind, protocol)
    with alone, reserved:
        for each in (alone, reserved):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            alone.bind(address)
            alone.close()
            reserved.bind(address)
        except OSError as error:
            raise ListenError(host.strip("[]"), int(port), error) from error
        yield f"{host}:{reserved.getsockname()[1]}"
