"""Goes through all states, breadth first; gives the shortest story to one that breaks a rule."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from model.rules import broken, stuck
from model.world import Model, World, canonical

EVERY = 100_000  # states between two reports of progress


@dataclass
class Found:
    """What a search has found."""

    states: int = 0
    steps: int = 0
    depth: int = 0  # of the last state
    seconds: float = 0.0
    exhausted: bool = False
    problem: str = ""
    story: list[str] = field(default_factory=list)


def search(
    model: Model, *, most: int | None = None, progress: Callable[[Found], None] | None = None
) -> Found:
    """Search *model* until a rule breaks, *most* states are known, or there are no more."""
    began = monotonic()
    start = model.start()
    # States by their hashes: two of a million share one with a chance of 1 to 30 million.
    known: dict[int, int] = {hash(canonical(start)): 0}  # and the state before each
    found = Found(states=1)
    layer = [canonical(start)]
    while layer and not found.problem:
        below: list[World] = []
        for world in layer:
            here = hash(world)
            alone = True
            for _, after in model.steps(world):
                found.steps += 1
                alone = False
                problem = broken(world, after)
                after = canonical(after)  # noqa: PLW2901 - the same world, without its past
                there = hash(after)
                if there in known and not problem:
                    continue
                known[there] = here
                if problem:
                    found.problem, found.story = problem, _story(model, known, here, after)
                    break
                below.append(after)
                if progress and len(known) % EVERY == 0:
                    found.states, found.seconds = len(known), monotonic() - began
                    progress(found)
            if alone and not found.problem and (problem := stuck(world)):
                found.problem, found.story = problem, _story(model, known, here)
            if found.problem or (most is not None and len(known) >= most):
                break
        else:
            if below:
                found.depth += 1
            layer = below
            continue
        break
    found.states, found.seconds = len(known), monotonic() - began
    found.exhausted = not layer
    return found


def _story(model: Model, known: dict[int, int], end: int, last: World | None = None) -> list[str]:
    """Return the steps to the state *end*, and then to *last*, as sentences.

    They are found again from the start, on states that keep their past: so a request and a worker
    have the same number throughout.
    """
    chain = [end]
    while known[chain[-1]]:
        chain.append(known[chain[-1]])
    ends = [*reversed(chain[:-1]), *([] if last is None else [hash(last)])]
    world, told = model.start(), []
    for wanted in ends:
        what, world = next(
            step for step in model.steps(world) if hash(canonical(step[1])) == wanted
        )
        told.append(tell(what))
    return told


SAYS = {
    "claim": "worker {0} claims the messages {1} as request {2}",
    "lost claim": "worker {0} claims the messages {1} as request {2}; COMMIT is not answered",
    "torn claim": "worker {0} takes the messages {1} out of the queue, and stops there",
    "send": "worker {0} sends request {1} with the messages {2}; it ends with {3}",
    "lost answer": "the answer to request {0} is lost",
    "record": "worker {0} records request {1}: {2}",
    "lost record": "worker {0} records request {1}: {2}; COMMIT is not answered",
    "torn record": "worker {0} closes request {1} ({2}), and stops before its messages return",
    "heartbeat": "worker {0} is heard of again",
    "silence": "worker {0} falls silent",
    "lease ends": "the lease of worker {0} ends",
    "restart": "worker {0} is killed, and worker {1} starts",
    "split": "worker {0} divides request {1} into {2}",
    "lost split": "worker {0} divides request {1} into {2}; COMMIT is not answered",
    "time over": "the time of message {0} is over",
    "expires": "message {0} expires while it waits",
    "probe": "a probe without messages is answered: the app starts slowly",
    "round lost": "the slow start gives up the requests that were lost, and allows as many again",
    "rescue": "the open requests of dead workers are rescued",
    "put back": "worker {0} puts back request {1}, which it never had",
    "policy resends": "the policy `resend` puts request {0} back",
    "cancel": "message {0} is cancelled",
    "requeue": "message {0} is requeued",
    "settle": "an operator settles request {0} as {1}",
    "report comes": "the report of message {1} in request {0} is stored",
    "report matched": "the report of message {1} in request {0} is matched",
}
ENDS = {
    "A": "accepted",
    "L": "E200015",
    "R": "E200028",
    "H": "accepted and left out of the answer",
    "D": "left out of the answer",
}


def tell(what: tuple[object, ...]) -> str:
    """Return a step as a sentence."""
    name, *given = what
    if name == "send" and str(given[3])[0] in ENDS:
        given[3] = ", ".join(ENDS[each] for each in str(given[3]))
    return SAYS[str(name)].format(*given)
