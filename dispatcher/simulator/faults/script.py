"""The faults that are set, and which of them a request meets."""

import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec
from aiohttp import web

from dispatcher.simulator.answer import Answer
from dispatcher.simulator.codes import ACCEPTED
from dispatcher.simulator.faults.connections import Refuse
from dispatcher.simulator.faults.numbers import NumberCode
from dispatcher.simulator.faults.phases import (
    ArrivalFault,
    DeliveryFault,
    Gate,
    Parcel,
    Scene,
    ShapeFault,
)
from dispatcher.simulator.faults.refusals import Code
from dispatcher.simulator.faults.shapes import Clock
from dispatcher.simulator.faults.state import State
from dispatcher.simulator.faults.table import Fault
from dispatcher.simulator.faults.trigger import ContentTrigger
from dispatcher.simulator.faults.wire import Wire
from dispatcher.simulator.journal import Visit
from dispatcher.simulator.submission import Submission


class Armed(msgspec.Struct, frozen=True):
    """One fault that is set."""

    fault: Fault
    state: State
    base: int  # requests that came before


class Struck(msgspec.Struct, frozen=True):
    """A request that ends unread."""

    fault: ArrivalFault
    state: State

    async def end(self, wire: Wire, gate: Gate) -> web.StreamResponse:
        """End it."""
        return await self.fault.strike(Scene(wire, gate, self.state))


class Spoiled(msgspec.Struct, frozen=True):
    """A request whose answer does not come well."""

    fault: DeliveryFault
    state: State

    @property
    def accepts(self) -> bool:
        """Whether its numbers are accepted."""
        return self.fault.accept

    async def deliver(self, wire: Wire, response: web.Response) -> web.StreamResponse:
        """Send *response*, or what is left of it."""
        return await self.fault.deliver(Parcel(wire, response, self.state))


class Faults:
    """The script: set, cleared and counted while requests come.

    *requests* and *accepted* tell how many came and how many numbers the ledger holds.
    """

    def __init__(
        self, gate: Gate, *, requests: Callable[[], int], accepted: Callable[[], int]
    ) -> None:
        self.injected: Counter[str] = Counter()  # by type, over all scripts
        self._gate = gate
        self._requests = requests
        self._accepted = accepted
        self._armed: list[Armed] = []

    def __bool__(self) -> bool:
        return bool(self._armed)

    async def arm(self, faults: Iterable[Fault], *, spare: object = None) -> None:
        """Set *faults* in place of those that were set; *spare*: a connection not to reset."""
        await self.clear()
        for index, fault in enumerate(faults):
            state = State(accepted=self._accepted(), now=time.monotonic(), salt=str(index))
            armed = Armed(fault, state, self._requests())
            self._armed.append(armed)
            if isinstance(fault, Refuse) and fault.at_once:
                self._count(armed)
                self._gate.shut(seconds=fault.seconds, drop=fault.drop, spare=spare)

    async def clear(self) -> None:
        """Take all faults away: stalled requests go on, the door opens."""
        for armed in self._armed:
            armed.state.cleared.set()
        self._armed = []
        await self._gate.reopen()

    def at_arrival(self, visit: Visit) -> tuple[Struck | None, list[Clock]]:
        """Return the fault that ends the request unread, if any, and the wrong clocks."""
        clocks: list[Clock] = []
        for armed in self._armed:
            match armed.fault:
                case Refuse(at_once=True):
                    pass  # it has begun: who gets in all the same is not struck
                case ArrivalFault() as fault if self._due(armed, visit):
                    self._count(armed, visit)
                    return Struck(fault, armed.state), clocks
                case Clock() as clock if self._due(armed, visit):
                    self._count(armed, visit)
                    clocks.append(clock)
        return None, clocks

    def ending(self, visit: Visit, submission: Submission) -> Spoiled | None:
        """Return a fault of delivery, if any. Raises RefusedError if the request is refused."""
        for armed in self._armed:
            match armed.fault:
                case Code() as code if self._due(armed, visit, submission):
                    self._count(armed, visit)
                    raise code.refusal()
                case DeliveryFault() as delivery if self._due(armed, visit, submission):
                    self._count(armed, visit)
                    return Spoiled(delivery, armed.state)
        return None

    def mark(
        self, visit: Visit, submission: Submission, codes: list[str] | None
    ) -> list[str] | None:
        """Refuse numbers; return a code for each, or None if all are accepted."""
        marked = codes
        for armed in self._armed:
            if isinstance(armed.fault, NumberCode) and self._due(armed, visit, submission):
                marked = marked or [ACCEPTED] * len(submission.numbers)
                refused = armed.fault.mark(
                    submission,
                    marked,
                    armed.state,
                    ordinal=visit.serial - armed.base,
                    now=time.monotonic(),
                )
                if refused:
                    armed.state.refused += refused
                    self._count(armed, visit)
        return marked if marked and any(code != ACCEPTED for code in marked) else None

    def bend(self, visit: Visit, submission: Submission, answer: Answer) -> None:
        """Change the answer."""
        for armed in self._armed:
            if (
                isinstance(armed.fault, ShapeFault)
                and self._due(armed, visit, submission)
                and armed.fault.bend(answer)
            ):
                self._count(armed, visit)

    def describe(self) -> dict[str, object]:
        """Return what is set and how often each type was injected, for people and tests."""
        rules = []
        for armed in self._armed:
            fields = msgspec.to_builtins(armed.fault)
            state = armed.state
            rules.append({**fields, "injected": state.injected, "refused": state.refused})
        return {"faults": rules, "injected": dict(self.injected)}

    def _due(self, armed: Armed, visit: Visit, submission: Submission | None = None) -> bool:
        fault = armed.fault
        return fault.due(
            visit.serial - armed.base,
            armed.state,
            accepted=self._accepted(),
            now=time.monotonic(),
        ) and (
            submission is None or not isinstance(fault, ContentTrigger) or fault.matches(submission)
        )

    def _count(self, armed: Armed, visit: Visit | None = None) -> None:
        armed.state.injected += 1
        self.injected[armed.fault.name] += 1
        if visit is not None:
            visit.faults.append(armed.fault.name)
