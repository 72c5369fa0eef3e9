"""What of this worker is on its way: the tokens it made and has not seen recorded."""

from collections.abc import Callable


class Flight:
    """The tokens of batches that are being claimed, sent or recorded.

    A token is here before its batch is written and until its end is recorded. So an open batch
    of this worker whose token is not here comes from a claim whose answer was lost: it was
    committed, and never sent.
    """

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._tokens: set[str] = set()

    def token(self) -> str:
        """Make a token for a batch that is about to be written."""
        token = self._new_token()
        self._tokens.add(token)
        return token

    def over(self, token: str) -> None:
        """Forget a token: its batch is recorded, or was never written as far as is known."""
        self._tokens.discard(token)

    def __contains__(self, token: object) -> bool:
        return token in self._tokens

    def __len__(self) -> int:
        return len(self._tokens)
