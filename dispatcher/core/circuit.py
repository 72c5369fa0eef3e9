"""Circuit of an app: when it opens, and how the app starts again after a pause.

Three things open it. Requests with unknown results: each further one would make more messages
unsure. Requests of different texts that are refused, while none is accepted: then it is not the
content, and halving on would reject what waits. And two messages in a row of which the second is
refused with a code that is unknown or of a firewall: it may have banned the address. A paused app
is probed, and then starts slowly: one request, then two, four, eight.

The state is kept in table `app`, shared by all workers; see apply_to_circuit in db/circuit.py.
"""

from collections import deque
from collections.abc import Sequence
from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.codes import ALL_REFUSED, OURS, UNKNOWN_RESULTS
from dispatcher.core.delays import Pause
from dispatcher.core.message import Answer, Batch, Reply, RequestDraft
from dispatcher.core.outcome import FIRST_FAILURE_STATUS, Resolved, UnknownResult
from dispatcher.core.result import BatchResult

WINDOW_SECONDS = 10.0  # in which the share of unknown results is measured
HIGH_SHARE = 0.5  # of unknown results in the window
FIRST_PROBE_SECONDS = 2.0  # a probe without messages costs nothing
MAX_PROBE_SECONDS = 5.0
# The probe was answered, but the first request with a message was not: each such cycle may leave
# a message unsure.
FIRST_REOPENED_SECONDS = 10.0
MAX_REOPENED_SECONDS = 60.0
FIRST_REFUSED_SECONDS = 5.0  # a probe with one message, which waits on if it is refused
MAX_REFUSED_SECONDS = 5.0
HELD_SECONDS = 5.0  # until a message that was refused under an open circuit is due again
ENOUGH_REFUSED = 32  # numbers of a text, each refused alone
MAX_REFUSED_TEXTS = 1000  # that are remembered
REFUSED_TEXT_SECONDS = 7200.0  # for which one is; its numbers wait for an hour at most
MAX_SLOW_START = 64  # requests of the last round; then the start is over


class Answered(Struct, frozen=True):
    """The API answered the request, and did not refuse it as a whole for its content."""


class Unknown(Struct, frozen=True):
    """The result of the request is unknown."""

    code: str
    reason: str


class Refused(Struct, frozen=True):
    """One message was refused for its content."""

    digest: int  # of everything but the number; with *pause*, of the message
    code: str
    reason: str
    pause: Pause | None = None  # if another one before it was refused too: of an unknown code


Signal = Answered | Unknown | Refused


class CircuitLimits(Struct, frozen=True):
    """When a circuit opens."""

    unknown: int = 3  # requests with unknown results in a row
    refused: int = 5  # texts refused in a row


class SlowStart(Struct, frozen=True):
    """A round of a slow start: so many requests, and at most so many numbers in each."""

    requests: int = 1
    left: int = 1  # still to be claimed
    answered: int = 0


class CircuitState(Struct, frozen=True):
    """What is known of an app's last requests."""

    unknown: int = 0  # results in a row
    refused: tuple[int, ...] = ()  # digests of different texts, or messages, in a row
    slow_start: SlowStart | None = None
    pause_code: str | None = None  # why the app is paused; None: it is not, or by an operator

    @property
    def is_usual(self) -> bool:
        """Whether answered requests change nothing."""
        return not self.unknown and not self.refused and self.slow_start is None


class Change(Struct, frozen=True):
    """What signals change."""

    state: CircuitState
    pause: Pause | None = None  # the circuit opens
    held: frozenset[int] = frozenset()  # signals whose message waits, and is not rejected


def signal(result: BatchResult) -> Signal | None:
    """Return what *result* says about its app; None if nothing was sent, or the app is paused."""
    match result.verdict:
        case UnknownResult(code, reason):
            return Unknown(code, reason)
        case Resolved(refused=True, pause=pause) if result.tries > 0:
            digest = _digest(result.batch, of_message=pause is not None)
            return Refused(digest, result.code, result.description, pause)
        case Resolved() if result.tries > 0:
            return Answered()
        case _:
            return None


def _digest(batch: Batch, *, of_message: bool) -> int:
    packed = batch.packed
    if of_message:  # by its id alone: an answer that is read from disk lacks its content
        return crc32(str(packed.messages[0].id).encode())
    digest = crc32((packed.sender or "").encode())
    for entry in packed.entries:
        digest = crc32(entry.content, digest)
    return digest


def change(
    state: CircuitState,
    signals: Sequence[Signal | None],
    limits: CircuitLimits,
    *,
    unknown_share_is_high: bool = False,
) -> Change:
    """Return what *signals*, the results of an app's requests in order, change.

    Under an app paused for ALL_REFUSED, and from the signal on that opens its circuit, each message
    that is refused waits. So does one that is refused with the unknown code that paused the app:
    until an answer shows whether the message or the app is refused, no message is at fault.
    """
    pause: Pause | None = None
    held: set[int] = set()
    for place, each in enumerate(signals):
        state, opened = _next(state, each, limits, unknown_share_is_high)
        pause = pause or opened
        if isinstance(each, Refused) and (
            ALL_REFUSED in (state.pause_code, pause.code if pause else None)
            or each.code == state.pause_code
        ):
            held.add(place)
    return Change(state, pause, frozenset(held))


