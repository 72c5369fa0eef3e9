"""What may happen next: workers, the provider, operators, and what goes wrong.

The decisions are those of the real code: `evaluate` and `is_retryable` of core.outcome,
`match_report` through `model.promises`, and the worker's `Lease`. Time is not counted: whatever
may come later may come now, so each order of events is tried.

Some things are in a model only if its `features` name them, so that each search can be exhausted:
`split` (a request is refused for its content, and divided), `expiry` (the time of message 0 runs
out) and `circuit` (unknown results open it, a probe ends the pause, and a slow start follows).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache
from itertools import combinations, product
from typing import NamedTuple

from msgspec.structs import replace

from dispatcher.core.circuit import (
    Answered,
    CircuitLimits,
    CircuitState,
    Signal,
    SlowStart,
    Unknown,
    change,
)
from dispatcher.core.codes import NEVER_SENT, UNKNOWN_RESULTS
from dispatcher.core.message import (
    Answer,
    Entry,
    Message,
    NoReply,
    NumberResult,
    Reply,
    RequestDraft,
)
from dispatcher.core.outcome import (
    Deferred,
    EvaluationContext,
    Expired,
    Outcome,
    Resolved,
    Split,
    UnknownResult,
    evaluate,
    is_retryable,
)
from dispatcher.worker.in_flight import Lease
from model import promises
from model.promises import NO_BATCH, NOTHING, Tables, provider_id

MAX_ATTEMPTS = 2
MAX_TRIES = 2
# How the provider treats one number: accepts it, turns it away for a while (E200015), refuses it
# (E200028), accepts it and leaves it out of the answer, or only leaves it out.
ACCEPTS, LATER, REFUSES, HIDES, DROPS = NUMBERS = "ALRHD"
TAKEN = frozenset({ACCEPTS, HIDES})
# How a whole request ends: with results of numbers, or with none. A proxy or a gateway may have
# passed on what it answers with 5xx, and the provider taken it.
UNREACHED, LOST, UNTAKEN, LOST_TAKEN = "unreached", "lost", "502", "502, taken"
REFUSED = "refused for its content"  # only what is divided
AWAY_TAKEN, GATEWAY_TAKEN = "503, taken", "502 APIGW.0201, taken"
ALL_TAKEN = frozenset({LOST_TAKEN, AWAY_TAKEN, GATEWAY_TAKEN})
# Answers as the core would see them without a guard.
NOT_SENT_ANSWER = Reply(429, "HTTP 429", "")
BELIEVED_STATUS = 400


class Hand(NamedTuple):
    """A batch that a worker has in its hands."""

    batch: int
    answer: str = ""  # "": it is not sent yet; else how the request ended
    covered: bool = True  # it was claimed after the worker's last silence
    tries: int = 0
    ended: bool = False  # the answer stands, and is being recorded


class Worker(NamedTuple):
    """A worker process. A silent one is frozen, or cannot reach the database."""

    id: int
    silent: bool = False
    hands: tuple[Hand, ...] = ()
    doubted: frozenset[int] = frozenset()  # batches of claims whose answer was lost


class Budget(NamedTuple):
    """How often each thing may still go wrong; it bounds the search."""

    claims: int = 3
    troubles: int = 2  # silences, restarts, and answers of the database that are lost
    people: int = 1  # cancels and requeues


class World(NamedTuple):
    """Everything there is."""

    tables: Tables
    workers: tuple[Worker, ...]
    budget: Budget = Budget()
    stale: frozenset[int] = frozenset()  # workers whose lease is over, as the database sees it
    accepted: tuple[tuple[int, ...], ...] = ()  # for each message: the batches that it was taken in
    resent: bool = False  # by policy, against rule 2 unless the app says so
    over: bool = False  # the time of message 0
    late: bool = False  # it was sent after its time
    circuit: CircuitState = CircuitState()


Step = tuple[tuple[object, ...], World]  # what happened, and what is then


class Model(NamedTuple):
    """The rules of one search."""

    messages: int = 3
    workers: int = 2
    budget: Budget = Budget()
    policy: str = "hold"
    numbers: str = "ALRHD"  # what the provider may do to a number
    most: int = 2  # messages in one claim
    without: frozenset[str] = NOTHING
    features: frozenset[str] = NOTHING  # of `split`, `expiry`, `circuit`

    def start(self) -> World:
        """Return the world before anything happened."""
        workers = tuple(Worker(number) for number in range(self.workers))
        return World(
            promises.start(self.messages),
            workers,
            self.budget,
            accepted=((),) * self.messages,
            stale=frozenset({DEAD}),
        )

    def steps(self, world: World) -> Iterator[Step]:
        """Yield all that may happen next, and what is then."""
        for place in range(len(world.workers)):
            yield from self._claims(world, place)
            yield from self._hands(world, place)
            yield from self._fates(world, place)
        yield from self._recovery(world)
        yield from self._time(world)
        yield from self._operators(world)
        yield from self._reports(world)

    # Workers

    def _claims(self, world: World, place: int) -> Iterator[Step]:
        worker, tables, budget = world.workers[place], world.tables, world.budget
        if worker.silent or budget.claims == 0:
            return
        round_ = world.circuit.slow_start
        if world.circuit.pause_code or (round_ and not round_.left):
            return
        waiting = [number for number, row in enumerate(tables.queue) if row]
        if world.over and 0 in waiting:
            waiting.remove(0)  # it expires
        most = 1 if tables.paused else self.most
        spent = world._replace(budget=budget._replace(claims=budget.claims - 1))
        if round_:
            most = min(most, round_.requests)
            used = replace(round_, left=round_.left - 1)
            spent = spent._replace(circuit=replace(world.circuit, slow_start=used))
        for size in range(1, most + 1):
            for ids in combinations(waiting, size):
                batch = len(tables.batch)
                after = spent._replace(tables=promises.claim(tables, worker.id, ids))
                hands = (*worker.hands, Hand(batch))
                yield (
                    ("claim", worker.id, ids, batch),
                    _with(after, place, worker._replace(hands=hands)),
                )
                if "a claim and its batches are one transaction" in self.without:
                    torn = after.tables._replace(batch=tables.batch)
                    yield ("torn claim", worker.id, ids), spent._replace(tables=torn)
                if budget.troubles:
                    less = after.budget._replace(troubles=budget.troubles - 1)
                    doubted = worker._replace(doubted=worker.doubted | {batch})
                    yield (
                        ("lost claim", worker.id, ids, batch),
                        _with(after._replace(budget=less), place, doubted),
                    )

    def _hands(self, world: World, place: int) -> Iterator[Step]:
        worker = world.workers[place]
        for index, hand in enumerate(worker.hands):
            if not hand.answer:
                if self._may_send(world, worker, hand):
                    yield from self._sends(world, place, index)
                else:
                    # Withheld: nothing was sent, and that is recorded.
                    yield from self._writes(world, place, index, _withheld(world, hand.batch))
                continue
            answer = self._answer(world.tables.batch[hand.batch].ids, hand)
            if hand.answer not in (LOST, UNREACHED) and not hand.ended:
                lost = hand._replace(answer=LOST)
                yield ("lost answer", hand.batch), _with(world, place, _put(worker, index, lost))
            if (
                not hand.ended
                and hand.tries < MAX_TRIES
                and _retryable(answer, self.without)
                and self._may_send(world, worker, hand)
            ):
                yield from self._sends(world, place, index)
            yield from self._records(world, place, index, answer)

    def _may_send(self, world: World, worker: Worker, hand: Hand) -> bool:
        timely = not world.over or 0 not in world.tables.batch[hand.batch].ids
        if not timely and "a request past the time of a message is withheld" not in self.without:
            return False
        if "what is not ours any more is withheld in the moment it would leave" in self.without:
            return True
        covered = hand.covered
        if "a worker that was silent for its lease sends nothing of before" in self.without:
            covered = True
        return _lease_covers(silent=worker.silent, covered=covered)

    def _sends(self, world: World, place: int, index: int) -> Iterator[Step]:
        """Send a batch: the provider decides at once, and its answer is on the way."""
        worker = world.workers[place]
        hand = worker.hands[index]
        ids = world.tables.batch[hand.batch].ids
        for end, read in _ends(
            self.numbers, len(ids), self.without, splits="split" in self.features
        ):
            taken = [
                message
                for place_, message in enumerate(ids)
                if end in ALL_TAKEN or (end[0] in NUMBERS and end[place_] in TAKEN)
            ]
            accepted = tuple(
                (*batches, hand.batch) if message in taken else batches
                for message, batches in enumerate(world.accepted)
            )
            sent = hand._replace(answer=read, tries=hand.tries + 1)
            late = world.late or (world.over and 0 in ids)
            after = world._replace(accepted=accepted, late=late)
            yield (
                ("send", worker.id, hand.batch, ids, end),
                _with(after, place, _put(worker, index, sent)),
            )

    def _answer(self, ids: tuple[int, ...], hand: Hand) -> Answer:
        answer = _answer(ids, hand.batch, hand.answer)
        if "no answer after the body was sent is unsure" in self.without and isinstance(
            answer, NoReply
        ):
            return NoReply(answer.reason, sent=False)
        return answer

    def _records(self, world: World, place: int, index: int, answer: Answer) -> Iterator[Step]:
        worker, tables = world.workers[place], world.tables
        hand = worker.hands[index]
        request = tables.batch[hand.batch]
        verdict = _verdict(request.ids, request.attempts, hand.batch, answer, self.without)
        if isinstance(verdict, Split):
            yield from self._splits(world, place, index, verdict)
        else:
            yield from self._writes(world, place, index, verdict)

    def _splits(self, world: World, place: int, index: int, refused: Split) -> Iterator[Step]:
        """Divide a request that was refused; if that fails, its messages return to the queue."""
        worker, tables = world.workers[place], world.tables
        hand = worker.hands[index]
        parts = [tuple(message.id for message in part.messages) for part in refused.parts]
        after, children = promises.split(tables, worker.id, hand.batch, parts, self.without)
        if not children or world.budget.troubles:
            yield from self._writes(world, place, index, _unsent(world, hand.batch))
        if not children:
            return
        others = (*worker.hands[:index], *worker.hands[index + 1 :])
        new = tuple(Hand(number, covered=hand.covered) for number in children)
        divided = world._replace(tables=after)
        what = (worker.id, hand.batch, parts)
        yield ("split", *what), _with(divided, place, worker._replace(hands=(*others, *new)))
        if world.budget.troubles:
            less = world.budget._replace(troubles=world.budget.troubles - 1)
            # It records that nothing of the whole was sent, which is closed already.
            doubted = worker._replace(hands=others, doubted=worker.doubted | frozenset(children))
            yield ("lost split", *what), _with(divided._replace(budget=less), place, doubted)

    def _writes(
        self, world: World, place: int, index: int, verdict: promises.Verdict
    ) -> Iterator[Step]:
        """Record a verdict, whether its COMMIT is answered or not."""
        worker, tables = world.workers[place], world.tables
        hand = worker.hands[index]
        written, new = promises.record(tables, hand.batch, verdict, self.without)
        after = world._replace(tables=written)
        if new and "circuit" in self.features:
            after, worker = _apply_to_circuit(after, worker, verdict, sent=bool(hand.answer))
        gone = worker._replace(hands=(*worker.hands[:index], *worker.hands[index + 1 :]))
        what = ("record", worker.id, hand.batch, type(verdict).__name__)
        yield what, _with(after, place, gone)
        if world.budget.troubles and hand.answer:
            less = world.budget._replace(troubles=world.budget.troubles - 1)
            again = _put(worker, index, hand._replace(ended=True))
            yield ("lost record", *what[1:]), _with(after._replace(budget=less), place, again)
        if "closing a batch and its returns are one transaction" in self.without:
            torn = written._replace(queue=tables.queue)
            yield ("torn record", *what[1:]), _with(world._replace(tables=torn), place, gone)

    def _fates(self, world: World, place: int) -> Iterator[Step]:
        worker, budget = world.workers[place], world.budget
        if worker.silent:
            beaten = worker._replace(
                silent=False,
                hands=tuple(hand._replace(covered=False) for hand in worker.hands),
            )
            yield (
                ("heartbeat", worker.id),
                _with(world._replace(stale=world.stale - {worker.id}), place, beaten),
            )
            if worker.id not in world.stale:
                yield ("lease ends", worker.id), world._replace(stale=world.stale | {worker.id})
        elif budget.troubles:
            less = world._replace(budget=budget._replace(troubles=budget.troubles - 1))
            yield ("silence", worker.id), _with(less, place, worker._replace(silent=True))
        if budget.troubles:
            tables = world.tables._replace(
                batch=tuple(
                    request._replace(worker=DEAD) if request.worker == worker.id else request
                    for request in world.tables.batch
                )
            )
            after = world._replace(
                tables=tables, budget=budget._replace(troubles=budget.troubles - 1)
            )
            fresh = Worker(1 + max(each.id for each in world.workers))
            yield ("restart", worker.id, fresh.id), _with(after, place, fresh)

    def _recovery(self, world: World) -> Iterator[Step]:
        tables = world.tables
        if world.stale:
            after = promises.rescue(tables, world.stale, self.without)
            if after is not tables:
                yield ("rescue",), world._replace(tables=after)
        for worker in world.workers:
            known = {hand.batch for hand in worker.hands}
            for number, request in enumerate(tables.batch):
                if request.state != "open" or request.worker != worker.id or worker.silent:
                    continue
                lax = "only what was never sent is put back" in self.without
                if (number not in known and number in worker.doubted) or (number in known and lax):
                    after = promises.abandon(tables, number)
                    yield ("put back", worker.id, number), world._replace(tables=after)
        for number, request in enumerate(tables.batch):
            if request.state == "unsure":
                yield from self._policy(world, number)

    def _time(self, world: World) -> Iterator[Step]:
        """What comes with time alone: an expiry, and what follows an open circuit."""
        if "expiry" in self.features and not world.over:
            yield ("time over", 0), world._replace(over=True)
        if world.over:
            after = promises.expire(world.tables, 0, self.without)
            if after is not world.tables:
                yield ("expires", 0), world._replace(tables=after)
        if world.circuit.pause_code:
            yield ("probe",), world._replace(circuit=CircuitState(slow_start=SlowStart()))
        round_ = world.circuit.slow_start
        lost = "what a slow start lost is claimed again" not in self.without
        if round_ and not round_.left and lost and not any(w.hands for w in world.workers):
            again = replace(round_, left=round_.requests - round_.answered)
            yield ("round lost",), world._replace(circuit=replace(world.circuit, slow_start=again))

    def _policy(self, world: World, number: int) -> Iterator[Step]:
        """The policy `resend`: what was taken has reported before its time is over."""
        lax = "only the policy resend sends again" in self.without
        if self.policy != "resend" and not lax:
            return
        untold = any(
            number in batches and (number, message) not in world.tables.reports
            for message, batches in enumerate(world.accepted)
        )
        if untold and not lax:
            return
        after = promises.resend(world.tables, number, self.without)
        if after is not world.tables:
            told = self.policy != "resend"
            yield ("policy resends", number), world._replace(tables=after, resent=told)

    # People and the provider's reports

    def _operators(self, world: World) -> Iterator[Step]:
        tables, budget = world.tables, world.budget
        for message, (waiting, result) in enumerate(zip(tables.queue, tables.outcome, strict=True)):
            if budget.people:
                after = promises.cancel(tables, message, self.without)
                if after is not tables:
                    less = budget._replace(people=budget.people - 1)
                    yield ("cancel", message), world._replace(tables=after, budget=less)
            if budget.people and result and result.state == "rejected" and not waiting:
                less = budget._replace(people=budget.people - 1)
                after = promises.requeue(tables, message)
                yield ("requeue", message), world._replace(tables=after, budget=less)
        for number, request in enumerate(tables.batch):
            if request.state != "unsure":
                continue
            # An operator asks the provider first: all of what is in question, or none.
            taken = {number in world.accepted[message] for message in request.in_question
                     if tables.outcome[message] is None}  # fmt: skip
            for how, truth in (("sent", True), ("resend", False)):
                if taken <= {truth}:
                    after = promises.settle(tables, number, how, self.without)
                    yield ("settle", number, how), world._replace(tables=after)

    def _reports(self, world: World) -> Iterator[Step]:
        tables = world.tables
        for message, batches in enumerate(world.accepted):
            for batch in batches:
                if batch == NO_BATCH:
                    continue
                after = promises.store(tables, batch, message)
                if after is not tables:
                    yield ("report comes", batch, message), world._replace(tables=after)
        for batch, message in tables.inbox:
            after = promises.match(tables, batch, message, self.without)
            if after is not tables:
                yield ("report matched", batch, message), world._replace(tables=after)


def _with(world: World, place: int, worker: Worker) -> World:
    workers = (*world.workers[:place], worker, *world.workers[place + 1 :])
    return world._replace(workers=workers)


def _put(worker: Worker, index: int, hand: Hand) -> Worker:
    return worker._replace(hands=(*worker.hands[:index], hand, *worker.hands[index + 1 :]))


def _withheld(world: World, batch: int) -> Resolved:
    """Return what a worker records of a request that it may not send any more."""
    request = world.tables.batch[batch]
    outcomes: list[Outcome] = []
    for message in _draft(request.ids, request.attempts).messages:
        expired = world.over and message.id == 0
        back = Deferred(message, NEVER_SENT, 0.0, counted=False)
        outcomes.append(Expired(message) if expired else back)
    return Resolved(outcomes)


def _unsent(world: World, batch: int) -> Resolved:
    """Return what a worker records of a request of which nothing was sent."""
    request = world.tables.batch[batch]
    messages = _draft(request.ids, request.attempts).messages
    return Resolved([Deferred(message, NEVER_SENT, 0.0, counted=False) for message in messages])


def _apply_to_circuit(
    world: World, worker: Worker, verdict: promises.Verdict, *, sent: bool
) -> tuple[World, Worker]:
    """Ask the real circuit; when it opens, this worker withholds what it has not sent yet."""
    said: Signal | None = None
    if isinstance(verdict, UnknownResult):
        said = Unknown(verdict.code, verdict.reason)
    elif isinstance(verdict, Resolved) and sent:
        said = Answered()
    changed = change(world.circuit, [said], CIRCUIT_LIMITS)
    if changed.pause is None:
        return world._replace(circuit=changed.state), worker
    hands = tuple(hand if hand.answer else hand._replace(covered=False) for hand in worker.hands)
    return (
        world._replace(circuit=CircuitState(pause_code=UNKNOWN_RESULTS)),
        worker._replace(hands=hands),
    )


CIRCUIT_LIMITS = CircuitLimits(unknown=2)


@lru_cache
def _lease_covers(*, silent: bool, covered: bool) -> bool:
    """Ask a real `Lease`: of a batch claimed before or after a silence, heard of or not."""
    now = [0.0]
    lease = Lease(10.0, lambda: now[0])
    claimed_at = 1.0
    if not covered:
        now[0] = 20.0
        lease.renew(20.0, 20.0)
    if silent:
        now[0] += 20.0
    return lease.covers(claimed_at)


def _retryable(answer: Answer, without: frozenset[str]) -> bool:
    if "no try after one that may have been sent" in without and isinstance(answer, NoReply):
        return True
    believed = "HTTP 503 may have been sent" in without
    if believed and isinstance(answer, Reply) and answer.code == "HTTP 503":
        answer = NOT_SENT_ANSWER
    return is_retryable(answer)


def _read_as(end: str, without: frozenset[str]) -> str:
    """Return what a worker can know of how its request ended.

    All ends that leave the result unknown, and are not tried again, are one.
    """
    if end[0] in NUMBERS:
        return end.replace(HIDES, DROPS)
    if end in (UNREACHED, LOST, REFUSED):
        return end
    answer = _answer((0,), 0, end)
    unknown = isinstance(_verdict((0,), (1,), 0, answer, without), UnknownResult)
    return LOST if unknown and not _retryable(answer, without) else end


def canonical(world: World) -> World:
    """Return *world* without what can have no effect any more; workers are all alike."""
    tables = world.tables
    held = {hand.batch for worker in world.workers for hand in worker.hands}
    coming = {batch for batch, _ in tables.inbox} | held
    for message, batches in enumerate(world.accepted):
        coming.update(
            batch for batch in batches if batch >= 0 and (batch, message) not in tables.reports
        )
    # Requests that are closed, and of which nothing will be heard any more, go; others move up.
    new = [NO_BATCH] * (len(tables.batch) + 1)  # the last one is that of NO_BATCH itself
    live: list[promises.Request] = []
    for number, request in enumerate(tables.batch):
        if request.state != "closed" or number in coming:
            new[number] = len(live)
            live.append(request)
    same = len(live) == len(tables.batch)  # then all numbers stay
    workers = sorted(_renumbered(worker, new, tables) for worker in world.workers)
    places = {worker.id: place for place, worker in enumerate(workers)}
    stale = frozenset(places[w] for w in world.stale if w in places) | {DEAD}
    return World(
        Tables(
            tables.queue if same else tuple(
                row and row._replace(last_batch=new[row.last_batch]) for row in tables.queue
            ),
            tuple(_over(row, new) if row else None for row in tables.outcome),
            tuple(_renamed(request, places, paused=tables.paused) for request in live),
            tables.reports if same else frozenset(
                (new[b], m) for b, m in tables.reports if new[b] >= 0
            ),
            tables.inbox if same else frozenset((new[b], m) for b, m in tables.inbox),
            tables.paused,
        ),
        tuple(
            worker if worker.id == place else Worker(place, *worker[1:])
            for place, worker in enumerate(workers)
        ),
        world.budget,
        stale,
        world.accepted if same else tuple(
            tuple(new[number] for number in batches) for batches in world.accepted
        ),
        world.resent,
        world.over,
        world.late,
        world.circuit,
    )  # fmt: skip


def _over(row: promises.Result, new: list[int]) -> promises.Result:
    """Return an outcome without its attempts, which decide nothing any more."""
    return promises.Result(row.state, new[row.batch], 0, new[row.named_by])


def _renamed(
    request: promises.Request, places: dict[int, int], *, paused: bool
) -> promises.Request:
    worker = places.get(request.worker, DEAD) if request.state == "open" else DEAD
    probe = request.probe and (paused or request.state == "open")
    if worker == request.worker and probe == request.probe:
        return request
    return promises.Request(worker, *request[1:6], probe)


DEAD = 99  # the worker of an open request that no process has any more


def _renumbered(worker: Worker, new: list[int], tables: Tables) -> Worker:
    if not worker.hands and not worker.doubted:
        return worker
    hands = tuple(
        sorted(
            Hand(
                new[batch],
                answer,
                covered,
                # It tries no more: so many tries as it had make no difference.
                MAX_TRIES if ended else tries,
                ended,
            )
            for batch, answer, covered, tries, ended in worker.hands
        )
    )
    doubted = worker.doubted and frozenset(
        new[n] for n in worker.doubted if tables.batch[n].state == "open"
    )
    return Worker(worker.id, worker.silent, hands, doubted)


@lru_cache
def _ends(
    numbers: str, count: int, without: frozenset[str], *, splits: bool
) -> tuple[tuple[str, str], ...]:
    """Return how a request of so many numbers may end, and as what its worker reads it.

    Of ends that are the same to provider and worker, one.
    """
    told = ["".join(each) for each in product(numbers, repeat=count)]
    ends = [*told, UNREACHED, LOST, UNTAKEN, LOST_TAKEN, AWAY_TAKEN, GATEWAY_TAKEN]
    if splits and count > 1:
        ends.append(REFUSED)
    different = {
        (end if end in told else end in ALL_TAKEN, read): (end, read)
        for end, read in ((end, _read_as(end, without)) for end in reversed(ends))
    }
    return tuple(reversed(different.values()))


CODES = {ACCEPTS: "000000", LATER: "E200015", REFUSES: "E200028"}


def _number(message: int) -> str:
    return f"+861380000{message:04d}"


@cache
def _answer(ids: tuple[int, ...], batch: int, end: str) -> Answer:  # noqa: PLR0911 - one for each end
    """Return what a worker reads."""
    match end:
        case "unreached":
            return NoReply("no connection", sent=False)
        case "lost":
            return NoReply("no answer", sent=True, code="timeout")
        case "refused for its content":
            return Reply(400, "E000503", "")
        case "502" | "502, taken":
            return Reply(502, "HTTP 502", "")
        case "503, taken":
            return Reply(503, "HTTP 503", "")
        case "502 APIGW.0201, taken":
            return Reply(502, "APIGW.0201", "")
    results = [
        NumberResult(
            _number(message),
            CODES[each],
            provider_id(batch, message) if each == ACCEPTS else None,
            1 if each == ACCEPTS else None,
        )
        for message, each in zip(ids, end, strict=True)
        if each in CODES
    ]
    return Reply(200, "000000", "", results)


@cache
def _draft(ids: tuple[int, ...], attempts: tuple[int, ...]) -> RequestDraft:
    messages = [
        Message(message, _number(message), "t", [str(message)], attempt=attempt)
        for message, attempt in zip(ids, attempts, strict=True)
    ]
    return RequestDraft("s", [Entry(b"", [message]) for message in messages], 0)


_VERDICTS: dict[object, promises.Verdict | Split] = {}
CONTEXT = EvaluationContext(
    elapsed=1.0,
    max_attempts=MAX_ATTEMPTS,
    now=datetime(2026, 1, 1, tzinfo=UTC),
    jitter=lambda: 0.0,
    country=lambda _: "CN",
)


def _verdict(
    ids: tuple[int, ...],
    attempts: tuple[int, ...],
    batch: int,
    answer: Answer,
    without: frozenset[str],
) -> promises.Verdict | Split:
    """Ask the real `evaluate`; it is pure, so once for each question."""
    believed = "a server error without results is an unknown result" in without
    if believed and isinstance(answer, Reply) and answer.results is None:
        answer = replace(answer, http_status=BELIEVED_STATUS)
    key = (ids, attempts, batch, repr(answer))
    if key not in _VERDICTS:
        _VERDICTS[key] = evaluate(_draft(ids, attempts), answer, CONTEXT)
    return _VERDICTS[key]
