"""Every request that came to the API, accepted or not."""

from collections.abc import Iterator

from msgspec import Struct


class Visit(Struct, gc=False, rename="camel"):
    """One request, filled in as it goes through the simulator."""

    serial: int  # 1 for the first
    at: float  # arrival, seconds since 1970
    monotonic: float  # arrival, seconds of the monotonic clock
    host: str  # the Host header as on the wire
    scheme: str  # "aksk", "wsse" or "" when neither could be told
    size: int = 0  # bytes of the body
    numbers: int = 0
    accepted: int = 0
    token: str | None = None
    http_status: int = 0  # 0: no answer was given
    code: str = ""  # the top-level code of the answer
    faults: list[str] = []
    seconds: float | None = None  # until the answer was ready; None: not answered (yet)
    body: bytes | None = None  # only with the option keep_bodies


class Journal:
    """The visits, in the order of arrival."""

    def __init__(self) -> None:
        self._visits: list[Visit] = []

    def __len__(self) -> int:
        return len(self._visits)

    def __iter__(self) -> Iterator[Visit]:
        return iter(self._visits)

    def __getitem__(self, index: int) -> Visit:
        return self._visits[index]

    def arrive(self, *, at: float, monotonic: float, host: str, scheme: str) -> Visit:
        """Open the record of a request."""
        visit = Visit(len(self._visits) + 1, at, monotonic, host, scheme)
        self._visits.append(visit)
        return visit

    def since(self, after: int = 0) -> Iterator[Visit]:
        """Give the visits with a serial above *after*."""
        yield from self._visits[after:]
