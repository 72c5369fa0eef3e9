"""The fault script: the active faults, and which of them apply to a request."""

import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec
from aiohttp import web

from dispatcher.simulator.answer import Answer
from dispatcher.simulator.fault_trigger import ContentTrigger, FaultState
from dispatcher.simulator.faults import (
    AnswerFault,
    ArrivalFault,
    Clock,
    ConnectionContext,
    Delivery,
    DeliveryFault,
    Fault,
    NumberCode,
    Refuse,
    RequestCode,
    RequestConnection,
)
from dispatcher.simulator.ledger import RequestRecord
from dispatcher.simulator.listener import ConnectionGate
from dispatcher.simulator.request import ACCEPTED, RequestRefusedError, SmsRequest


class ActiveFault(msgspec.Struct, frozen=True):
    """A fault that is set, with its state."""

    fault: Fault
    state: FaultState
    base: int  # requests before it was set


class AbortedRequest(msgspec.Struct, frozen=True):
    """A request that a fault ends before it is read."""

    fault: ArrivalFault
    state: FaultState
    gate: ConnectionGate

    async def end(self, connection: RequestConnection) -> web.StreamResponse:
        """Apply the fault and return the response."""
        return await self.fault.apply(ConnectionContext(connection, self.gate, self.state))


class DeliveryFaultHit(msgspec.Struct, frozen=True):
    """A request whose answer a fault delays, cuts or replaces."""

    fault: DeliveryFault
    state: FaultState

    @property
    def accepts(self) -> bool:
        """Whether the numbers of the request are accepted."""
        return self.fault.accept

    async def deliver(
        self, connection: RequestConnection, response: web.Response
    ) -> web.StreamResponse:
        """Apply the fault to *response* and return the response that is sent."""
        return await self.fault.deliver(Delivery(connection, response, self.state))


class FaultScript:
    """The active faults. They may be set and cleared while requests are served.

    *requests* and *accepted* return the count of requests and of accepted numbers so far.
    """

    def __init__(
        self, gate: ConnectionGate, *, requests: Callable[[], int], accepted: Callable[[], int]
    ) -> None:
        self.injected: Counter[str] = Counter()  # by type, since the start
        self._gate = gate
        self._requests = requests
        self._accepted = accepted
        self._active: list[ActiveFault] = []

    def __bool__(self) -> bool:
        return bool(self._active)

    async def arm(self, faults: Iterable[Fault], *, spare: object = None) -> None:
        """Replace the active faults by *faults*. The connection *spare* is not reset."""
        await self.clear()
        for index, fault in enumerate(faults):
            state = FaultState(accepted=self._accepted(), now=time.monotonic(), salt=str(index))
            active = ActiveFault(fault, state, self._requests())
            self._active.append(active)
            if isinstance(fault, Refuse) and fault.at_once:
                self._count(active)
                self._gate.refuse(
                    seconds=fault.seconds, drop=fault.drop, silent=fault.silent, spare=spare
                )

    async def clear(self) -> None:
        """Clear all faults: stalled requests continue, connections are accepted again."""
        for active in self._active:
            active.state.cleared.set()
        self._active = []
        await self._gate.resume()

    def at_arrival(self, record: RequestRecord) -> tuple[AbortedRequest | None, list[Clock]]:
        """Return the fault that ends the request unread, if any, and the clock faults."""
        clocks: list[Clock] = []
        for active in self._active:
            match active.fault:
                case Refuse(at_once=True):
                    pass  # it began when it was set, and does not apply to spared connections
                case ArrivalFault() as fault if self._is_due(active, record):
                    self._count(active, record)
                    return AbortedRequest(fault, active.state, self._gate), clocks
                case Clock() as clock if self._is_due(active, record):
                    self._count(active, record)
                    clocks.append(clock)
        return None, clocks

    def check_request(
        self, record: RequestRecord, sms_request: SmsRequest
    ) -> DeliveryFaultHit | None:
        """Return a fault of delivery, if any. Raises RequestRefusedError if a fault refuses it."""
        for active in self._active:
            match active.fault:
                case RequestCode() as code if self._is_due(active, record, sms_request):
                    self._count(active, record)
                    raise code.refusal()
                case DeliveryFault() as delivery if self._is_due(active, record, sms_request):
                    self._count(active, record)
                    return DeliveryFaultHit(delivery, active.state)
        return None

    def check_refused(
        self, record: RequestRecord, refusal: RequestRefusedError
    ) -> tuple[RequestRefusedError, DeliveryFaultHit | None]:
        """Return how a request ends that the API refuses: another refusal, a fault of delivery.

        Conditions on the content hold for none: it may have none.
        """
        if record.faults:
            return refusal, None  # it was refused by a fault
        for active in self._active:
            match active.fault:
                case RequestCode(selects=False) as code if self._is_due(active, record):
                    self._count(active, record)
                    return code.refusal(), None
                case DeliveryFault(selects=False) as fault if self._is_due(active, record):
                    self._count(active, record)
                    return refusal, DeliveryFaultHit(fault, active.state)
        return refusal, None

    def refuse_numbers(
        self, record: RequestRecord, sms_request: SmsRequest, codes: list[str] | None
    ) -> list[str] | None:
        """Refuse numbers; return a code for each one, or None if all are accepted."""
        statuses = codes
        for active in self._active:
            if isinstance(active.fault, NumberCode) and self._is_due(active, record, sms_request):
                statuses = statuses or [ACCEPTED] * len(sms_request.numbers)
                refused = active.fault.refuse_numbers(
                    sms_request,
                    statuses,
                    active.state,
                    ordinal=record.serial - active.base,
                    now=time.monotonic(),
                )
                if refused:
                    active.state.refused += refused
                    self._count(active, record)
        return statuses if statuses and any(code != ACCEPTED for code in statuses) else None

    def alter_answer(self, record: RequestRecord, sms_request: SmsRequest, answer: Answer) -> None:
        """Apply the faults of the answer to *answer*."""
        for active in self._active:
            if (
                isinstance(active.fault, AnswerFault)
                and self._is_due(active, record, sms_request)
                and active.fault.alter_answer(answer)
            ):
                self._count(active, record)

    def describe(self) -> dict[str, object]:
        """Return the active faults and how often each type was injected, as JSON values."""
        rules = []
        for active in self._active:
            fields = msgspec.to_builtins(active.fault)
            state = active.state
            rules.append({**fields, "injected": state.injected, "refused": state.refused})
        return {"faults": rules, "injected": dict(self.injected)}

    def _is_due(
        self, active: ActiveFault, record: RequestRecord, sms_request: SmsRequest | None = None
    ) -> bool:
        fault = active.fault
        return fault.is_due(
            record.serial - active.base,
            active.state,
            accepted=self._accepted(),
            now=time.monotonic(),
        ) and (
            sms_request is None
            or not isinstance(fault, ContentTrigger)
            or fault.matches(sms_request)
        )

    def _count(self, active: ActiveFault, record: RequestRecord | None = None) -> None:
        active.state.injected += 1
        self.injected[active.fault.name] += 1
        if record is not None:
            record.faults.append(active.fault.name)
