"""The two books that must agree: what the database says of messages, and the provider's ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from dispatcher.simulator import Row, fingerprint

Text = tuple[str, int]  # a number in its one form, and the fingerprint of what it was sent

SENT = frozenset({"accepted", "delivered", "undelivered"})
OPEN = frozenset({"queued", "sending"})
_MOST_TOLD = 20  # problems; the first ones say it


@dataclass(frozen=True)
class Books:
    """Both books, read once."""

    messages: list[asyncpg.Record]
    ledger: list[Row]
    # Accepted before the database was restored: it may not know, and has no message, or one that
    # has another end. They are not accepted again.
    forgotten: frozenset[Text] = frozenset()

    @property
    def states(self) -> Counter[str]:
        """How many messages are in which state."""
        return Counter(row["state"] for row in self.messages)

    @property
    def accepted_twice(self) -> int:
        """How many acceptances are more than there are messages of that number and text."""
        wanted = Counter(text_of(row) for row in self.messages)
        return sum((self._accepted() - (wanted | Counter(self.forgotten))).values())

    def problems(self, *, final: bool = True) -> list[str]:
        """Return what must not be; *final*: when nothing may be on its way any more."""
        found = [*self._of_states(final=final), *self._of_texts(), *self._of_provider_ids()]
        return [*found[:_MOST_TOLD], *([f"... {len(found)} in all"] if found[_MOST_TOLD:] else [])]

    def _accepted(self) -> Counter[Text]:
        return Counter((_canonical(row.number), row.fingerprint) for row in self.ledger)

    def _of_states(self, *, final: bool) -> Iterable[str]:
        bad = {"lost"} | (OPEN if final else set())
        for row in self.messages:
            if row["state"] in bad:
                yield f"message {row['id']} is {row['state']} ({row['code']})"

    def _of_texts(self) -> Iterable[str]:
        """Each text was accepted as often as the database says, or may have to say yet."""
        sure: Counter[Text] = Counter()
        perhaps: Counter[Text] = Counter()
        ids: defaultdict[Text, list[str]] = defaultdict(list)
        for row in self.messages:
            text = text_of(row)
            ids[text].append(f"{row['id']} {row['state']} {row['code']} attempt {row['attempts']}")
            sure[text] += row["state"] in SENT and row["code"] != "settled-by-operator"
            perhaps[text] += row["state"] in SENT or row["state"] in ("unsure", "sending")
        accepted = self._accepted()
        perhaps |= Counter(self.forgotten)
        for text in ids.keys() | accepted.keys():
            if not sure[text] <= accepted[text] <= perhaps[text]:
                yield f"accepted {accepted[text]} times by the ledger: {ids[text] or 'unknown'}"

    def _of_provider_ids(self) -> Iterable[str]:
        """Each message has the smsMsgId that was given to its very number."""
        given = {row.sms_msg_id: row for row in self.ledger}
        for row in self.messages:
            provider_id = row["provider_id"]
            if provider_id is None:
                if row["state"] in SENT and row["code"] != "settled-by-operator":
                    yield f"message {row['id']} is {row['state']} without a provider id"
                continue
            one = given.get(provider_id)
            if one is None:
                yield f"message {row['id']} has a provider id that was never given"
            elif (_canonical(one.number), one.fingerprint) != text_of(row):
                yield f"message {row['id']} has the provider id of another"
            elif one.token != row["batch_token"]:
                yield f"message {row['id']} was accepted in another batch than the database says"


async def read_books(
    db: asyncpg.Connection, ledger: Iterable[Row], forgotten: frozenset[Text] = frozenset()
) -> Books:
    """Read both books: the database's as one snapshot."""
    messages = await db.fetch(
        "SELECT s.id, s.app, s.recipient, s.state, s.attempts, s.code, s.reason, s.provider_id,"
        " s.batch_token, m.template_id, m.params"
        " FROM dispatcher.message_status s JOIN dispatcher.message m USING (id)"
    )
    return Books(messages, list(ledger), forgotten)


def accepted_texts(ledger: Iterable[Row]) -> frozenset[Text]:
    """Return what was accepted."""
    return frozenset((_canonical(row.number), row.fingerprint) for row in ledger)


def text_of(row: asyncpg.Record) -> Text:
    """Return number and text of a message."""
    return _canonical(row["recipient"]), fingerprint(row["template_id"], row["params"])


def _canonical(number: str) -> str:
    return number if number.startswith("+") else "+86" + number
