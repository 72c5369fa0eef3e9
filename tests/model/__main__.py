"""`./dev model`: search every state of the model. Exit code 1 if a rule can be broken.

With --guards each guard is taken out: exit code 1 if one that should be missed is not.
"""

import argparse
import sys

from rich.console import Console

from model.guards import CIRCUIT, EXPIRY, GUARDS, SPLIT
from model.search import Found, search
from model.world import Budget, Model

# As large as can be searched in some minutes: more than a million states.
WHOLE = Model(messages=3, numbers="AL", budget=Budget(claims=2, troubles=1, people=1))
# What that world leaves out, each in a world of its own.
FEATURES = {
    "split": Model(messages=2, numbers="A", budget=Budget(1, 1, 1), features=SPLIT),
    "expiry": Model(messages=2, numbers="A", budget=Budget(1, 1, 1), features=EXPIRY),
    "circuit": Model(messages=1, numbers="A", budget=Budget(3, 1, 0), features=CIRCUIT),
}
LONGEST_STORY = 20  # steps


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="./dev model", description=__doc__)
    parser.add_argument("--guards", action="store_true", help="take out each guard")
    parser.add_argument("--policy", choices=("hold", "resend"), default="hold")
    parser.add_argument("--messages", type=int, default=WHOLE.messages)
    parser.add_argument("--numbers", default=WHOLE.numbers, help="answers: of A, L, R, H, D")
    parser.add_argument("--claims", type=int, default=WHOLE.budget.claims)
    parser.add_argument("--troubles", type=int, default=WHOLE.budget.troubles)
    given = parser.parse_args()
    console = Console(highlight=False)
    if given.guards:
        return _guards(console)
    budget = Budget(given.claims, given.troubles, WHOLE.budget.people)
    model = Model(
        messages=given.messages, numbers=given.numbers, policy=given.policy, budget=budget
    )
    models = {"messages, workers, reports and operators": model}
    models |= {name: each._replace(policy=given.policy) for name, each in FEATURES.items()}
    broken = False
    for name, each in models.items():
        console.print(f"[bold]{name}[/]")
        found = search(each, progress=lambda found: _tell(found, console))
        _tell(found, console)
        console.print(*found.story, found.problem, sep="\n")
        broken = broken or bool(found.problem)
    return 1 if broken else 0


def _tell(found: Found, console: Console) -> None:
    all_ = ", all" if found.exhausted else ""
    console.print(
        f"{found.states:,} states{all_}, {found.steps:,} steps, at most {found.depth} from the"
        f" start, {found.seconds:.0f} s"
    )


def _guards(console: Console) -> int:
    missed = 0
    for guard in GUARDS:
        console.print(f"\n[bold]Without: {guard.name}[/]")
        if guard.model is None:
            console.print(f"  nothing: {guard.reason}")
            continue
        found = search(guard.model._replace(without=frozenset({guard.name})))
        for number, line in enumerate(found.story, 1):
            console.print(f"  {number}. {line}")
        console.print(f"  {found.problem or 'NO RULE BREAKS'} ({found.states:,} states)")
        missed += not found.problem or len(found.story) > LONGEST_STORY
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
