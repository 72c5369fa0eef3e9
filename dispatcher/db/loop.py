"""Repeats a step that needs the database, and goes on when the database is unavailable."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from dispatcher.core.errors import DatabaseUnavailable, StatementRefused
from dispatcher.db.errors import DATA_ERRORS, data_error_kind, is_data_error, is_locked

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
FailingParts = dict[str, str]  # the parts of a process whose last step was refused, and why


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
    failing = {} if failing is None else failing
    try:
        result = await step()
    except StatementRefused as error:
        failing[part] = str(error)
        refused = unavailable.partition(":")[0] + ": the database refuses it"
        log.error(refused, why=str(error))  # noqa: TRY400 - one line says it
        return None
    except DatabaseUnavailable as error:
        locked = unavailable.partition(":")[0] + ": another session holds a lock"
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
    failing.pop(part, None)
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
