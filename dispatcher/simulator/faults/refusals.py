"""Faults that refuse a whole, well-formed request with a code of the page."""

from dispatcher.simulator.codes import RefusedError
from dispatcher.simulator.faults.trigger import ContentTrigger


class Code(ContentTrigger, frozen=True, kw_only=True, tag="code"):
    """Any top-level code, at the HTTP status the page gives it, or at another one."""

    code: str
    http_status: int | None = None
    detail: str = ""

    def refusal(self) -> RefusedError:
        """Return what the client is told."""
        return RefusedError(self.code, self.detail, self.http_status)


class BadEntry(Code, frozen=True, kw_only=True, tag="bad-entry"):
    """One entry spoils all: give *template* or *param*, and the code (E000503, E000027 ...)."""

    code: str = "E000503"


class CountryClosed(Code, frozen=True, kw_only=True, tag="country-closed"):
    """A country's quota is spent: give *country* or *prefix*."""

    code: str = "E000630"


class Quota(Code, frozen=True, kw_only=True, tag="quota"):
    """The account's quota fills: give *after_accepted*. The request that fills it may pass it."""

    code: str = "E000623"


class WhiteList(Code, frozen=True, kw_only=True, tag="white-list"):
    """The address of the client is not on the white list: give *for_seconds*."""

    code: str = "E000620"
