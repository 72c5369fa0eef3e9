"""Names the steps of a scene, counts them, and says which one is to be struck."""

from collections import Counter
from dataclasses import dataclass, field

CUT_BEFORE, CUT_AFTER, KILL, FREEZE, POSTGRES = FAULTS = (
    "cut-before",
    "cut-after",
    "kill",
    "freeze",
    "postgres",
)
CUTS = frozenset({CUT_BEFORE, CUT_AFTER})

OFTEN = 3  # occurrences of a step that are struck, each in another state of the scene
OFTEN_COMMIT = 6  # of a COMMIT, before and after which the world is another
ONCE = 1
# What idle processes repeat, whatever the messages do: once is enough.
IDLE = frozenset(
    {
        "poll",
        "heartbeat",
        "rescue",
        "lock_silent",
        "open_of_worker",
        "ping",
        "connect",
        "begin",
        "match_lock",
        "alone",
    }
)
# What concerns no message of this scene: once, at the end of each write, by a cut or a kill.
ASIDE = frozenset(
    {
        "prepare",
        # Maintenance, of which this scene has nothing to do
        "apps_of_old_queue",
        "actions_to_continue",
        "end_old_actions",
        "end_old_loads",
        "hold_restored_requests",
        "brake_spikes",
        "cancel_campaign_step",
        "drop_uploads",
        "expire",
        "forget_old_usage",
        "index_step",
        "last_seen",
        "move_campaign_step",
        "roll_up_counts",
        "stop_campaigns",
        # Each start, and rules that are read again and again
        "any_suppressed",
        "can_repair_sequences",
        "database_id",
        "limits",
        "migration_timeouts",
        "migrations_applied",
        "migrations_exist",
        "promotional_apps",
        "register_app",
        "register_statuses",
        "register_worker",
        "server_encoding",
        "templates",
    }
)

# Messages of PostgreSQL after which it waits for the client: nothing follows them in an answer.
LAST_ANSWERS = frozenset({"ReadyForQuery", "CopyInResponse", "RowDescription", "NoData"})


@dataclass(frozen=True)
class Step:
    """One step: what passed, for the n-th time, and whether it was the end of a write.

    A process writes several messages at once: only a network can cut between them. Whatever
    happens to a process or to PostgreSQL happens at the end of a write. A cut after a message is a
    cut before the next one of its write, so it is another one only after the last.
    """

    label: str
    turn: bool

    @property
    def faults(self) -> tuple[str, ...]:
        """What can be done at this step."""
        cuts = (CUT_BEFORE, CUT_AFTER) if self._is_last else (CUT_BEFORE,)
        if not self.turn:
            return cuts
        return (*cuts, KILL) if self._is_aside else (*cuts, KILL, FREEZE, POSTGRES)

    @property
    def _is_aside(self) -> bool:
        kind, _, _ = self.label.split(" ")[1].partition("/")
        return kind in ASIDE

    @property
    def _is_last(self) -> bool:
        """Whether nothing follows it in its write."""
        direction, message = self.name.split(" ")[-2:]
        return message in LAST_ANSWERS if direction == "<" else self.turn

    @property
    def name(self) -> str:
        """The label without its number."""
        return self.label.rpartition(" #")[0]


def often(kind: str, statement: str, *, turn: bool) -> int:
    """Return how many occurrences of a statement in a transaction of *kind* are steps.

    A cut within a write is another cut than the one at its end, but the state of the scene is the
    same; so once is enough.
    """
    if kind in ASIDE:
        return ONCE if turn else 0
    if kind in IDLE or not turn:
        return ONCE
    return OFTEN_COMMIT if statement == "COMMIT" else OFTEN


@dataclass
class Script:
    """Counts the steps of one run. *target* is struck by *fault* when it comes."""

    target: str | None = None
    fault: str | None = None
    struck: bool = False
    closed: bool = False  # the scene is over: what comes now is no step of it
    steps: dict[str, bool] = field(default_factory=dict)  # label: whether it ended a write
    _counts: Counter[str] = field(default_factory=Counter)

    def reach(self, name: str, *, most: int, turn: bool) -> str | None:
        """Count a step; return the fault if it is the one to strike."""
        if self.closed or self.struck:
            return None
        self._counts[name] += 1
        number = self._counts[name]
        if number > most:
            return None
        label = f"{name} #{number}"
        self.steps[label] = turn
        if label != self.target:
            return None
        self.struck = True
        return self.fault
