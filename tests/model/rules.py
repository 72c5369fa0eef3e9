"""The rules 1 to 4 of the design, as what must hold in each state and in each step."""

from model.promises import NO_BATCH
from model.world import World


def broken(before: World, after: World) -> str:
    """Return which rule a step breaks; empty if none."""
    return _of_step(before, after) or _of_state(after)


def _of_step(before: World, after: World) -> str:
    """*after* is as the step left it: requests have their old numbers still."""
    old, new = before.tables, after.tables
    if old is new:
        return ""
    for message, (was, is_) in enumerate(zip(old.outcome, new.outcome, strict=True)):
        if was is None or was == is_:
            continue
        if is_ is None and was.state == "rejected" and new.queue[message]:
            continue  # requeued
        if is_ and was == is_._replace(named_by=NO_BATCH):
            continue  # a report has brought the id
        return f"rule 1: message {message} had the outcome {was.state}, and has another"
    for number, request in enumerate(old.batch):
        if request.state == "closed" and new.batch[number] != request:
            return f"rule 3: request {number} was closed, and is written again"
    return ""


def _of_state(world: World) -> str:  # noqa: PLR0911 - one for each rule
    tables = world.tables
    if world.resent:
        return "rule 2: a request was sent again although the app does not say so"
    if world.late:
        return "rule 5: message 0 was sent after its time"
    for message, batches in enumerate(world.accepted):
        if len(batches) > 1:
            return f"rule 2: message {message} was accepted twice"
        result, waiting = tables.outcome[message], tables.queue[message]
        live = sum(
            request.state != "closed" and message in request.in_question for request in tables.batch
        )
        if problem := _of_place(message, bool(result), bool(waiting), live):
            return problem
        if result and result.state == "accepted" and not batches:
            return f"rule 1: message {message} is accepted, and the provider never took it"
        if result and result.state != "accepted" and batches:
            return f"rule 1: message {message} is {result.state}, and the provider took it"
        if waiting and batches:
            return f"rule 4: message {message} waits though the provider took it"
    return ""


def _of_place(message: int, over: bool, waiting: bool, live: int) -> str:  # noqa: FBT001 - what there is
    """A message is in one place: it has an outcome, or waits, or is in one open request."""
    if not over and not waiting and not live:
        return f"rule 4: message {message} is lost"
    if waiting and over:
        return f"rule 4: message {message} waits though it has an outcome"
    if waiting and live:
        return f"rule 4: message {message} waits though a request with it is open"
    return f"rule 4: message {message} is in two open requests" if live > 1 else ""


def stuck(world: World) -> str:
    """Return what is wrong with a state after which nothing happens."""
    if world.budget.claims == 0:
        return ""  # the search ends here, not the world
    open_still = [number for number, row in enumerate(world.tables.outcome) if row is None]
    return f"messages {open_still} never end" if open_still else ""
