"""Aims a storm: what leads to the short cells of a matrix happens more often.

An act is something that a storm does: to a worker, to the database, or a fault of the provider. An
aimed storm draws only acts that lead to what is short, twice as fast as usual, so that each of the
faults is never far from the branch, and has more apps: where the circuit of one is open, others
send.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from random import Random

from chaos.fault_schedule import FAMILIES, MAKERS
from chaos.matrix import (
    CLOCKS,
    CODES,
    CONNECTION,
    CONNECTIONS_ENDED,
    DATABASE_CLOCK,
    DATABASE_DOWN,
    DATABASE_FROZEN,
    DATABASE_RESTORED,
    SPOOLS,
    WORKER_FROZEN,
    WORKER_KILLED,
    WORKER_STOPPED,
)
from chaos.workers import (
    CLOCK_WRONG,
    FOREIGN_SPOOL,
    FROZEN,
    FROZEN_LONG,
    KILLED,
    STOPPED,
)

BRANCHES_AT_ONCE = 3  # that one storm is aimed at
AIMED_APPS = 6
AIMED_PACE = 0.5  # of the usual time between two acts
LEADING = 1.5  # the weight of the acts that lead to a branch, beside those of each of its faults

# What is done to the database, or to several at once, and how often beside each other.
TERMINATE, HOLD_COMMITS = "database: connections ended", "database: commits held"
RESTART, CRASH = "database: restarted", "database: killed"
FREEZE, FREEZE_LONG = "database: frozen", "database: frozen for long"
CLOCK_JUMPS, RESTORE = "database: clock jumped", "database: restored"
FREEZE_STOPS = "database: frozen for long, workers stopped"
SILENT_STOPS = "provider: silent, workers stopped"
TO_DATABASE = {TERMINATE: 4.0, HOLD_COMMITS: 1.0, RESTART: 2.0, CRASH: 2.0, FREEZE: 2.0,
               FREEZE_LONG: 0.2, CLOCK_JUMPS: 1.0, RESTORE: 0.5,
               FREEZE_STOPS: 0.2, SILENT_STOPS: 0.5}  # fmt: skip
FAULT_OF = {  # what the matrix calls each act
    TERMINATE: CONNECTIONS_ENDED,
    HOLD_COMMITS: CONNECTIONS_ENDED,
    RESTART: DATABASE_DOWN,
    CRASH: DATABASE_DOWN,
    FREEZE: DATABASE_FROZEN,
    FREEZE_LONG: DATABASE_FROZEN,
    FREEZE_STOPS: DATABASE_FROZEN,
    SILENT_STOPS: CONNECTION,
    CLOCK_JUMPS: DATABASE_CLOCK,
    RESTORE: DATABASE_RESTORED,
    KILLED: WORKER_KILLED,
    FROZEN: WORKER_FROZEN,
    FROZEN_LONG: WORKER_FROZEN,
    STOPPED: WORKER_STOPPED,
    CLOCK_WRONG: CLOCKS,
    FOREIGN_SPOOL: SPOOLS,
    **{name: FAMILIES.get(name, CODES) for name in MAKERS},
}

# The acts that lead to a branch, where those of a usual storm rarely do.
LEADS_TO: Mapping[str, tuple[str, ...]] = {
    "no claim: this host cannot send": ("refuse", "refuse, silently", CLOCK_WRONG),
    "a claim is in doubt: its COMMIT was not answered": (HOLD_COMMITS,),
    "a request is withheld in the last moment": ("refuse, silently", STOPPED),
    "a lease is lost by silence": (FROZEN_LONG, FREEZE_LONG),
    "a request is cut off by a stop": (SILENT_STOPS,),
    "a half is inferred from the other": ("bad-entry, by number",),
    "a split meets a batch that was taken over": ("code, of all texts", CRASH),
    "an answer waits: the database is away": (CRASH, FREEZE_LONG),
    "an answer is kept on disk": (FREEZE_STOPS,),
    "a refused message waits under an open circuit": ("code, of all texts",),
    "an answer lacks numbers": ("lack",),
    "batches of a dead worker or a sending policy": (KILLED, FROZEN_LONG),
    "an answer from disk is written": (FREEZE_STOPS, FOREIGN_SPOOL),
    "an answer comes for a batch that is closed": (FOREIGN_SPOOL, FROZEN_LONG),
    "a report brings the provider's id": ("brown-out, cut", "half-answer"),
    "reports go to disk": (CRASH, FREEZE_LONG),
}


def aim_at(short: Collection[tuple[str, str]], dice: Random) -> dict[str, float]:
    """Return the weights of acts that lead to some of the *short* cells: of a branch and a fault.

    To a few branches: what everything at once leads to is that nothing is sent. The more cells of
    a branch are short, the likelier it is one of them.
    """
    rows = Counter(branch for branch, _ in short)
    branches = {dice.choices([*rows], [*rows.values()])[0] for _ in range(BRANCHES_AT_ONCE) if rows}
    faults = {fault for branch, fault in short if branch in branches}
    acts_of = {fault: [act for act in FAULT_OF if FAULT_OF[act] == fault] for fault in faults}
    aim: defaultdict[str, float] = defaultdict(float)
    leading = [(LEADING * rows[branch], LEADS_TO.get(branch, ())) for branch in branches]
    for weight, acts in (*leading, *((1.0, acts) for acts in acts_of.values())):
        for act in acts:
            aim[act] += weight / len(acts)
    return dict(aim)


def aimed(weights: Mapping[str, float], aim: Mapping[str, float]) -> dict[str, float]:
    """Return the weights of the acts of one kind under an *aim*: *weights* if it names none."""
    of_kind = {act: aim[act] for act in weights if act in aim}
    return of_kind or dict(weights)
