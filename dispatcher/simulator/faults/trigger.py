"""When a fault strikes: by count, by chance, for a while, or for what a request holds.

All conditions that are given must hold; a fault without any strikes every time.
"""

import hashlib
from typing import Annotated

from msgspec import Meta, Struct

from dispatcher.simulator.countries import PREFIX_LENGTH, country_of_prefix
from dispatcher.simulator.faults.state import State
from dispatcher.simulator.submission import Entry, Submission

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0)]
Count = Annotated[int, Meta(ge=1)]


class Trigger(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    """By count, by chance and for a while; all of it counts since the fault was set."""

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

    def due(self, ordinal: int, state: State, *, accepted: int, now: float) -> bool:
        """Say whether the request with this *ordinal* is struck.

        *accepted* numbers are in the ledger. Chance gives the same request the same answer, in
        whatever order requests come to this question.
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
                and chance(f"{self.seed}:{state.salt}:{ordinal}") >= self.probability
            )
        )


class ContentTrigger(Trigger, frozen=True, kw_only=True):
    """Besides, by what the request holds: it strikes if some number or entry matches all."""

    numbers: list[str] = []  # one of these
    prefix: str | None = None  # a number that begins so
    country: str | None = None  # a number of this country, as in `countryId`
    template: str | None = None  # an entry of this template
    param: str | None = None  # an entry with this parameter

    @property
    def selects(self) -> bool:
        """Whether only some numbers are meant."""
        return bool(self.numbers) or any(
            wanted is not None for wanted in (self.prefix, self.country, self.template, self.param)
        )

    def matches(self, submission: Submission) -> bool:
        """Say whether the request holds something that is meant."""
        return not self.selects or bool(self.positions(submission))

    def positions(self, submission: Submission) -> list[int]:
        """Return where the numbers that are meant stand in the request, from 0."""
        if not self.selects:
            return list(range(len(submission.numbers)))
        found: list[int] = []
        at = 0
        for entry in submission.body.sms_content:
            if self._matches_entry(entry):
                found += [
                    position
                    for position, number in enumerate(entry.to, at)
                    if self._matches_number(number)
                ]
            at += len(entry.to)
        return found

    def _matches_entry(self, entry: Entry) -> bool:
        return (self.template is None or entry.template_id == self.template) and (
            self.param is None or self.param in entry.template_paras
        )

    def _matches_number(self, number: str) -> bool:
        return (
            (not self.numbers or number in self.numbers)
            and (self.prefix is None or number.startswith(self.prefix))
            and (self.country is None or country_of_prefix(number[:PREFIX_LENGTH]) == self.country)
        )


def chance(text: str) -> float:
    """Return a number in [0, 1) that *text* decides."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
