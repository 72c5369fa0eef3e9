"""Request slots of one app: the bound on what may be on its way, and so the back-pressure."""

import asyncio
import contextlib
from collections import deque

LATELY = 15  # takings that say for how long a slot is taken, lately


class Slots:
    """*total* request slots, of which *kept* are for urgent messages only.

    A slot is taken before a claim and given back when the request is over, so nothing is
    claimed that could not be sent at once: after a crash only what was in a slot is unsure.
    """

    def __init__(self, total: int, *, kept: int) -> None:
        self._total = total
        self._free = total
        self._kept = min(kept, total - 1)
        self._changed = asyncio.Condition()
        self._took: deque[float] = deque(maxlen=LATELY)

    async def take(self, *, urgent: bool, most: int, patience: float = 0.0) -> int:
        """Wait for a free slot, take up to *most* of the free ones, and return how many.

        Once one is free, wait up to *patience* seconds more for *most* of them.
        """
        kept = 0 if urgent else self._kept
        most = min(most, self._total - kept)
        async with self._changed:
            while True:
                await self._changed.wait_for(lambda: self._free > kept)
                if patience:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience):
                            await self._changed.wait_for(lambda: self._free - kept >= most)
                taken = min(self._free - kept, most)
                if taken > 0:  # an urgent claim may have been quicker
                    self._free -= taken
                    return taken

    @property
    def taken(self) -> float:
        """Seconds that a slot is taken, lately: the median, which no single slow request moves."""
        return sorted(self._took)[len(self._took) // 2] if self._took else 0.0

    def note(self, seconds: float) -> None:
        """Note for how long one slot was taken."""
        self._took.append(seconds)

    async def give(self, slots: int = 1) -> None:
        """Give slots back."""
        if slots:
            async with self._changed:
                self._free += slots
                self._changed.notify_all()
