"""The provider's faults, by chance: some at a time, for a moment each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from random import Random
from time import monotonic

from chaos.application import BAD
from chaos.deck import Deck
from chaos.matrix import ANSWERS, CLOCKS, CODES, CONNECTION, GATEWAY, Period
from dispatcher.simulator import Simulator
from dispatcher.simulator import faults as f

REFUSALS = ("E000101", "E000104", "E000045", "E000106", "E000112", "E000000", "E000027", "E000510")
NUMBER_CODES = ("E200015", "E200028", "E200030", "E200033", "E200041", "E200099")
# What may stand above results, also where `lack` has taken all of them away: a code that says that
# nothing was sent must be believed where there is no result.
TOP_CODES = ("E200037", "000000", "E000510")
STATUSES = (400, 404, 408, 413, 429, 500, 502, 503, 504)
AT_ONCE = (0, 1, 1, 1, 2, 2, 3)  # faults
CHANGE_SECONDS = (0.2, 2.0)  # between two changes of them
HELD_SECONDS = 0.7  # of a fault until something else is done; no request is over by then
SILENCE, DELAY = "brown-out, stalled", "delay"


def some(dice: Random) -> dict[str, float]:
    """Strike some requests."""
    return {"probability": dice.choice((0.02, 0.1, 0.3, 1.0)), "seed": dice.randrange(10**6)}


def http(dice: Random) -> f.Fault:
    """Something in front of the API answers; a failure of it may have let the request pass."""
    status = dice.choice(STATUSES)
    taken = status >= 500 and dice.random() < 0.5
    return f.Http(
        status=status,
        html=dice.random() < 0.5,
        retry_after=dice.choice((None, 0, 1, 3)),
        accept=taken,
        **some(dice),
    )


def odd_answer(dice: Random) -> f.Fault:
    """Answer in another form than any document has."""
    readable = dice.random() < 0.5
    form = dice.choice(
        ("bom", "gbk", "stranger") if readable else ("words", "empty", "list", "deep")
    )
    # What an answer that can be read calls accepted is.
    return f.OddAnswer(form=form, accept=readable or dice.random() < 0.5, **some(dice))


# All of the simulator's table.
MAKERS: dict[str, Callable[[Random], f.Fault]] = {
    "refuse, silently": lambda d: f.Refuse(
        seconds=d.uniform(0.5, 2.5), drop=d.random() < 0.5, silent=True
    ),
    "refuse": lambda d: f.Refuse(seconds=d.uniform(0.1, 1.0), drop=d.random() < 0.5),
    "reset": lambda d: f.Reset(**some(d)),
    "stall-before-reading": lambda d: f.StallBeforeReading(times=3, **some(d)),
    "code": lambda d: f.RequestCode(code=d.choice(REFUSALS), **some(d)),
    "code, of all texts": lambda d: f.RequestCode(code=d.choice(("E000027", "E000503"))),
    "code, unknown": lambda d: f.RequestCode(
        code="E999999", http_status=d.choice((400, 401, 500)), **some(d)
    ),
    "bad-entry": lambda d: f.BadEntry(code=d.choice(("E000503", "E000027")), param=BAD),
    "bad-entry, by number": lambda d: f.BadEntry(prefix=f"+861380000{d.randrange(100):02d}"),
    "country-closed": lambda d: f.CountryClosed(country=d.choice(("FR", "DE"))),
    "white-list": lambda d: f.WhiteList(for_seconds=d.uniform(0.1, 1.0)),
    "quota": lambda d: f.Quota(after_accepted=d.randrange(100, 1000)),
    "number-code": lambda d: f.NumberCode(
        code=d.choice(NUMBER_CODES), share=d.choice((0.01, 0.2, 1.0)), seed=d.randrange(10**6)
    ),
    "number-code, above a rate": lambda d: f.NumberCode(per_second=d.randrange(10, 500)),
    "lack": lambda d: f.Lack(count=d.choice((1, 20)), **some(d)),
    "repeat": lambda d: f.Repeat(count=50, code=d.choice((None, "E200041", "E200015"))),
    "reorder": lambda d: f.Reorder(seed=d.randrange(10**6)),
    "mixed-answer": lambda d: f.MixedAnswer(
        code=d.choice(TOP_CODES),
        http_status=d.choice((200, 400, 401, 500)),
        always=d.random() < 0.5,
    ),
    "clock": lambda d: f.Clock(offset=d.choice((-100_000.0, 1200.0)), checks=True, **some(d)),
    "clock, in Date alone": lambda d: f.Clock(offset=d.choice((-5000.0, 5000.0))),
    "cut": lambda d: f.Cut(reset=d.random() < 0.5, **some(d)),
    "half-answer": lambda d: f.HalfAnswer(**some(d)),
    "odd-answer": odd_answer,
    "delay": lambda d: f.Delay(seconds=d.uniform(0.01, 1.0)),
    "delay, past the time-out": lambda d: f.Delay(seconds=d.uniform(3.5, 6.0), times=2),
    "stall-after-reading": lambda d: f.StallAfterReading(
        accept=d.random() < 0.5, times=3, **some(d)
    ),
    "http": http,
    "brown-out": lambda d: f.Http(
        status=d.choice((500, 502, 503, 504)),
        accept=d.random() < 0.5,
        for_seconds=d.uniform(1.0, 5.0),
    ),
    "brown-out, cut": lambda d: f.Cut(accept=d.random() < 0.5, for_seconds=d.uniform(1.0, 5.0)),
    "brown-out, stalled": lambda d: f.StallAfterReading(
        accept=d.random() < 0.5, for_seconds=d.uniform(1.0, 5.0)
    ),
    "codes, mixed in halves": lambda d: f.RequestCode(
        code=d.choice(("E000027", "E000503", "E000000", "E000630", "E999999")),
        http_status=400,
        probability=0.5,
        seed=d.randrange(10**6),
    ),
    "number-code, constant share": lambda d: f.NumberCode(
        share=d.choice((0.002, 0.02)), seed=d.randrange(10**6)
    ),
}


# What a storm's matrix calls them; all others are codes of the provider.
FAMILIES = {
    **dict.fromkeys(
        (
            "refuse", "refuse, silently", "reset", "stall-before-reading", "cut", "half-answer",
            "delay", "delay, past the time-out", "stall-after-reading", "brown-out, cut",
            "brown-out, stalled",
        ),
        CONNECTION,
    ),
    **dict.fromkeys(("http", "brown-out"), GATEWAY),
    **dict.fromkeys(("lack", "repeat", "reorder", "mixed-answer", "odd-answer"), ANSWERS),
    **dict.fromkeys(("clock", "clock, in Date alone"), CLOCKS),
}  # fmt: skip


class Weather:
    """Sets faults until it is stopped, and counts those that struck by their names here."""

    def __init__(
        self, simulator: Simulator, dice: Random, weights: Mapping[str, float] | None = None
    ) -> None:
        """*weights*: of the faults, by their names in MAKERS; None: all alike."""
        self._deck = Deck(weights or dict.fromkeys(MAKERS, 1.0), dice)
        self._simulator = simulator
        self._dice = dice
        self._held = ""  # a fault that is there instead of what is drawn
        self._change = asyncio.Event()
        self._armed: list[str] = []
        self._armed_at = 0.0
        self.periods: list[Period] = []
        self.struck = dict.fromkeys(MAKERS, 0)

    async def blow(self) -> None:
        """Change the faults every second or so."""
        while True:
            drawn = [self._deck.draw() for _ in range(self._dice.choice(AT_ONCE))]
            self._change.clear()
            # Another change would end what stalls.
            seconds = None if self._held else self._dice.uniform(*CHANGE_SECONDS)
            await self._set([self._held] if self._held else [*dict.fromkeys(drawn)])
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._change.wait()

    @asynccontextmanager
    async def holding(self, name: str) -> AsyncIterator[None]:
        """Have only this fault from now on; give the requests time to meet it."""
        self._held = name
        self._change.set()
        try:
            await asyncio.sleep(HELD_SECONDS)
            yield
        finally:
            self._held = ""
            self._change.set()

    async def calm(self) -> None:
        """Take all faults away."""
        await self._set([])

    async def _set(self, names: list[str]) -> None:
        told = self._simulator.faults.describe()["faults"]
        assert isinstance(told, list)
        for name, rule in zip(self._armed, told, strict=True):
            self.struck[name] += rule["injected"]
            if rule["injected"]:
                family = FAMILIES.get(name, CODES)
                self.periods.append(Period(family, self._armed_at, monotonic()))
        self._armed = []  # it may be cut off in the middle
        await self._simulator.faults.arm([MAKERS[name](self._dice) for name in names])
        self._armed, self._armed_at = names, monotonic()
