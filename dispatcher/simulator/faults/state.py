"""What a fault remembers from request to request."""

import asyncio


class State:
    """When a fault was set, what it counts, and whether it is still set."""

    def __init__(self, *, accepted: int, now: float, salt: str) -> None:
        self.accepted_before = accepted  # numbers in the ledger when it was set
        self.since = now  # monotonic clock
        self.salt = salt  # tells faults of one seed apart
        self.injected = 0
        self.refused = 0  # numbers
        self.window = now  # start of the running second
        self.passed = 0  # numbers in it
        self.cleared = asyncio.Event()

    async def stall(self, seconds: float) -> None:
        """Wait so long, or until the fault is taken away."""
        try:
            async with asyncio.timeout(seconds):
                await self.cleared.wait()
        except TimeoutError:
            pass
