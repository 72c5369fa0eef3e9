"""Repeats a step that needs the database, and goes on when the database is unavailable."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import asyncpg
import structlog

from dispatcher.core.errors import DatabaseUnavailable, StatementRefused
from dispatcher.db.errors import DATA_ERRORS, data_error_kind, is_data_error, is_locked

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
CUT_ERRORS: Final = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)
MAX_MISSES: Final = 3  # in a row, until a part fails of which only the database seems to be away


class FailingParts(dict[str, str]):
    """The parts of a process that fail, and why.

    A step for which the database is unavailable is no failure of its part, unless the other parts
    can use it: then a statement times out, a right is missing, or a session holds a lock.
    """

    def __init__(self) -> None:
        super().__init__()
        self._steps_done = 0  # of all parts
        self._misses: dict[str, tuple[int, int]] = {}  # by part, and _steps_done at the last one

    def note_success(self, part: str) -> None:
        """Note that a step of *part* succeeded."""
        self._steps_done += 1
        self._misses.pop(part, None)
        self.pop(part, None)

    def note_miss(self, part: str, error: DatabaseUnavailable) -> bool:
        """Note that a step of *part* could not use the database; return whether the part fails.

        It does after MAX_MISSES in a row, with a success of another part before each but the first.
        """
        misses, done = self._misses.get(part, (0, -1))
        if self._steps_done > done:
            misses += 1
            self._misses[part] = misses, self._steps_done
        if misses < MAX_MISSES:
            return False
        cut = isinstance(error.__cause__, CUT_ERRORS)  # "start it" would be wrong
        why = "a statement took too long, or its connection broke" if cut else str(error)
        self[part] = (
            f"It fails again and again, while other parts can use the database: {why.rstrip('.')}."
        )
        return True


async def run_every(
    interval: float,
    stop: asyncio.Event,
    step: Callable[[], Awaitable[bool | None]],
    *,
    unavailable: str,
    part: str = "",
    failing: FailingParts | None = None,
) -> None:
    """Call *step*, and again after *interval* seconds, until *stop*.

    A step that returns True has more to do: the next one begins at once. If the database is
    unavailable, *unavailable* is logged and the next step begins after *interval*. The other
    arguments are those of `attempt`.
    """
    while not stop.is_set():
        if not await attempt(step, unavailable=unavailable, part=part, failing=failing):
            await wait_for_event(stop, interval)


async def attempt(
    step: Callable[[], Awaitable[Result]],
    *,
    unavailable: str,
    part: str = "",
    failing: FailingParts | None = None,
) -> Result | None:
    """Return what *step* returns; log *unavailable* and return None if the database cannot be used.

    What cannot be done now waits for the next attempt, so each step must be safe to repeat. A
    statement that the database refuses, and a value that cannot be processed, end this step only:
    *failing* has the line for *part* until a step succeeds.
    """
    failing = FailingParts() if failing is None else failing
    try:
        result = await step()
    except StatementRefused as error:
        failing[part] = str(error)
        refused = unavailable.partition(":")[0] + ": the database refuses it"
        log.error(refused, why=str(error))  # noqa: TRY400 - one line says it
        return None
    except DatabaseUnavailable as error:
        alone = unavailable.partition(":")[0] + ": only this step fails"
        locked = unavailable.partition(":")[0] + ": another session holds a lock"
        if failing.note_miss(part, error):
            log.warning(alone, part=part, why=str(error))
        else:
            log.warning(locked if is_locked(error) else unavailable, why=str(error))
        return None
    except DATA_ERRORS as error:
        if not is_data_error(error):
            raise
        kind = data_error_kind(error)
        failing[part] = f"a value cannot be processed ({kind})"
        refused = unavailable.partition(":")[0] + ": a value cannot be processed"
        log.error(refused, why=kind)  # noqa: TRY400 - one line says it
        return None
    failing.note_success(part)
    return result


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait until *event* is set, at most *seconds*."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class StoppingTaskGroup:
    """Runs tasks, and waits for all of them when the block ends.

    The first error of one sets *stop*, so that the others end in good order, and is raised when
    all have ended. `asyncio.TaskGroup` would cancel the others: requests that are on their way,
    whose answers would be lost. Only a cancellation of the block cancels the tasks.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._error: BaseException | None = None

    def create_task(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Start *work*."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
            self._stop.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._cancel()
        elif error is not None:
            self._stop.set()
        cancelled: asyncio.CancelledError | None = None
        while self._tasks:
            try:
                await asyncio.wait(self._tasks)
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
                self._cancel()
        if cancelled is not None:
            raise cancelled
        if self._error is not None and error is None:
            raise self._error

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
