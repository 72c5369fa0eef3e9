"""What of this worker is on its way: the tokens it made and has not seen recorded."""

from collections.abc import Callable


class Flight:
    """The tokens of batches that are being claimed, sent or recorded.

    A token is here before its batch is written and until its end is recorded. One whose claim
    failed is *doubted*: the claim may have been committed all the same, and its batch was never
    sent. Any other open batch of this worker has lost its record with the database: whether it
    was sent, the database cannot tell any more.
    """

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._tokens: set[str] = set()
        self._doubted: set[str] = set()

    def token(self) -> str:
        """Make a token for a batch that is about to be written."""
        token = self._new_token()
        self._tokens.add(token)
        return token

    def over(self, token: str) -> None:
        """Forget a token: the end of its batch is recorded."""
        self._tokens.discard(token)

    def doubt(self, token: str) -> None:
        """Note that a batch may have been written, and is never sent."""
        self._tokens.discard(token)
        self._doubted.add(token)

    def never_sent(self, token: str) -> bool:
        """Tell whether a batch was written, if at all, by a call that failed."""
        return token in self._doubted

    def __contains__(self, token: object) -> bool:
        return token in self._tokens

    def __len__(self) -> int:
        return len(self._tokens)