def _next(
    state: CircuitState,
    each: Signal | None,
    limits: CircuitLimits,
    unknown_share_is_high: bool,  # noqa: FBT001 - passed on
) -> tuple[CircuitState, Pause | None]:
    """Return the state after one signal, and the pause if the circuit opens."""
    match each:
        case None:
            return replace(state, slow_start=_unused(state.slow_start)), None
        case Answered():
            after = replace(state, unknown=0, refused=(), slow_start=_answered(state.slow_start))
            return after, None
        case Unknown():
            state = replace(state, unknown=state.unknown + 1)
            if state.slow_start is not None:
                return state, _reopened(each)
            opens = state.unknown >= limits.unknown or unknown_share_is_high
            return state, _opened_for_unknown(each, state.unknown) if opens else None
        case Refused(digest=digest):
            refused = state.refused if digest in state.refused else (*state.refused, digest)
            slow_start = _answered(state.slow_start)
            state = replace(state, unknown=0, refused=refused, slow_start=slow_start)
            if len(refused) >= limits.refused:
                return state, _opened_for_refusals(each, len(refused))
            return state, each.pause if len(refused) > 1 else None


def _answered(round_: SlowStart | None) -> SlowStart | None:
    if round_ is None:
        return None
    if round_.answered + 1 < round_.requests:
        return replace(round_, answered=round_.answered + 1)
    if round_.requests >= MAX_SLOW_START:
        return None
    return SlowStart(2 * round_.requests, left=2 * round_.requests)


def _unused(round_: SlowStart | None) -> SlowStart | None:
    """Return the round after a request of it that was not sent."""
    if round_ is None:
        return None
    return replace(round_, left=min(round_.left + 1, round_.requests))


def _opened_for_unknown(last: Unknown, count: int) -> Pause:
    said = f"The results of {count} of the last requests are unknown. The last: {last.reason}"
    return _pause(UNKNOWN_RESULTS, last.code, said, FIRST_PROBE_SECONDS, MAX_PROBE_SECONDS)


def _reopened(last: Unknown) -> Pause:
    said = f"The result of a request is unknown again, right after the last pause: {last.reason}"
    return _pause(UNKNOWN_RESULTS, last.code, said, FIRST_REOPENED_SECONDS, MAX_REOPENED_SECONDS)


def _opened_for_refusals(last: Refused, count: int) -> Pause:
    said = f"{count} different messages in a row were refused, and none accepted."
    if last.reason:
        said += f" The last: {last.reason}"
    return _pause(ALL_REFUSED, last.code, said, FIRST_REFUSED_SECONDS, MAX_REFUSED_SECONDS)


def _pause(code: str, cause: str, said: str, first: float, longest: float) -> Pause:
    return Pause(code, f"{said.rstrip('.')} ({cause}). {OURS[code].advice}", first, longest)


def is_answer_of_api(answer: Answer) -> bool:
    """Return whether the API itself gave *answer* to a probe: not a proxy, and no server error."""
    return (
        isinstance(answer, Reply)
        and answer.http_status < FIRST_FAILURE_STATUS
        and not answer.code.startswith("HTTP ")
    )


class UnknownShare:
    """The share of unknown results among the last results of one app, as one worker sees it."""

    def __init__(self) -> None:
        self._results: deque[tuple[float, bool]] = deque()

    def add(self, now: float, *, unknown: bool) -> None:
        """Add a result; *now* in seconds."""
        self._results.append((now, unknown))
        while self._results[0][0] < now - WINDOW_SECONDS:
            self._results.popleft()

    def is_high(self, limit: int) -> bool:
        """Return whether at least *limit* results, and a high share, are unknown."""
        unknown = sum(each for _, each in self._results)
        return unknown >= limit and unknown >= HIGH_SHARE * len(self._results)


class RefusedTexts:
    """Texts of one app that are refused whatever the number, as one worker sees them.

    Halving a request finds its bad numbers in few requests, unless all of them are refused: then it
    takes two for each number. So the search ends when ENOUGH_REFUSED numbers of a text were refused
    alone, and none was accepted.
    """

    def __init__(self) -> None:
        self._texts: dict[bytes, tuple[float, set[int]]] = {}  # when last refused, messages

    def add_refused(self, now: float, packed: RequestDraft) -> None:
        """Note that *packed*, a single message, was refused for its content; *now* in seconds."""
        [message] = packed.messages
        text = packed.entries[0].content
        _, messages = self._texts.pop(text, (now, set()))
        if len(messages) < ENOUGH_REFUSED:
            messages.add(message.id)
        self._texts[text] = now, messages
        if len(self._texts) > MAX_REFUSED_TEXTS:
            del self._texts[next(iter(self._texts))]

    def add_accepted(self, packed: RequestDraft) -> None:
        """Note that numbers of *packed* were accepted."""
        if self._texts:
            for entry in packed.entries:
                self._texts.pop(entry.content, None)

    def covers(self, now: float, packed: RequestDraft) -> bool:
        """Return whether all of *packed* is of one such text."""
        if not self._texts or len(packed.entries) != 1:
            return False
        at, messages = self._texts.get(packed.entries[0].content, (0.0, ()))
        return len(messages) >= ENOUGH_REFUSED and now - at <= REFUSED_TEXT_SECONDS
