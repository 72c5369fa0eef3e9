"""What must hold when a run is over."""

from collections.abc import Iterable

import asyncpg
from support.exactness import SENT, Books

from dispatcher.simulator import fingerprint
from everystep.scene import LOST_ANSWER, TEXTS


def of_unsure(
    rows: Iterable[asyncpg.Record], *, workers: set[int], struck_at: float, token: str | None
) -> list[str]:
    """Return the batches that turned unsure without a reason.

    *rows*: the batches that ever were. *workers*: the ids of a worker that was killed or frozen
    at *struck_at*; *token*: of the request whose connection was cut.
    """
    return [
        f"batch {row['token']} of {row['names']} became unsure ({row['code']}) without a reason"
        for row in rows
        if LOST_ANSWER not in row["names"]
        and not (row["worker"] in workers and row["opened"] <= struck_at + 1.0)
        and row["token"] != token
    ]


def of_reports(books: Books, acknowledged: set[str]) -> list[str]:
    """Return what a report that was taken has not settled, or not finished."""
    by_text = {
        (row.number if row.number.startswith("+") else f"+86{row.number}", row.fingerprint): row
        for row in books.ledger
    }
    problems = []
    for row in books.messages:
        taken = by_text.get((row["recipient"], fingerprint(row["template_id"], row["params"])))
        if taken is None or taken.sms_msg_id not in acknowledged:
            continue
        if row["state"] != "delivered":
            problems.append(f"{row['params'][0]} is {row['state']}, though its report was taken")
    return problems


def of_replies(stored: list[str], acknowledged: int) -> list[str]:
    """Return whether a reply that was taken is missing, or is stored twice; *stored*: their ids."""
    problems = []
    if len(stored) < acknowledged:
        problems.append(f"{acknowledged} replies were taken, and {len(stored)} are stored")
    if len(set(stored)) < len(stored):
        problems.append(f"{len(stored) - len(set(stored))} replies are stored twice")
    return problems


def of_ends(books: Books) -> list[str]:
    """Return which message did not end as it had to."""
    problems = [*books.problems(), *of_twice(books)]
    names = [row["params"][0] for row in books.messages]
    problems += [f"{name} is missing" for name in TEXTS.keys() - set(names)]
    for row in books.messages:
        name = row["params"][0]
        ends = TEXTS[name].ends
        if row["state"] != ends and not (ends == "accepted" and row["state"] in SENT):
            problems.append(f"{name} is {row['state']} ({row['code']}), not {ends}")
    return problems


def of_twice(books: Books) -> list[str]:
    """Return whether anything was accepted twice."""
    return [f"{books.accepted_twice} accepted twice"] if books.accepted_twice else []
