"""When a fault applies: by count, by chance, for a time, or by the content of a request.

All given conditions must hold. A fault without conditions applies to every request.
"""

import asyncio
import hashlib
from typing import Annotated

from msgspec import Meta, Struct

from dispatcher.simulator.countries import PREFIX_LENGTH, country_of_prefix
from dispatcher.simulator.options import Seconds, Share
from dispatcher.simulator.request import ContentEntry, SmsRequest

Count = Annotated[int, Meta(ge=1)]


class FaultState:
    """What an active fault counts between requests, and whether it is still active."""

    def __init__(self, *, accepted: int, now: float, salt: str) -> None:
        self.accepted_before = accepted  # numbers in the ledger when the fault was set
        self.since = now  # monotonic clock
        self.salt = salt  # distinguishes faults with the same seed
        self.injected = 0
        self.refused = 0  # numbers
        self.window_start = now  # of the current second, for a rate
        self.passed = 0  # numbers accepted in it
        self.cleared = asyncio.Event()

    async def stall(self, seconds: float) -> None:
        """Wait for *seconds*, or until the fault is cleared."""
        try:
            async with asyncio.timeout(seconds):
                await self.cleared.wait()
        except TimeoutError:
            pass


class FaultTrigger(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"
):
    """Conditions of count, chance and time. All of them count from the moment the fault was set."""

    nth: list[Count] = []  # these requests, from 1
    every: Count | None = None  # each n-th request
    first: Count | None = None  # the first n requests
    after: Annotated[int, Meta(ge=0)] = 0  # not the first n requests
    after_accepted: Annotated[int, Meta(ge=0)] = 0  # once n numbers were accepted
    times: Count | None = None  # n times in all
    probability: Share | None = None
    seed: int = 0
    for_seconds: Seconds | None = None

    @property
    def name(self) -> str:
        """The name of this type of fault in JSON."""
        return str(self.__struct_config__.tag)

    def is_due(self, ordinal: int, state: FaultState, *, accepted: int, now: float) -> bool:
        """Return whether the fault applies to the request with this *ordinal*.

        *accepted* is the count of numbers in the ledger. The random choice depends on the seed,
        the salt and the ordinal alone, so the order of the calls does not change it.
        """
        return not (
            (self.nth and ordinal not in self.nth)
            or (self.every is not None and ordinal % self.every)
            or (self.first is not None and ordinal > self.first)
            or ordinal <= self.after
            or accepted - state.accepted_before < self.after_accepted
            or (self.times is not None and state.injected >= self.times)
            or (self.for_seconds is not None and now - state.since > self.for_seconds)
            or (
                self.probability is not None
                and random_share(f"{self.seed}:{state.salt}:{ordinal}") >= self.probability
            )
        )


class ContentTrigger(FaultTrigger, frozen=True, kw_only=True):
    """Adds conditions on the content: one number and its entry must match all of them."""

    numbers: list[str] = []  # one of these
    prefix: str | None = None  # a number with this prefix
    country: str | None = None  # a number of this country, as in `countryId`
    template: str | None = None  # an entry of this template
    param: str | None = None  # an entry with this parameter

    @property
    def selects(self) -> bool:
        """Whether there is a condition on the content."""
        return bool(self.numbers) or any(
            condition is not None
            for condition in (self.prefix, self.country, self.template, self.param)
        )

    def matches(self, sms_request: SmsRequest) -> bool:
        """Return whether a number of the request matches."""
        return not self.selects or bool(self.positions(sms_request))

    def positions(self, sms_request: SmsRequest) -> list[int]:
        """Return the positions of the matching numbers in the request, from 0."""
        if not self.selects:
            return list(range(len(sms_request.numbers)))
        found: list[int] = []
        at = 0
        for entry in sms_request.body.sms_content:
            if self._matches_entry(entry):
                found += [
                    position
                    for position, number in enumerate(entry.to, at)
                    if self._matches_number(number)
                ]
            at += len(entry.to)
        return found

    def _matches_entry(self, entry: ContentEntry) -> bool:
        return (self.template is None or entry.template_id == self.template) and (
            self.param is None or self.param in entry.template_paras
        )

    def _matches_number(self, number: str) -> bool:
        return (
            (not self.numbers or number in self.numbers)
            and (self.prefix is None or number.startswith(self.prefix))
            and (self.country is None or country_of_prefix(number[:PREFIX_LENGTH]) == self.country)
        )


def random_share(text: str) -> float:
    """Return a number in [0, 1) that depends on *text* alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
