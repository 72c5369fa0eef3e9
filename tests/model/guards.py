"""What can be taken out of the model, and in how small a world its absence shows.

The names are those of `tests/guards/table.py`, which takes the same guards out of the code itself.
"""

from dataclasses import dataclass

from model.world import Budget, Model

ONE = Model(messages=1, numbers="A", most=1, budget=Budget(claims=2, troubles=1, people=0))
TWO = Model(messages=2, numbers="AL", budget=Budget(claims=2, troubles=1, people=0))
SPLIT, EXPIRY, CIRCUIT = frozenset({"split"}), frozenset({"expiry"}), frozenset({"circuit"})


@dataclass(frozen=True)
class Guard:
    """A guard, and a model that breaks a rule without it; or why none does."""

    name: str
    model: Model | None = None
    reason: str = ""


GUARDS = (
    Guard("the primary key of outcome", TWO._replace(numbers="A")),
    Guard(
        "an answer leaves alone what has an outcome",
        reason="it avoids an error: without it the primary key of outcome refuses the row",
    ),
    Guard("settling by hand leaves alone what has an outcome", TWO._replace(numbers="AD")),
    Guard("no answer after the body was sent is unsure", ONE),
    Guard("no try after one that may have been sent", ONE),
    Guard("a server error without results is an unknown result", ONE),
    Guard("HTTP 503 may have been sent", ONE),
    Guard(
        "unknown results in a row open the circuit",
        reason="it breaks no rule: it bounds how many messages become unsure, each once",
    ),
    Guard("what a dead worker had open is unsure", ONE),
    Guard("a worker that was silent for its lease sends nothing of before", ONE),
    Guard("only the policy resend sends again", ONE),
    Guard("a report ends the policy resend", ONE._replace(policy="resend")),
    Guard(
        "a report that cannot be read ends the policy resend",
        reason="the model's reports can be read",
    ),
    Guard(
        "what was sent again may be meant by a late report without a number",
        reason="the model's reports name their number",
    ),
    Guard(
        "the policy resend waits for a running settlement",
        reason="it orders two transactions; here each statement is one step",
    ),
    Guard(
        "the policy resend leaves answers alone that the database refused",
        reason="the model's database refuses no value",
    ),
    Guard("only what was never sent is put back", ONE),
    Guard(
        "a claim is on disk before it is sent",
        reason="the model's database loses no commit, as exactness.md assumes",
    ),
    *(
        Guard(
            name, reason="the model's database is never restored or loaded, as exactness.md assumes"
        )
        for name in (
            "nothing is claimed in a database that has gone back in time",
            "what waits in a backup that was restored under workers is paused",
            "a worker that came after a restore does not hide it",
            "a load that a dead process left waits for a worker",
            "what waits in a backup that was restored without workers is paused",
            "what is loaded from a dump waits only where it has no other place",
            "a worker whose id was given to another one claims nothing",
            "what came within the lease of a backup's last worker is paused",
            "the policy resend leaves requests of before a restore alone",
        )
    ),
    Guard("what is not ours any more is withheld in the moment it would leave", ONE),
    Guard("a closed batch takes no answer", ONE),
    Guard("an answer that lacks numbers is written once", TWO._replace(numbers="LD")),
    Guard(
        "the end of a pause returns only a counted attempt",
        reason="it bounds how often a message is sent again; the model's claims are bounded",
    ),
    Guard(
        "a pause that a message ends returns no attempt",
        reason="it bounds how often a message is sent again; the model's claims are bounded",
    ),
    *(
        Guard(
            name,
            reason="no report of the model says that the platform refused what it had accepted",
        )
        for name in (
            "what is requeued is no part of an unsure request",
            "a late answer leaves alone what was requeued",
        )
    ),
    Guard(
        "a late answer waits for what another session holds",
        reason="a step of the model is a whole transaction: no other holds a row meanwhile",
    ),
    Guard(
        "a late answer is evidence",
        reason="without it nothing is wrong: a message stays unsure until its report comes",
    ),
    Guard("only what was closed here is written", ONE),
    Guard("only an open batch is divided", TWO._replace(numbers="A", features=SPLIT)),
    Guard("a claim and its batches are one transaction", ONE),
    Guard("closing a batch and its returns are one transaction", ONE._replace(numbers="AL")),
    Guard("a cancel takes only what it finds waiting", ONE._replace(budget=Budget(1, 0, 1))),
    *(
        Guard(name, reason="a message of the model waits in one place; bulk rows are in the SQL")
        for name in (
            "a claim takes the bulk rows that it deletes",
            "a claim takes no bulk row that a trigger keeps",
            "what a claim leaves of a bulk row waits on",
            "a bulk row's message that has an outcome is not claimed",
            "what is taken out of a bulk row leaves the others waiting",
            "a cancel finds what a claim has left of a bulk row",
            "a partition with a bulk row is not dropped",
            "a bulk row is due by the database's clock",
        )
    ),
    Guard(
        "what was begun may have been sent, whatever broke",
        reason="the model's client says truly whether anything was sent",
    ),
    *(
        Guard(name, reason="it is about clocks, and the model has none")
        for name in (
            "a silence counts by the database's clock too",
            "what is left of a message's time is the database's word",
            "what is due is the database's word",
            "quiet hours go by the database's clock",
            "a heartbeat has the database's time",
            "what a clock ahead returned is due once it is right",
            "the worker's clock is compared with the answer's Date",
        )
    ),
    *(
        Guard(name, reason="a request of the model has a number that never comes again, as a token")
        for name in (
            "an answer is fenced by the token too",
            "an answer is fenced by the token where the own one comes beside it",
            "a split is fenced by the token too",
            "a recall is fenced by the token too",
        )
    ),
    Guard(
        "the policy resend ends with the attempts",
        reason="it bounds how often a message is sent again; the model's claims are bounded",
    ),
    *(
        Guard(
            name,
            reason="the policy sends nothing again that was taken; exactness.md assumes so",
        )
        for name in (
            "the policy resend waits after a start and an outage",
            "the policy resend waits for reports on this disk",
            "the policy resend gives the last report time to be stored",
        )
    ),
    *(
        Guard(name, reason="nothing of the model is deleted by its age")
        for name in (
            "retention keeps the report that keeps an unsure request from the policy",
            "what cannot be read and keeps a request from the policy stays",
            "an erased push keeps its request from the policy",
            "retention keeps a request that was given up while its messages wait",
            "a jump of the clock deletes no worker that lives",
            "no message is deleted whose requeue is open",
            "a drop deletes nothing while an older requeue is open",
            "a drop looks again once older requeues have committed",
        )
    ),
    *(
        Guard(name, reason="the database of the model never goes back in time")
        for name in (
            "a worker looks for lost claims by its row, and not by its id alone",
            "what waits for a later time in a restored backup is paused",
            "a heartbeat of a clock ahead hides no old backup",
            "the policy resend leaves what a clock ahead opened alone after a restore",
            "a restore before the first heartbeat is noticed",
            "an app that the backup does not know is paused",
            "a resend under way is found when a restore is noticed",
        )
    ),
    Guard(
        "results that cannot be read may have been accepted",
        reason="the provider of the model writes answers that can be read, or none",
    ),
    Guard(
        "a report settles only what is still in question",
        reason="a matching step of the model looks up and settles in one transition",
    ),
    # What the table does not take out: these lie in SQL.
    Guard("only what waits expires", ONE._replace(features=EXPIRY)),
    Guard("a request past the time of a message is withheld", ONE._replace(features=EXPIRY)),
    Guard(
        "what a slow start lost is claimed again",
        ONE._replace(budget=Budget(claims=4, troubles=1, people=0), features=CIRCUIT),
    ),
    Guard(
        "what returns has no outcome",
        reason="a provider would have to report a message whose last answer turned it away",
    ),
    Guard(
        "a late answer takes back what waits again",
        reason="policy and operators send nothing again that was taken; exactness.md assumes so",
    ),
    Guard(
        "what was given up is settled while it is unsure again",
        reason="policy and operators send nothing again that was taken; exactness.md assumes so",
    ),
    Guard(
        "a report takes back what waits again",
        reason="policy and operators send nothing again that was taken; exactness.md assumes so",
    ),
    Guard(
        "a report waits for an open request",
        reason="it settles the message early, and the record that follows keeps the outcome",
    ),
)
